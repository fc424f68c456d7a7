"""Who uses most of the system's memory: units by their working set, and their processes by resident set. Facts only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kata_node_agent.errors import HostError
from kata_node_agent.host.cgroup_mounts import find_cgroup_mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_node_agent.host.cgroup_reader import Group
    from kata_node_agent.host.cgroups import Cgroups
    from kata_node_agent.host.root import HostRoot

# Of each unit its largest processes; a unit with thousands of them is read no further.
_PROCESSES = 2
_MAX_PIDS = 2000
_MAX_GROUPS = 200
_MAX_FILE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Consumer:
    """A unit (``process`` empty, working set) or a process in it (resident set), in bytes."""

    unit: str
    memory_bytes: int
    process: str = ""
    pid: int = 0


def largest_consumers(root: HostRoot, cgroups: Cgroups, count: int) -> tuple[Consumer, ...]:
    """The largest units of the system's group, each followed by its largest processes."""
    mount = find_cgroup_mounts(root).memory
    units = sorted(cgroups.units, key=_size, reverse=True)[:count]
    found: list[Consumer] = []
    for unit in units:
        name = _shown(unit.path.rpartition("/")[2])
        found.append(Consumer(name, _size(unit)))
        processes = [
            Consumer(name, resident, _name(root, pid), pid)
            for pid in _pids(root, f"{mount}{unit.path}")
            if (resident := _resident(root, pid)) is not None
        ]
        found += sorted(processes, key=lambda one: (-one.memory_bytes, one.pid))[:_PROCESSES]
    return tuple(found)


def _size(group: Group) -> int:
    return group.working_set_bytes or 0


def _pids(root: HostRoot, folder: str) -> list[int]:
    """Processes of a group and of all groups below it."""
    pids: list[int] = []
    for place in _folders(root, folder):
        try:
            text = root.read_text(f"{place}/cgroup.procs", _MAX_FILE_BYTES)
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


def _resident(root: HostRoot, pid: int) -> int | None:
    """Resident set from /proc/PID/status, in bytes; ``None`` for a kernel thread or one that has ended."""
    text = root.try_read_text(f"/proc/{pid}/status", _MAX_FILE_BYTES) or ""
    for line in text.split("\n"):
        if line.startswith("VmRSS:"):
            words = line.split()
            if len(words) == 3 and words[1].isascii() and words[1].isdigit() and len(words[1]) < 16:
                return int(words[1]) * 1024
    return None


def _name(root: HostRoot, pid: int) -> str:
    return _shown((root.try_read_text(f"/proc/{pid}/comm", 256) or "?").rstrip("\n"))


def _shown(text: str) -> str:
    # A process chooses its own name, and may choose one that steers a terminal.
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200]
