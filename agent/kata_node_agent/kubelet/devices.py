"""The device list in force: the plan, which ids pods hold, and who waits for the next change."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from kata_node_agent.capacity.devices import DevicePlan, Limit, device_id, device_index
from kata_node_agent.dataclass import dataclass
from kata_node_agent.pb import deviceplugin_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

log = logging.getLogger(__name__)

HEALTHY = "Healthy"
UNHEALTHY = "Unhealthy"

# A device that kubelet no longer names may belong to a pod that it does not name yet: a pod between Allocate and its
# admission, or any pod while kubelet starts and answers emptily. So a device is given back only after two answers
# without it, and not before this much time has gone since it was allocated or since kubelet took us in.
RELEASE_GRACE_SECONDS = 60.0


@dataclass(slots=True)
class _Holding:
    """A device that a pod holds, as far as we know."""

    since: float
    pod: str = ""
    missed: int = 0


class Holdings:
    """Which devices pods hold: told by Allocate, corrected by the pod resources API. Times are `time.monotonic`."""

    def __init__(self) -> None:
        self._held: dict[int, _Holding] = {}

    @property
    def indices(self) -> frozenset[int]:
        """The devices that count as in use."""
        return frozenset(self._held)

    def among(self, indices: Collection[int]) -> list[int]:
        """Those of these that count as in use."""
        return [index for index in indices if index in self._held]

    def allocated(self, indices: Collection[int], now: float) -> None:
        """Kubelet allocated these just now."""
        for index in indices:
            self._held[index] = _Holding(now)

    def restore(self, index: int, since: float, pod: str) -> None:
        """An agent before us was told this."""
        self._held[index] = _Holding(since, pod)

    @property
    def pods(self) -> dict[int, str]:
        """Device → ``namespace/name`` of its pod, empty while kubelet has not said it."""
        return {index: holding.pod for index, holding in self._held.items()}

    def reconcile(self, named: Mapping[int, str], now: float, connected_since: float) -> bool:
        """Takes one answer of the pod resources API; returns whether what is in use, or by whom, changed.

        Args:
            named: the devices that the answer names, each with its pod.
            now: when the answer came.
            connected_since: when the present kubelet took us in.
        """
        before = self.pods
        for index, pod in named.items():
            holding = self._held.setdefault(index, _Holding(now))
            holding.missed, holding.pod = 0, pod
        for index, holding in list(self._held.items()):
            if index in named:
                continue
            holding.missed += 1
            settled = now - max(holding.since, connected_since) >= RELEASE_GRACE_SECONDS
            if holding.missed > 1 and settled:
                del self._held[index]
        return self.pods != before


class DeviceTable:
    """What ListAndWatch sends and Allocate decides on. Owned by the event loop: no locks."""

    def __init__(self) -> None:
        self.plan = DevicePlan(
            total=0, in_use=frozenset(), free=0, limit=Limit("starting", "the node is being checked")
        )
        self.healthy: frozenset[int] = frozenset()
        self.listed: frozenset[int] = frozenset()
        self.generation = 0
        self._changed = asyncio.Event()
        self._message: pb.ListAndWatchResponse | None = None

    def update(self, plan: DevicePlan) -> bool:
        """Puts a plan in force; returns whether kubelet is to see a change."""
        healthy, listed = frozenset(plan.healthy_indices), frozenset(plan.indices)
        changed = (healthy, listed) != (self.healthy, self.listed)
        self.plan = plan
        if changed:
            self.healthy, self.listed = healthy, listed
            self._message = None
            self.wake()
        return changed

    def wake(self) -> None:
        """Makes every waiter look again."""
        self.generation += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_beyond(self, generation: int) -> int:
        """Waits until the list is newer than ``generation``; returns its generation."""
        while self.generation == generation:
            await self._changed.wait()
        return self.generation

    def message(self) -> pb.ListAndWatchResponse:
        """The whole list, in the order of the ids. Made once for each change: 100,000 take a quarter of a second."""
        if self._message is None:
            self._message = self._make_message()
        return self._message

    def _make_message(self) -> pb.ListAndWatchResponse:
        return pb.ListAndWatchResponse(
            devices=[
                pb.Device(ID=device_id(index), health=HEALTHY if index in self.healthy else UNHEALTHY)
                for index in sorted(self.listed)
            ]
        )


def indices_of(ids: Collection[str]) -> set[int]:
    """The numbers in those ids that are ours."""
    return {index for name in ids if (index := device_index(name)) is not None}
