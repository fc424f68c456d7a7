"""Who of the node's processes belongs to which sandbox: every one is looked at, the claim of each remembered.

A process is the same one as before if its number, its start, its name and the place of its stack are: the last two
change with exec, so a child that was seen before its exec is looked at again.
"""

from __future__ import annotations

import os
import stat as stats
from dataclasses import field
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.host.process_files import ProcessFiles, Source, Stat
from kata_node_agent.sandboxes.claims import Claim, claim_of, is_sandbox_id, split_command_line
from kata_node_agent.sandboxes.evidence import MAY_NOT_LOOK, Origin, Strength, judge, parse_owner
from kata_node_agent.sandboxes.guest_ram import MIN_BYTES, find_guest_ram, shared_with
from kata_node_agent.sandboxes.identity import pod_uid_of
from kata_node_agent.sandboxes.model import Unbelieved
from kata_node_agent.sandboxes.qemu_line import QemuMemory, parse_qemu_memory
from kata_node_agent.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kata_node_agent.host.root import HostRoot

# A command line may have 2 MiB; Kata's have some KiB, and what we want stands at their start.
MAX_COMMAND_LINE_BYTES = 128 * 1024
_VMS = "/run/vc/vm"
# More claims that nobody believes are counted, but not listed.
_MAX_UNBELIEVED = 100


@dataclass(slots=True)
class Member:
    """A process that claims to belong to a sandbox."""

    stat: Stat
    claim: Claim
    line: QemuMemory = field(default_factory=QemuMemory)
    strength: Strength = Strength.NONE
    why: str = ""
    closed: bool = False

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.stat.pid


@dataclass(slots=True)
class Household:
    """The believed processes of one sandbox."""

    id: str
    vmms: list[Member] = field(default_factory=list)
    virtiofsds: list[Member] = field(default_factory=list)
    shims: list[Member] = field(default_factory=list)


