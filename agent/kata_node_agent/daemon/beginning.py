"""The first looks, in the order in which kubelet needs them.

Its first list must not call a device unhealthy that a pod holds, or kubelet kills the pod: for the node and for kubelet's own
word registration waits, though not for ever. Which VMs run takes a tenth of a second for each 2,000 processes, and more
where many of them are VMs. Until that and the memory are known no free place is shown, so for these it waits for a moment
only: most nodes show their whole list at once, and a large one is registered no later.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from kata_node_agent.daemon.account import INTERVAL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kata_node_agent.daemon.account import AccountKeeper
    from kata_node_agent.daemon.alive import NodeWatch
    from kata_node_agent.daemon.pods import PodWatch
    from kata_node_agent.daemon.slots import Slots

# Kubelet kills running pods whose plugin is about 1.3 s late.
_PATIENCE_SECONDS = 1.0
_MOMENT_SECONDS = 0.05
# Then the account looks by itself.
_REST_SECONDS = INTERVAL_SECONDS


class Beginning:
    """Owns the looks that are not over when kubelet is told of us."""

    def __init__(self, node: NodeWatch, pods: PodWatch, account: AccountKeeper, slots: Slots) -> None:
        self._node = node
        self._pods = pods
        self._account = account
        self._slots = slots
        self._rest: asyncio.Task[None] | None = None

    async def look(self, stop: asyncio.Event) -> None:
        """Begins all looks; returns when kubelet may be told, or when the agent is to stop."""
        known = asyncio.create_task(self._look_at_node())
        self._rest = asyncio.create_task(self._look_at_all(known))
        stopped = asyncio.create_task(stop.wait())
        await _first_of(known, stopped, seconds=_PATIENCE_SECONDS)
        await _first_of(self._rest, stopped, seconds=_MOMENT_SECONDS if known.done() else 0)
        stopped.cancel()
        if not known.done():
            self._node.look_soon()
        for task in (known, self._rest):
            if task.done():
                task.result()
        self._slots.replan()

    async def run(self) -> None:
        """Waits for the rest."""
        if self._rest is not None:
            await self._rest

    async def then(self, part: Callable[[], Awaitable[None]]) -> None:
        """Waits for the rest, and runs a part that cannot do without it."""
        await self.run()
        await part()

    async def _look_at_node(self) -> None:
        await asyncio.gather(self._node.look(), self._pods.ask(timeout_seconds=_PATIENCE_SECONDS / 2))
        self._slots.holdings_changed()

    async def _look_at_all(self, known: asyncio.Task[None]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REST_SECONDS):
                await asyncio.gather(known, self._account.sandboxes.look())
                # After the VMs: one that ends between the two would count twice.
                await self._account.first_look()


async def _first_of(one: asyncio.Task[Any], other: asyncio.Task[Any], *, seconds: float) -> None:
    await asyncio.wait([one, other], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
