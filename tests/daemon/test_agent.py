"""The agent as a process: how it starts, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kata_node_agent.devkubelet.kubelet import DevKubelet
from kata_node_agent.host.processes import shows_node
from kata_node_agent.host.root import HostRoot
from tests.daemon.support import Node

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.host
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def node(short_dir: Path) -> Node:
    return Node(short_dir)


async def started(node: Node, agent: Any, words: str) -> None:
    await asyncio.to_thread(agent.wait_for, words)


@pytest.mark.kvm
def test_a_node_with_kvm_advertises_what_fits_and_every_part_is_healthy(short_dir: Path) -> None:
    node = Node(short_dir, kvm=True)
    node.config.write_text('[device_plugin]\nmax_slots = 7\n[eligibility]\nprofile = "upstream"\n')

    async def main() -> None:
        async with DevKubelet(node.plugins) as kubelet:
            with node.agent() as agent:
                await kubelet.wait_for_devices(7, timeout_seconds=15)
                async with grpc.aio.insecure_channel(f"unix:{node.run_dir}/agent.sock") as channel:
                    health: Any = health_pb2_grpc.HealthStub(channel)
                    async with asyncio.timeout(10):
                        while True:
                            answer = await health.List(health_pb2.HealthListRequest())
                            serving = {name for name, one in answer.statuses.items() if one.status == SERVING}
                            if serving == {"", "eligibility", "device-plugin", "accounting"}:
                                break
                            await asyncio.sleep(0.05)
                status = await asyncio.to_thread(node.status)
                assert status["verdict"] == "eligible"
                assert status["slots"] | {"limited_by_message": ""} == {
                    "total": 7, "healthy": 7, "in_use": 0, "limited_by": "max_slots", "limited_by_message": "",
                }  # fmt: skip
                assert status["kubelet"]["registered"]
                assert status["kubelet"]["stream_open"]
                # Whoever runs the tests in a PID namespace of their own is told of it.
                elsewhere = [] if shows_node(HostRoot()) else ["ForeignPidNamespace"]
                assert [problem["reason"] for problem in status["problems"]] == elsewhere
                assert await asyncio.to_thread(agent.end) < 2

    asyncio.run(main())


def test_a_node_without_kvm_shows_no_healthy_slot_and_says_why(node: Node) -> None:
    async def main() -> None:
        async with DevKubelet(node.plugins) as kubelet:
            with node.agent() as agent:
                await started(node, agent, "registered ")
                await kubelet.wait_for_devices(0)
                assert kubelet.counts().capacity > 0
                status = await asyncio.to_thread(node.status)
                assert status["slots"]["limited_by"] == "eligibility"
                assert "kvm" in status["slots"]["limited_by_message"]
                assert all(problem["remedy"] for problem in status["problems"])

    asyncio.run(main())


def test_killed_agent_leaves_a_socket_that_its_successor_removes(node: Node) -> None:
    async def main() -> None:
        async with DevKubelet(node.plugins) as kubelet:
            with node.agent() as agent:
                await started(node, agent, "registered ")
                await asyncio.to_thread(agent.end, signal.SIGKILL)
            assert len(list(node.plugins.glob("katacontainers*.sock"))) == 1
            with node.agent() as agent:
                await kubelet.wait_for_registrations(2, timeout_seconds=15)
                assert len(list(node.plugins.glob("katacontainers*.sock"))) == 1
                await asyncio.to_thread(agent.end)
            assert not list(node.plugins.glob("katacontainers*.sock"))
            assert not (node.run_dir / "agent.sock").exists()

    asyncio.run(main())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_within_two_seconds_with_exit_code_0_whoever_watches(node: Node, number: int) -> None:
    async def main() -> None:
        async with DevKubelet(node.plugins):
            with node.agent() as agent:
                await started(node, agent, "registered ")
                async with grpc.aio.insecure_channel(f"unix:{node.run_dir}/agent.sock") as channel:
                    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
                    await watch.read()
                    assert await asyncio.to_thread(agent.end, number) < 2
                assert agent.process.returncode == 0
                assert "Traceback" not in agent.text

    asyncio.run(main())


def test_waits_for_a_plugin_folder_that_is_not_there_yet(node: Node) -> None:
    with node.agent() as agent:
        agent.wait_for("waiting for kubelet's device plugin folder")

        async def main() -> None:
            async with DevKubelet(node.plugins) as kubelet:
                await kubelet.wait_for_registrations(1, timeout_seconds=10)

        asyncio.run(main())


def refused(agent: Any) -> str:
    """The output of an agent that must not start."""
    with agent:
        assert agent.process.wait(timeout=20) == 2, agent.text
        text = str(agent.text)
    assert "Traceback" not in text
    assert text.count("remedy:") == 1
    return text


def test_a_second_agent_in_the_run_directory_is_told_who_holds_it(node: Node) -> None:
    with node.agent() as first:
        first.wait_for("serving")
        assert f"belongs to a running agent: pid {first.process.pid}" in refused(node.agent())


def test_a_second_agent_for_the_resource_is_told_who_holds_it(node: Node) -> None:
    node.plugins.mkdir()
    with node.agent() as first:
        first.wait_for("serving")
        second = node.agent("--run-dir", str(node.folder / "other"))
        text = refused(second)
        assert (
            f"resource katacontainers.io/sandbox in {node.plugins} belongs to a running agent: pid {first.process.pid}"
            in text
        )
        # Nothing left behind but the lock file.
        assert {path.name for path in (node.folder / "other").iterdir()} == {"lock"}
        other = node.agent(
            "--run-dir",
            str(node.folder / "third"),
            environ={"KATA_NODE_AGENT_DEVICE_PLUGIN_RESOURCE": "x.io/y"},
        )
        with other:
            other.wait_for("serving", 2)


def test_what_stands_in_the_way_of_the_socket_is_said(node: Node) -> None:
    (node.run_dir / "agent.sock").mkdir(parents=True)
    assert "a directory is in the way" in refused(node.agent())


def test_a_socket_of_a_dead_agent_is_replaced(node: Node) -> None:
    node.run_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(node.run_dir / "agent.sock"))
    with node.agent() as agent:
        agent.wait_for("serving")


def test_a_run_directory_too_long_for_a_socket_is_said(node: Node) -> None:
    assert "at most 107" in refused(node.agent("--run-dir", str(node.folder / ("x" * 100))))


def test_a_bad_configuration_is_one_line_with_a_remedy(node: Node) -> None:
    node.config.write_text("[device_plugin]\nmax_slot = 1")
    assert "did you mean device_plugin.max_slots?" in refused(node.agent())


def test_an_unknown_profile_is_refused_at_start(node: Node) -> None:
    assert "openshift" in refused(node.agent("--profile", "openshit"))


def test_reload_applies_what_can_be_applied_and_keeps_the_old_when_bad(node: Node) -> None:
    async def main() -> None:
        async with DevKubelet(node.plugins) as kubelet:
            with node.agent() as agent:
                await started(node, agent, "registered ")
                node.config.write_text("[device_plugin]\nmax_slots = 2\n")
                agent.process.send_signal(signal.SIGHUP)
                async with asyncio.timeout(10):
                    while kubelet.counts().capacity != 2:
                        await asyncio.sleep(0.01)
                node.config.write_text("nonsense = 1\n")
                agent.process.send_signal(signal.SIGHUP)
                await started(node, agent, "not reloaded")
                status = await asyncio.to_thread(node.status)
                assert "ReloadFailed" in {problem["reason"] for problem in status["problems"]}
                assert kubelet.counts().capacity == 2
                node.config.write_text('[device_plugin]\nmax_slots = 2\nresource = "x.io/y"\n')
                agent.process.send_signal(signal.SIGHUP)
                await started(node, agent, "take effect at a restart only settings=device_plugin.resource")

    asyncio.run(main())


def test_systemd_hears_ready_reloading_watchdog_and_stopping(node: Node) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(node.folder / "notify"))
        manager.settimeout(10)
        environ = {"NOTIFY_SOCKET": str(node.folder / "notify"), "WATCHDOG_USEC": "300000"}
        with node.agent(environ=environ) as agent:
            heard = ""
            while "READY=1" not in heard or "WATCHDOG=1" not in heard:
                heard += manager.recv(4096).decode() + "\n"
            assert "STATUS=" in heard
            agent.process.send_signal(signal.SIGHUP)
            while "RELOADING=1" not in heard:
                heard += manager.recv(4096).decode() + "\n"
            assert "MONOTONIC_USEC=" in heard
            agent.process.send_signal(signal.SIGTERM)
            while "STOPPING=1" not in heard:
                heard += manager.recv(4096).decode() + "\n"


@pytest.mark.kvm
def test_devices_that_pods_hold_stay_healthy_over_the_agents_restart_on_a_node_no_more_eligible(
    short_dir: Path,
) -> None:
    node = Node(short_dir, kvm=True)
    node.config.write_text('[device_plugin]\nmax_slots = 4\n[eligibility]\nprofile = "upstream"\n')

    async def main() -> None:
        async with DevKubelet(node.plugins) as kubelet:
            with node.agent() as agent:
                await kubelet.wait_for_devices(4, timeout_seconds=15)
                assert (await kubelet.admit("default", "a", {"main": 2})).phase == "Running"
                await asyncio.to_thread(agent.end, signal.SIGKILL)
            (node.root / "dev" / "kvm").unlink()
            with node.agent():
                await kubelet.wait_for_registrations(2, timeout_seconds=15)
                await kubelet.wait_for_devices(2)

    asyncio.run(main())


def test_status_of_no_agent_says_so_with_exit_code_2(node: Node) -> None:
    from tests.daemon.support import COMMAND

    done = subprocess.run(
        [*COMMAND, "status", "--run-dir", str(node.run_dir)], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 2
    assert "no agent is running here" in done.stderr
    assert "remedy:" in done.stderr


def test_holds_on_when_kubelet_is_killed_and_starts_again_20_times(node: Node) -> None:
    async def main() -> None:
        kubelet = DevKubelet(node.plugins)
        await kubelet.start()
        with node.agent() as agent:
            await kubelet.wait_for_registrations(1, timeout_seconds=15)
            for count in range(20):
                await kubelet.crash()
                await kubelet.start()
                await kubelet.wait_for_registrations(count + 2)
            assert agent.process.poll() is None
        await kubelet.crash()

    asyncio.run(main())
