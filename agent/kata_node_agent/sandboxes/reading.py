"""Reads the memory of a sandbox's processes, as little of it as says the truth.

Smaps is dear by its length: a VMM has hundreds of mappings, most of them of libraries, and guest RAM is among the first. If
only guest RAM has moved, only the lines up to it are read again, and the rest stays as it was when all was read.
"""

from __future__ import annotations

import marshal
import os
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from kata_node_agent.host.process_files import Mapping, ProcessFiles, ProcessMemory, Source
from kata_node_agent.sandboxes.guest_ram import MIB, MIN_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection

    from kata_node_agent.host.process_files import Stat

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
    if differ(resident, now.resident_bytes):
        return True
    return (now.faults - faults) * _FAULT_BYTES > max(_FAULTS_BYTES, resident // _MOVED_SHARE * 4)


class Readings:
    """The memory of the processes of one sandbox, as it was last read as a whole."""

    __slots__ = ("_whole",)

    def __init__(self) -> None:
        # Packed: there are two for each of hundreds of VMs, and hardly ever is one needed.
        self._whole: dict[int, bytes] = {}

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
        if (known := self._known(stat)) is not None and known.virtual_bytes == stat.virtual_bytes:
            whole = known.memory
            guest = [each.start for each in whole.mappings if (each.device, each.inode) in shared]
            if guest and whole.unshared_bytes >= 0:
                part = files.memory(stat.pid, Source.SMAPS, MIN_BYTES, max(guest))
                if part is None:
                    return None
                renewed = _renewed(whole, part, max(guest))
                if renewed is not None:
                    return renewed
        return self._remember(stat, files.memory(stat.pid, Source.SMAPS, MIN_BYTES))

    def _known(self, stat: Stat) -> _Known | None:
        packed = self._whole.get(stat.pid)
        known = _unpacked(packed) if packed is not None else None
        return known if known is not None and known.started == stat.started else None

    def _remember(self, stat: Stat, read: ProcessMemory | None) -> ProcessMemory | None:
        if read is not None:
            self._whole[stat.pid] = _packed(stat, read)
        return read


def sums(files: ProcessFiles, pid: int) -> ProcessMemory | None:
    """A process that maps nothing of the guest; ``None`` where it has ended, or may not be read."""
    # Before Linux 4.14 there is no smaps_rollup.
    return files.memory(pid, Source.SMAPS_ROLLUP, MIN_BYTES) or files.memory(pid, Source.SMAPS, MIN_BYTES)


class _Known(NamedTuple):
    started: int
    virtual_bytes: int
    memory: ProcessMemory


def _packed(stat: Stat, memory: ProcessMemory) -> bytes:
    packed: Any = (stat.started, stat.virtual_bytes, *memory[:-1], tuple(map(tuple, memory.mappings)))
    return marshal.dumps(packed)


def _unpacked(packed: bytes) -> _Known:
    fields = marshal.loads(packed)  # noqa: S302 - our own bytes
    mappings = tuple(map(Mapping._make, fields[-1]))
    return _Known._make((*fields[:2], ProcessMemory._make((*fields[2:-1], mappings))))


def _renewed(whole: ProcessMemory, part: ProcessMemory, until: int) -> ProcessMemory | None:
    """All of it, with the large mappings that were read again; ``None`` where the rest may have changed, too."""
    if part.unshared_bytes < 0 or differ(whole.unshared_bytes, part.unshared_bytes):
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


def differ(before: int, now: int) -> bool:
    """Whether so much more or less is resident, in bytes, that it is read again."""
    return abs(now - before) > max(_MOVED_BYTES, before // _MOVED_SHARE)


def _place(mapping: Mapping) -> tuple[int, int, int, int, str]:
    return mapping.start, mapping.end, mapping.device, mapping.inode, mapping.permissions


def _grown(before: Collection[Mapping], after: Collection[Mapping], field: str) -> int:
    value = attrgetter(field)
    return int(sum(map(value, after)) - sum(map(value, before)))
