"""The log as who reads it at night needs it: one line a change, with its reason and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.daemon.support import Node

if TYPE_CHECKING:
    from pathlib import Path


def command(node: Node, *words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "kata_node_agent", *words, f"--run-dir={node.run_dir}"],
        check=True, timeout=30, capture_output=True, env={**os.environ, **node.environ},
    )  # fmt: skip


@pytest.mark.host
def test_a_reload_says_what_it_changed_and_what_a_command_keeps_from_changing(short_dir: Path) -> None:
    node = Node(short_dir)
    with node.agent() as agent:
        agent.wait_for("serving socket")
        agent.reload()
        agent.wait_for("reloaded changed=nothing")
        command(node, "mode", "off")
        agent.wait_for("mode switched from=")
        node.config.write_text('mode = "warn"\n[device_plugin]\nmax_slots = 3\n')
        agent.reload()
        agent.wait_for('reloaded changed="mode=warn, device_plugin.max_slots=3"')
        agent.wait_for("the mode that was set by command stays mode=off configured=warn")
        agent.wait_for("`kata-node-agent mode configured` gives it back")
    with node.agent() as agent:
        agent.wait_for('mode=off mode_origin="set at run time"')


@pytest.mark.host
def test_a_node_that_opens_again_says_what_is_over(short_dir: Path) -> None:
    node = Node(short_dir)
    with node.agent() as agent:
        agent.wait_for("serving socket")
        command(node, "drain", "on")
        agent.wait_for("closed to new VMs: the node is being drained")
        command(node, "drain", "off")
        agent.wait_for("open to new VMs: it is drained no longer")
