"""Each command in the documentation works as it is printed.

Ours are run, on a node of Kata VMs made of files, beside an agent that runs. Those of other programs are in
test_other_commands.py.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.devkubelet.kubelet import DevKubelet
from tests.daemon.support import Node
from tests.docs.commands import OURS, ROOT, Command, commands, in_page
from tests.report.kata_node import CONFIGURATION, KataNode

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS = commands()
OUR_COMMANDS = [command for command in COMMANDS if command.program == OURS]
# Words that stand for something of the reader's.
PLACEHOLDERS = {"POD": "default/web-1", "SANDBOX": "0000000100000001", "ID": "kvm.open", "FILE": "node.json"}
# What the node's VMs forbid, and the page says so.
REFUSED = {"kata-node-agent label ceiling --remove": "CeilingBelowUse"}
# These go on until they are ended; this test ends them.
_ENDLESS = re.compile(r"kata-node-agent (run|dev|top|devkubelet serve)( |$)|--watch")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables with which a shell finds our command, an agent that runs, and a node to look at."""
    folder = tmp_path_factory.mktemp("d")
    tree = folder / "node"
    tree.mkdir()
    host = KataNode(tree)
    host.sandbox(1)
    features = host.folder / "etc/kubernetes/node-feature-discovery/features.d"
    features.mkdir(parents=True, exist_ok=True)
    (folder / "w").mkdir()
    node = Node(folder)
    # The agent looks at this machine, and knows the tree's handlers.
    shutil.copytree(host.folder / "etc" / "crio", node.root / "etc" / "crio")
    settings = node.root / CONFIGURATION.lstrip("/")
    settings.parent.mkdir(parents=True)
    shutil.copy(host.folder / CONFIGURATION.lstrip("/"), settings)
    ready, done = threading.Event(), threading.Event()

    async def kubelet() -> None:
        async with DevKubelet(node.plugins):
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=[kubelet()])
    thread.start()
    try:
        assert ready.wait(20)
        with node.agent() as agent:
            agent.wait_for("registered ")
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            yield {
                **{name: value for name, value in node.environ.items() if name != "NO_COLOR"},
                "PATH": path,
                "HOME": str(folder / "w"),
                "PWD": str(folder / "w"),
                "KATA_NODE_AGENT_RUN_DIR": str(node.run_dir),
                "KATA_NODE_AGENT_STATE_DIR": str(folder / "state"),
                "KATA_NODE_AGENT_DEVICE_PLUGIN_DIRECTORY": str(node.plugins),
                "KATA_NODE_AGENT_HOST_ROOT": str(host.folder),
            }
            agent.end()
    finally:
        done.set()
        thread.join()


@pytest.mark.host
@pytest.mark.parametrize("command", OUR_COMMANDS, ids=[f"{c.where}: {c.line}" for c in OUR_COMMANDS])
def test_our_commands_are_understood_and_answer(command: Command, environment: dict[str, str]) -> None:
    line = command.line
    for word, meaning in PLACEHOLDERS.items():
        line = re.sub(rf"\b{word}\b", meaning, line)
    folder = environment["PWD"]
    if "node.json" in line and "--output" not in line:
        subprocess.run(
            [OURS, "snapshot", "--output", "node.json"], env=environment, cwd=folder, check=True, timeout=60
        )
    if endless := _ENDLESS.search(line) is not None and "--once" not in line:
        line = f"timeout --signal INT 4 {line}"
    for old in Path(folder).glob("kata-node-agent-*.tar.gz"):
        old.unlink()
    done = subprocess.run(
        ["bash", "-c", line], env=environment, cwd=folder, capture_output=True, text=True, timeout=60
    )
    said = f"{command.line}: exit {done.returncode}\n{done.stdout[-800:]}\n{done.stderr[-800:]}"
    assert "Traceback" not in done.stderr, said
    assert "Usage:" not in done.stderr, said
    # 1 is an answer too ("no", "there are problems"); so is an agent that finds another one in its place.
    expected = {0, 1, 124, 130} if endless else {0, 1}
    if re.search(r"kata-node-agent run( |$)", line):
        assert done.returncode == 2, said
        assert "belongs to a running agent" in done.stderr, said
    elif line in REFUSED:
        assert done.returncode == 2, said
        assert f"reason: {REFUSED[line]}" in done.stderr, said
    elif "--profile" in line or " check" in line:
        # The node is made of files: whether KVM works is not known.
        assert done.returncode in {0, 1, 2}, said
        assert done.stdout, said
    else:
        assert done.returncode in expected, said


TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_each_make_target_that_is_shown_is_there() -> None:
    shown = {
        word
        for command in COMMANDS
        if command.program == "make"
        for word in command.line.split()[1:]
        if re.fullmatch(r"[a-z-]+", word)
    }
    assert shown
    assert shown <= TARGETS


def test_each_file_of_ours_that_a_command_names_is_there() -> None:
    named = {
        (command.where, word)
        for command in COMMANDS
        for word in re.findall(
            r"(?:^|[ =])((?:deploy|systemd|packages|docs|proto|tests)/[\w./-]+)", command.line
        )
    }
    missing = [f"{where}: {word}" for where, word in named if not (ROOT / word).exists()]
    assert not missing


def test_commands_are_found_as_they_are_printed() -> None:
    page = "Text with `kata-node-agent status`, `status`.\n\n    $ kata-node-agent fit \\\n        --memory 4Gi   # how many\n    3 more\n"
    assert [command.line for command in in_page("p", page)] == [
        "kata-node-agent status",
        "kata-node-agent fit --memory 4Gi",
    ]
