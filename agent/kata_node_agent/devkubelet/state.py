"""What kubelet's device manager knows: devices, their health, which pod holds which. No I/O, no clock.

Times are seconds of a monotonic clock that the caller hands in. Every rule here is the real device manager's,
its oddities included: a resource is one thing, however many plugins claim it; the last list is the whole truth.
"""

from __future__ import annotations

from dataclasses import field

from kata_node_agent.dataclass import dataclass
from kata_node_agent.devkubelet import texts
from kata_node_agent.devkubelet.texts import KubeletRefusalError


@dataclass(frozen=True)
class Device:
    """One device as a plugin reports it."""

    id: str
    healthy: bool


@dataclass(frozen=True)
class Holding:
    """Device ids that one container of one pod holds."""

    pod: str  # uid
    container: str
    resource: str
    device_ids: tuple[str, ...]


@dataclass(frozen=True)
class Container:
    """A container of a pod, and how many devices it asks for."""

    name: str
    count: int


@dataclass(frozen=True)
class Pod:
    """A pod that was given to kubelet."""

    namespace: str
    name: str
    uid: str
    resource: str
    containers: tuple[Container, ...]
    # Of the resource, as RuntimeClass overhead.podFixed asks for it; no device belongs to it.
    overhead: int = 0
    phase: str = "Running"  # "Pending", "Running", "Failed"
    reason: str = ""
    message: str = ""

    @property
    def full_name(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @property
    def requested(self) -> int:
        """What the pod asks for in all, as the scheduler counts."""
        return sum(container.count for container in self.containers) + self.overhead


@dataclass(frozen=True)
class Counts:
    """What the node would show of one resource."""

    capacity: int  # node status.capacity: known devices
    allocatable: int  # node status.allocatable: healthy devices
    in_use: int  # held by containers, healthy or not


@dataclass
class _Resource:
    healthy: set[str] = field(default_factory=set)
    unhealthy: set[str] = field(default_factory=set)
    # Whether a plugin has reported devices since kubelet's start, or the checkpoint names the resource.
    known: bool = False
    stopped_at: float | None = None


class DeviceManager:
    """Devices of every resource, and who holds them."""

    def __init__(self) -> None:
        self._resources: dict[str, _Resource] = {}
        self._holdings: dict[tuple[str, str, str], Holding] = {}

    @property
    def resources(self) -> list[str]:
        """Names of the resources that the node shows, sorted."""
        return sorted(name for name, entry in self._resources.items() if entry.known)

    @property
    def holdings(self) -> list[Holding]:
        """All holdings, in the order they came."""
        return list(self._holdings.values())

    def restore(self, resources: list[str], holdings: list[Holding], now: float) -> None:
        """Takes over what a checkpoint says: known resources, empty until their plugin is back."""
        for name in resources:
            self._resources[name] = _Resource(known=True, stopped_at=now)
        for holding in holdings:
            self.hold(holding)

    def connected(self, resource: str) -> None:
        """A plugin has registered; devices stay as they were until it reports."""
        self._resources.setdefault(resource, _Resource()).stopped_at = None

    def reported(self, resource: str, devices: list[Device]) -> Counts:
        """A plugin sent its list: the whole truth about the resource, whichever plugin it came from."""
        entry = self._resources.setdefault(resource, _Resource())
        entry.known = True
        entry.healthy = {device.id for device in devices if device.healthy}
        entry.unhealthy = {device.id for device in devices} - entry.healthy
        return self.counts(resource)

    def disconnected(self, resource: str, now: float) -> Counts:
        """A plugin's stream ended: every device of the resource is unhealthy from now on."""
        entry = self._resources.get(resource)
        if entry is not None:
            entry.unhealthy |= entry.healthy
            entry.healthy = set()
            entry.stopped_at = now
        return self.counts(resource)

    def expire(self, now: float, grace_seconds: float) -> list[str]:
        """Forgets resources whose plugin has been away for longer than the grace; gives their names."""
        gone = [
            name
            for name, entry in self._resources.items()
            if entry.stopped_at is not None and now - entry.stopped_at > grace_seconds
        ]
        for name in gone:
            del self._resources[name]
        return sorted(gone)

    def is_stopped(self, resource: str) -> bool:
        """Whether kubelet thinks that the resource's plugin has gone."""
        entry = self._resources.get(resource)
        return entry is None or entry.stopped_at is not None

    def counts(self, resource: str) -> Counts:
        """What the node shows; zeros for a resource that it does not know."""
        entry = self._resources.get(resource, _Resource())
        return Counts(
            len(entry.healthy) + len(entry.unhealthy), len(entry.healthy), len(self._held(resource))
        )

    def healthy(self, resource: str) -> list[str]:
        """Ids of the healthy devices, held or not, sorted."""
        return sorted(self._resources.get(resource, _Resource()).healthy)

    def available(self, resource: str, count: int) -> list[str]:
        """Ids of the free healthy devices, sorted.

        Raises:
            KubeletRefusalError: they are fewer than ``count``, with kubelet's text.
        """
        entry = self._resources.get(resource)
        if entry is None or not entry.known:
            raise KubeletRefusalError(texts.unregistered(resource))
        if not entry.healthy:
            raise KubeletRefusalError(texts.none_healthy(resource))
        free = sorted(entry.healthy - self._held(resource))
        if len(free) < count:
            raise KubeletRefusalError(texts.too_few(resource, count, len(free)))
        return free

    def hold(self, holding: Holding) -> None:
        """Records an allocation."""
        self._holdings[holding.pod, holding.container, holding.resource] = holding

    def release(self, pod: str) -> list[Holding]:
        """Forgets what a pod held; gives it."""
        keys = [key for key in self._holdings if key[0] == pod]
        return [self._holdings.pop(key) for key in keys]

    def held_by(self, pod: str, container: str = "") -> list[Holding]:
        """What a pod holds, or one container of it."""
        return [
            holding
            for (uid, name, _), holding in self._holdings.items()
            if uid == pod and container in {"", name}
        ]

    def _held(self, resource: str) -> set[str]:
        return {
            id_
            for holding in self._holdings.values()
            if holding.resource == resource
            for id_ in holding.device_ids
        }


def choose(available: list[str], preferred: list[str], count: int) -> tuple[str, ...]:
    """Picks ``count`` ids: those that the plugin prefers first, as far as they are free, then the lowest.

    The real kubelet takes the rest in no particular order.
    """
    free = set(available)
    wanted = list(dict.fromkeys(id_ for id_ in preferred if id_ in free))
    return tuple((wanted + [id_ for id_ in available if id_ not in set(wanted)])[:count])
