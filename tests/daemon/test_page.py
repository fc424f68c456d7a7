"""The page of a running agent: it says what the commands say, and a real browser likes it."""

from __future__ import annotations

import asyncio
import contextlib
import html
import http.server
import json
import re
import subprocess
import threading
import urllib.error
import urllib.request
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from kata_node_agent.daemon.page import Page
from kata_node_agent.devkubelet.kubelet import DevKubelet
from kata_node_agent.errors import HostError
from kata_node_agent.pb import agent_pb2 as pb
from kata_node_agent.pb import agent_pb2_grpc
from kata_node_agent.publish.http import Request
from kata_node_agent.quantity import format_bytes
from tests.daemon.recorded import RecordedNode
from tests.daemon.support import COMMAND, Node
from tests.publish.browser import Browser, chromium
from tests.publish.page_content import sandboxes
from tests.publish.test_metrics import free_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.daemon.support import Agent

HOSTILE = 'web-1"><script>alert(1)</script><img src=x onerror=alert(2)>' + "x" * 10_240
ASKED = "ns/<svg onload=alert(3)>"


@contextlib.contextmanager
def running(node: Node) -> Iterator[Agent]:
    with node.agent() as agent:
        agent.wait_for("serving metrics")
        yield agent
        agent.end()


def get(address: str, target: str = "/", method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://{address}{target}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - http
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def words(page: str) -> str:
    """The page without its markup, and without blanks: where an element ends there may be one or none."""
    return bare(html.unescape(re.sub(r"<style>.*?</style>|<[^>]*>", "", page, flags=re.DOTALL)))


def bare(text: str) -> str:
    return re.sub(r"[\s`]+", "", text)


def printed(node: Node, *command: str) -> Any:
    flags = ["--config", str(node.config), "--format", "json"]
    flags += (
        ["--run-dir", str(node.run_dir)]
        if command[0] in {"status", "ledger"}
        else ["--host-root", str(node.root)]
    )
    done = subprocess.run(
        [*COMMAND, *command, *flags], capture_output=True, text=True, timeout=60, env=node.environ
    )
    assert done.returncode in {0, 1}, done.stderr
    return json.loads(done.stdout)


@pytest.mark.host
@pytest.mark.kvm
def test_the_page_says_what_status_report_sandboxes_and_the_ledger_say(short_dir: Path) -> None:
    address = free_address()
    node = RecordedNode(short_dir, address)

    async def ask() -> None:
        async with DevKubelet(node.plugins) as kubelet:
            with running(node):
                await kubelet.wait_for_registrations(1, timeout_seconds=15)
                await asyncio.to_thread(compare)

    def compare() -> None:
        code, page = get(address)
        assert code == 200
        shown = words(page)
        status, running_now = printed(node, "status"), printed(node, "sandboxes")["sandboxes"]
        slots, account = status["slots"], status["account"]
        said = [
            "Eligible: this node can run Kata VMs",
            f"by profile {status['profile']}",
            f"slots healthy {slots['healthy']} of {slots['total']} {slots['in_use']} in use",
            f"Limited by {slots['limited_by']}: {slots['limited_by_message']}",
            f"free for VMs {format_bytes(status['free_bytes'])} ",
            f"promised to VMs {format_bytes(status['committed_bytes'])} to {account['sandboxes']} VMs",
            f"{format_bytes(status['memory']['allocatable_bytes'])} may be requested by pods",
            f"{format_bytes(account['other_pods_bytes'])} claimed by other pods",
            "kubelet: registered",
        ]
        assert account["other_pods_bytes"] > 0
        for term in account["terms"]:
            if term["budget_bytes"]:
                amounts = [format_bytes(term[f"{kind}_bytes"]) for kind in ("budget", "committed", "free")]
                said.append("".join(amounts))
        assert len(running_now) == 4
        assert sum(len(one["risks"]) for one in running_now) > 0
        for one in running_now:
            resident, nominal, promised = (
                format_bytes(one[f"{kind}_bytes"]) for kind in ("resident", "vm_memory", "commitment")
            )
            said += [f"{one['pod']} {resident} resident of {nominal} nominal", f"{promised} promised"]
            said += [risk[part] for risk in one["risks"] for part in ("reason", "message", "remedy")]
        document = printed(node, "report")
        for amount in (document["capacity"], document["reserved"]["system"], document["allocatable"]):
            said.append(format_bytes(amount["memory_bytes"]))
        noted = printed(node, "ledger", "history")["decisions"]
        assert len(noted) == 4
        for one in noted:
            decision = one["decision"]
            said.append(f"{one['what']} yes {one['pod']} {decision['reason']}: {decision['message']}")
        assert [text for text in said if bare(text) not in shown] == []

    asyncio.run(ask())


@pytest.mark.host
def test_before_there_is_a_kubelet_or_anything_else_the_page_says_what_is_wrong(short_dir: Path) -> None:
    address = free_address()
    node = Node(short_dir)
    (node.root / "proc").unlink()
    node.config.write_text(f'[metrics]\ntcp_address = "{address}"\n')
    with running(node):
        code, page = get(address)
        shown = words(page)
        assert code == 200
        said = ["kubelet: not registered", "MemoryUnreadable", "Could not be read"]
        said.append("How much memory pods may have is not known yet.")
        for problem in printed(node, "status")["problems"]:
            said += [problem["reason"], problem["message"], problem["remedy"]]
        assert [text for text in said if bare(text) not in shown] == []


@pytest.mark.host
def test_the_page_can_be_switched_off_and_on_without_a_restart(short_dir: Path) -> None:
    address = free_address()
    node = Node(short_dir)
    text = f'[metrics]\ntcp_address = "{address}"\npage = '
    node.config.write_text(text + "false\n")
    with running(node) as agent:
        assert get(address)[0] == 404
        assert get(address, "/metrics")[0] == 200
        node.config.write_text(text + "true\n")
        agent.reload()
        agent.wait_for("reloaded")
        assert get(address)[0] == 200
        # It would stay for good, and be 4 MiB.
        assert "libcrypto" not in Path(f"/proc/{agent.process.pid}/maps").read_text()
        assert get(address, method="HEAD") == (200, "")
        assert get(address, method="POST")[0] == 405
        assert '<meta http-equiv="refresh" content="30">' in get(address, "/?refresh=30")[1]
        assert "refresh" not in re.findall("<meta [^>]*>", get(address, "/?refresh=x")[1])


def test_a_loop_that_is_stuck_is_a_page_with_a_status_of_its_own() -> None:
    def stuck(_: Any) -> dict[str, Any]:
        raise TimeoutError

    def gone() -> dict[str, Any]:
        raise HostError("/proc/meminfo: gone", hint="mount it")

    nothing: Any = None
    answer = Page(stuck, nothing, nothing, nothing, gone, sandboxes)(Request("/"))
    assert answer.status == 503
    shown = words(answer.body.decode())
    assert bare("its loop is stuck") in shown
    assert bare("/proc/meminfo: gone") in shown


# In a real browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def see(browser: Browser, address: str, *, width: int, dark: bool) -> None:
    """Opens the page and looks for what a person would complain about."""
    browser.window(width, 800, dark=dark)
    visit = browser.open(f"http://{address}/")
    assert visit.status == 200
    assert visit.complaints == []
    assert visit.requested == [f"http://{address}/"]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    # Nothing is cut off by a box that does not scroll.
    cut = "[...document.querySelectorAll('section')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.id || e.className)"
    assert browser.evaluate(cut) == []
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) is dark, background
    assert browser.evaluate("document.querySelectorAll('script, img, iframe, object').length") == 0
    # Patterns are in the page: a bar of another pod's memory is not just empty.
    assert browser.evaluate("getComputedStyle(document.querySelector('.other')).fill").startswith(
        'url("#checked")'
    )


