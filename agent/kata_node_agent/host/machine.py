"""How much a machine has: CPUs, storage, process ids, huge pages of each size, blocks of memory. Facts only."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.host.facts import is_live, parse_cpu_list

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_node_agent.host.root import HostRoot

MEMORY = "/sys/devices/system/memory"
HUGEPAGES = "/sys/kernel/mm/hugepages"
KUBELET_ROOT = "/var/lib/kubelet"
_MAX_BYTES = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Machine:
    """What was found; ``None`` where it is not known.

    Attributes:
        cpus: logical CPUs that are online.
        storage_bytes: size of the file system where kubelet keeps its pods.
        pids: how many process ids there can be at once.
        hugepages_bytes: size of a page in bytes → bytes set aside.
        online_blocks: blocks of memory that the kernel uses.
        offline_blocks: blocks of memory that are plugged in but offline.
        memory_block_bytes: size of a block; 0 where memory is not managed in blocks.
        crash_kernel_bytes: kept since boot for the kernel that writes a dump (``crashkernel=``); not in MemTotal.
    """

    cpus: int | None = None
    storage_bytes: int | None = None
    pids: int | None = None
    hugepages_bytes: Mapping[int, int] = field(default_factory=dict)
    online_blocks: int = 0
    offline_blocks: int = 0
    memory_block_bytes: int = 0
    crash_kernel_bytes: int = 0


def read_machine(root: HostRoot, kubelet_root: str = KUBELET_ROOT) -> Machine:
    """The machine now.

    Args:
        root: the host.
        kubelet_root: kubelet's ``--root-dir``. In a recorded tree it lies on the disk of whoever looks, and does not count.
    """
    # Source: kubelet's pkg/kubelet/stats/pidlimit: the lower of the two.
    limits = [_number(root, f"/proc/sys/kernel/{name}") for name in ("pid_max", "threads-max")]
    known = [limit for limit in limits if limit is not None]
    blocks = _blocks(root)
    return Machine(
        cpus=online_cpus(root),
        storage_bytes=storage_bytes(root, kubelet_root),
        pids=min(known, default=None),
        hugepages_bytes=dict(_hugepages(root)),
        online_blocks=blocks["online"],
        offline_blocks=blocks["offline"],
        memory_block_bytes=_block_bytes(root),
        crash_kernel_bytes=_number(root, "/sys/kernel/kexec_crash_size") or 0,
    )


def online_cpus(root: HostRoot) -> int | None:
    """How many logical CPUs are online: what kubelet takes as CPU capacity."""
    cpus = parse_cpu_list(root.try_read_text("/sys/devices/system/cpu/online", 1 << 16) or "")
    return len(cpus) or None


def numa_nodes(root: HostRoot) -> frozenset[int] | None:
    """NUMA nodes by number; ``None`` where the kernel does not name any."""
    names = (
        name.removeprefix("node")
        for name in root.list_names("/sys/devices/system/node")
        if name.startswith("node")
    )
    return (
        frozenset(int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 10) or None
    )


def storage_bytes(root: HostRoot, kubelet_root: str) -> int | None:
    """Size of the file system where kubelet keeps its pods; ``None`` in a recorded tree, which lies on another disk."""
    if not is_live(root):
        return None
    path = root.resolve(kubelet_root if kubelet_root.startswith("/") else KUBELET_ROOT)
    # Before kubelet's first start its folder is not there: the file system that will have it counts.
    for place in (path, *path.parents):
        try:
            status = os.statvfs(place)
        except (OSError, ValueError):
            continue
        return min(status.f_blocks * status.f_frsize, _MAX_BYTES) or None
    return None


def _hugepages(root: HostRoot) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for name in root.list_names(HUGEPAGES):
        digits = name.removeprefix("hugepages-").removesuffix("kB")
        pages = _number(root, Path(HUGEPAGES, name, "nr_hugepages"))
        if digits.isascii() and digits.isdigit() and len(digits) < 12 and pages is not None:
            size = int(digits) * 1024
            if size * pages <= _MAX_BYTES:
                found.append((size, size * pages))
    return found


def _blocks(root: HostRoot) -> Counter[str]:
    """State → how many blocks of memory are in it."""
    states = (
        root.try_read_text(f"{MEMORY}/{name}/state", 64)
        for name in root.list_names(MEMORY)
        if name.startswith("memory") and name[6:].isdigit()
    )
    return Counter(state.strip() for state in states if state is not None)


def _block_bytes(root: HostRoot) -> int:
    text = (root.try_read_text(f"{MEMORY}/block_size_bytes", 64) or "").strip()
    try:
        # Hexadecimal without a prefix. Source: the kernel's Documentation/admin-guide/mm/memory-hotplug.rst.
        size = int(text, 16)
    except ValueError:
        return 0
    return size if 0 < size <= _MAX_BYTES else 0


def _number(root: HostRoot, path: str | Path) -> int | None:
    text = (root.try_read_text(path, 64) or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
