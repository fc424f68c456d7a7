from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kata_node_agent.cli.check import collect_facts
from kata_node_agent.cli.group import cli
from kata_node_agent.config.schema import KubeletConfig
from kata_node_agent.errors import HostError
from kata_node_agent.host.snapshot import read_snapshot

TREE = Path(__file__).parents[1] / "trees" / "rhcos-4.12-intel"


def test_it_writes_all_facts(tmp_path: Path) -> None:
    path = tmp_path / "node.json"
    result = CliRunner().invoke(
        cli, ["snapshot", "--host-root", str(TREE), "--output", str(path)], standalone_mode=False
    )
    assert (result.return_value, result.output) == (0, "")
    assert read_snapshot(path.read_bytes()) == collect_facts(TREE, KubeletConfig())


def test_it_prints_without_an_output() -> None:
    result = CliRunner().invoke(
        cli, ["snapshot"], env={"KATA_NODE_AGENT_HOST_ROOT": str(TREE)}, standalone_mode=False
    )
    assert json.loads(result.output)["schema"] == "kata-node-agent/snapshot/v1"


def test_what_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        cli, ["snapshot", "--host-root", str(TREE), "--output", str(tmp_path)], standalone_mode=False
    )
    assert isinstance(result.exception, HostError)
    assert result.exception.reason == "OutputUnwritable"


@pytest.mark.host
def test_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "node.json"
    result = CliRunner().invoke(cli, ["snapshot", "--output", str(path)], standalone_mode=False)
    assert result.return_value == 0
    assert read_snapshot(path.read_bytes()).memory is not None
