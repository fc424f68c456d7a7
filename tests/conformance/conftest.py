"""Only `make conformance` runs these: they need programs that are built for minutes."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conformance.cluster import SLOTS, Cluster
from tests.conformance.support import RESOURCE, RealNode, wait_until
from tests.conformance.versions import versions

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

if not os.environ.get("CONFORMANCE_BIN"):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="module")
def node() -> Iterator[RealNode]:
    """A node with containerd, kubelet and an agent that is registered."""
    with tempfile.TemporaryDirectory(prefix="kna-") as folder, RealNode(Path(folder), _programs()) as real:
        yield from _start(real)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A control plane without nodes."""
    with tempfile.TemporaryDirectory(prefix="kna-") as folder, Cluster(Path(folder), _programs()) as plane:
        yield plane


@pytest.fixture(scope="module")
def member(cluster: Cluster) -> Iterator[RealNode]:
    """The cluster's one node, with room for `SLOTS` VMs."""
    with (
        tempfile.TemporaryDirectory(prefix="kna-") as folder,
        RealNode(Path(folder), _programs(), cluster.kubeconfig) as real,
    ):
        real.agent_settings = f"[device_plugin]\nmax_slots = {SLOTS}\n"
        for _ in _start(real):
            wait_until(lambda: cluster.allocatable(RESOURCE) == SLOTS, "the node has the slots")
            yield real


def _programs() -> Path:
    return Path(os.environ["CONFORMANCE_BIN"])


def _start(real: RealNode) -> Iterator[RealNode]:
    real.start_kubelet()
    real.start_agent()
    try:
        wait_until(real.registered, "the agent is registered")
    except BaseException:
        print(real.log("kubelet"), real.log("agent"))
        raise
    yield real


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what the programs said."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for real in (item.funcargs.get("node"), item.funcargs.get("member")):
            if isinstance(real, RealNode) and real.folder.exists():
                report.sections += [(f"end of {name}.log", real.log(name)) for name in ("kubelet", "agent")]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Ends the run with what was tried against which version."""
    if not os.environ.get("CONFORMANCE_BIN"):
        return
    runs: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(outcome):
            if outcome != "passed" or report.when == "call":
                runs.setdefault(report.nodeid.partition("::")[0], Counter())[outcome] += 1
    terminalreporter.section("tried against")
    for name, version in versions(_programs()).items():
        terminalreporter.write_line(f"{name:<20} {version}")
    terminalreporter.write_line("")
    for path, counted in sorted(runs.items()):
        text = ", ".join(f"{count} {outcome}" for outcome, count in counted.items())
        terminalreporter.write_line(f"{Path(path).stem.removeprefix('test_'):<20} {text}")
    figures = [
        (str(key), str(value))
        for report in terminalreporter.getreports("passed")
        for key, value in report.user_properties
        if report.when == "call"
    ]
    for key, value in figures:
        terminalreporter.write_line(f"{key}: {value}")
