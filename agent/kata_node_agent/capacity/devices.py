"""Which devices kubelet is to see, and which of them are healthy.

A device is a place for one VM. All places that the node's size allows are listed. Healthy are as many as are in use, which is
what is allocated and what runs, a device and the VM of its pod counted once, and as many more as fit in what is free. Those
in use are always healthy: kubelet kills running pods when the number falls below what is in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection

ID_PREFIX = "kata-"
_ID_DIGITS = 6


def device_id(index: int) -> str:
    """The id of the place number ``index`` (from 0)."""
    return f"{ID_PREFIX}{index:0{_ID_DIGITS}d}"


def device_index(name: str) -> int | None:
    """The number in a device id of ours; ``None`` for any other text."""
    digits = name.removeprefix(ID_PREFIX)
    if digits == name or not (digits.isascii() and digits.isdigit()) or len(digits) > 9:
        return None
    index = int(digits)
    return index if device_id(index) == name else None


@dataclass(frozen=True, slots=True)
class Limit:
    """What keeps the number of free places from being higher: a stable name, and one line for people."""

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """The list for kubelet.

    Attributes:
        total: how many places the node's size allows; ids 0 … total−1 are listed.
        in_use: indices that pods hold; listed and healthy even beyond ``total``.
        free: how many places beyond those in use are healthy.
        limit: why not more.
        without_device: VMs of pods that hold no device: they are in use too, and any place may stand for them.
    """

    total: int
    in_use: frozenset[int]
    free: int
    limit: Limit
    without_device: int = 0

    @property
    def used(self) -> int:
        """How many places are in use, with or without a device."""
        return len(self.in_use) + self.without_device

    @property
    def healthy_indices(self) -> list[int]:
        """Those that pods hold and the lowest others, ascending."""
        others = (index for index in range(self.total) if index not in self.in_use)
        more = range(self.without_device + self.free)
        return sorted([*self.in_use, *(index for index, _ in zip(others, more, strict=False))])

    @property
    def indices(self) -> list[int]:
        """All listed places, ascending."""
        return sorted({*range(self.total), *self.in_use})


def plan_devices(
    *,
    by_size: int,
    fits: int,
    limit: Limit,
    max_slots: int,
    in_use: Collection[int],
    without_device: int = 0,
    blocked: Limit | None = None,
) -> DevicePlan:
    """The devices of a node.

    Args:
        by_size: how many VMs the node's size allows, whatever uses it now.
        fits: how many more fit in what is free.
        limit: what limits ``fits``.
        max_slots: upper bound from the configuration.
        in_use: indices that pods hold.
        without_device: VMs of pods that hold none.
        blocked: why no further VM may start at all (not eligible, draining …); ``None`` when it may.
    """
    used = len(in_use) + without_device
    free = 0 if blocked is not None else max(0, min(fits, max_slots - used))
    if blocked is not None:
        limit = blocked
    elif free < fits:
        limit = Limit(
            "max_slots", f"device_plugin.max_slots is {max_slots}; memory would allow {used + fits}"
        )
    return DevicePlan(
        total=max(min(by_size, max_slots), used + free),
        in_use=frozenset(in_use),
        free=free,
        limit=limit,
        without_device=without_device,
    )
