"""One VM as it is followed: what was read of it, and whether it has changed enough to be read again.

Its size is read when the VMM's address space has changed: cheap (maps). Its cost is read when resident memory or page
faults of one of its processes have moved: dear (smaps walks all pages).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.host.cgroups import group_of_process
from kata_node_agent.host.process_files import ProcessFiles, ProcessMemory, Source, Stat
from kata_node_agent.sandboxes.cost import charge_of, cost_of
from kata_node_agent.sandboxes.guest_ram import MIB, MIN_BYTES, GuestRam, find_guest_ram
from kata_node_agent.sandboxes.identity import Identity, pod_uid_of, read_bundle
from kata_node_agent.sandboxes.model import Charge, Cost, Process, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kata_node_agent.host.cgroup_mounts import CgroupMounts
    from kata_node_agent.host.cgroup_reader import Group, GroupReader
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.sandboxes.census import Household, Member

# A process has changed enough when its resident memory moved by a 64th of itself, at least by this.
_MOVED_BYTES = 2 * MIB
_MOVED_SHARE = 64
# Or when it had so many faults, of pages of 4 KiB: memory may have been given back and taken anew.
_FAULT_BYTES = 4096
_FAULTS_BYTES = 8 * MIB
_MAX_TASKS = 64
_MIN_IDENTIFY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Places:
    """Where groups are read; the same for all VMs of a sweep."""

    root: HostRoot
    mounts: CgroupMounts
    groups: GroupReader
    pod_names: Mapping[str, str]


class Vm:
    """What is known of one VM; belongs to one VMM process, and ends with it.

    Attributes:
        read_at: when its cost was read.
        owes: whether its cost should have been read at the last look, and was not.
    """

    def __init__(self, vmm: Member, now: float) -> None:
        self.vmm = vmm
        self.in_shim = vmm.claim.role == "shim"
        self._born = self._identify_at = now
        self._virtual_bytes = -1
        self._readable = True
        self._ram: GuestRam | None = None
        self._touched_bytes = 0
        self._first_total: int | None = None
        self._read: dict[int, tuple[int, int]] = {}
        self._whole = True
        self.read_at = float("-inf")
        self.owes = False
        self._cost: Cost | None = None
        self._charge: Charge | None = None
        self._cgroup: str | None = None
        self._identity: Identity | None = None
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
        before = (self._ram, self._cost, self._charge, self._cgroup, self._identity)
        if due:
            if not self._read_cost(files, household):
                return None
            self._read = (
                {pid: (stat.resident_bytes, stat.faults) for pid, stat in stats.items()}
                if self._whole
                else {}
            )
            self.read_at = now
        elif self._virtual_bytes != self.vmm.stat.virtual_bytes and not self.read_size(
            files, self.vmm.stat.virtual_bytes
        ):
            return None
        if due or now >= self._identify_at:
            self._identify(files, household, places, members)
            # The runtime moves processes at the start of a VM, hardly ever later.
            self._identify_at = now + max(_MIN_IDENTIFY_SECONDS, now - self._born)
        if due:
            self._read_charge(places, members)
        if self._ram is None and self._readable:
            return None
        after = (self._ram, self._cost, self._charge, self._cgroup, self._identity)
        if self._sandbox is None or self._outdated or before != after or self._others(members):
            self._sandbox = self._build(household, members)
            self._outdated = False
        return self._sandbox

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

    def size_differs(self, files: ProcessFiles, virtual_bytes: int) -> bool:
        """Whether the VM's size is another one than the last sandbox said; true where the VMM has ended."""
        if virtual_bytes != self._virtual_bytes:
            before = self._sandbox.vm_memory_bytes if self._sandbox is not None else None
            if not self.read_size(files, virtual_bytes):
                return True
            self._outdated = self._ram is not None and before != sum(self._size())
        return self._outdated and self._ram is not None

    def resident_differs(self, resident_bytes: int) -> bool:
        """Whether so much was touched that a resizable device may have got a block more, or lost one."""
        then = self._read.get(self.vmm.pid)
        return then is not None and abs(resident_bytes - then[0]) >= 128 * MIB

    def _others(self, members: list[Member]) -> bool:
        """Whether these are other processes than the last sandbox had."""
        had = [process.pid for process in self._sandbox.processes] if self._sandbox is not None else []
        return had != [member.pid for member in members]

    def _members(self, household: Household) -> list[Member]:
        members = [self.vmm, *household.virtiofsds, *household.shims]
        return members if not self.in_shim else [self.vmm, *household.virtiofsds]

    def _has_moved(self, stats: Mapping[int, Stat]) -> bool:
        if stats.keys() != self._read.keys():
            return True
        for pid, (resident, faults) in self._read.items():
            stat = stats[pid]
            if abs(stat.resident_bytes - resident) > max(_MOVED_BYTES, resident // _MOVED_SHARE):
                return True
            if (stat.faults - faults) * _FAULT_BYTES > max(_FAULTS_BYTES, resident // _MOVED_SHARE * 4):
                return True
        return False

    def _read_cost(self, files: ProcessFiles, household: Household) -> bool:
        virtual_bytes = self.vmm.stat.virtual_bytes
        memory = files.memory(self.vmm.pid, Source.SMAPS, MIN_BYTES)
        if memory is None:
            # It has ended, or none of its memory may be read.
            self._cost = None
            return self.read_size(files, virtual_bytes)
        self._readable = True
        self._take(memory, virtual_bytes)
        if self._ram is None:
            self._cost = None
            return True
        virtiofsds = [files.memory(member.pid, Source.SMAPS, MIN_BYTES) for member in household.virtiofsds]
        shims = [] if self.in_shim else [_sums(files, member.pid) for member in household.shims]
        # Where one of them has ended while we read, the next look finds the others, and reads anew.
        self._whole = None not in virtiofsds and None not in shims
        self._cost = cost_of(memory, self._ram, _there(virtiofsds), _there(shims), in_shim=self.in_shim)
        return True

    def _take(self, memory: ProcessMemory, virtual_bytes: int) -> None:
        vmm = "dragonball" if self.in_shim else self.vmm.claim.vmm
        self._ram = find_guest_ram(memory.mappings, vmm or "qemu", self.vmm.line)
        self._virtual_bytes = virtual_bytes
        if self._ram is None:
            return
        if memory.resident_bytes:
            # Only smaps says what is resident.
            self._touched_bytes = self._ram.virtio_mem_touched_bytes
        if self._first_total is None:
            self._first_total = self._ram.total_bytes

    def _size(self) -> tuple[int, int]:
        """Base and hotplugged."""
        line = self.vmm.line
        if self._ram is None:
            return line.base_bytes or 0, 0
        total = self._ram.total_bytes
        # Other VMMs are told by their API how much they get: what there was when they were first seen is their base.
        base = min(total, line.base_bytes if line.base_bytes is not None else self._first_total or total)
        return base, total - base + min(self._touched_bytes, self._ram.virtio_mem_bytes)

    def _identify(
        self, files: ProcessFiles, household: Household, places: Places, members: Iterable[Member]
    ) -> None:
        self._cgroup = group_of_process(places.root, self.vmm.pid, places.mounts) or None
        identity = self._identity or read_bundle(places.root, household.id)
        uid = identity.pod_uid
        if uid is None:
            groups = (group_of_process(places.root, member.pid, places.mounts) for member in members)
            uid = next((found for group in groups if (found := pod_uid_of(group))), None)
        if uid is None and places.mounts.hierarchy != "v2":
            uid = self._pod_of_threads(files, places)
        pod = identity.pod or (places.pod_names.get(uid) if uid else None)
        self._identity = Identity(uid, pod, identity.handler)

    def _pod_of_threads(self, files: ProcessFiles, places: Places) -> str | None:
        """On v1 Kata may move the vCPUs' threads alone into the pod's group."""
        for task in files.names(self.vmm.pid, "task")[:_MAX_TASKS]:
            text = files.read(self.vmm.pid, f"task/{task}/cgroup") or b""
            for line in text.decode(errors="replace").splitlines():
                if uid := pod_uid_of(line.split(":", 2)[-1]):
                    return uid
        return None

    def _read_charge(self, places: Places, members: Iterable[Member]) -> None:
        self._charge = None
        group = self._own_group(places, self._cgroup or "")
        if group is None:
            return
        paths = {group_of_process(places.root, member.pid, places.mounts) for member in members}
        others = [
            found
            for path in sorted(paths - {group.path, ""})
            if not path.startswith(f"{group.path}/") and (found := self._own_group(places, path)) is not None
        ]
        self._charge = charge_of(self._cost, group, _limit(places.groups, group), others)

    def _own_group(self, places: Places, path: str) -> Group | None:
        """A group in which this sandbox is alone: its pod's, or one that Kata made for it. Others say nothing about it."""
        if pod_uid_of(path) is None and self.vmm.claim.sandbox_id not in path:
            return None
        return places.groups.group(path, whole=True)

    def _build(self, household: Household, members: Iterable[Member]) -> Sandbox:
        line, ram, identity = self.vmm.line, self._ram, self._identity or Identity()
        base, hotplugged = self._size()
        notes = [line.disagreement] if line.disagreement else []
        if ram is None:
            notes.append("its mappings cannot be read: the size is that of its command line")
        elif line.base_bytes is not None and ram.total_bytes < line.base_bytes:
            notes.append(
                f"-m is {line.base_bytes} bytes, but {ram.total_bytes} bytes of guest RAM are mapped"
            )
        if line.max_bytes and base + hotplugged > line.max_bytes:
            notes.append(f"maxmem is {line.max_bytes} bytes, but the VM has {base + hotplugged}")
        shims = household.shims
        return Sandbox(
            id=household.id,
            pod_uid=identity.pod_uid,
            pod=identity.pod,
            handler=identity.handler,
            vmm="dragonball" if self.in_shim else self.vmm.claim.vmm or "qemu",
            pid=self.vmm.pid,
            started=self.vmm.stat.started,
            base_bytes=base,
            hotplugged_bytes=hotplugged,
            max_bytes=line.max_bytes,
            memory_location=ram.location if ram is not None else "anonymous",
            cost=self._cost,
            charge=self._charge,
            cgroup=self._cgroup,
            virtio_mem_bytes=ram.virtio_mem_bytes if ram is not None else 0,
            shim_pid=shims[0].pid if shims else None,
            processes=tuple(
                Process(member.pid, "vmm" if member is self.vmm else member.claim.role, member.stat.started)
                for member in members
            ),
            notes=tuple(notes),
        )


def _sums(files: ProcessFiles, pid: int) -> ProcessMemory | None:
    # Before Linux 4.14 there is no smaps_rollup.
    return files.memory(pid, Source.SMAPS_ROLLUP, MIN_BYTES) or files.memory(pid, Source.SMAPS, MIN_BYTES)


def _there(memories: Iterable[ProcessMemory | None]) -> list[ProcessMemory]:
    return [memory for memory in memories if memory is not None]


def _limit(groups: GroupReader, group: Group) -> int | None:
    """The lowest limit from a group up to its pod's: what its processes are killed at."""
    limits = [group.limit_bytes]
    parts = group.path.split("/")
    for end in range(len(parts) - 1, 1, -1):
        path = "/".join(parts[:end])
        if pod_uid_of(path) is None:
            break
        above = groups.group(path, whole=True)
        limits.append(above.limit_bytes if above is not None else None)
    return min((limit for limit in limits if limit is not None), default=None)
