"""The history that podFixed is advised from, as the daemon keeps it."""

import time
from pathlib import Path

import pytest

from kata_node_agent.config.schema import Config
from kata_node_agent.daemon.alive import NodeWatch
from kata_node_agent.daemon.history import History
from kata_node_agent.daemon.overhead import OverheadHistory
from kata_node_agent.daemon.recorder import Recorder
from kata_node_agent.daemon.sandbox_report import SandboxReport
from kata_node_agent.daemon.sandboxes import SandboxWatch
from kata_node_agent.errors import HostError
from kata_node_agent.report.sandboxes import Overview, SandboxObserver
from kata_node_agent.series import read_observed
from tests.report.kata_node import GIB, KataNode
from tests.sandboxes.support import MIB


class Seen:
    """As the daemon has them, but looked at when asked."""

    any = True

    def __init__(self, node: KataNode) -> None:
        self._observer = SandboxObserver(node.root, Config())

    def overview(self) -> Overview:
        return self._observer.look()


def test_each_handler_has_a_history_of_its_largest_sandbox(tmp_path: Path) -> None:
    node, state = KataNode(tmp_path / "node"), tmp_path / "state"
    state.mkdir()
    node.sandbox(1)
    node.sandbox(2, limit_mib=512, plugged_mib=1024)
    config = Config(host_root=node.folder, state_dir=state)
    keeper = OverheadHistory(lambda: config, Seen(node))
    keeper.record()
    keeper.record()
    found = {each.name: each.max for each in read_observed(state / "overhead-kata.series", time.time())}
    assert found["host_overhead"] == 58 * MIB
    assert found["beyond_limits"] == 2 * GIB + 512 * MIB
    assert [path.name for path in state.iterdir()] == ["overhead-kata.series"]


def test_the_daemons_sample_of_each_minute_has_it(tmp_path: Path) -> None:
    node = KataNode(tmp_path / "node")
    node.sandbox(1)
    config = Config(host_root=node.folder, state_dir=tmp_path / "state")
    watch = NodeWatch(lambda: config, History(), lambda: None)
    Recorder(lambda: config, watch, OverheadHistory(lambda: config, Seen(node))).record()
    names = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert names == ["overhead-kata.series", "system.series"]


def test_without_sandboxes_nothing_is_written(tmp_path: Path) -> None:
    config = Config(host_root=tmp_path, state_dir=tmp_path / "none")
    OverheadHistory(lambda: config, None).record()
    nobody = SandboxReport(
        lambda: config,
        NodeWatch(lambda: config, History(), lambda: None),
        SandboxWatch(tmp_path, lambda _, __: None, lambda: None),
    )
    OverheadHistory(lambda: config, nobody).record()
    assert nobody._observer is None


def test_a_folder_that_takes_nothing_is_an_error(tmp_path: Path) -> None:
    node = KataNode(tmp_path / "node")
    node.sandbox(1)
    config = Config(host_root=node.folder, state_dir=tmp_path / "none")
    with pytest.raises(HostError, match="overhead-kata"):
        OverheadHistory(lambda: config, Seen(node)).record()
