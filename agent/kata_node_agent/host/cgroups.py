"""What the node's control groups use: the parts that kubelet reserves for, and every pod. Facts only."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.host.cgroup_mounts import CgroupMounts, Hierarchy, find_cgroup_mounts
from kata_node_agent.host.cgroup_reader import Group, GroupReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_node_agent.host.root import HostRoot

_MAX_FILE_BYTES = 16 * 1024
# A node has some hundred pods; a tree with more groups is not a node's.
_MAX_GROUPS = 20_000
_POD = re.compile(r"(?:.*-)?pod([0-9a-zA-Z_-]{3,64}?)(?:\.slice)?")
_CLASSES = ("burstable", "besteffort")


@dataclass(frozen=True, slots=True)
class PodGroup:
    """A pod's group. ``uid`` is the pod's, with dashes; ``quality`` is guaranteed, burstable or besteffort."""

    uid: str
    quality: str
    group: Group


@dataclass(frozen=True, slots=True)
class CgroupNames:
    """Which groups are meant, below the hierarchy; an empty one is not there, or to be found by its process."""

    system: str = "/system.slice"
    pods: tuple[str, ...] = ("/kubepods.slice", "/kubepods")
    kubelet: str = ""
    runtime: str = ""
    kata_overhead: str = "/kata_overhead"


@dataclass(frozen=True, slots=True)
class Cgroups:
    """All that was read, at ``unix_seconds``; a group that does not exist is ``None``.

    ``system`` contains ``kubelet`` and ``runtime`` on most nodes: they are never to be added up.
    """

    hierarchy: Hierarchy
    unix_seconds: float
    mounts: CgroupMounts
    root: Group | None = None
    system: Group | None = None
    kubelet: Group | None = None
    runtime: Group | None = None
    pods: Group | None = None
    kata_overhead: Group | None = None
    units: tuple[Group, ...] = ()
    pod_groups: tuple[PodGroup, ...] = ()


def read_cgroups(
    root: HostRoot,
    names: CgroupNames = CgroupNames(),
    mounts: CgroupMounts | None = None,
    *,
    units: bool = True,
    each_pod: bool = True,
) -> Cgroups:
    """What the groups use now. Never raises: a group that vanishes meanwhile is left out.

    Args:
        root: the host.
        names: which groups are meant.
        mounts: where the hierarchies are, if that is known already.
        units: also every unit below ``names.system``.
        each_pod: also every pod's group.
    """
    mounts = mounts if mounts is not None else find_cgroup_mounts(root)
    now = time.time()
    if mounts.hierarchy == "none":
        return Cgroups("none", now, mounts)
    read = GroupReader(root, mounts)
    pods_path = next((path for path in names.pods if read.exists(path)), "")

    def group(path: str) -> Group | None:
        return read.group(path, whole=True) if path else None

    return Cgroups(
        hierarchy=mounts.hierarchy,
        unix_seconds=now,
        mounts=mounts,
        root=read.root_group(),
        system=group(names.system),
        kubelet=group(names.kubelet),
        runtime=group(names.runtime),
        pods=group(pods_path),
        kata_overhead=group(names.kata_overhead),
        units=tuple(_units(read, names.system)) if units else (),
        pod_groups=tuple(_pods(read, pods_path)) if each_pod and pods_path else (),
    )


def group_of_process(root: HostRoot, pid: int, mounts: CgroupMounts) -> str:
    """The group where a process' memory is accounted; empty where it is not to be seen."""
    return group_in(root.try_read_text(f"/proc/{pid}/cgroup", _MAX_FILE_BYTES) or "", mounts)


def group_in(text: str, mounts: CgroupMounts) -> str:
    """The group where memory is accounted, of a /proc/PID/cgroup; empty where it has none."""
    for line in text.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        wanted = not controllers if mounts.hierarchy == "v2" else "memory" in controllers.split(",")
        if wanted and path.startswith("/") and ".." not in path.split("/"):
            return path
    return ""


def pods_group(cgroup_root: str, driver: str) -> str:
    """The group of all pods, as kubelet names it.

    Source: kubelet's pkg/kubelet/cm/cgroup_manager_linux.go (CgroupName.ToSystemd, ToCgroupfs).
    """
    parts = [*_parts(cgroup_root), "kubepods"]
    if driver != "systemd":
        return "/" + "/".join(parts)
    return _slices([part.replace("-", "_") for part in parts])


def reserved_group(name: str, driver: str) -> str:
    """The group that kubelet means by a name in systemReservedCgroup; empty for an empty name.

    With systemd only the last part counts, with or without ``.slice``, and each dash in it is one slice more.

    Source: kubelet's pkg/kubelet/cm/cgroup_manager_linux.go (ParseSystemdToCgroupName, ParseCgroupfsToCgroupName).
    """
    parts = _parts(name)
    # Newer kubelets ask the runtime for the driver: a lone slice is systemd's whatever is configured.
    lone_slice = len(parts) == 1 and parts[0].endswith(".slice")
    if not parts or not (driver == "systemd" or lone_slice):
        return "".join(f"/{part}" for part in parts)
    return _slices(parts[-1].removesuffix(".slice").split("-"))


def _parts(path: str) -> list[str]:
    # Whatever is configured, nothing outside of the hierarchy is read.
    return [part for part in path.split("/") if part and part not in {".", ".."}]


def _slices(words: list[str]) -> str:
    return "".join(f"/{'-'.join(words[: n + 1])}.slice" for n in range(len(words)))


def _units(read: GroupReader, system: str) -> Iterator[Group]:
    for name in read.children(system)[:_MAX_GROUPS]:
        if (group := read.group(f"{system}/{name}")) is not None:
            yield group


def _pods(read: GroupReader, pods: str) -> Iterator[PodGroup]:
    """Every pod's group: cgroupfs' names (``pod<uid>``) and systemd's (``kubepods-burstable-pod<uid>.slice``)."""
    top = read.children(pods)
    places = [("", "guaranteed", top)]
    places += [
        (name, quality, read.children(f"{pods}/{name}"))
        for quality in _CLASSES
        for name in top
        if name == quality or name.endswith(f"-{quality}.slice")
    ]
    left = _MAX_GROUPS
    for folder, quality, names in places:
        for name in names:
            match = _POD.fullmatch(name)
            if match is None or left <= 0:
                continue
            left -= 1
            path = "/".join(part for part in (pods, folder, name) if part)
            if (group := read.group(path)) is not None:
                # systemd's names have underscores where the uid has dashes.
                yield PodGroup(match[1].replace("_", "-"), quality, group)
