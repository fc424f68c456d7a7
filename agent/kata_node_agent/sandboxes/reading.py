"""Reads the memory of a sandbox's processes, as little of it as says the truth.

Smaps is dear by its length: a VMM has hundreds of mappings, most of them of libraries, and guest RAM is among the first. If
only guest RAM has moved, only the lines up to it are read again, and the rest stays as it was when all was read.
"""

from __future__ import annotations

import os
from operator import attrgetter
from typing import TYPE_CHECKING

from kata_node_agent.host.process_files import ProcessFiles, ProcessMemory, Source
from kata_node_agent.sandboxes.guest_ram import MIB, MIN_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection

    from kata_node_agent.host.process_files import Mapping, Stat

# A process has changed enough when its resident memory moved by a 64th of itself, at least by this.
_MOVED_BYTES = 2 * MIB
_MOVED_SHARE = 64
# Or when it had so many faults, of a page each: memory may have been given back and taken anew.
_FAULT_BYTES = os.sysconf("SC_PAGE_SIZE")
_FAULTS_BYTES = 8 * MIB


def has_changed(before: tuple[int, int], now: Stat) -> bool:
    """Whether a process' memory may be another one.

    Args:
        before: what was resident, in bytes, and how many faults there had been.
        now: of the same process.
    """
    resident, faults = before
    if _differ(resident, now.resident_bytes):
        return True
    return (now.faults - faults) * _FAULT_BYTES > max(_FAULTS_BYTES, resident // _MOVED_SHARE * 4)


class Readings:
    """The memory of the processes of one sandbox, as it was last read as a whole."""

    def __init__(self) -> None:
        self._whole: dict[int, tuple[Stat, ProcessMemory]] = {}

    def forget(self) -> None:
        """Reads all of it at the next time."""
        self._whole.clear()

    def keep(self, pids: Collection[int]) -> None:
        """Forgets all other processes."""
        self._whole = {pid: read for pid, read in self._whole.items() if pid in pids}

    def maps(
        self, files: ProcessFiles, stat: Stat, shared: Collection[tuple[int, int]]
    ) -> ProcessMemory | None:
        """A process that maps the guest's RAM; ``None`` where it has ended, or may not be read.

        Args:
            files: an open /proc.
            stat: of the process, read before.
            shared: device and inode of what is guest RAM among its mappings; empty where that is not known.
        """
        if (known := self._known(stat)) is not None and known[0].virtual_bytes == stat.virtual_bytes:
            whole = known[1]
            guest = [each.start for each in whole.mappings if (each.device, each.inode) in shared]
            if guest and whole.unshared_bytes >= 0:
                part = files.memory(stat.pid, Source.SMAPS, MIN_BYTES, max(guest))
                if part is None:
                    return None
                renewed = _renewed(whole, part, max(guest))
                if renewed is not None:
                    return renewed
        return self._remember(stat, files.memory(stat.pid, Source.SMAPS, MIN_BYTES))

    def sums(self, files: ProcessFiles, stat: Stat) -> ProcessMemory | None:
        """A process that maps nothing of the guest; ``None`` where it has ended, or may not be read."""
        if (known := self._known(stat)) is not None:
            then, whole = known
            if not has_changed((then.resident_bytes, then.faults), stat):
                return whole
        # Before Linux 4.14 there is no smaps_rollup.
        read = files.memory(stat.pid, Source.SMAPS_ROLLUP, MIN_BYTES)
        return self._remember(stat, read or files.memory(stat.pid, Source.SMAPS, MIN_BYTES))

    def _known(self, stat: Stat) -> tuple[Stat, ProcessMemory] | None:
        known = self._whole.get(stat.pid)
        return known if known is not None and known[0].started == stat.started else None

    def _remember(self, stat: Stat, read: ProcessMemory | None) -> ProcessMemory | None:
        if read is not None:
            self._whole[stat.pid] = stat, read
        return read


def _renewed(whole: ProcessMemory, part: ProcessMemory, until: int) -> ProcessMemory | None:
    """All of it, with the large mappings that were read again; ``None`` where the rest may have changed, too."""
    if part.unshared_bytes < 0 or _differ(whole.unshared_bytes, part.unshared_bytes):
        return None
    before = [mapping for mapping in whole.mappings if mapping.start <= until]
    if list(map(_place, before)) != list(map(_place, part.mappings)):
        return None
    return whole._replace(
        resident_bytes=whole.resident_bytes + _grown(before, part.mappings, "resident_bytes"),
        pss_bytes=whole.pss_bytes + _grown(before, part.mappings, "pss_bytes"),
        swap_bytes=whole.swap_bytes + _grown(before, part.mappings, "swap_bytes"),
        huge_bytes=whole.huge_bytes + _grown(before, part.mappings, "huge_bytes"),
        page_table_bytes=part.page_table_bytes,
        mappings=(*part.mappings, *(mapping for mapping in whole.mappings if mapping.start > until)),
    )


def _differ(before: int, now: int) -> bool:
    return abs(now - before) > max(_MOVED_BYTES, before // _MOVED_SHARE)


def _place(mapping: Mapping) -> tuple[int, int, int, int, str]:
    return mapping.start, mapping.end, mapping.device, mapping.inode, mapping.permissions


def _grown(before: Collection[Mapping], after: Collection[Mapping], field: str) -> int:
    value = attrgetter(field)
    return int(sum(map(value, after)) - sum(map(value, before)))
