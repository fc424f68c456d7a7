"""The gate at the runtime as the daemon has it: which handlers are Kata's, what is said of it, what a reload changes."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kata_node_agent.capacity.hotplug import VmSettings
from kata_node_agent.cli.status import nri_json, nri_line
from kata_node_agent.config.schema import Config, NriConfig
from kata_node_agent.daemon.history import History
from kata_node_agent.daemon.nri import NriGate
from kata_node_agent.errors import NriError
from kata_node_agent.host.meminfo import read_meminfo
from kata_node_agent.host.root import HostRoot
from tests.daemon.support import COMMAND
from tests.daemon.support import Node as AgentNode
from tests.nri.budget import Budget
from tests.nri.runtime import GIB, Runtime, container, pod

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from kata_node_agent.pb import nri_pb2


class Node:
    """A gate on a folder of its own, with a configuration that can be changed."""

    def __init__(self, folder: Path, budget: Budget, **settings: object) -> None:
        self.config = Config(nri=NriConfig(socket=folder / "s", **settings))  # type: ignore[arg-type]
        self.history = History()
        self.handlers = {"vms": VmSettings(default_memory_bytes=GIB // 2)}
        self.default = ""
        self.gate = NriGate(
            lambda: self.config,
            budget,
            lambda: self.handlers,
            lambda _: False,
            self.history,
            lambda: self.default,
        )


@asynccontextmanager
async def running(gate: NriGate) -> AsyncIterator[None]:
    task = asyncio.create_task(gate.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(40):
        while not ready():
            await asyncio.sleep(0.005)


def test_handlers_and_their_vms_are_as_the_runtimes_configuration_says(short_dir: Path) -> None:
    async def run() -> None:
        budget = Budget(100 * GIB)
        node = Node(short_dir, budget)
        async with Runtime(short_dir / "s") as runtime, running(node.gate):
            await runtime.taken.wait()
            for number, handler in enumerate(("vms", "kata", "runc", "")):
                await runtime.run(pod(number, GIB, handler))
        asked = {claim.handler: claim.vm_bytes for claim in budget.claims.values()}
        # One by the runtime's configuration, one by its name with our own setting for the size.
        assert asked == {"vms": GIB + GIB // 2, "kata": 3 * GIB}

    asyncio.run(run())


def test_pods_that_name_no_handler_are_katas_where_the_runtimes_default_is(short_dir: Path) -> None:
    async def run() -> None:
        budget = Budget(100 * GIB)
        node = Node(short_dir, budget)
        node.default = "vms"
        async with Runtime(short_dir / "s") as runtime, running(node.gate):
            await runtime.taken.wait()
            await runtime.run(pod(1, GIB, ""))
            node.default = ""
            await runtime.run(pod(2, GIB, ""))
        assert [(claim.sandbox, claim.vm_bytes) for claim in budget.claims.values()] == [
            ("sandbox1", GIB + GIB // 2)
        ]

    asyncio.run(run())


def test_a_reload_brings_other_handlers_and_another_answer_for_what_is_undecided(short_dir: Path) -> None:
    class Stuck(Budget):
        async def admit(self, claim: object) -> object:  # type: ignore[override]
            return await asyncio.Event().wait()

    async def run() -> None:
        node = Node(short_dir, Stuck(GIB))
        async with Runtime(short_dir / "s", request_timeout_seconds=0.4) as runtime, running(node.gate):
            await runtime.taken.wait()
            await runtime.run(pod(1))
            nri = replace(node.config.nri, when_undecided="refuse", handlers=("runc",))
            node.config = replace(node.config, nri=nri)
            await runtime.run(pod(2))
            with pytest.raises(NriError, match="not decided in time"):
                await runtime.run(pod(3, handler="runc"))
            assert node.gate.message().undecided == 1

    asyncio.run(run())


def test_it_is_said_who_asks_and_what_went_past_us(short_dir: Path) -> None:
    async def run() -> None:
        node = Node(short_dir, Budget(3 * GIB))
        gate = node.gate
        async with running(gate):
            await until(lambda: gate.message().state == "no NRI socket")
            assert gate.problem is None
            assert not gate.message().connected
            assert nri_line(gate.message(), 0.0).startswith("nri        no NRI socket: ")
            async with Runtime(short_dir / "s", pods=[pod(9)]) as runtime:
                await runtime.taken.wait()
                one = pod(1, GIB)
                await runtime.run(one)
                await runtime.create(one, container(one))
                with pytest.raises(NriError):
                    await runtime.run(pod(2, GIB))
                assert gate.serving
                assert gate.problem is None
                said = gate.message()
                assert (said.runtime, said.nri_version) == ("runtime v9", "v0.12.3")
                assert (said.pods, said.unseen, said.synchronizations) == (2, 1, 1)
                assert [(d.question, d.outcome, d.count) for d in said.decisions] == [
                    ("admit", "allowed", 1),
                    ("admit", "refused", 1),
                ]
                assert said.answers[-1].count == 5
                line = nri_line(said, said.since_unix_seconds + 60)
                assert line == (
                    "nri        synchronized, runtime v9, for 1m 0s, 2 Kata pods; 1 went on without a decision"
                )
                document = nri_json(said)
                assert document["connected"] is True
                assert document["unseen"] == 1
                assert "answers" not in document
            await until(lambda: not gate.serving)
        assert node.history.changes[0].message == "synchronized"

    asyncio.run(run())


def test_a_socket_at_which_nobody_answers_is_a_problem(short_dir: Path) -> None:
    async def run() -> None:
        node = Node(short_dir, Budget(0))

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_unix_server(accept, short_dir / "s")
        async with running(node.gate):
            await until(lambda: node.gate.problem is not None)
            problem = node.gate.problem
            assert problem is not None
            assert problem.reason == "NriNotConnected"
            assert "hung up" in problem.message
        server.close()

    asyncio.run(run())


def test_switched_off_it_connects_to_nothing(short_dir: Path) -> None:
    async def run() -> None:
        node = Node(short_dir, Budget(0), enabled=False)
        async with Runtime(short_dir / "s") as runtime, asyncio.timeout(5):
            await node.gate.run()
            assert runtime.times == 0
        assert node.gate.message().state == "off"
        assert node.gate.problem is None

    asyncio.run(run())


def status_of(node: AgentNode) -> dict[str, Any]:
    """Empty while nobody answers."""
    command = [*COMMAND, "status", "--config", node.config, "--run-dir", node.run_dir, "--format", "json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=20)
    return dict(json.loads(done.stdout)) if done.stdout else {}


@pytest.mark.host
def test_the_agents_own_account_answers_and_is_right_after_kill_9(short_dir: Path) -> None:
    node = AgentNode(short_dir)
    budget = 4 * GIB
    reserved = read_meminfo(HostRoot()).total_bytes - budget
    node.config.write_text(
        f'[kubelet]\nsystem_reserved_memory = "{reserved}"\neviction_hard_memory = "0"\n'
        '[sandbox]\nvm_memory = "1Gi"\nhost_overhead = "60Mi"\n[events]\nkernel = false\n'
    )
    listed: list[nri_pb2.PodSandbox] = []

    async def told(ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(40):
            while True:
                status = await asyncio.to_thread(status_of, node)
                if status and ready(status):
                    return status

    async def run() -> None:
        async with Runtime(node.nri, pods=listed) as runtime:
            with node.agent() as agent:
                await runtime.taken.wait()
                first, second = pod(1, GIB), pod(2, GIB)
                await runtime.run(first)
                with pytest.raises(NriError, match=r"refuses: the VM of default/pod2 needs 2\.1Gi"):
                    await runtime.run(second)
                status = await told(lambda status: status["nri"]["connected"])
                assert status["committed_bytes"] == 2 * GIB + (60 << 20)
                agent.end(signal.SIGKILL)
            await until(lambda: runtime.plugin is None)
            runtime.pods = [first]
            with node.agent() as agent:
                await runtime.taken.wait()
                with pytest.raises(NriError, match="refuses"):
                    await runtime.run(second)
                status = await told(lambda status: status["nri"]["connected"])
                assert status["committed_bytes"] == 2 * GIB + (60 << 20)
                assert status["nri"]["unseen"] == 0
                assert agent.end() < 5

    asyncio.run(run())