class Census:
    """Remembers the claims of processes from one look to the next."""

    def __init__(self, root: HostRoot) -> None:
        self._root = root
        # Most processes claim nothing: of these, only who they were is kept.
        self._known: dict[int, int] = {}
        self._members: dict[int, Member] = {}
        self._lines: dict[QemuMemory, QemuMemory] = {}
        # The VM of a factory has an id of its own, before and after a sandbox takes it.
        self._taken: dict[str, str] = {}
        self._taken_at: int | None = None
        self.unbelieved: tuple[Unbelieved, ...] = ()
        # Those that may well belong to a VM, and that we lack the right to look into.
        self.closed: tuple[int, ...] = ()

    @property
    def members(self) -> set[int]:
        """The numbers of the processes that claim to belong to a sandbox."""
        return set(self._members)

    def claims(self, files: ProcessFiles, pids: Iterable[int]) -> dict[int, int]:
        """Who of these claims to belong to a sandbox, each with what tells it from another process of that number."""
        found = {}
        for stat in files.stats(pids):
            if stat.virtual_bytes and _claim(files, stat.pid)[1] is not None:
                found[stat.pid] = _who(stat)
        return found

    def is_member(self, pid: int, who: int) -> bool:
        """Whether this very process was seen and its claim is known."""
        return pid in self._members and self._known.get(pid) == who

    def links_changed(self) -> bool:
        """Whether a sandbox may have taken a VM of Kata's factory since the last look."""
        return self._links_at() != self._taken_at

    def look(self, files: ProcessFiles) -> dict[str, Household]:
        """The sandboxes that have believed processes, by id.

        Raises:
            OSError: /proc cannot be listed.
        """
        known: dict[int, int] = {}
        members: dict[int, Member] = {}
        for stat in files.stats(files.pids()):
            if not stat.virtual_bytes:
                continue
            pid, who = stat.pid, _who(stat)
            if self._known.get(pid) == who:
                known[pid] = who
                if (member := self._members.get(pid)) is not None:
                    member.stat = stat
                    members[pid] = member
                continue
            words, claim = _claim(files, pid)
            if claim is not None:
                members[pid] = Member(stat, claim)
            if words:
                # One that has no words yet is in the middle of its exec, and is looked at again.
                known[pid] = who
        self._known, self._members = known, members
        self._lines = {member.line: member.line for member in members.values()}
        if self.links_changed():
            self._read_links()
        self._judge(files)
        self.closed = tuple(sorted(pid for pid, member in members.items() if member.closed))
        return self._households()

    def _links_at(self) -> int | None:
        try:
            return os.stat(self._root.resolve(_VMS)).st_mtime_ns
        except OSError:
            return None

    def _read_links(self) -> None:
        """Kata makes a link from the sandbox's folder to that of the VM. The folder that they are in is root's."""
        self._taken_at = self._links_at()
        self._taken = {}
        for name in self._root.list_names(_VMS):
            try:
                target = os.readlink(self._root.resolve(f"{_VMS}/{name}"))
            except OSError:
                continue
            vm = target.rpartition("/")[2]
            if is_sandbox_id(name) and is_sandbox_id(vm):
                self._taken[vm] = name

    def _id(self, claim: Claim) -> str:
        """The sandbox that has the VM which a claim names."""
        return self._taken.get(claim.sandbox_id, claim.sandbox_id)

    def _judge(self, files: ProcessFiles) -> None:
        # One that was closed is looked at again: the right may have come.
        doubted = [each for each in self._members.values() if each.closed or each.strength is Strength.NONE]
        if not doubted:
            return
        first = _host_mounts(files)
        # A child starts after its parent, so the parent has been judged.
        for member in sorted(doubted, key=lambda member: (member.stat.started, member.pid)):
            origin = self._origin(files, member, first)
            member.strength, member.why = judge(origin)
            # What is not believed for another reason than this one is none of the node's VMs, closed or not.
            member.closed = origin.closed and (bool(member.strength) or member.why == MAY_NOT_LOOK)
            if member.strength is not Strength.NONE and member.claim.vmm == "qemu":
                self._read_line(files, member)
        for member in doubted:
            if member.strength is Strength.NONE and member.claim.role == "virtiofsd":
                self._vouch(files, member)

    def _read_line(self, files: ProcessFiles, member: Member) -> None:
        """What the command line says of memory; of those that are believed only, as anybody may write a long one."""
        words, claim = _claim(files, member.pid)
        if claim != member.claim:
            member.strength, member.why = Strength.NONE, "it has just become another program"
            return
        line = parse_qemu_memory(words)
        # Most VMs of a node are started alike.
        member.line = self._lines.setdefault(line, line)

    def _origin(self, files: ProcessFiles, member: Member, first: str | None) -> Origin:
        user, own = parse_owner((files.read(member.pid, "status") or b"").decode(errors="replace"))
        mounts = files.namespace(member.pid, "mnt")
        parent = self._members.get(member.stat.parent)
        sandbox_id = member.claim.sandbox_id
        return Origin(
            user=user,
            own_pid_namespace=own,
            host_mounts=None if first is None or mounts is None else mounts == first,
            folder_of_root=any(
                _is_of_root(self._root, f"{place}/{sandbox_id}")
                for place in ("/run/vc/sbs", "/run/vc/vm", "/run/kata")
            ),
            closed=mounts is None and files.forbids(member.pid),
            pid_file=member.claim.role == "vmm" and self._pid_file(sandbox_id) == member.pid,
            child_of_sandbox=parent is not None
            and self._id(parent.claim) == self._id(member.claim)
            and parent.strength is not Strength.NONE,
            in_container=in_container(
                (files.read(member.pid, "cgroup") or b"").decode(errors="replace"), self._id(member.claim)
            ),
        )

    def _pid_file(self, sandbox_id: str) -> int | None:
        text = (self._root.try_read_text(f"/run/vc/vm/{sandbox_id}/pid", 64) or "").strip()
        return int(text) if text.isascii() and text.isdigit() else None

    def _vouch(self, files: ProcessFiles, member: Member) -> None:
        """A virtiofsd with namespaces of its own is known by the guest's memory that it maps, its parent by its child."""
        for vmm in self._members.values():
            if vmm.claim.vmm is None or self._id(vmm.claim) != self._id(member.claim) or not vmm.strength:
                continue
            memory = files.memory(vmm.pid, Source.MAPS, MIN_BYTES)
            ram = find_guest_ram(memory.mappings, vmm.claim.vmm, vmm.line) if memory is not None else None
            theirs = files.memory(member.pid, Source.MAPS, MIN_BYTES) if ram is not None else None
            if ram is not None and theirs is not None and shared_with(theirs.mappings, ram.files):
                member.strength, member.why = Strength.CHILD, ""
                parent = self._members.get(member.stat.parent)
                if parent is not None and parent.claim == member.claim and not parent.strength:
                    parent.strength, parent.why = Strength.CHILD, ""

    def _households(self) -> dict[str, Household]:
        found: dict[str, Household] = {}
        doubted: list[Unbelieved] = []
        for member in self._members.values():
            if member.strength is Strength.NONE:
                doubted.append(_unbelieved(member, member.why))
                continue
            sandbox_id = self._id(member.claim)
            if (household := found.get(sandbox_id)) is None:
                household = found[sandbox_id] = Household(sandbox_id)
            match member.claim.role:
                case "vmm":
                    household.vmms.append(member)
                case "virtiofsd":
                    household.virtiofsds.append(member)
                case "shim":
                    household.shims.append(member)
        for household in found.values():
            if len(household.vmms) < 2:
                continue
            household.vmms.sort(key=lambda member: (-member.strength, member.stat.started, member.pid))
            doubted += [
                _unbelieved(
                    rival, f"process {household.vmms[0].pid} is the VM of this sandbox, on better evidence"
                )
                for rival in household.vmms[1:]
            ]
        self.unbelieved = tuple(sorted(doubted, key=lambda one: one.pid)[:_MAX_UNBELIEVED])
        return found


