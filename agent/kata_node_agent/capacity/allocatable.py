"""Allocatable memory, as kubelet computes it.

Source: Kubernetes documentation, "Reserve Compute Resources for System Daemons":
allocatable = capacity − systemReserved − kubeReserved − hard eviction threshold, never below 0; kubelet also takes
all preallocated hugepages off memory.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from kata_node_agent.quantity import parse_bytes


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


def eviction_threshold_bytes(threshold: str, capacity_bytes: int) -> int:
    """A hard eviction threshold in bytes.

    Args:
        threshold: a quantity, a percentage of capacity, or empty for none.
        capacity_bytes: the node's memory.

    Raises:
        QuantityError: neither a quantity nor a percentage.
    """
    if not threshold:
        return 0
    if threshold.endswith("%"):
        percent = parse_percentage(threshold)
        # Kubelet keeps the fraction as a float32: 10 % of 20Gi is 2147483680 bytes, not 2147483648.
        fraction: float = struct.unpack("f", struct.pack("f", percent / 100))[0]
        return int(capacity_bytes * fraction)
    return parse_bytes(threshold)


def parse_percentage(text: str) -> float:
    """``10%`` → 10.0.

    Raises:
        QuantityError: not a number from 0 to 100 before the sign.
    """
    from kata_node_agent.errors import QuantityError

    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise QuantityError(f"not a percentage: {text!r}", hint="write a number from 0% to 100%")
    return percent
