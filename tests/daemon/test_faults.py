"""What must not hurt: stuck reads, torn files, folders that go away."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.devkubelet.kubelet import DevKubelet
from kata_node_agent.eligibility.profiles import PROFILES
from tests.daemon.support import Agent, Node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.host


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def agent_with(node: Node, patch: str) -> Agent:
    """An agent in whose process some lines run first: how a test makes a part of it hang."""
    code = (
        textwrap.dedent(patch)
        + "\nimport sys\nfrom kata_node_agent.cli.main import main\nsys.argv[0] = 'kata-node-agent'\nmain()\n"
    )
    return Agent(node, [sys.executable, "-c", code, "run", *node.arguments], node.environ)


STUCK_LOOK = """
    import time
    import kata_node_agent.daemon.alive as alive
    alive.look = lambda *_: time.sleep(60)
"""


def test_a_look_that_is_stuck_delays_neither_registration_nor_the_end(short_dir: Path) -> None:
    node = Node(short_dir)

    async def main() -> None:
        async with DevKubelet(node.plugins) as kubelet:
            began = time.monotonic()
            with agent_with(node, STUCK_LOOK) as agent:
                await kubelet.wait_for_registrations(1, timeout_seconds=10)
                assert time.monotonic() - began < 5
                status = await asyncio.to_thread(node.status)
                assert status["slots"]["limited_by"] == "starting"
                assert await asyncio.to_thread(agent.end) < 2
                assert agent.process.returncode == 0

    asyncio.run(main())


SLOW_SWEEP = """
    import os, time
    import kata_node_agent.sandboxes.watcher as watcher
    sweep = watcher.Watcher.sweep
    def slow(self):
        while not os.path.exists({gate!r}):
            time.sleep(0.02)
        return sweep(self)
    watcher.Watcher.sweep = slow
