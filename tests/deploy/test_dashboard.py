"""A real Prometheus scrapes real agents, with our rules; each query of the dashboard finds something there.

One agent speaks TLS and asks for a certificate, on a recorded node with Kata pods, a kubelet and a runtime that asks; the other one
is scraped without, on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kata_node_agent.devkubelet.kubelet import DevKubelet
from kata_node_agent.errors import NriError
from tests.daemon.recorded import RecordedNode
from tests.daemon.support import Node
from tests.daemon.test_web import over_unix
from tests.deploy.test_prometheus_rules import ALERTS, PROMETHEUS, RECORDS, promtool
from tests.nri.runtime import GIB, Runtime, pod
from tests.publish.certificates import Authority
from tests.publish.test_metrics import free_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DASHBOARD = json.loads(
    (Path(__file__).parents[2] / "deploy" / "grafana" / "kata-node-agent.json").read_text()
)
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
QUERIES = [
    (f"{panel['title']} {target['refId']}", target["expr"])
    for panel in PANELS
    for target in panel.get("targets", ())
]
_WAIT_SECONDS = 120.0


class Server:
    """A Prometheus of the test's own."""

    def __init__(self, folder: Path, configuration: dict[str, Any]) -> None:
        self.address = free_address()
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        promtool("check", "config", folder / "prometheus.yaml")
        self._log = (folder / "log").open("wb")
        self.log = folder / "log"
        command = [
            "prometheus",
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--web.listen-address={self.address}",
        ]
        self.process = subprocess.Popen(
            [*command, f"--storage.tsdb.path={folder / 'data'}"], stdout=self._log, stderr=self._log
        )

    def get(self, path: str, **parameters: str) -> Any:
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        return document["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query's samples."""
        result = self.get("query", query=expression)["result"]
        assert isinstance(result, list)
        return result

    def wait_for(self, ready: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            # Refused: it is still starting.
            with contextlib.suppress(urllib.error.URLError):
                if ready():
                    return
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"{what}: {self.log.read_text()[-2000:]}"
            time.sleep(0.1)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
        self._log.close()


def configuration(authority: Authority, secure: str, plain: str) -> dict[str, Any]:
    """The one that is shipped, with the addresses and files of the test, and a job without TLS."""
    shipped: dict[str, Any] = yaml.safe_load((PROMETHEUS / "scrape.yaml").read_text())
    shipped["global"] = {"scrape_interval": "2s", "evaluation_interval": "1s"}
    shipped["rule_files"] = [str(PROMETHEUS / name) for name in shipped["rule_files"]]
    (job,) = shipped["scrape_configs"]
    job["static_configs"] = [{"targets": [secure]}]
    certificate, key = authority.sign("prometheus")
    files = {"ca_file": authority.certificate, "cert_file": certificate, "key_file": key}
    assert set(files) == set(job["tls_config"])
    job["tls_config"] = {name: str(path) for name, path in files.items()}
    rename = {"target_label": "job", "replacement": job["job_name"]}
    shipped["scrape_configs"] += [
        {"job_name": "plain", "static_configs": [{"targets": [plain]}], "relabel_configs": [rename]},
        # Without a certificate of its own it is to be turned away.
        {
            **job,
            "job_name": "stranger",
            "tls_config": {"ca_file": str(authority.certificate)},
        },
    ]
    return shipped


@contextlib.contextmanager
def kubelet_and_runtime(node: Node) -> Iterator[None]:
    """A kubelet, and a runtime that asks for a VM which fits and one that does not, again and again while the body runs."""
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with DevKubelet(node.plugins), Runtime(node.nri) as runtime:
            ready.set()
            while not done.is_set():
                for number, limit in enumerate((GIB // 4, 900 * GIB) if runtime.taken.is_set() else ()):
                    # It says no to the second; and nothing once it has ended.
                    with contextlib.suppress(NriError):
                        await runtime.run(pod(number, limit))
                    with contextlib.suppress(NriError):
                        await runtime.end(pod(number))
                await asyncio.sleep(0.5)

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    try:
        assert ready.wait(30)
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("p")
    authority = Authority(folder / "certificates")
    secure, plain = free_address(), free_address()
    first = RecordedNode(folder / "a", secure)
    # A system that is larger than what is kept for it, and not asked to be drained.
    group = "sys/fs/cgroup/system.slice"
    first.tree.write(f"{group}/memory.current", f"{4 * GIB}\n")
    first.tree.write(
        f"{group}/memory.stat", f"anon {3 * GIB}\nfile {GIB // 2}\ninactive_file 0\nanon_thp 0\n"
    )
    certificate, key = authority.sign("node")
    tls = f'tls_cert = "{certificate}"\ntls_key = "{key}"\ntls_client_ca = "{authority.certificate}"\n'
    first.config.write_text(first.config.read_text().replace("[metrics]\n", f"[metrics]\n{tls}"))
    second = Node(folder / "b")
    second.config.write_text(f'[metrics]\ntcp_address = "{plain}"\n')
    with kubelet_and_runtime(first), first.agent() as one, second.agent() as two:
        for agent in (one, two):
            agent.wait_for("serving socket", timeout=_WAIT_SECONDS)
        one.wait_for("registered ", timeout=_WAIT_SECONDS)
        prometheus = Server(folder, configuration(authority, secure, plain))
        try:
            prometheus.wait_for(
                lambda: len(prometheus.query('up{job="kata-node-agent"} == 1')) == 2, "no scrape"
            )
            yield prometheus
        finally:
            prometheus.end()


@pytest.mark.prometheus
class TestScraped:
    @pytest.mark.parametrize(("title", "expression"), QUERIES, ids=[title for title, _ in QUERIES])
    def test_a_query_of_the_dashboard_finds_something(
        self, server: Server, title: str, expression: str
    ) -> None:
        for variable, value in {"$node": ".*", "$__rate_interval": "1m"}.items():
            expression = expression.replace(variable, value)
        assert "$" not in expression

        def numbers() -> bool:
            return any(sample["value"][1] != "NaN" for sample in server.query(expression))

        server.wait_for(numbers, f"{title}: {expression}")

    def test_the_nodes_can_be_chosen_from(self, server: Server) -> None:
        (variable,) = [each for each in DASHBOARD["templating"]["list"] if each["name"] == "node"]
        name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
        assert len(server.get(f"label/{label}/values", **{"match[]": name})) == 2

    def test_who_shows_no_certificate_is_turned_away(self, server: Server) -> None:
        server.wait_for(lambda: server.query('up{job="stranger"}'), "not tried")
        assert [sample["value"][1] for sample in server.query('up{job="stranger"}')] == ["0"]

    def test_all_rules_are_evaluated_and_records_are_made(self, server: Server) -> None:
        def rules() -> list[dict[str, Any]]:
            return [rule for group in server.get("rules")["groups"] for rule in group["rules"]]

        server.wait_for(lambda: all(rule["health"] == "ok" for rule in rules()), "not evaluated")
        assert {rule["name"] for rule in rules()} == {*ALERTS, *RECORDS}
        for name in RECORDS:
            server.wait_for(lambda name=name: server.query(name), name)  # type: ignore[misc]

    def test_what_is_wrong_with_the_recorded_node_is_an_alert(self, server: Server) -> None:
        """Its first VM is larger than its pod's control group, and the system larger than what is kept for it."""
        for name in ("SandboxWillBeOomKilled", "PodFixedTooLow", "SystemReservedExceeded"):
            server.wait_for(lambda name=name: server.query(f'ALERTS{{alertname="{name}"}}'), name)  # type: ignore[misc]
        assert server.query('ALERTS{alertname="AgentDown"}') == []

    def test_a_scrape_takes_no_more_samples_than_the_node_has_vms_for(self, server: Server) -> None:
        (samples,) = server.query('max(scrape_samples_scraped{job="kata-node-agent"})')
        assert float(samples["value"][1]) < 300


@pytest.mark.prometheus
def test_promtool_finds_nothing_to_say_about_the_names(tmp_path: Path) -> None:
    node = RecordedNode(tmp_path, free_address())
    with node.agent() as agent:
        agent.wait_for("serving socket", timeout=_WAIT_SECONDS)
        text = over_unix(node.run_dir / "metrics.sock")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_panels_are_in_place() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    taken: dict[tuple[int, int], str] = {}
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    below = max(place["y"] + place["h"] for place in (panel["gridPos"] for panel in PANELS))
    assert {y for _, y in taken} == set(range(below)), "no row is empty"


def test_each_panel_asks_the_source_that_was_chosen_about_the_nodes_that_were_chosen() -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["node"]["datasource"] == source
    for panel in PANELS:
        if panel["type"] == "row":
            assert panel["panels"] == []
            continue
        assert panel["datasource"] == source
        assert panel["description"].endswith(".")
        assert [target["refId"] for target in panel["targets"]] == [
            chr(65 + i) for i in range(len(panel["targets"]))
        ]
        for target in panel["targets"]:
            assert target["datasource"] == source
            assert target["expr"].count('instance=~"$node"') >= 1


def test_the_dashboard_can_be_imported_as_it_is() -> None:
    assert DASHBOARD["schemaVersion"] >= 41
    assert DASHBOARD["id"] is None, "the database's number of another Grafana"
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", DASHBOARD["uid"])
    assert "__inputs" not in DASHBOARD, "a variable asks for the data source"


def test_the_dashboard_asks_for_metrics_that_are_in_the_table() -> None:
    table = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    for title, expression in QUERIES:
        for name in re.findall(r"kata_node_agent_\w+", re.sub(r"_bucket\b", "", expression)):
            assert name in documented, title
