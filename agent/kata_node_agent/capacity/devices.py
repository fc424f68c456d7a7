"""Which devices kubelet is to see, and which of them are healthy.

A device is a place for one VM. All places that the node's size allows are listed; free ones are healthy as far as a VM
would fit; those in use are always healthy: kubelet kills running pods when the number falls below what is in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kata_node_agent.quantity import format_bytes

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
    """

    total: int
    in_use: frozenset[int]
    free: int
    limit: Limit

    @property
    def healthy_indices(self) -> list[int]:
        """Those in use and the ``free`` lowest others, ascending."""
        others = (index for index in range(self.total) if index not in self.in_use)
        return sorted([*self.in_use, *(index for index, _ in zip(others, range(self.free), strict=False))])

    @property
    def indices(self) -> list[int]:
        """All listed places, ascending."""
        return sorted({*range(self.total), *self.in_use})


def plan_devices(
    *,
    allocatable_bytes: int,
    cost_of_one_bytes: int,
    max_slots: int,
    in_use: Collection[int],
    blocked: Limit | None,
) -> DevicePlan:
    """The devices of a node.

    Args:
        allocatable_bytes: see `capacity.allocatable`.
        cost_of_one_bytes: what one VM takes; above 0.
        max_slots: upper bound from the configuration.
        in_use: indices that pods hold.
        blocked: why no further VM may start at all (not eligible, draining …); ``None`` when it may.
    """
    by_memory = allocatable_bytes // cost_of_one_bytes
    total = min(by_memory, max_slots)
    if blocked is not None:
        limit, free = blocked, 0
    else:
        free = max(0, total - len(in_use))
        if by_memory > max_slots:
            limit = Limit(
                "max_slots", f"device_plugin.max_slots is {max_slots}; memory would allow {by_memory}"
            )
        else:
            memory, cost = format_bytes(allocatable_bytes), format_bytes(cost_of_one_bytes)
            limit = Limit("allocatable_memory", f"allocatable memory {memory} / {cost} a VM = {by_memory}")
    return DevicePlan(total=total, in_use=frozenset(in_use), free=free, limit=limit)
