"""Who uses most of the system's memory: units by their working set, and their processes by resident set. Facts only."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import HostError
from kata_node_agent.host.cgroup_reader import read_at_once
from kata_node_agent.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_node_agent.host.cgroup_reader import Group
    from kata_node_agent.host.cgroups import Cgroups
    from kata_node_agent.host.root import HostRoot

# Of each unit its largest processes; a unit with thousands of them is read no further.
_PROCESSES = 2
_MAX_PIDS = 2000
_MAX_GROUPS = 200
_MAX_PIDS_BYTES = 1 << 20
_MAX_NAME = 200
# In kB as the kernel prints it: pages, as in statm, have a size of their own on each machine, and a recording has none.
_RESIDENT = re.compile(rb"^VmRSS:[ \t]+([0-9]{1,15}) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Consumer:
    """A unit (``process`` empty, working set) or a process in it (resident set), in bytes."""

    unit: str
    memory_bytes: int
    process: str = ""
    pid: int = 0


def largest_consumers(root: HostRoot, cgroups: Cgroups, count: int) -> tuple[Consumer, ...]:
    """The largest units of the system's group, each followed by its largest processes."""
    proc = str(root.resolve("/proc"))
    units = sorted(cgroups.units, key=_size, reverse=True)[:count]
    found: list[Consumer] = []
    for unit in units:
        name = printable(unit.path.rpartition("/")[2], _MAX_NAME)
        found.append(Consumer(name, _size(unit)))
        pids = _pids(root, f"{cgroups.mounts.memory}{unit.path}")
        sizes = [(size, pid) for pid in pids if (size := _resident(proc, pid)) is not None]
        largest = sorted(sizes, key=lambda one: (-one[0], one[1]))[:_PROCESSES]
        found += [Consumer(name, size, _name(proc, pid), pid) for size, pid in largest]
    return tuple(found)


def _size(group: Group) -> int:
    return group.working_set_bytes or 0


def _pids(root: HostRoot, folder: str) -> list[int]:
    """Processes of a group and of all groups below it."""
    pids: list[int] = []
    for place in _folders(root, folder):
        try:
            text = root.read_text(f"{place}/cgroup.procs", _MAX_PIDS_BYTES)
        except HostError:
            continue
        pids += [
            int(line) for line in text.split("\n") if line.isascii() and line.isdigit() and len(line) < 10
        ]
        if len(pids) >= _MAX_PIDS:
            break
    return pids[:_MAX_PIDS]


def _folders(root: HostRoot, folder: str) -> Iterator[str]:
    waiting, left = [folder], _MAX_GROUPS
    while waiting and left:
        left -= 1
        place = waiting.pop()
        yield place
        try:
            with os.scandir(root.resolve(place)) as entries:
                waiting += [
                    f"{place}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)
                ]
        except OSError:
            continue


def _resident(proc: str, pid: int) -> int | None:
    """Resident set in bytes; ``None`` for a kernel thread, and for a process that has ended."""
    match = _RESIDENT.search(read_at_once(f"{proc}/{pid}/status"))
    return int(match[1]) * 1024 if match is not None else None


def _name(proc: str, pid: int) -> str:
    name = read_at_once(f"{proc}/{pid}/comm").decode("utf-8", errors="replace")
    # A process chooses its own name, and may choose one that steers a terminal.
    return printable(name.removesuffix("\n") or "?", _MAX_NAME)
