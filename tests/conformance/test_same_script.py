"""One script of events against the real kubelet and the development kubelet: a plugin must see the same of both."""

from __future__ import annotations

import asyncio
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from kata_node_agent.errors import HostError
from kata_node_agent.kubelet.podresources import allocatable_devices, held_devices
from kata_node_agent.pb import deviceplugin_pb2 as pb
from tests.conformance.sides import DevSide, RealSide, RecordedPlugin
from tests.conformance.support import RESOURCE, RealNode
from tests.devkubelet.support import TinyPlugin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.conformance.sides import Side

pytestmark = [pytest.mark.kubelet, pytest.mark.containerd]

TOTAL = 4
THEIRS = ("rival-0", "rival-1", "rival-2")


@dataclass
class Story:
    """What a script has seen, step by step."""

    steps: list[tuple[str, Any]] = field(default_factory=list)

    def note(self, step: str, *seen: Any) -> None:
        """One step's outcome."""
        self.steps.append((step, seen))


async def shown(side: Side, ids: set[str]) -> list[str]:
    """Waits until kubelet would allocate exactly these; what it would at the end."""
    now: frozenset[str] = frozenset()
    try:
        async with asyncio.timeout(15):
            while True:
                try:
                    now = await allocatable_devices(side.pod_resources, RESOURCE)
                except HostError:
                    now = frozenset({"no answer"})
                if now == ids:
                    break
                await asyncio.sleep(0.05)
    except TimeoutError:
        pass
    return sorted(now)


async def freed(side: Side, count: int) -> list[int]:
    """Waits until pods hold so many devices; which."""
    async with asyncio.timeout(15):
        while len(held := await held_devices(side.pod_resources, RESOURCE)) != count:
            await asyncio.sleep(0.05)
    return sorted(held)


async def refused(plugin: TinyPlugin, **request: str) -> str:
    """What kubelet answers to a registration that it does not take."""
    try:
        await plugin.register(**request)
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}".replace(str(plugin.directory), "DIR").replace(
            "/var/lib/kubelet/device-plugins", "DIR"
        )
    return "taken"


def ids(*numbers: int) -> set[str]:
    """Ids of ours."""
    return {f"kata-{number:06d}" for number in numbers}


async def life_of_our_plugin(side: Side) -> Story:
    """Registration, pods, health, kubelet's end and return, a rival, our own end."""
    story = Story()
    plugin = RecordedPlugin(side.plugins, TOTAL)

    def note(step: str, *seen: Any) -> None:
        story.note(step, *seen, list(plugin.calls), plugin.registrar.status.registrations)
        plugin.calls.clear()

    everything = ids(0, 1, 2, 3)
    async with plugin.running():
        note("registered", await shown(side, everything))
        note("one", await side.admit("one", 1))
        note("two", await side.admit("two", 2))
        note("too many", await side.admit("many", 5))
        await side.delete("many")
        plugin.show(0)
        note("no room", await shown(side, ids(0, 1, 2)), await side.admit("late", 1))
        await side.delete("late")
        plugin.show(TOTAL)
        note("room again", await shown(side, everything))
        await side.delete("two")
        note("given back", await freed(side, 1), await side.admit("three", 1))
        await side.kill()
        async with asyncio.timeout(10):
            while plugin.registrar.stream_open:
                await asyncio.sleep(0.01)
        note("kubelet killed")
        await side.start()
        note("kubelet restarted", await shown(side, everything), await freed(side, 2))
        note("after it", await side.admit("four", 1))
        rival = TinyPlugin(side.plugins, "rival.sock", device_ids=THEIRS)
        async with rival:
            note("rival", await shown(side, set(THEIRS)), plugin.registrar.stream_open)
            note("asks the rival", await side.admit("five", 2), len(rival.allocated))
            await side.delete("five")
            await freed(side, 3)
        await asyncio.sleep(0.5)
        note("rival left", await shown(side, set(THEIRS)), plugin.registrar.stream_open)
        phase, reason, message = await side.admit("six", 1)
        # Any of the three devices.
        note(
            "asks us for the rival's",
            phase,
            reason,
            message.replace("rival-1", "rival-0").replace("rival-2", "rival-0"),
        )
        plugin.calls.clear()
        await side.delete("six")
        plugin.registrar.register_again("kubelet shows devices that are not ours")
        note("registered again", await shown(side, everything))
        note("all is well", await side.admit("seven", 1))
    note("we left", await shown(side, set()), await side.admit("eight", 1))
    await side.delete("eight")
    for name in ("one", "three", "four", "seven"):
        await side.running(name)
        await side.delete(name)
    return story


