"""The agent with VMs that run: what its API, its metrics and the command line say of them."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import urllib.request
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from kata_node_agent.pb import agent_pb2 as pb
from kata_node_agent.pb import agent_pb2_grpc
from tests.daemon.support import COMMAND, Agent, Node
from tests.publish.test_metrics import free_address
from tests.sandboxes.vms import MIB, Machine, RunningVm, file_memory, memfd_memory, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GIB = 1024 * MIB


@pytest.fixture
def machine(short_dir: Path) -> Iterator[Machine]:
    machine = Machine(short_dir)
    try:
        yield machine
    finally:
        machine.close()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def metric(address: str, name: str) -> float | None:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        match = re.search(rf"^{re.escape(name)} (.*)$", answer.read().decode(), re.MULTILINE)
    return float(match[1]) if match else None


def command_line(node: Node) -> dict[str, Any]:
    command = [
        *COMMAND,
        "sandboxes",
        "--format",
        "json",
        "--config",
        str(node.config),
        "--host-root",
        str(node.root),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {sandbox["id"]: sandbox for sandbox in json.loads(done.stdout)["sandboxes"]}


@pytest.mark.vm
def test_api_metrics_and_command_line_say_the_same_at_each_step(node: Node, machine: Machine) -> None:
    """Three VMs of 512 MiB, one of which gets 1 GiB more; another is killed. No guest need be up for that."""
    address = free_address()
    vms = [machine.start(file_memory()), machine.start(memfd_memory()), machine.start()]
    for vm in vms:
        wait_for((vm.folder / "qmp.sock").exists, "no QEMU")

    def check(sizes: dict[RunningVm, int], seen: pb.Sandboxes) -> None:
        wanted = {vm.id: size for vm, size in sizes.items()}
        ours = {vm.id for vm in vms}
        assert {one.id: one.vm_memory_bytes for one in seen.sandboxes if one.id in ours} == wanted
        printed = command_line(node)
        assert {name: one["vm_memory_bytes"] for name, one in printed.items() if name in ours} == wanted
        for vm in vms:
            name = f'kata_node_agent_sandbox_bytes{{kind="vm_memory",pod="",sandbox="{vm.id}"}}'
            assert metric(address, name) == wanted.get(vm.id)

    async def follow() -> None:
        async with grpc.aio.insecure_channel(f"unix:{node.run_dir}/agent.sock") as channel:
            watch = agent_pb2_grpc.NodeAgentStub(channel).WatchSandboxes(pb.WatchSandboxesRequest())

            async def until(sizes: dict[RunningVm, int]) -> pb.Sandboxes:
                wanted = {vm.id: size for vm, size in sizes.items()}
                async with asyncio.timeout(20):
                    while True:
                        seen = await watch.read()
                        found = {one.id: one.vm_memory_bytes for one in seen.sandboxes}
                        if {vm.id: found[vm.id] for vm in vms if vm.id in found} == wanted:
                            return seen  # type: ignore[no-any-return]

            sizes = dict.fromkeys(vms, 512 * MIB)
            check(sizes, await until(sizes))
            vms[0].hotplug("mem0", GIB)
            sizes[vms[0]] += GIB
            check(sizes, await until(sizes))
            machine.kill(vms[1])
            del sizes[vms[1]]
            check(sizes, await until(sizes))
            watch.cancel()

    with node.agent(environ={"KATA_NODE_AGENT_METRICS_TCP_ADDRESS": address}) as agent:
        agent.wait_for("serving")
        asyncio.run(follow())
        agent.end()


@pytest.mark.host
def test_an_agent_that_shall_follow_none_says_so(node: Node) -> None:
    node.config.write_text("[sandbox]\nfollow = false\n")
    with node.agent() as agent:
        agent.wait_for("serving")
        assert "SandboxesNotFollowed" in [problem["reason"] for problem in node.status()["problems"]]
        agent.end()


# Root that may do all but look into others, and everybody else's view: below the node's PID namespace.
WITHOUT_RIGHT = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")
BELOW = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def printed(node: Node, *before: str, command: str = "sandboxes") -> tuple[int, str]:
    done = subprocess.run(
        [*before, *COMMAND, command, "--config", str(node.config), "--host-root", str(node.root)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.vm
def test_without_the_right_to_look_into_vms_that_is_said_and_no_place_is_free(
    short_dir: Path, machine: Machine
) -> None:
    node = Node(short_dir, kvm=True)
    node.config.write_text('[device_plugin]\nmax_slots = 7\n[eligibility]\nprofile = "upstream"\n')
    vm = machine.start()
    wait_for((vm.folder / "qmp.sock").exists, "no QEMU")
    assert printed(node)[0] == 0
    for command in ("sandboxes", "top"):
        code, text = printed(node, *WITHOUT_RIGHT, command=command)
        assert code == 2
        assert "SandboxesUnreadable" in text or "cannot look into" in text
        assert "CAP_SYS_PTRACE" in text
    agent = Agent(node, [*WITHOUT_RIGHT, *COMMAND, "run", *node.arguments], node.environ)
    with agent:
        agent.wait_for("serving")
        status = node.status()
        (problem,) = [one for one in status["problems"] if one["reason"] == "SandboxesUnreadable"]
        assert str(vm.pid) in problem["message"]
        assert "CAP_SYS_PTRACE" in problem["remedy"]
        assert status["slots"]["healthy"] == 0
        assert status["slots"]["limited_by"] == "vms_unseen"
        machine.kill(vm)
        wait_for(lambda: node.status()["slots"]["healthy"] == 7, "still closed", 20)
        agent.end()


@pytest.mark.vm
def test_below_the_nodes_pid_namespace_nothing_is_called_empty(node: Node, machine: Machine) -> None:
    vm = machine.start()
    wait_for((vm.folder / "qmp.sock").exists, "no QEMU")
    for command in ("sandboxes", "top"):
        code, text = printed(node, *BELOW, command=command)
        assert code == 0
        assert "the node's processes cannot be seen from here" in " ".join(text.split())
        assert "runs here" not in text
    # Whose /proc is read counts, and not where we are.
    assert vm.id[:8] in printed(node)[1]