"""


def test_kubelet_does_not_wait_for_the_vms_but_no_free_place_is_shown_before_they_are_known(
    short_dir: Path,
) -> None:
    node, gate = Node(short_dir), short_dir / "gate"
    waived = ", ".join(f'"{name}"' for name in sorted(PROFILES["upstream"]))
    node.config.write_text(
        f'[eligibility]\nprofile = "upstream"\nwaive = [{waived}]\n[device_plugin]\nmax_slots = 3\n'
        '[sandbox]\nvm_memory = "1Mi"\n'
    )

    async def main() -> None:
        async with DevKubelet(node.plugins) as kubelet:
            with agent_with(node, SLOW_SWEEP.format(gate=str(gate))):
                await kubelet.wait_for_registrations(1, timeout_seconds=10)
                status = await asyncio.to_thread(node.status)
                assert status["slots"]["limited_by"] == "starting"
                assert status["slots"]["healthy"] == 0
                gate.touch()
                await kubelet.wait_for_devices(3, timeout_seconds=10)

    asyncio.run(main())


def test_it_ends_at_once_when_told_while_it_starts(short_dir: Path) -> None:
    node = Node(short_dir)
    with agent_with(node, STUCK_LOOK) as agent:
        time.sleep(0.6)
        assert agent.end(signal.SIGTERM) < 2
        assert agent.process.returncode in {0, -signal.SIGTERM}


def test_a_kubelet_file_that_is_being_written_does_not_raise_the_number(short_dir: Path) -> None:
    node = Node(short_dir)
    conf = node.root / "etc/kubernetes/kubelet.conf"
    conf.parent.mkdir()
    conf.write_text("kind: KubeletConfiguration\nsystemReserved: {memory: 1Gi}\n")
    # Named, so that a kubelet of the machine does not say which file counts.
    node.config.write_text(
        '[eligibility]\ninterval_seconds = 1\n[kubelet]\nconfig_file = "/etc/kubernetes/kubelet.conf"\n'
    )
    with node.agent() as agent:
        agent.wait_for("serving")
        before = node.status()["memory"]["system_reserved_bytes"]
        assert before == 2**30
        conf.write_text("kind: KubeletConf")
        agent.wait_for("KubeletConfigurationInvalid")
        status = node.status()
        assert status["memory"]["system_reserved_bytes"] == before
        problem = next(p for p in status["problems"] if p["reason"] == "KubeletConfigurationInvalid")
        assert str(conf) in problem["message"]


def test_the_flags_of_a_kubelet_that_starts_later_count_as_soon_as_it_registers_us(short_dir: Path) -> None:
    node = Node(short_dir)
    proc = node.root / "proc"
    proc.unlink()
    proc.mkdir()
    (proc / "meminfo").write_text("MemTotal: 33554432 kB\n")

    async def main() -> None:
        with node.agent() as agent:
            agent.wait_for("serving")
            assert node.status()["memory"]["system_reserved_bytes"] == 0
            process = proc / "77"
            process.mkdir()
            (process / "comm").write_text("kubelet\n")
            (process / "cmdline").write_bytes(b"kubelet\0--system-reserved=memory=1Gi\0")
            (process / "status").write_text("Uid:\t0\t0\t0\t0\nNSpid:\t77\n")
            async with DevKubelet(node.plugins) as kubelet:
                await kubelet.wait_for_registrations(1, timeout_seconds=15)
                # Far less than the interval of a minute.
                async with asyncio.timeout(15):
                    while (await asyncio.to_thread(node.status))["memory"]["system_reserved_bytes"] != 2**30:
                        await asyncio.sleep(0.2)

    asyncio.run(main())


def test_a_second_agent_is_refused_after_kubelet_removed_the_lock_file(short_dir: Path) -> None:
    node = Node(short_dir)

    async def main() -> None:
        async with DevKubelet(node.plugins) as kubelet:
            with node.agent() as agent:
                await kubelet.wait_for_registrations(1, timeout_seconds=15)
                # As kubelets do that remove every file but their checkpoint when they start.
                await kubelet.crash()
                for path in node.plugins.glob(".*lock"):
                    path.unlink()
                await kubelet.start()
                await kubelet.wait_for_registrations(2, timeout_seconds=15)
                with node.agent("--run-dir", str(node.folder / "other")) as second:
                    assert await asyncio.to_thread(second.process.wait, 20) == 2
                assert "belongs to a running agent" in agent.text

    asyncio.run(main())


def test_it_serves_again_when_its_run_directory_is_removed(short_dir: Path) -> None:
    node = Node(short_dir)
    with node.agent() as agent:
        agent.wait_for("serving socket")
        shutil.rmtree(node.run_dir)
        agent.wait_for("our socket was removed, serving anew", timeout=15)
        deadline = time.monotonic() + 5
        while not (node.run_dir / "agent.sock").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert node.status()["verdict"]


def test_a_port_for_health_that_is_taken_is_a_problem_and_no_end_of_the_agent(short_dir: Path) -> None:
    node = Node(short_dir)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        node.config.write_text(f'[health]\ntcp_address = "{address}"\n')
        with node.agent() as agent:
            agent.wait_for("serving socket")
            (problem,) = [each for each in node.status()["problems"] if each["reason"] == "SocketUnusable"]
            assert problem["message"].startswith(f"{address}: cannot listen")
            agent.end()


def test_it_serves_again_when_what_is_in_the_way_of_its_socket_is_gone(short_dir: Path) -> None:
    node = Node(short_dir)
    ours = node.run_dir / "agent.sock"
    with node.agent() as agent:
        agent.wait_for("serving socket")
        ours.unlink()
        ours.mkdir()
        agent.wait_for("a directory is in the way", timeout=30)
        ours.rmdir()
        deadline = time.monotonic() + 30
        while not ours.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert node.status()["verdict"]


def test_paths_that_mean_something_in_a_uri_are_just_paths(short_dir: Path) -> None:
    node = Node(short_dir)
    node.run_dir = short_dir / "r%41n #?ü"
    node.plugins = short_dir / "d%p"
    with node.agent() as agent:
        agent.wait_for("serving")

        async def main() -> None:
            async with DevKubelet(node.plugins) as kubelet:
                await kubelet.wait_for_registrations(1, timeout_seconds=10)

        if "%" not in str(node.plugins):
            asyncio.run(main())
        assert (node.run_dir / "agent.sock").exists()
        assert node.status()["pid"] == agent.process.pid


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--device-plugin-dir", "not a directory"),
        ("--run-dir", "not a directory"),
        ("--host-root", "no such directory"),
    ],
)
def test_a_file_in_place_of_a_folder_is_refused(short_dir: Path, flag: str, words: str) -> None:
    node = Node(short_dir)
    file = short_dir / "file"
    file.write_text("")
    with node.agent(flag, str(file)) as agent:
        assert agent.process.wait(timeout=20) == 2
        assert words in agent.text
        assert "stopped" not in agent.text, "it never ran"


def test_a_plugin_folder_too_long_for_our_socket_is_refused(short_dir: Path) -> None:
    node = Node(short_dir)
    with node.agent("--device-plugin-dir", str(short_dir / ("x" * 70))) as agent:
        assert agent.process.wait(timeout=20) == 2
        assert "at most 107" in agent.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_member_of_the_group_may_ask_and_another_user_may_not(short_dir: Path) -> None:
    import grp
    import subprocess

    # A group that every machine has stands in for ours, which is made at installation.
    group = grp.getgrnam("daemon")
    node = Node(short_dir)
    short_dir.chmod(0o755)
    patch = f"""
        import kata_node_agent.sockets as sockets
        sockets.GROUP = {group.gr_name!r}
    """
    connect = f"""
        import os, socket, sys
        os.setgroups([int(group) for group in sys.argv[1:]])
        os.setgid(65534)
        os.setuid(65534)
        for name in ("agent.sock", "metrics.sock"):
            socket.socket(socket.AF_UNIX).connect(os.path.join({str(node.run_dir)!r}, name))
    """
    with agent_with(node, patch) as agent:
        agent.wait_for("serving")
        for groups, code in (([str(group.gr_gid)], 0), ([], 1)):
            command = [sys.executable, "-I", "-c", textwrap.dedent(connect), *groups]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == code, done.stderr
            assert code == 0 or "PermissionError" in done.stderr
