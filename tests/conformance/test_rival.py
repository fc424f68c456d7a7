"""Another plugin takes our resource from the real kubelet, and leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.errors import HostError
from kata_node_agent.kubelet.podresources import allocatable_devices
from tests.conformance.support import RESOURCE, wait_until
from tests.devkubelet.support import TinyPlugin

if TYPE_CHECKING:
    from tests.conformance.support import RealNode

pytestmark = [pytest.mark.kubelet, pytest.mark.containerd]

THEIRS = frozenset({"rival-0", "rival-1", "rival-2"})
# The agent asks every 15 s; then it waits a little longer each time.
TAKEN_BACK_SECONDS = 40.0


async def allocatable(node: RealNode) -> frozenset[str]:
    """What kubelet would allocate; nothing while it does not say."""
    socket = Path(node.folder) / "root/pod-resources/kubelet.sock"
    try:
        return await allocatable_devices(socket, RESOURCE)
    except HostError:
        return frozenset()


async def until_allocatable(node: RealNode, ids: frozenset[str], seconds: float = 10.0) -> None:
    """Waits until kubelet would allocate exactly these."""
    shown: frozenset[str] = frozenset()
    try:
        async with asyncio.timeout(seconds):
            while (shown := await allocatable(node)) != ids:
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"kubelet shows {sorted(shown)[:5]}, not {sorted(ids)[:5]}") from None


def rival(node: RealNode) -> TinyPlugin:
    """A plugin of somebody else's for our resource."""
    return TinyPlugin(node.plugins, "rival.sock", device_ids=tuple(sorted(THEIRS)))


@pytest.fixture(scope="module")
def ours(node: RealNode) -> frozenset[str]:
    """What kubelet shows of us while all is well."""
    wait_until(lambda: len(asyncio.run(allocatable(node))) > 2, "kubelet has our list")
    return asyncio.run(allocatable(node))


def test_our_devices_are_back_while_the_rival_is_there_and_stay_when_it_leaves(
    node: RealNode, ours: frozenset[str]
) -> None:
    node.add_pod("bystander")
    wait_until(lambda: node.running("bystander"), "the pod runs")
    container = node.running("bystander")

    async def main() -> None:
        async with rival(node):
            await until_allocatable(node, THEIRS)
            assert node.status()["kubelet"]["stream_open"], "nobody tells us"
            await until_allocatable(node, ours, TAKEN_BACK_SECONDS)
        await until_allocatable(node, ours, TAKEN_BACK_SECONDS)

    asyncio.run(main())
    wait_until(node.registered, "registered again")
    assert any("another plugin" in change["message"] for change in node.status()["history"])
    assert node.running("bystander") == container
    node.add_pod("after-the-rival")
    wait_until(lambda: node.running("after-the-rival"), "a new pod gets one of our devices")
    node.remove_pod("after-the-rival")


def test_our_devices_are_back_when_the_rival_leaves_before_it_is_seen(
    node: RealNode, ours: frozenset[str]
) -> None:
    container = node.running("bystander")

    async def main() -> None:
        async with rival(node):
            await until_allocatable(node, THEIRS)
        await asyncio.sleep(0.5)
        # Kubelet goes on to show what nobody can give.
        assert await allocatable(node) in (THEIRS, frozenset())
        await until_allocatable(node, ours, TAKEN_BACK_SECONDS + 60)

    asyncio.run(main())
    assert node.running("bystander") == container
    assert node.pods()["bystander"]["containerStatuses"][0]["restartCount"] == 0
    node.remove_pod("bystander")
    wait_until(lambda: "bystander" not in node.pods(), "the pod is gone")