def faults(browser: Browser) -> list[str]:
    """What axe finds: rules of WCAG 2.1, A and AA, and its own good practice."""
    browser.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text() + ";null")
    browser.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    found = browser.evaluate(
        "axe.run().then(found => found.violations.map(v => [v.id, v.help, v.nodes.map(n => n.html)]))"
    )
    return [f"{rule}: {text}: {places[:3]}" for rule, text, places in found]


@pytest.mark.browser
@pytest.mark.host
@pytest.mark.kvm
def test_a_real_browser_shows_it_dark_and_light_wide_and_narrow_and_finds_no_fault(
    short_dir: Path, browser: Browser
) -> None:
    address = free_address()
    node = RecordedNode(short_dir, address, vms=30)
    with running(node):
        for dark in (False, True):
            for width in (360, 1280, 2560):
                see(browser, address, width=width, dark=dark)
            assert faults(browser) == []


@pytest.mark.browser
@pytest.mark.host
@pytest.mark.kvm
def test_a_pod_with_a_hostile_name_is_a_word_on_the_page(short_dir: Path, browser: Browser) -> None:
    address = free_address()
    node = RecordedNode(short_dir, address, vms=12)
    for place in node.root.glob("run/containers/storage/overlay-containers/*/userdata/config.json"):
        place.write_text(json.dumps(hostile(json.loads(place.read_text()))))
    with running(node):
        with grpc.insecure_channel(f"unix:{node.run_dir}/agent.sock") as channel:
            claim = pb.Claim(sandbox="<script>alert(5)</script>", pod=ASKED, vm_bytes=1 << 30)
            # Granted or not, the decision has the names.
            with contextlib.suppress(grpc.RpcError):
                agent_pb2_grpc.NodeAgentStub(channel).Admit(claim, timeout=10)
        for width in (360, 1280):
            see(browser, address, width=width, dark=False)
        names = browser.evaluate("[...document.querySelectorAll('.vms h3')].map(each => each.textContent)")
        assert len(names) == 10
        assert all("<script>alert(1)</script>" in name for name in names)
        text = browser.evaluate("document.body.textContent")
        assert ASKED in text
        assert faults(browser) == []