async def life_of_another_plugin(side: Side) -> Story:
    """What ours never does: wrong registrations, PreStartContainer, a list of the one that was taken over, its end."""
    story = Story()
    first = TinyPlugin(
        side.plugins,
        "a.sock",
        device_ids=("a0", "a1"),
        options=pb.DevicePluginOptions(pre_start_required=True),
    )
    await first.serve()
    story.note("version", await refused(first, version="v1beta2"))
    story.note("name", await refused(first, resource="slot"))
    story.note("foreign name", await refused(first, resource="node.kubernetes.io/slot"))
    story.note(
        "taken", await refused(first), await shown(side, {"a0", "a1"}), first.options_asked, first.streams
    )
    first.pre_start_refusals = 1
    outcome = await side.admit("starts", 1)
    await side.running("starts")
    story.note("pre-start", outcome[0], len(first.allocated), len(first.pre_started))
    async with TinyPlugin(side.plugins, "b.sock", device_ids=("b0", "b1", "b2")) as second:
        story.note("second", await shown(side, {"b0", "b1", "b2"}), first.streams, second.streams)
        await first.change(unhealthy=("a0",))
        story.note("the first speaks", await shown(side, {"a1"}))
        await second.change()
        story.note("the second speaks", await shown(side, {"b0", "b1", "b2"}))
        await first.stop()
        await asyncio.sleep(0.5)
        story.note("the first ends", await shown(side, {"b0", "b1", "b2"}), second.streams)
        outcome = await side.admit("later", 1)
        story.note("asked", outcome, len(second.allocated))
    story.note("the last ends", await shown(side, set()))
    for name in ("starts", "later"):
        await side.delete(name)
    return story


async def endpoint_registered_twice(side: Side) -> Story:
    """Why every listener of ours has a fresh name: kubelet never forgets one that was registered twice."""
    story = Story()
    first = TinyPlugin(side.plugins, "twice.sock", device_ids=("c0", "c1"))
    await first.serve()
    story.note("taken", await refused(first), await shown(side, {"c0", "c1"}))
    story.note("again", await refused(first), first.streams)
    await first.stop()
    await asyncio.sleep(0.5)
    story.note("its end is not noticed", await shown(side, {"c0", "c1"}))
    await first.serve()
    story.note("it cannot come back", await refused(first), first.streams)
    await first.stop()
    async with TinyPlugin(side.plugins, "fresh.sock", device_ids=("d0", "d1", "d2")) as second:
        story.note("under a fresh name it can", await shown(side, {"d0", "d1", "d2"}), second.streams)
    await asyncio.sleep(0.5)
    story.note("nor is that one's end", await shown(side, {"d0", "d1", "d2"}))
    return story


@pytest.fixture(scope="module")
def real() -> Iterator[RealNode]:
    programs = Path(os.environ["CONFORMANCE_BIN"])
    with tempfile.TemporaryDirectory(prefix="kna-") as folder, RealNode(Path(folder), programs) as node:
        yield node


@pytest.mark.parametrize("script", [life_of_our_plugin, life_of_another_plugin, endpoint_registered_twice])
def test_a_plugin_sees_the_same_of_both_kubelets(
    real: RealNode, short_dir: Path, script: Callable[[Side], Awaitable[Story]]
) -> None:
    async def run(side: Side) -> Story:
        await side.start()
        try:
            return await script(side)
        finally:
            await side.kill()

    theirs = asyncio.run(run(DevSide(short_dir)))
    reals = asyncio.run(run(RealSide(real)))
    assert [step for step, _ in theirs.steps] == [step for step, _ in reals.steps]
    for ours, real_one in zip(theirs.steps, reals.steps, strict=True):
        assert ours == real_one
