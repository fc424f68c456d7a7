"""One control group: its files, on v1 and v2. Facts only.

Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst; for which of their figures count,
kubelet's and cAdvisor's sources (working set = usage − inactive_file, RSS = total_rss on v1 and anon on v2).
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import HostError
from kata_node_agent.host.meminfo import MemInfo, read_meminfo
from kata_node_agent.host.pressure import Pressure, parse_pressure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kata_node_agent.host.cgroup_mounts import CgroupMounts
    from kata_node_agent.host.root import HostRoot

# Files of a group are a page or so; memory.stat has some 60 lines.
_MAX_FILE_BYTES = 16 * 1024
# No limit, on v1: the largest number of pages that the kernel counts with, in bytes. Any machine has less.
_NO_LIMIT = 1 << 60
_MAX_BYTES = (1 << 63) - 1
_KERNEL_PARTS = ("slab", "kernel_stack", "pagetables", "percpu", "sock", "vmalloc")
_V2_NAMES = (
    *("anon", "file", "inactive_file", "shmem", "unevictable", "slab_unreclaimable", "kernel"),
    *_KERNEL_PARTS,
)
_V1_NAMES = tuple(
    f"total_{name}" for name in ("rss", "cache", "inactive_file", "shmem", "unevictable", "swap")
)


def _lines_of(names: Sequence[str]) -> re.Pattern[bytes]:
    """Whole lines ``name number`` with one of these names: a line without its end is torn, and its number another one."""
    return re.compile(b"^(" + "|".join(names).encode() + rb") ([0-9]{1,19})\n", re.MULTILINE)


_V2_LINES, _V1_LINES, _CPU_LINES = _lines_of(_V2_NAMES), _lines_of(_V1_NAMES), _lines_of(("usage_usec",))
_ONE_NUMBER = re.compile(rb"([0-9]{1,19})\n")


@dataclass(frozen=True, slots=True)
class Group:
    """One control group with all below it, in bytes; ``None`` where the kernel does not say.

    Attributes:
        path: the group below its hierarchy, ``/`` for the root.
        usage_bytes: all that is charged, file cache included. The root of v2 has no such figure: anonymous and file memory
            instead, as kubelet takes it.
        rss_bytes: anonymous memory, as cAdvisor's ``rss``.
        kernel_bytes: slab, stacks, page tables and other memory of the kernel that is charged.
        limit_bytes: the group's own limit; ``None`` for none.
        cpu_microseconds: since the group was made.
    """

    path: str
    usage_bytes: int | None = None
    inactive_file_bytes: int | None = None
    rss_bytes: int | None = None
    file_bytes: int | None = None
    shmem_bytes: int | None = None
    unevictable_bytes: int | None = None
    slab_bytes: int | None = None
    slab_unreclaimable_bytes: int | None = None
    page_tables_bytes: int | None = None
    kernel_bytes: int | None = None
    swap_bytes: int | None = None
    limit_bytes: int | None = None
    cpu_microseconds: int | None = None
    memory_pressure: Pressure | None = None
    cpu_pressure: Pressure | None = None
    io_pressure: Pressure | None = None

    @property
    def working_set_bytes(self) -> int | None:
        """Kubelet's working set: usage less inactive file cache, not below 0."""
        if self.usage_bytes is None:
            return None
        return max(0, self.usage_bytes - (self.inactive_file_bytes or 0))


