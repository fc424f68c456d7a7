"""Where the node's cgroup hierarchies are mounted: v1, v2, both, or none. Facts only."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_node_agent.host.root import HostRoot

Hierarchy = Literal["v1", "v2", "hybrid", "none"]
USUAL = "/sys/fs/cgroup"
# PID 1's table is the host's own, where /proc is the host's; ours is another one in a container.
_TABLES = ("/proc/1/mounts", "/proc/self/mounts", "/proc/mounts")
_MAX_TABLE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class CgroupMounts:
    """Mount points on the host; empty where there is none.

    Attributes:
        hierarchy: ``v2``: memory is accounted by the unified hierarchy; ``v1``: by one of its own; ``hybrid``: the same,
            and the unified one is mounted beside it; ``none``: by none.
        memory: where memory is accounted.
        cpu: where CPU time is accounted; the same as ``memory`` on v2.
        unified: the unified hierarchy, which has the groups' pressure even where it accounts nothing.
    """

    hierarchy: Hierarchy = "none"
    memory: str = ""
    cpu: str = ""
    unified: str = ""


def find_cgroup_mounts(root: HostRoot) -> CgroupMounts:
    """From the table of mounts, and where there is none (a recorded tree) from the usual folders.

    Costs milliseconds on a node whose pods have thousands of mounts: to be found once, and handed on.
    """
    by_controller: dict[str, str] = {}
    unified = ""
    for point, kind, options in _table(root):
        if kind == "cgroup2":
            unified = _preferred(unified, point)
        else:
            for option in options:
                by_controller[option] = _preferred(by_controller.get(option, ""), point)
    if not unified:
        places = (USUAL, f"{USUAL}/unified")
        unified = next((p for p in places if root.exists(f"{p}/cgroup.controllers")), "")
    for controller in ("memory", "cpuacct"):
        if controller not in by_controller and root.exists(f"{USUAL}/{controller}/cgroup.procs"):
            by_controller[controller] = f"{USUAL}/{controller}"
    memory = by_controller.get("memory", "")
    if memory:
        return CgroupMounts("hybrid" if unified else "v1", memory, by_controller.get("cpuacct", ""), unified)
    controllers = (root.try_read_text(f"{unified}/cgroup.controllers") or "").split() if unified else []
    if "memory" in controllers:
        return CgroupMounts("v2", unified, unified, unified)
    return CgroupMounts(unified=unified)


def _table(root: HostRoot) -> Iterator[tuple[str, str, list[str]]]:
    """(mount point, file system, options) of each cgroup mount."""
    text = next(
        (text for path in _TABLES if (text := root.try_read_text(path, _MAX_TABLE_BYTES)) is not None), ""
    )
    for line in text.split("\n"):
        fields = line.split(" ")
        if len(fields) >= 4 and fields[2] in {"cgroup", "cgroup2"}:
            yield _unescaped(fields[1]), fields[2], fields[3].split(",")


def _preferred(before: str, point: str) -> str:
    """A hierarchy may be mounted many times, in containers too: the usual place counts, else the first."""
    usual = point == USUAL or point.startswith(USUAL + "/")
    return point if not before or (usual and not before.startswith(USUAL)) else before


def _unescaped(path: str) -> str:
    # Source: getmntent(3): space, tab, newline and backslash are written as octal numbers.
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