def _host_mounts(files: ProcessFiles) -> str | None:
    """The node's own mount namespace: that of its first process, or of the kernel's threads, or else our own."""
    # A process with more capabilities than ours shows us none of its namespaces.
    if (first := files.namespace(1, "mnt")) is not None:
        return first
    if files.read(2, "comm") == b"kthreadd\n" and (kernel := files.namespace(2, "mnt")) is not None:
        return kernel
    return files.namespace("self", "mnt")


def _who(stat: Stat) -> int:
    return hash((stat.started, stat.image, stat.name))


def _claim(files: ProcessFiles, pid: int) -> tuple[list[str], Claim | None]:
    content = files.read(pid, "cmdline", MAX_COMMAND_LINE_BYTES)
    words = split_command_line(content, MAX_COMMAND_LINE_BYTES) if content else []
    return words, claim_of(words)


def in_container(cgroups: str, sandbox_id: str) -> bool:
    """Whether a /proc/PID/cgroup names a pod's group; Kata's own group in there has the sandbox's id in its name."""
    paths = [line.split(":", 2)[-1] for line in cgroups.splitlines()]
    return any(pod_uid_of(path) is not None and sandbox_id not in path for path in paths)


def _is_of_root(root: HostRoot, path: str) -> bool:
    try:
        status = os.lstat(root.resolve(path))
    except OSError:
        return False
    return stats.S_ISDIR(status.st_mode) and status.st_uid == 0


def _unbelieved(member: Member, why: str) -> Unbelieved:
    claim = member.claim
    return Unbelieved(
        member.pid, printable(f"{claim.vmm or claim.role} of sandbox {claim.sandbox_id}", 200), why
    )
