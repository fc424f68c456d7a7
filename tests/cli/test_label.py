"""`kata-node-agent label`: shown, written, removed, refused."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kata_node_agent.cli.group import cli
from kata_node_agent.errors import AgentError
from tests.sandboxes.support import Tree


@dataclass
class Node:
    """A recorded node, to be written to."""

    root: Path
    features_dir: Path

    @property
    def features(self) -> Path:
        return self.features_dir / "kata-node-agent.features"

    @property
    def ceiling(self) -> Path:
        return self.features_dir / "kata-node-agent.ceiling"

    def label(self, *arguments: str) -> str:
        result = CliRunner().invoke(
            cli,
            [
                "label",
                *arguments,
                "--host-root",
                os.fspath(self.root),
                "--config",
                os.fspath(self.root / "config.toml"),
            ],
            standalone_mode=False,
        )
        if result.exception is not None:
            raise result.exception
        return result.output

    def json(self, *arguments: str) -> Any:
        return json.loads(self.label(*arguments, "--format", "json"))

    def run_sandboxes(self, number: int) -> None:
        tree = Tree(self.root)
        for pid in range(1000, 1000 + number):
            tree.process(pid, ["/usr/bin/containerd-shim-kata-v2", "-id", str(pid)])


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 33554432 kB\nMemAvailable: 30000000 kB\n")
    # No /dev/kvm in it: not eligible.
    (tmp_path / "dev").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "os-release").write_text('ID="rhcos"\nOPENSHIFT_VERSION="4.12"\n')
    (tmp_path / "config.toml").touch()
    features_dir = tmp_path / "etc/kubernetes/node-feature-discovery/features.d"
    features_dir.mkdir(parents=True)
    return Node(tmp_path, features_dir)


def test_show_prints_what_would_be_written_and_writes_nothing(node: Node) -> None:
    output = node.label("show")
    assert f"{node.features}: not written yet" in output
    assert "katacontainers.io/eligible=false" in output
    assert f"{node.ceiling}: no ceiling is set" in output
    assert list(node.features_dir.iterdir()) == []


def test_show_json_has_every_feature_and_the_state(node: Node) -> None:
    document = node.json("show")
    assert document["schema"] == "kata-node-agent/label/v1"
    assert (document["verdict"], document["profile"]) == ("ineligible", "openshift")
    file = document["features_file"]
    assert (file["path"], file["state"], file["left_out"]) == (str(node.features), "absent", [])
    assert {"name": "katacontainers.io/eligible", "value": "false", "label": True} in file["features"]
    assert document["ceiling_file"] == {"path": str(node.ceiling), "ceiling": None}


def test_apply_writes_once_and_show_then_says_that_it_is_up_to_date(node: Node) -> None:
    assert "written; verdict ineligible, profile openshift" in node.label("apply")
    assert "feature.node.kubernetes.io/runtime.kata=false" in node.features.read_text()
    assert node.json("apply")["outcome"] == "unchanged"
    document = node.json("show")["features_file"]
    assert document["state"] == "current"
    assert document["text"] == node.features.read_text()
    assert document["expires_unix_seconds"] == node.json("apply")["expires_unix_seconds"]


def test_show_tells_a_file_that_says_something_else_from_one_that_lapsed(node: Node) -> None:
    node.label("apply")
    text = node.features.read_text()
    node.features.write_text(text.replace("eligible=false", "eligible=true"))
    assert node.json("show")["features_file"]["state"] == "differs"
    year = text.partition("expiry-time=")[2][:4]
    node.features.write_text(text.replace(f"={year}-", "=2001-"))
    assert node.json("show")["features_file"]["state"] == "lapsed"


def test_the_settings_decide_folder_lifetime_and_label(node: Node, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (node.root / "config.toml").write_text(
        '[nfd]\nfeatures_dir = "/other"\nlabel = "never"\nexpiry_seconds = 3600\n'
    )
    assert "Lapses at 20" in node.label("apply")
    assert 3590 < node.json("apply")["expires_unix_seconds"] - time.time() <= 3600
    assert "runtime.kata" not in (other / "kata-node-agent.features").read_text()


def test_the_profile_can_be_given(node: Node) -> None:
    assert node.json("show", "--profile", "upstream")["profile"] == "upstream"


def test_apply_without_nfd_is_an_error_that_says_so(node: Node) -> None:
    node.features_dir.rmdir()
    assert node.json("show")["features_file"]["state"] == "no-folder"
    with pytest.raises(AgentError) as caught:
        node.label("apply")
    assert caught.value.reason == "NfdNotInstalled"
    assert not node.features_dir.exists()


@pytest.mark.parametrize("command", ["remove", "--remove"])
def test_remove_deletes_the_features_file_only_and_says_what_follows(node: Node, command: str) -> None:
    node.label("apply")
    node.label("ceiling", "--set", "5")
    output = node.label(command)
    assert "within a minute" in output
    assert "nfd.publish = false" in output
    assert not node.features.exists()
    assert node.ceiling.exists()
    assert "no such file" in node.label(command)


def test_remove_does_not_speak_of_an_agent_that_was_told_not_to_publish(node: Node) -> None:
    (node.root / "config.toml").write_text("[nfd]\npublish = false\n")
    node.label("apply")
    assert "A running agent" not in node.label("remove")
    assert node.json("remove")["removed"] is False


def test_the_ceiling_is_shown_beside_what_fits_and_what_runs(node: Node) -> None:
    assert "not known" in node.label("ceiling")
    node.run_sandboxes(2)
    node.label("ceiling", "--set", "14")
    document = node.json("ceiling")
    # (32 GiB − 100 MiB) / (2 GiB + 60 MiB)
    assert (document["ceiling"], document["from_node"], document["in_use"]) == (14, 15, 2)
    output = node.label("ceiling")
    assert "14; " in output
    assert "2 Kata sandboxes run" in output


def test_the_ceiling_is_taken_from_the_node_on_request(node: Node) -> None:
    assert "ceiling 15" in node.label("ceiling", "--from-node")
    assert "katacontainers.io/sandbox-overhead=15\n" in node.ceiling.read_text()
    assert "expiry" not in node.ceiling.read_text().replace("never expires", "")
    assert "as before" in node.label("ceiling", "--from-node")


def test_the_ceiling_may_be_raised_whatever_runs(node: Node) -> None:
    node.label("ceiling", "--set", "1")
    assert node.json("ceiling", "--set", "2")["changed"] is True


def test_the_ceiling_is_not_lowered_below_what_runs(node: Node) -> None:
    node.label("ceiling", "--set", "9")
    node.run_sandboxes(4)
    for arguments in (["--set", "3"], ["--remove"]):
        with pytest.raises(AgentError) as caught:
            node.label("ceiling", *arguments)
        assert caught.value.reason == "CeilingBelowUse"
        assert "kubelet" in caught.value.message
        assert "=9\n" in node.ceiling.read_text()
    assert node.json("ceiling", "--set", "4")["ceiling"] == 4


def test_the_ceiling_is_not_lowered_while_nobody_knows_what_runs(node: Node) -> None:
    node.label("ceiling", "--set", "9")
    with pytest.raises(AgentError) as caught:
        node.label("ceiling", "--set", "8")
    assert caught.value.reason == "CeilingUseUnknown"


def test_force_does_it_and_says_what_may_be_killed(node: Node) -> None:
    node.label("ceiling", "--set", "9")
    node.run_sandboxes(4)
    document = node.json("ceiling", "--set", "1", "--force")
    assert document["changed"] is True
    assert "up to 3 of them" in document["danger"]
    assert "DANGER" in node.label("ceiling", "--remove", "--force")
    assert not node.ceiling.exists()


def test_the_three_ways_to_change_the_ceiling_exclude_each_other(node: Node) -> None:
    with pytest.raises(Exception, match="exclude each other"):
        node.label("ceiling", "--set", "3", "--remove")


def test_a_node_whose_memory_cannot_be_read_gets_no_ceiling_from_it(node: Node) -> None:
    (node.root / "proc" / "meminfo").unlink()
    with pytest.raises(AgentError) as caught:
        node.label("ceiling", "--from-node")
    assert caught.value.reason == "MemoryUnreadable"
    assert "could not be read" in node.label("ceiling")
    assert not node.ceiling.exists()


def test_without_the_folder_a_ceiling_cannot_be_set(node: Node) -> None:
    node.features_dir.rmdir()
    with pytest.raises(AgentError) as caught:
        node.label("ceiling", "--set", "3")
    assert caught.value.reason == "NfdNotInstalled"


def test_every_command_in_the_documentation_works(node: Node) -> None:
    text = (Path(__file__).parents[2] / "docs" / "nfd.md").read_text()
    commands = re.findall(r"^    (?:\$ )?kata-node-agent label (.*?)(?: +#.*)?$", text, re.MULTILINE)
    assert len(commands) >= 8
    node.run_sandboxes(1)
    for command in commands:
        if command == "ceiling --remove":
            Tree(node.root).process(1000, ["/usr/bin/kubelet"])
            (node.root / "proc/1000/comm").write_text("kubelet\n")
        assert node.label(*command.split())


def test_every_feature_in_the_documentation_is_one_of_ours_and_the_other_way_round(node: Node) -> None:
    text = (Path(__file__).parents[2] / "docs" / "nfd.md").read_text()
    table = set(re.findall(r"^\| `([a-z.]+/[a-z.-]+)`", text, re.MULTILINE))
    ours = {feature["name"] for feature in node.json("show")["features_file"]["features"]}
    assert ours <= table
    assert table - ours <= {
        "katacontainers.io/bare-metal",
        "katacontainers.io/nested",
        "katacontainers.io/confidential.sev",
    }
