"""The account of a running agent: what it admits is seen in the slots, and is there after `kill -9`."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from kata_node_agent.devkubelet.kubelet import DevKubelet
from kata_node_agent.pb import agent_pb2 as pb
from kata_node_agent.pb import agent_pb2_grpc
from tests.daemon.support import COMMAND, Node

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.host, pytest.mark.kvm]
GIB = 1 << 30
MIB = 1 << 20

# Small VMs and a share of the node, so that other users of this machine leave its numbers alone.
CONFIG = """
[eligibility]
profile = "upstream"
[sandbox]
vm_memory = "64Mi"
host_overhead = "0Mi"
[device_plugin]
max_slots = 8
[accounting]
margin = "0Mi"
rise_seconds = 0
pressure_stop = false
"""


@pytest.fixture
def node(short_dir: Path) -> Node:
    node = Node(short_dir, kvm=True)
    node.config.write_text(CONFIG)
    # The VMs of others on this machine are none of this node's.
    (node.root / "proc").unlink()
    (node.root / "proc").mkdir()
    meminfo = "MemTotal: 4194304 kB\nMemFree: 4000000 kB\nMemAvailable: 4000000 kB\n"
    (node.root / "proc" / "meminfo").write_text(meminfo)
    return node


def command(node: Node, *arguments: str) -> tuple[int, Any]:
    words = [
        *COMMAND,
        *arguments,
        "--config",
        str(node.config),
        "--run-dir",
        str(node.run_dir),
        "--format",
        "json",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def stub_of(channel: grpc.Channel) -> Any:
    return agent_pb2_grpc.NodeAgentStub(channel)


def admit(node: Node, sandbox: str, vm_bytes: int) -> Any:
    with grpc.insecure_channel(f"unix:{node.run_dir}/agent.sock") as channel:
        return stub_of(channel).Admit(pb.Claim(sandbox=sandbox, vm_bytes=vm_bytes), timeout=5)


async def off(function: Any, *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


def test_admissions_take_slots_drain_closes_and_all_of_it_outlives_kill_9(node: Node) -> None:
    async def main() -> None:
        async with DevKubelet(node.plugins) as kubelet:
            with node.agent() as agent:
                await kubelet.wait_for_devices(8, timeout_seconds=15)
                code, fit = await off(command, node, "fit")
                assert (code, fit["schema"], fit["needs_bytes"]) == (0, "kata-node-agent/fit/v1", 64 * MIB)
                before = fit["count"]

                decision = await off(admit, node, "a", GIB)
                assert (decision.allowed, decision.needs_bytes) == (True, GIB)
                code, fit = await off(command, node, "fit", "--count", str(before))
                assert (code, fit["count"]) == (1, before - 16)
                with pytest.raises(grpc.RpcError) as caught:
                    await off(admit, node, "b", 4 * GIB)
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "4Gi" in (caught.value.details() or "")

                # One slot is left beside what the admission stands for.
                decision = await off(admit, node, "c", fit["free_bytes"] - 64 * MIB)
                assert decision.allowed
                await kubelet.wait_for_devices(3, timeout_seconds=10)
                status = await off(node.status)
                assert status["slots"]["in_use"] == 2
                assert status["free_bytes"] == 64 * MIB

                assert (await off(command, node, "drain", "on"))[1]["draining"]
                await kubelet.wait_for_devices(2, timeout_seconds=10)
                assert (await off(command, node, "mode", "warn"))[1]["mode"] == "warn"
                await off(agent.end, signal.SIGKILL)
            with node.agent() as agent:
                await kubelet.wait_for_registrations(2, timeout_seconds=15)
                await kubelet.wait_for_devices(2, timeout_seconds=10)
                status = await off(node.status)
                assert (status["mode"], status["account"]["draining"]) == ("warn", True)
                assert status["slots"]["limited_by"] == "draining"
                _, listed = await off(command, node, "ledger", "list")
                assert [one["sandbox"] for one in listed["admissions"]] == ["a", "c"]
                decision = await off(admit, node, "d", 9 * GIB)
                assert decision.would_refuse
                _, history = await off(command, node, "ledger", "history")
                assert [each["decision"]["reason"] for each in history["decisions"]] == [
                    "Fits", "NotEnoughMemory", "Fits", "Draining",
                ]  # fmt: skip
                assert (await off(command, node, "ledger", "verify"))[0] == 0
                assert (await off(command, node, "ledger", "release", "nobody"))[0] == 1
                assert (await off(command, node, "ledger", "release", "a"))[1]["known"]
                assert not (await off(command, node, "drain", "off"))[1]["draining"]

    asyncio.run(main())


def test_a_device_that_was_allocated_counts_before_kubelet_says_so_again_after_a_restart(node: Node) -> None:
    async def main() -> None:
        async with DevKubelet(node.plugins) as kubelet:
            with node.agent() as agent:
                await kubelet.wait_for_devices(8, timeout_seconds=15)
                pod = await kubelet.admit("default", "holds", {"main": 1})
                assert kubelet.device_ids(pod)
                status = await off(node.status)
                assert (status["slots"]["in_use"], status["account"]["devices"]) == (1, 1)
                await off(agent.end, signal.SIGKILL)
            with node.agent() as agent:
                await kubelet.wait_for_registrations(2, timeout_seconds=15)
                status = await off(node.status)
                assert status["account"]["devices"] == 1
                assert status["committed_bytes"] == 64 * MIB

    asyncio.run(main())


def test_a_ledger_that_was_set_aside_is_a_problem_but_for_that_of_another_boot(short_dir: Path) -> None:
    node = Node(short_dir)
    node.run_dir.mkdir(mode=0o750)
    (node.run_dir / "ledger.db").write_bytes(b"garbage" * 99)
    with node.agent() as agent:
        agent.wait_for("serving ")
        (found,) = [each for each in node.status()["problems"] if each["reason"] == "LedgerSetAside"]
        assert "`drain` and `mode` of before are forgotten" in found["message"]
        agent.end()
    with node.agent() as agent:
        agent.wait_for("serving ", times=2)
        assert "LedgerSetAside" not in {each["reason"] for each in node.status()["problems"]}
