"""One VM as it is followed: what was read of it, and whether it has changed enough to be read again.

Its size is read when the VMM's address space has changed: cheap (maps). Its cost is read when resident memory or page
faults of one of its processes have moved: dear (smaps walks all pages).
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from kata_node_agent.host.process_files import ProcessFiles, ProcessMemory, Source, Stat
from kata_node_agent.sandboxes.cost import cost_of
from kata_node_agent.sandboxes.guest_ram import MIB, MIN_BYTES, GuestRam, find_guest_ram, huge_devices_of
from kata_node_agent.sandboxes.identity import Identity
from kata_node_agent.sandboxes.model import Charge, Cost, Process, Sandbox
from kata_node_agent.sandboxes.persisted import Persisted, read_persisted, stamp
from kata_node_agent.sandboxes.places import Places, identify, is_waiting, read_charge
from kata_node_agent.sandboxes.reading import Readings, differ, has_changed, sums
from kata_node_agent.sandboxes.size import Size, size_notes, size_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.sandboxes.census import Household, Member

_MIN_IDENTIFY_SECONDS = 2.0


class News(Enum):
    """What a glance at a VM finds."""

    NONE = 0
    SIZE = 1
    """It has another size, and all that makes a sandbox of it is known."""
    SWEEP = 2
    """It has ended, or must be looked at as a whole."""


class Vm:
    """What is known of one VM; belongs to one VMM process, and ends with it.

    Attributes:
        read_at: when its cost was read.
        owes: whether its cost should have been read at the last look, and was not.
    """

    # There are hundreds of them.
    __slots__ = (
        *("_root", "_id", "vmm", "in_shim", "_born", "_more_notes", "_sandbox", "_outdated", "_readable"),
        *("_virtual_bytes", "_ram", "_touched_bytes", "_first_total", "_huge_devices", "_persisted"),
        *("_persisted_stamp", "_read", "_unread", "_readings", "_whole_at", "read_at", "owes", "_cost"),
        *("_charge", "_cgroup", "_identity", "_identify_at"),
    )

    def __init__(self, root: HostRoot, sandbox_id: str, vmm: Member, now: float) -> None:
        self._root = root
        self._id = sandbox_id
        self.vmm = vmm
        self.in_shim = vmm.claim.role == "shim"
        self._born = self._identify_at = now
        self._virtual_bytes = -1
        self._readable = True
        self._ram: GuestRam | None = None
        self._touched_bytes = 0
        self._first_total: int | None = None
        self._huge_devices: frozenset[int] = frozenset()
        self._persisted: Persisted | None = None
        self._persisted_stamp: tuple[int, int, int] | None = None
        # Of each process: its number, what was resident, and how many faults there had been.
        self._read = array("q")
        self._unread: tuple[int, ...] = ()
        self._readings = Readings()
        self._whole_at = float("-inf")
        self.read_at = float("-inf")
        self.owes = False
        self._cost: Cost | None = None
        self._charge: Charge | None = None
        self._cgroup: str | None = None
        self._identity: Identity | None = None
        self._more_notes: tuple[str, ...] = ()
        self._sandbox: Sandbox | None = None
        self._outdated = True

    @property
    def resizable(self) -> bool:
        """Whether it has memory whose plugged part shows in what is resident only."""
        return self._ram is not None and self._ram.virtio_mem_bytes > 0

    def look(
        self,
        files: ProcessFiles,
        household: Household,
        places: Places,
        now: float,
        refresh_seconds: float,
        *,
        may_read: bool = True,
    ) -> Sandbox | None:
        """The sandbox now; ``None`` while it has no guest RAM, or when it has ended meanwhile.

        Without `may_read` its cost is left as it was, and owed where it should have been read.
        """
        members = self._members(household)
        stats = {member.pid: member.stat for member in members}
        due = now - self.read_at >= refresh_seconds or self._has_moved(stats)
        self.owes = due and not may_read
        due = due and may_read
        before = self._state
        if due or now >= self._identify_at:
            self._read_persisted()
        if due:
            if now - self._whole_at >= refresh_seconds:
                self._readings.forget()
                self._whole_at = now
            if not self._read_cost(files, household):
                return None
            # What could not be read is tried again at the next look.
            self._read = array("q")
            for pid, stat in stats.items():
                if pid not in self._unread:
                    self._read.extend((pid, stat.resident_bytes, stat.faults))
            self.read_at = now
        elif self._virtual_bytes != self.vmm.stat.virtual_bytes and not self.read_size(
            files, self.vmm.stat.virtual_bytes
        ):
            return None
        if due or now >= self._identify_at:
            self._cgroup, self._identity = identify(
                files, places, self._id, [member.pid for member in members], self._identity
            )
            # The runtime moves processes at the start of a VM, hardly ever later.
            self._identify_at = now + max(_MIN_IDENTIFY_SECONDS, now - self._born)
        if due:
            pids = [member.pid for member in members]
            self._charge = read_charge(files, places, self._id, self._cgroup or "", pids, self._cost)
        if self._ram is None and self._readable:
            return None
        if self._sandbox is None or self._outdated or before != self._state or self._others(members):
            self._sandbox = self._build(household, members)
            self._outdated = False
        return self._sandbox

    @property
    def _state(self) -> tuple[object, ...]:
        """All that the sandbox is made of."""
        return (
            *(self._ram, self._persisted, self._cost, self._charge),
            *(self._cgroup, self._identity, self._unread),
        )

    def read_size(self, files: ProcessFiles, virtual_bytes: int) -> bool:
        """Reads how much guest RAM there is; false where the VMM has ended."""
        memory = files.memory(self.vmm.pid, Source.MAPS, MIN_BYTES)
        self._readable = memory is not None
        if memory is None:
            # One that is there may not be read: then its command line is all that there is.
            self._virtual_bytes = virtual_bytes
            return any(stat.virtual_bytes for stat in files.stats([self.vmm.pid]))
        self._take(memory, virtual_bytes)
        return True

    def glance(self, files: ProcessFiles, virtual_bytes: int) -> News:
        """Whether the VM's size is another one than the last sandbox said."""
        if not virtual_bytes:
            return News.SWEEP
        if self.resizable:
            self._read_persisted()
        if virtual_bytes != self._virtual_bytes:
            before = self._sandbox.vm_memory_bytes if self._sandbox is not None else None
            if [stat.started for stat in files.stats([self.vmm.pid])] != [self.vmm.stat.started]:
                # Its number is another process' by now.
                return News.SWEEP
            if not self.read_size(files, virtual_bytes):
                return News.SWEEP
            self._outdated = self._ram is not None and before != self._size().bytes
        if not self._outdated or self._ram is None:
            return News.NONE
        return News.SIZE if self._sandbox is not None else News.SWEEP

    def resized(self) -> Sandbox | None:
        """The sandbox with its size of now, all else as before; ``None`` where there was none."""
        if self._sandbox is None or not self._outdated or self._ram is None:
            return self._sandbox
        size = self._size()
        self._sandbox = replace(
            self._sandbox,
            base_bytes=size.base_bytes,
            hotplugged_bytes=size.hotplugged_bytes,
            size_certainty=size.certainty,
            memory_location=self._ram.location,
            virtio_mem_bytes=self._ram.virtio_mem_bytes,
            notes=(*size_notes(self.vmm.line, self._ram, size), *self._more_notes),
        )
        self._outdated = False
        return self._sandbox

    def resident_differs(self, resident_bytes: int) -> bool:
        """Whether so much was touched that a resizable device may have got a block more, or lost one."""
        # The VMM is the first of its processes.
        if not self._read or self._read[0] != self.vmm.pid:
            return False
        then = self._read[1]
        # Less than this a sweep would not read, and call for another.
        return abs(resident_bytes - then) >= 128 * MIB and differ(then, resident_bytes)

    def _others(self, members: list[Member]) -> bool:
        """Whether these are other processes than the last sandbox had."""
        had = [process.pid for process in self._sandbox.processes] if self._sandbox is not None else []
        return had != [member.pid for member in members]

    def _members(self, household: Household) -> list[Member]:
        members = [self.vmm, *household.virtiofsds, *household.shims]
        return members if not self.in_shim else [self.vmm, *household.virtiofsds]

    def _has_moved(self, stats: Mapping[int, Stat]) -> bool:
        read = self._read
        if list(stats) != list(read[::3]):
            return True
        return any(
            has_changed((read[3 * place + 1], read[3 * place + 2]), stat)
            for place, stat in enumerate(stats.values())
        )

    def _read_cost(self, files: ProcessFiles, household: Household) -> bool:
        virtual_bytes = self.vmm.stat.virtual_bytes
        shared = self._ram.files if self._ram is not None else frozenset()
        memory = self._readings.maps(files, self.vmm.stat, shared)
        if memory is None:
            # It has ended, or none of its memory may be read.
            self._cost, self._unread = None, (self.vmm.pid,)
            return self.read_size(files, virtual_bytes)
        self._readable = True
        self._take(memory, virtual_bytes)
        self._unread = ()
        if self._ram is None:
            self._cost = None
            return True
        virtiofsds = {
            member.pid: self._readings.maps(files, member.stat, self._ram.files)
            for member in household.virtiofsds
        }
        shims = {} if self.in_shim else {member.pid: sums(files, member.pid) for member in household.shims}
        self._readings.keep({self.vmm.pid, *virtiofsds})
        self._unread = tuple(pid for pid, read in (virtiofsds | shims).items() if read is None)
        if not self._unread:
            self._cost = cost_of(memory, self._ram, _there(virtiofsds), _there(shims), in_shim=self.in_shim)
        # Else it has ended while we read, or may not be read: without it the cost would be too low.
        return True

    def _read_persisted(self) -> None:
        """Reads what Kata has written down, where it has written it anew."""
        if (now := stamp(self._root, self._id)) == self._persisted_stamp:
            return
        before = self._persisted
        self._persisted_stamp, self._persisted = now, read_persisted(self._root, self._id)
        if before != self._persisted:
            # It says what the mappings are: they are looked at again.
            self._virtual_bytes = -1

    def _take(self, memory: ProcessMemory, virtual_bytes: int) -> None:
        vmm = "dragonball" if self.in_shim else self.vmm.claim.vmm
        virtio_mem = self._persisted.virtio_mem if self._persisted is not None else None
        # Only smaps says which pages are huge.
        self._huge_devices |= huge_devices_of(memory.mappings)
        self._ram = find_guest_ram(
            memory.mappings,
            vmm or "qemu",
            self.vmm.line,
            virtio_mem=virtio_mem,
            huge_devices=self._huge_devices,
        )
        self._virtual_bytes = virtual_bytes
        if self._ram is None:
            return
        if memory.resident_bytes:
            # Only smaps says what is resident.
            self._touched_bytes = self._ram.virtio_mem_touched_bytes
        if self._first_total is None:
            self._first_total = self._ram.total_bytes

    def _size(self) -> Size:
        return size_of(
            self.vmm.line,
            self._ram,
            first_total_bytes=self._first_total,
            touched_bytes=self._touched_bytes,
            persisted=self._persisted,
        )

    def _build(self, household: Household, members: Iterable[Member]) -> Sandbox:
        line, ram, identity = self.vmm.line, self._ram, self._identity or Identity()
        size = self._size()
        self._more_notes = tuple(self._notes(household))
        shims = household.shims
        return Sandbox(
            id=household.id,
            pod_uid=identity.pod_uid,
            pod=identity.pod,
            handler=identity.handler,
            vmm="dragonball" if self.in_shim else self.vmm.claim.vmm or "qemu",
            pid=self.vmm.pid,
            started=self.vmm.stat.started,
            base_bytes=size.base_bytes,
            hotplugged_bytes=size.hotplugged_bytes,
            max_bytes=line.max_bytes,
            memory_location=ram.location if ram is not None else "anonymous",
            cost=self._cost,
            charge=self._charge,
            cgroup=self._cgroup,
            virtio_mem_bytes=ram.virtio_mem_bytes if ram is not None else 0,
            size_certainty=size.certainty,
            shim_pid=shims[0].pid if shims else None,
            processes=tuple(
                Process(member.pid, "vmm" if member is self.vmm else member.claim.role, member.stat.started)
                for member in members
            ),
            notes=(*size_notes(line, ram, size), *self._more_notes),
        )

    def _notes(self, household: Household) -> Iterator[str]:
        if self._ram is not None and self._unread:
            numbers = ", ".join(map(str, self._unread))
            yield (
                f"the memory of process {numbers} cannot be read: "
                f"{'its cost is that of before' if self._cost is not None else 'its cost is not known'}"
            )
        if not household.shims and is_waiting(self._root, household.id):
            yield "no sandbox has taken it yet: a VM that waits in Kata's VM cache, or is made a template"


def _there(memories: Mapping[int, ProcessMemory | None]) -> list[ProcessMemory]:
    return [memory for memory in memories.values() if memory is not None]
