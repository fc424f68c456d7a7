from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kata_node_agent.capacity.free import Commitment, Need
from kata_node_agent.config.schema import Config
from kata_node_agent.daemon.alive import NodeWatch
from kata_node_agent.daemon.history import History
from kata_node_agent.daemon.overhead import OverheadHistory
from kata_node_agent.daemon.sandbox_report import SandboxReport
from kata_node_agent.nodeconfig.memory import read_budget
from kata_node_agent.report import sandboxes as room
from tests.report.kata_node import GIB, KataNode


@pytest.fixture
def node(tmp_path: Path) -> KataNode:
    made = KataNode(tmp_path / "node")
    made.sandbox(1)
    return made


def report_of(node: KataNode, config: Config, view: object = None, **more: Any) -> SandboxReport:
    watch = SimpleNamespace(sandboxes=node.watcher().sweep(), unbelieved=(), blind=())
    report = SandboxReport(
        lambda: config,
        NodeWatch(lambda: config, History(), lambda: None),
        cast("Any", watch),
        **more,
    )
    cast("Any", report)._node = SimpleNamespace(view=view)
    return report


def test_api_and_history_ask_the_same_observer(
    node: KataNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0
    real = room.SandboxObserver

    def make(*arguments: Any) -> room.SandboxObserver:
        nonlocal made
        made += 1
        return real(*arguments)

    monkeypatch.setattr(room, "SandboxObserver", make)
    config = Config(host_root=node.folder, state_dir=tmp_path)
    report = report_of(node, config)
    assert [each["pod"] for each in report.read()["sandboxes"]] == ["default/web-1"]
    OverheadHistory(lambda: config, report).record()
    report.read()
    assert made == 1
    assert (tmp_path / "overhead-kata.series").exists()


def test_new_settings_of_kubelet_are_followed(node: KataNode) -> None:
    config = Config(host_root=node.folder)
    _, before = read_budget(node.root, config.kubelet)
    report = report_of(node, config, SimpleNamespace(kubelet=before))
    first = report.overview().node.allocatable_bytes
    place = node.folder / "etc/kubernetes/kubelet.conf"
    place.write_text(place.read_text().replace("3Gi", "5Gi"))
    _, after = read_budget(node.root, config.kubelet)
    cast("Any", report)._node.view = SimpleNamespace(kubelet=after)
    second = report.overview().node.allocatable_bytes
    assert first is not None
    assert second is not None
    assert first - second == 2 * GIB


def test_what_is_promised_to_a_vm_is_said_as_the_account_has_it(node: KataNode) -> None:
    """It may be more than the VM is and becomes: what was admitted."""
    config = Config(host_root=node.folder)
    (alone,) = report_of(node, config).read()["sandboxes"]
    promised = {alone["id"]: Commitment(Need(12 * GIB, GIB))}
    (seen,) = report_of(node, config, commitment=promised.get).read()["sandboxes"]
    assert (seen["commitment_bytes"], seen["vm_memory_bytes"]) == (13 * GIB, alone["vm_memory_bytes"])
    (unknown,) = report_of(node, config, commitment={}.get).read()["sandboxes"]
    assert unknown == alone
