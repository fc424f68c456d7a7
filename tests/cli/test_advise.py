import json
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from kata_node_agent.cli.group import cli
from kata_node_agent.report.overhead import FIGURES, history_name
from kata_node_agent.series import Series
from tests.report.kata_node import KataNode
from tests.sandboxes.support import MIB


@pytest.fixture
def node(tmp_path: Path) -> KataNode:
    made = KataNode(tmp_path / "node")
    made.sandbox(1)
    return made


def run(node: KataNode, *arguments: str) -> str:
    done = CliRunner().invoke(cli, ["advise", "--host-root", str(node.folder), *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_text_says_what_why_and_the_lines_to_apply(node: KataNode) -> None:
    text = run(node)
    assert "RaisePodFixed: raise podFixed of handler kata from 350Mi to 2128Mi" in text
    assert "of the 1 that run of 1.7Gi" in " ".join(text.split())
    assert "        memory: 2128Mi" in text
    assert max(map(len, text.splitlines())) <= 80


def test_yaml_is_what_kubectl_takes(node: KataNode) -> None:
    (document,) = yaml.safe_load_all(run(node, "--format", "yaml"))
    assert (document["kind"], document["overhead"]["podFixed"]["memory"]) == ("RuntimeClass", "2128Mi")


def test_json_has_the_numbers(node: KataNode) -> None:
    document = json.loads(run(node, "--format", "json"))
    assert document["schema"] == "kata-node-agent/advise/v1"
    (handler,) = document["handlers"]
    assert (handler["need_bytes"], handler["current_bytes"]) == (2128 * MIB, 350 * MIB)
    assert handler["uncounted_bytes"] == (2048 + 60 - 350) * MIB


def test_what_the_agent_wrote_down_is_used(
    node: KataNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = history_name("kata")
    assert name is not None
    series = Series(tmp_path / name, FIGURES)
    for window in range(100):
        series.add(time.time() - 600 * window, {"host_overhead": 200 * MIB, "host_millicores": 130})
    monkeypatch.setattr("kata_node_agent.host.facts.is_live", lambda _: True)
    text = " ".join(run(node, "--state-dir", str(tmp_path)).split())
    assert "p99 200Mi" in text
    assert "and p99 130m of CPU" in text
    assert "cpu: 150m" in text


def test_a_node_without_kata_is_told_so(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    (tmp_path / "etc/crio/crio.conf.d/50-kata").unlink()
    text = run(node)
    assert (
        "no handler of the container runtime starts Kata here: looked for in /etc/crio/crio.conf"
        in " ".join(text.split())
    )
    assert "next: install Kata" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "# no handler" in run(node, "--format", "yaml")
    (tmp_path / "etc/kubernetes/kubelet.conf").unlink()
    assert "KubeletConfig" in run(node, "--format", "yaml")
