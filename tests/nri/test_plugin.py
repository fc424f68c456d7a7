"""The plugin and its client over a real socket, asked by a small runtime."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.capacity.hotplug import VmSettings
from kata_node_agent.errors import NriError
from kata_node_agent.nri.client import Client, State
from kata_node_agent.nri.connection import Call, StatusError
from kata_node_agent.nri.plugin import SERVICE, Plugin
from kata_node_agent.nri.sizing import size_for
from kata_node_agent.nri.tally import Tally
from kata_node_agent.pb import nri_pb2
from tests.nri.budget import Budget
from tests.nri.runtime import Runtime, container, pod

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from pathlib import Path

    from kata_node_agent.ledger.gate import Claim, Decision

GIB = 1 << 30
VM = VmSettings(default_memory_bytes=GIB)


class Slow(Budget):
    """An account that answers when it is told to."""

    def __init__(self, budget_bytes: int) -> None:
        super().__init__(budget_bytes)
        self.go = asyncio.Event()

    async def admit(self, claim: Claim) -> Decision:
        """Late."""
        await self.go.wait()
        return await super().admit(claim)


class Broken(Budget):
    """An account that breaks its word not to raise."""

    async def admit(self, claim: Claim) -> Decision:
        """Raises."""
        raise ZeroDivisionError


def plugin_for(gate: Budget, tally: Tally, *, allow: bool = True, known: Collection[str] = ()) -> Plugin:
    return Plugin(
        gate,
        lambda handler: size_for(handler, {}, (), VM),
        tally,
        allow_undecided=lambda: allow,
        is_admitted=known.__contains__,
    )


@asynccontextmanager
async def agent(path: Path, gate: Budget, *, allow: bool = True) -> AsyncIterator[tuple[Client, Tally]]:
    """Our side, running."""
    tally = Tally()
    client = Client(path, plugin_for(gate, tally, allow=allow))
    running = asyncio.create_task(client.run())
    try:
        yield client, tally
    finally:
        running.cancel()
        await asyncio.wait([running])


async def until(ready: Callable[[], bool], seconds: float = 40) -> None:
    async with asyncio.timeout(seconds):
        while not ready():
            await asyncio.sleep(0.005)


def test_we_register_as_the_last_plugin_and_ask_for_no_event_too_many(short_dir: Path) -> None:
    async def run() -> None:
        for version, mask in (("v0.12.3", 0xE8F), ("0.6.1", 0x68F)):
            async with (
                Runtime(short_dir / "s", nri_version=version) as runtime,
                agent(short_dir / "s", Budget(0)) as (client, _),
            ):
                await runtime.taken.wait()
                assert runtime.plugin is not None
                registration = runtime.plugin.registration
                assert (registration.plugin_name, registration.plugin_idx) == ("kata-node-agent", "99")
                assert runtime.plugin.events == mask
                assert client.status.state is State.SYNCHRONIZED
                assert client.plugin.runtime is not None
                assert client.plugin.runtime.request_timeout_seconds == 2.0

    asyncio.run(run())


def test_a_pod_that_fits_is_admitted_and_one_that_does_not_is_refused_with_the_reason(
    short_dir: Path,
) -> None:
    async def run() -> None:
        gate = Budget(5 * GIB)
        async with Runtime(short_dir / "s") as runtime, agent(short_dir / "s", gate) as (_, tally):
            await runtime.taken.wait()
            await runtime.run(pod(1, 2 * GIB))
            with pytest.raises(NriError) as refused:
                await runtime.run(pod(2, 2 * GIB))
            assert str(refused.value) == (
                "RunPodSandbox: kata-node-agent refuses: the VM of default/pod2 needs 3072Mi; 2048Mi free of the budget; "
                "end other pods (code 8)"
            )
            assert gate.committed_bytes == 3 * GIB
            await runtime.end(pod(2, 2 * GIB))
            await runtime.end(pod(1, 2 * GIB))
            assert gate.committed_bytes == 0
            await runtime.run(pod(2, 2 * GIB))
            assert tally.decisions == {("admit", "allowed"): 2, ("admit", "refused"): 1}

    asyncio.run(run())


def test_pods_of_other_handlers_are_answered_without_asking_the_account(short_dir: Path) -> None:
    async def run() -> None:
        gate = Budget(0)
        async with Runtime(short_dir / "s") as runtime, agent(short_dir / "s", gate):
            await runtime.taken.wait()
            for handler in ("", "runc"):
                other = pod(1, GIB, handler)
                await runtime.run(other)
                await runtime.create(other, container(other, "main", GIB))
                await runtime.end(other)
            assert gate.asked == [("synchronize", "")]

    asyncio.run(run())


def test_a_container_that_was_not_forecast_is_decided_and_tried_again_later(short_dir: Path) -> None:
    async def run() -> None:
        gate = Budget(4 * GIB)
        async with Runtime(short_dir / "s") as runtime, agent(short_dir / "s", gate):
            await runtime.taken.wait()
            one, two = pod(1), pod(2)
            await runtime.run(one)
            await runtime.run(two)
            await runtime.create(one, container(one, "main", 2 * GIB))
            with pytest.raises(NriError, match="refuses: the VM of default/pod2"):
                await runtime.create(two, container(two, "main", GIB))
            # As containerd does after a refusal.
            message = nri_pb2.ContainerRequest(pod=two, container=container(two, "main", GIB))
            await runtime.call("StopContainer", message)
            await runtime.call("RemoveContainer", message)
            await runtime.end(one)
            await runtime.create(two, container(two, "main", GIB))
            assert gate.committed_bytes == 2 * GIB

    asyncio.run(run())


def test_resizes_are_decided_and_what_is_smaller_passes(short_dir: Path) -> None:
    async def run() -> None:
        gate = Budget(3 * GIB)
        async with Runtime(short_dir / "s") as runtime, agent(short_dir / "s", gate):
            await runtime.taken.wait()
            one = pod(1, GIB)
            main = container(one, "main", GIB)
            await runtime.run(one)
            await runtime.create(one, main)

            async def resize(limit: int) -> None:
                message = nri_pb2.UpdateContainerRequest(pod=one, container=main)
                message.linux_resources.memory.limit.value = limit
                await runtime.call("UpdateContainer", message)

            with pytest.raises(NriError, match="default/pod1"):
                await resize(3 * GIB)
            await resize(2 * GIB)
            assert gate.committed_bytes == 3 * GIB
            await resize(GIB)
            whole = nri_pb2.UpdatePodSandboxRequest(pod=one)
            whole.linux_resources.memory.limit.value = 3 * GIB
            with pytest.raises(NriError, match="default/pod1"):
                await runtime.call("UpdatePodSandbox", whole)

    asyncio.run(run())


def test_ends_are_never_an_error_whatever_they_are_of(short_dir: Path) -> None:
    async def run() -> None:
        async with Runtime(short_dir / "s") as runtime, agent(short_dir / "s", Budget(GIB)):
            await runtime.taken.wait()
            one = pod(1)
            for method in ("StopPodSandbox", "RemovePodSandbox"):
                for message in (nri_pb2.PodRequest(pod=one), nri_pb2.PodRequest()):
                    await runtime.call(method, message)
            for method in ("StopContainer", "RemoveContainer"):
                await runtime.call(method, nri_pb2.ContainerRequest(pod=one, container=container(one)))
                await runtime.call(method, nri_pb2.ContainerRequest())

    asyncio.run(run())


def test_a_container_that_exits_is_known_without_its_pod_as_crio_tells_it(short_dir: Path) -> None:
    async def run() -> None:
        gate = Budget(3 * GIB)
        async with Runtime(short_dir / "s") as runtime, agent(short_dir / "s", gate):
            await runtime.taken.wait()
            one = pod(1)
            await runtime.run(one)
            await runtime.create(one, container(one, "init", 2 * GIB))
            await runtime.call(
                "StopContainer", nri_pb2.ContainerRequest(container=container(one, "init", 2 * GIB))
            )
            await runtime.create(one, container(one, "main", 2 * GIB))
            assert gate.committed_bytes == 3 * GIB

    asyncio.run(run())


def test_older_runtimes_are_answered_by_state_change(short_dir: Path) -> None:
    async def run() -> None:
        gate = Budget(GIB)
        async with (
            Runtime(short_dir / "s", nri_version="v0.8.0") as runtime,
            agent(short_dir / "s", gate),
        ):
            await runtime.taken.wait()
            for number in (1, 2):
                event = nri_pb2.StateChangeEvent(event=1, pod=pod(number))
                if number == 1:
                    await runtime.call("StateChange", event)
                    continue
                with pytest.raises(NriError, match="default/pod2"):
                    await runtime.call("StateChange", event)
            for event_number in (2, 3):
                await runtime.call("StateChange", nri_pb2.StateChangeEvent(event=event_number, pod=pod(1)))
            assert gate.committed_bytes == 0
            # What we did not ask for, and what nobody knows.
            for event_number in (5, 8, 12, 99, -1):
                await runtime.call("StateChange", nri_pb2.StateChangeEvent(event=event_number, pod=pod(1)))

    asyncio.run(run())


def test_a_method_that_we_do_not_have_is_answered_as_such(short_dir: Path) -> None:
    async def run() -> None:
        async with Runtime(short_dir / "s") as runtime, agent(short_dir / "s", Budget(0)):
            await runtime.taken.wait()
            with pytest.raises(NriError, match="code 12"):
                await runtime.call("ValidateContainerAdjustment", nri_pb2.Empty())

    asyncio.run(run())


def test_all_that_the_runtime_has_is_taken_from_several_messages(short_dir: Path) -> None:
    pods = [pod(number, GIB, "runc" if number % 2 else "kata") for number in range(50)]
    running = [container(pods[4], "main", 3 * GIB)]
    stopped = [container(pods[6], "main", 3 * GIB)]
    stopped[0].state = 4

    async def run() -> None:
        gate = Budget(GIB)
        async with (
            Runtime(
                short_dir / "s", pods=pods, containers=[*running, *stopped], pods_per_message=7
            ) as runtime,
            agent(short_dir / "s", gate) as (client, _),
        ):
            await runtime.taken.wait()
            assert {claim.sandbox: claim.vm_bytes // GIB for claim in gate.listed} == {
                f"sandbox{n}": 4 if n == 4 else 2 for n in range(0, 50, 2)
            }
            assert client.plugin.pods == 25

    asyncio.run(run())


def test_a_restarted_runtime_is_followed_at_once_and_what_went_past_us_is_counted(short_dir: Path) -> None:
    async def run() -> None:
        gate = Budget(100 * GIB)
        async with agent(short_dir / "s", gate) as (client, tally):
            await until(lambda: client.status.state is State.ABSENT)
            async with Runtime(short_dir / "s") as runtime:
                await runtime.taken.wait()
                await runtime.run(pod(1))
            await until(lambda: client.status.state is not State.SYNCHRONIZED)
            begun = time.monotonic()
            async with Runtime(short_dir / "s", pods=[pod(1), pod(2), pod(3, handler="runc")]) as runtime:
                await runtime.taken.wait()
                assert time.monotonic() - begun < 5
                assert client.status.synchronizations == 2
                assert (tally.unseen, tally.let_through) == (1, 1)

    asyncio.run(run())


def test_a_runtime_that_hangs_up_is_called_again(short_dir: Path) -> None:
    async def run() -> None:
        async with (
            Runtime(short_dir / "s") as runtime,
            agent(short_dir / "s", Budget(0)) as (client, _),
        ):
            for times in range(1, 6):
                await until(lambda times=times: runtime.times == times)  # type: ignore[misc]
                await until(lambda: client.status.state is State.SYNCHRONIZED)
                runtime.drop()
                await until(lambda: runtime.plugin is None)
            assert client.status.synchronizations == 5

    asyncio.run(run())


@pytest.mark.parametrize("allow", [True, False])
def test_an_account_that_takes_too_long_is_not_waited_for(short_dir: Path, allow: bool) -> None:
    async def run() -> None:
        gate = Slow(10 * GIB)
        async with (
            Runtime(short_dir / "s") as runtime,
            agent(short_dir / "s", gate, allow=allow) as (_, tally),
        ):
            await runtime.taken.wait()
            begun = time.monotonic()
            if allow:
                await runtime.run(pod(1))
            else:
                with pytest.raises(NriError, match="not decided in time"):
                    await runtime.run(pod(1))
            # A quarter of what the runtime waits.
            assert time.monotonic() - begun < 1.5
            assert tally.decisions == {("admit", f"undecided_{'allowed' if allow else 'refused'}"): 1}
            assert tally.let_through == int(allow)
            # It hears the question to its end, and the end of the pod as well.
            gate.go.set()
            await until(lambda: gate.committed_bytes == GIB)
            await runtime.end(pod(1))
            assert gate.committed_bytes == 0

    asyncio.run(run())


def test_a_stuck_account_delays_no_pod_of_others_and_is_not_asked_without_end(short_dir: Path) -> None:
    async def run() -> None:
        gate = Slow(10 * GIB)
        async with (
            Runtime(short_dir / "s", request_timeout_seconds=0.4) as runtime,
            agent(short_dir / "s", gate) as (_, tally),
        ):
            await runtime.taken.wait()
            for number in range(20):
                await runtime.run(pod(number))
            begun = time.monotonic()
            await runtime.run(pod(99, handler="runc"))
            assert time.monotonic() - begun < 0.4
            assert tally.decisions["admit", "undecided_allowed"] == 20
            gate.go.set()
            await until(lambda: len(gate.claims) == 10)
            assert sum(question == "admit" for question, _ in gate.asked) == 16

    asyncio.run(run())


def test_a_fault_of_the_account_is_no_decision(short_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with (
            Runtime(short_dir / "s") as runtime,
            agent(short_dir / "s", Broken(GIB), allow=False) as (client, tally),
        ):
            await runtime.taken.wait()
            with pytest.raises(NriError, match="not decided"):
                await runtime.run(pod(1))
            assert tally.decisions == {("admit", "undecided_refused"): 1}
            assert client.status.state is State.SYNCHRONIZED

    asyncio.run(run())
    assert "the account failed" in caplog.text


def test_an_agent_that_was_kept_from_answering_still_decides(short_dir: Path) -> None:
    async def run() -> None:
        gate, tally = Budget(0), Tally()
        plugin = plugin_for(gate, tally)
        payload = nri_pb2.PodRequest(pod=pod(1)).SerializeToString()
        arrived = time.monotonic() - 1.9
        with pytest.raises(StatusError, match="refuses"):
            await plugin.serve(Call(SERVICE, "RunPodSandbox", payload, arrived, arrived + 2))
        assert tally.decisions == {("admit", "refused"): 1}
        await plugin.close()

    asyncio.run(run())


def test_a_runtime_that_hangs_up_before_the_answer_is_counted(short_dir: Path) -> None:
    async def run() -> None:
        gate = Slow(10 * GIB)
        async with (
            Runtime(short_dir / "s", request_timeout_seconds=20) as runtime,
            agent(short_dir / "s", gate) as (_, tally),
        ):
            await runtime.taken.wait()
            asking = asyncio.create_task(runtime.run(pod(1)))
            await asyncio.sleep(0.05)
            runtime.drop()
            with pytest.raises(NriError):
                await asking
            await until(lambda: tally.unanswered == 1)
            gate.go.set()
            # The account hears it to its end; what the runtime lists next says what became of it.
            await until(lambda: ("admit", "sandbox1") in gate.asked)

    asyncio.run(run())


def test_a_message_that_cannot_be_decoded_ends_the_conversation_and_the_next_begins(short_dir: Path) -> None:
    async def run() -> None:
        async with (
            Runtime(short_dir / "s") as runtime,
            agent(short_dir / "s", Budget(0)) as (client, _),
        ):
            await runtime.taken.wait()
            assert runtime.plugin is not None
            with pytest.raises(NriError):
                await runtime.plugin.connection.call(
                    "nri.pkg.api.v1alpha1.Plugin", "RunPodSandbox", b"\xff", timeout_seconds=30
                )
            await until(lambda: client.status.synchronizations == 2)

    asyncio.run(run())


def test_a_runtime_that_takes_us_not_in_is_told_as_such(short_dir: Path) -> None:
    async def run() -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(18)
            writer.close()

        server = await asyncio.start_unix_server(accept, short_dir / "s")
        async with agent(short_dir / "s", Budget(0)) as (client, _):
            await until(lambda: bool(client.status.last_error))
            assert "hung up" in client.status.last_error
            assert client.status.state is State.CONNECTING
        server.close()

    asyncio.run(run())


def test_a_thousand_steps_never_take_more_than_the_budget_and_leave_nothing(short_dir: Path) -> None:
    """The figure of the design: no pod is admitted over budget."""
    chance = random.Random(8)

    async def run() -> None:
        gate = Budget(30 * GIB)
        alive: dict[int, nri_pb2.PodSandbox] = {}
        refused = 0
        async with Runtime(short_dir / "s") as runtime, agent(short_dir / "s", gate):
            await runtime.taken.wait()
            for number in range(1000):
                if alive and chance.random() < 0.45:
                    await runtime.end(alive.pop(chance.choice(list(alive))))
                else:
                    told = chance.choice([0, GIB, 2 * GIB])
                    new = pod(number, told)
                    try:
                        await runtime.run(new)
                        alive[number] = new
                        await runtime.create(new, container(new, "main", chance.choice([0, GIB, 3 * GIB])))
                    except NriError:
                        refused += 1
                        if number not in alive:
                            await runtime.end(new)
                assert gate.committed_bytes <= gate.budget_bytes
                assert set(gate.claims) == {f"sandbox{number}" for number in alive}
            for new in alive.values():
                await runtime.end(new)
            assert refused > 50
            assert not gate.claims

    asyncio.run(run())