def hostile(settings: dict[str, Any]) -> dict[str, Any]:
    annotations = settings["annotations"]
    return {
        "annotations": {
            **annotations,
            "io.kubernetes.pod.name": HOSTILE,
            "io.kubernetes.cri-o.RuntimeHandler": "kata",
        }
    }


@pytest.mark.browser
@pytest.mark.host
def test_it_renews_itself_where_it_is_asked_to(short_dir: Path, browser: Browser) -> None:
    address = free_address()
    node = Node(short_dir)
    node.config.write_text(f'[metrics]\ntcp_address = "{address}"\n')
    with running(node):
        visit = browser.open(f"http://{address}/?refresh=5")
        for _ in range(2):
            browser.forget("Page.loadEventFired")
            browser.wait_for("Page.loadEventFired")
        assert visit.requested == [f"http://{address}/?refresh=5"] * 3
        assert visit.complaints == []


@pytest.mark.browser
@pytest.mark.host
def test_the_browser_would_have_told(browser: Browser) -> None:
    """What the tests above rely on: a page that does what ours must not is complained about."""

    class Bad(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Security-Policy", "default-src 'none'")
            self.end_headers()
            self.wfile.write(
                b"<title>x</title><p style='width:9000px'>x<script>alert(1)</script>"
                b"<img src=http://127.0.0.1:1/picture><p><font color=#ddd>pale</font>"
            )

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bad) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            visit = browser.open(f"http://127.0.0.1:{server.server_address[1]}/")
            said = " ".join(visit.complaints)
            for rule in ("script-src", "style-src", "img-src"):
                assert rule in said
            assert any("contrast" in fault for fault in faults(browser))
        finally:
            server.shutdown()