class GroupReader:
    """Reads groups of one mounted hierarchy."""

    def __init__(self, root: HostRoot, mounts: CgroupMounts) -> None:
        self._root = root
        self._mounts = mounts
        self._v2 = mounts.hierarchy == "v2"
        self._memory = str(root.resolve(mounts.memory))
        self._cpu = str(root.resolve(mounts.cpu)) if mounts.cpu else ""
        self._unified = str(root.resolve(mounts.unified)) if mounts.unified else ""

    def exists(self, path: str) -> bool:
        """Whether there is such a group."""
        return os.path.isdir(self._memory + path)

    def children(self, path: str) -> list[str]:
        """Names of the groups in a group, sorted."""
        try:
            with os.scandir(self._memory + path) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except OSError:
            return []

    def group(self, path: str, *, whole: bool = False) -> Group | None:
        """A group; ``None`` where it is not there (any more).

        Args:
            path: the group below its hierarchy.
            whole: also its limit, its swap, on v1 its kernel memory, its CPU time and its pressure: files of their own,
                each as dear as all of memory.stat.
        """
        folder = self._memory + path
        stat = _numbers(read_at_once(f"{folder}/memory.stat"), _V2_LINES if self._v2 else _V1_LINES)
        usage = _number(read_at_once(f"{folder}/{'memory.current' if self._v2 else 'memory.usage_in_bytes'}"))
        if not stat and usage is None:
            return None
        values = _v2_values(stat) if self._v2 else _v1_values(stat)
        if whole:
            values |= self._own_files(folder) | self._pressures(path)
            values["cpu_microseconds"] = self._cpu_microseconds(path)
        return Group(path=path, usage_bytes=usage, **values)

    def root_group(self) -> Group | None:
        """The whole node."""
        found = self.group("/", whole=True)
        if found is None:
            return None
        memory = _meminfo(self._root)
        if memory is not None and memory.swap_total_bytes is not None and memory.swap_free_bytes is not None:
            found = replace(found, swap_bytes=max(0, memory.swap_total_bytes - memory.swap_free_bytes))
        if self._v2 and found.usage_bytes is None and found.rss_bytes is not None:
            # The root of v2 has no memory.current. Source: runc's libcontainer, fs2/memory.go, rootStatsFromMeminfo.
            found = replace(found, usage_bytes=found.rss_bytes + (found.file_bytes or 0))
        return replace(
            found,
            memory_pressure=found.memory_pressure or self._node_pressure("memory"),
            cpu_pressure=found.cpu_pressure or self._node_pressure("cpu"),
            io_pressure=found.io_pressure or self._node_pressure("io"),
        )

    def _node_pressure(self, what: str) -> Pressure | None:
        return parse_pressure(self._root.try_read_text(f"/proc/pressure/{what}", _MAX_FILE_BYTES) or "")

    def _own_files(self, folder: str) -> dict[str, Any]:
        if self._v2:
            return {
                "swap_bytes": _number(read_at_once(f"{folder}/memory.swap.current")),
                "limit_bytes": _limit(read_at_once(f"{folder}/memory.max")),
            }
        return {
            "kernel_bytes": _number(read_at_once(f"{folder}/memory.kmem.usage_in_bytes")),
            "limit_bytes": _limit(read_at_once(f"{folder}/memory.limit_in_bytes")),
        }

    def _cpu_microseconds(self, path: str) -> int | None:
        if self._v2:
            return _numbers(read_at_once(f"{self._memory}{path}/cpu.stat"), _CPU_LINES).get("usage_usec")
        nanoseconds = _number(read_at_once(f"{self._cpu}{path}/cpuacct.usage")) if self._cpu else None
        return None if nanoseconds is None else nanoseconds // 1000

    def _pressures(self, path: str) -> dict[str, Any]:
        if not self._unified:
            return {}
        folder = self._unified + path
        return {
            f"{what}_pressure": parse_pressure(
                read_at_once(f"{folder}/{what}.pressure").decode(errors="replace")
            )
            for what in ("memory", "cpu", "io")
        }


def _v2_values(stat: Mapping[str, int]) -> dict[str, Any]:
    kernel = stat.get("kernel")
    if kernel is None and "slab" in stat:
        # Before Linux 5.18 there is no sum.
        kernel = sum(stat.get(name, 0) for name in _KERNEL_PARTS)
    return {
        "inactive_file_bytes": stat.get("inactive_file"),
        "rss_bytes": stat.get("anon"),
        "file_bytes": stat.get("file"),
        "shmem_bytes": stat.get("shmem"),
        "unevictable_bytes": stat.get("unevictable"),
        "slab_bytes": stat.get("slab"),
        "slab_unreclaimable_bytes": stat.get("slab_unreclaimable"),
        "page_tables_bytes": stat.get("pagetables"),
        "kernel_bytes": kernel,
    }


def _v1_values(stat: Mapping[str, int]) -> dict[str, Any]:
    return {
        "inactive_file_bytes": stat.get("total_inactive_file"),
        "rss_bytes": stat.get("total_rss"),
        "file_bytes": stat.get("total_cache"),
        "shmem_bytes": stat.get("total_shmem"),
        "unevictable_bytes": stat.get("total_unevictable"),
        "swap_bytes": stat.get("total_swap"),
    }


def _meminfo(root: HostRoot) -> MemInfo | None:
    try:
        return read_meminfo(root)
    except HostError:
        return None


def read_at_once(path: str) -> bytes:
    """A small file of the kernel, which gives it whole in one read; empty where it is not there."""
    try:
        # O_NONBLOCK: a FIFO in a tree that is no cgroup file system must not hang us.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError):
        return b""
    try:
        return os.read(descriptor, _MAX_FILE_BYTES)
    except OSError:
        # ENODEV: the group was removed between open and read.
        return b""
    finally:
        os.close(descriptor)


def _numbers(content: bytes, lines: re.Pattern[bytes]) -> dict[str, int]:
    """The figures of these lines; what is no number that the kernel may count to is passed over.

    A node has hundreds of these files of forty lines: one search in each, and only what is wanted becomes a number.
    """
    found = {name.decode(): int(digits) for name, digits in lines.findall(content)}
    if any(value > _MAX_BYTES for value in found.values()):
        return {name: value for name, value in found.items() if value <= _MAX_BYTES}
    return found


def _number(content: bytes) -> int | None:
    match = _ONE_NUMBER.fullmatch(content)
    value = int(match[1]) if match is not None else None
    return value if value is None or value <= _MAX_BYTES else None


def _limit(content: bytes) -> int | None:
    value = _number(content)
    return None if value is None or value >= _NO_LIMIT else value
