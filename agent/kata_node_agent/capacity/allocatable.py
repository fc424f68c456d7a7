"""Allocatable memory, CPU, ephemeral storage and pids, as kubelet computes them.

Source: Kubernetes documentation, "Reserve Compute Resources for System Daemons":
allocatable = capacity − systemReserved − kubeReserved − hard eviction threshold, never below 0; kubelet also takes
all preallocated hugepages off memory. Of the thresholds only memory.available and nodefs.available are taken off
(kubelet's pkg/kubelet/cm, hardEvictionReservation).
"""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import QuantityError
from kata_node_agent.quantity import parse, parse_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """A node's memory and what kubelet keeps from pods; all in bytes."""

    capacity_bytes: int
    system_reserved_bytes: int
    kube_reserved_bytes: int
    eviction_hard_bytes: int
    hugepages_bytes: int

    @property
    def allocatable_bytes(self) -> int:
        """What pods may request in all."""
        kept = (
            self.system_reserved_bytes
            + self.kube_reserved_bytes
            + self.eviction_hard_bytes
            + self.hugepages_bytes
        )
        return max(0, self.capacity_bytes - kept)


@dataclass(frozen=True, slots=True)
class Resources:
    """Amounts of what a node has; ``None`` where it is not known."""

    memory_bytes: int | None = None
    cpu_millicores: int | None = None
    ephemeral_storage_bytes: int | None = None
    pids: int | None = None


def allocatable(
    capacity: Resources,
    reservations: Iterable[Mapping[str, str]],
    eviction_hard: Mapping[str, str],
    hugepages_bytes: int = 0,
) -> Resources:
    """What pods may request in all; never below 0, and unknown where the capacity is.

    Args:
        capacity: what the node has.
        reservations: systemReserved and kubeReserved: resource (``cpu``, ``memory``, ``ephemeral-storage``, ``pid``) →
            quantity.
        eviction_hard: signal → quantity or percentage.
        hugepages_bytes: preallocated.

    Raises:
        QuantityError: an amount is none.
    """
    maps = tuple(reservations)

    def left(total: int | None, resource: str, others: int = 0, scale: int = 1) -> int | None:
        if total is None:
            return None
        # Kubelet adds exact quantities; what is left is rounded once, downwards.
        reserved = sum((parse(kept[resource]) for kept in maps if resource in kept), Fraction())
        return max(0, math.floor(total - others - reserved * scale))

    def threshold(signal: str, total: int | None) -> int:
        return eviction_threshold_bytes(eviction_hard.get(signal, ""), total or 0)

    memory = threshold("memory.available", capacity.memory_bytes)
    storage = threshold("nodefs.available", capacity.ephemeral_storage_bytes)
    return Resources(
        memory_bytes=left(capacity.memory_bytes, "memory", memory + hugepages_bytes),
        cpu_millicores=left(capacity.cpu_millicores, "cpu", scale=1000),
        ephemeral_storage_bytes=left(capacity.ephemeral_storage_bytes, "ephemeral-storage", storage),
        pids=left(capacity.pids, "pid"),
    )


def eviction_threshold_bytes(threshold: str, capacity_bytes: int) -> int:
    """A hard eviction threshold in bytes.

    Args:
        threshold: a quantity, a percentage of capacity, or empty for none. ``0%`` and ``100%`` are none too: kubelet
            ignores both.
        capacity_bytes: what the percentage is of.

    Raises:
        QuantityError: neither a quantity nor a percentage.
    """
    if threshold in {"", "0%", "100%"}:
        return 0
    if threshold.endswith("%"):
        percent = parse_percentage(threshold)
        # Kubelet keeps the fraction as a float32: 10 % of 20Gi is 2147483680 bytes, not 2147483648.
        return int(capacity_bytes * _float32(_float32(percent) / 100))
    return parse_bytes(threshold)


def _float32(number: float) -> float:
    rounded: float = struct.unpack("f", struct.pack("f", number))[0]
    return rounded


def parse_percentage(text: str) -> float:
    """``10%`` → 10.0.

    Raises:
        QuantityError: not a number from 0 to 100 before the sign.
    """
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise QuantityError(f"not a percentage: {text!r}", hint="write a number from 0% to 100%")
    return percent
