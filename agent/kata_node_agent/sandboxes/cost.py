"""What a sandbox costs, and why its control group says another number. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.sandboxes.guest_ram import MIB, shared_with
from kata_node_agent.sandboxes.model import Charge, Cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_node_agent.host.cgroup_reader import Group
    from kata_node_agent.host.process_files import ProcessMemory
    from kata_node_agent.sandboxes.guest_ram import GuestRam

# Charge and cost agree when they differ by less than a twentieth, or by what a busy moment moves between two reads.
_AGREE_SHARE = 20
_AGREE_BYTES = 4 * MIB


def cost_of(
    vmm: ProcessMemory,
    ram: GuestRam,
    virtiofsds: Sequence[ProcessMemory],
    shims: Sequence[ProcessMemory],
    *,
    in_shim: bool,
) -> Cost:
    """The cost of one sandbox, from the memory of its processes.

    The kernel divides each page among the processes that map it (PSS); over all processes of the sandbox the parts of a
    page add up to one. Huge pages (hugetlb) are in no resident set: they are taken from the VMM alone.

    Args:
        vmm: the process that runs the guest, from smaps.
        ram: the guest's memory among its mappings.
        virtiofsds: from smaps, as each maps the guest's memory too.
        shims: their sums.
        in_shim: the VMM is the shim itself.
    """
    seen_by_virtiofsd = sum(
        mapping.pss_bytes for memory in virtiofsds for mapping in shared_with(memory.mappings, ram.files)
    )
    rest = max(0, vmm.pss_bytes - ram.pss_bytes) + max(0, vmm.huge_bytes - ram.huge_bytes)
    shim = sum(memory.pss_bytes for memory in shims)
    everyone = (vmm, *virtiofsds, *shims)
    return Cost(
        guest_bytes=ram.pss_bytes + ram.huge_bytes + seen_by_virtiofsd,
        vmm_bytes=0 if in_shim else rest,
        virtiofsd_bytes=max(0, sum(memory.pss_bytes for memory in virtiofsds) - seen_by_virtiofsd),
        shim_bytes=shim + rest if in_shim else shim,
        page_table_bytes=sum(max(0, memory.page_table_bytes) for memory in everyone),
        guest_swapped_bytes=ram.swap_bytes,
        rss_sum_bytes=sum(memory.resident_bytes for memory in everyone),
        guest_huge_bytes=ram.huge_bytes,
    )


def charge_of(
    cost: Cost | None, group: Group, limit_bytes: int | None, others: Sequence[Group]
) -> Charge | None:
    """What control groups are charged beside what the sandbox costs; ``None`` where the kernel does not say.

    Args:
        cost: of the sandbox.
        group: that of its VMM.
        limit_bytes: the lowest limit from there up to the pod.
        others: groups of its other processes, where they differ.
    """
    if group.usage_bytes is None:
        return None
    # What is mapped from /dev/shm is cache of a file, too: guest RAM. It is in the cost.
    cache = None if group.file_bytes is None else max(0, group.file_bytes - (group.shmem_bytes or 0))
    elsewhere = sum(other.usage_bytes or 0 for other in others)
    total = group.usage_bytes + elsewhere
    return Charge(
        cgroup=group.path,
        bytes=group.usage_bytes,
        limit_bytes=limit_bytes,
        file_cache_bytes=cache,
        kernel_bytes=group.kernel_bytes,
        elsewhere=tuple(other.path for other in others),
        elsewhere_bytes=elsewhere,
        difference=_difference(cost, total, cache, group.kernel_bytes) if cost else "",
    )


def _difference(cost: Cost, charge: int, cache: int | None, kernel: int | None) -> str:
    # The controller of huge pages counts those; the memory controller does so only where it was mounted to.
    huge = cost.guest_huge_bytes
    if huge and charge >= cost.resident_bytes - huge // 2:
        huge = 0
    gap = charge - (cost.resident_bytes - huge)
    beside = f"{_mib(huge)} of the cost is in huge pages, which are not charged here" if huge else ""
    if abs(gap) <= max(_AGREE_BYTES, (cost.resident_bytes - huge) // _AGREE_SHARE):
        return beside
    than = f"than {'the rest of ' if huge else ''}the cost"
    if gap < 0:
        # Nobody moves a page's charge when a process moves; and a page that was there already stays with who brought it.
        words = f"{_mib(-gap)} less {than}: memory that was first touched in another group is charged there"
    else:
        parts = [
            f"{_mib(part)} {what}"
            for part, what in ((cache, "file cache"), (kernel, "kernel memory"))
            if part is not None and part >= MIB
        ]
        explained = sum(part for part in (cache, kernel) if part is not None)
        if gap - explained > max(_AGREE_BYTES, gap // _AGREE_SHARE):
            parts.append(f"{_mib(gap - explained)} that no process of the sandbox maps")
        words = f"{_mib(gap)} more {than}{': ' if parts else ''}{', '.join(parts)}"
    return f"{beside}; {words}" if beside else words


def _mib(size: int) -> str:
    return f"{size / MIB:.0f} MiB"
