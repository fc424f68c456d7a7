"""Memory that a node has and pods cannot have, explained: blocks that are offline, huge pages, memory for devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.capacity.usage import Finding
from kata_node_agent.dataclass import dataclass
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

# A part of the node's memory from which on it is worth a word.
_WORTH_SAYING = 0.01
# The kernel itself and its account of pages (64 bytes for each 4 KiB) take 2 to 4 % of any machine.
_MUCH_AT_BOOT = 0.06


@dataclass(frozen=True, slots=True)
class Oddities:
    """Amounts in bytes; 0 where there is none, or it is not known.

    Attributes:
        capacity_bytes: MemTotal.
        offline_blocks: how many blocks of memory are offline.
        offline_bytes: memory in them: plugged in, and used by nobody.
        block_bytes: memory in the blocks that are online; MemTotal is less by what was taken at boot.
        crash_kernel_bytes: taken at boot for the kernel that writes a dump.
        hugepages_bytes: set aside as huge pages of all sizes.
        hugepages_free_bytes: of the default size, not in use.
        hugepages_surplus_bytes: of these, made beyond the configured number; the kernel takes them back once they are free.
        cma_bytes: the contiguous memory allocator's area, of which devices may claim all.
        cma_free_bytes: free in it. MemAvailable counts it, though not every allocation may use it.
    """

    capacity_bytes: int
    offline_blocks: int = 0
    offline_bytes: int = 0
    hugepages_bytes: int = 0
    hugepages_free_bytes: int = 0
    hugepages_surplus_bytes: int = 0
    cma_bytes: int = 0
    cma_free_bytes: int = 0
    block_bytes: int = 0
    crash_kernel_bytes: int = 0


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
        if odd.hugepages_surplus_bytes:
            free += f", {format_bytes(odd.hugepages_surplus_bytes)} of it surplus, which goes back when it is free"
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
    taken = odd.block_bytes - odd.capacity_bytes
    if odd.block_bytes and (taken > _MUCH_AT_BOOT * odd.block_bytes or odd.crash_kernel_bytes > least):
        crash = (
            f", {format_bytes(odd.crash_kernel_bytes)} of it for a crash kernel"
            if odd.crash_kernel_bytes
            else ""
        )
        gone = format_bytes(max(taken, odd.crash_kernel_bytes))
        text = (
            f"{format_bytes(odd.block_bytes)} of memory is online, and capacity (MemTotal) is "
            f"{format_bytes(odd.capacity_bytes)}: {gone} was taken at boot{crash}"
        )
        remedy = "see crashkernel= and memmap= on the kernel's command line (/proc/cmdline)"
        yield Finding("MemoryTakenAtBoot", text, remedy)
