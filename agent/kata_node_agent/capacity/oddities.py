"""Memory that a node has and pods cannot have, explained: blocks that are offline, huge pages, memory for devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kata_node_agent.capacity.usage import Finding
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

# A part of the node's memory from which on it is worth a word.
_WORTH_SAYING = 0.01


@dataclass(frozen=True, slots=True)
class Oddities:
    """Amounts in bytes; 0 where there is none, or it is not known.

    Attributes:
        capacity_bytes: MemTotal.
        offline_blocks: how many blocks of memory are offline.
        offline_bytes: memory in them: plugged in, and used by nobody.
        hugepages_bytes: set aside as huge pages of all sizes.
        hugepages_free_bytes: of the default size, not in use.
        cma_bytes: the contiguous memory allocator's area, of which devices may claim all.
        cma_free_bytes: free in it. MemAvailable counts it, though not every allocation may use it.
    """

    capacity_bytes: int
    offline_blocks: int = 0
    offline_bytes: int = 0
    hugepages_bytes: int = 0
    hugepages_free_bytes: int = 0
    cma_bytes: int = 0
    cma_free_bytes: int = 0


def explain(odd: Oddities) -> Iterator[Finding]:
    """What is odd about a node's memory."""
    if odd.offline_blocks:
        text = (
            f"{odd.offline_blocks} memory blocks ({format_bytes(odd.offline_bytes)}) are offline: the machine has them, "
            "the kernel does not use them, and they are not in capacity"
        )
        remedy = "bring them online: echo online > /sys/devices/system/memory/memoryN/state; capacity follows at once"
        yield Finding("MemoryBlocksOffline", text, remedy)
    least = _WORTH_SAYING * odd.capacity_bytes
    if odd.hugepages_bytes > least:
        free = f", {format_bytes(odd.hugepages_free_bytes)} of it free" if odd.hugepages_free_bytes else ""
        text = (
            f"{format_bytes(odd.hugepages_bytes)} is set aside as huge pages{free}: kubelet takes it off allocatable memory, "
            "and only VMs and pods that ask for huge pages can have it"
        )
        yield Finding("HugepagesSetAside", text)
    if odd.cma_bytes > least:
        text = (
            f"{format_bytes(odd.cma_bytes)} is the area of the contiguous memory allocator (CMA), "
            f"{format_bytes(odd.cma_free_bytes)} of it free: MemAvailable counts that, though not everything may be put there"
        )
        yield Finding("CmaArea", text)
