"""Which control groups are meant on this node, and the figures that decisions are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.capacity.usage import ALERT_GROUP, MemoryUse
from kata_node_agent.host.cgroups import CgroupNames, group_of_process, pods_group, reserved_group
from kata_node_agent.host.processes import find_pids, is_of_node

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kata_node_agent.host.cgroup_mounts import CgroupMounts
    from kata_node_agent.host.cgroups import Cgroups
    from kata_node_agent.host.meminfo import MemInfo
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.nodeconfig.kubelet import KubeletSettings
    from kata_node_agent.nodeconfig.node import NodeResources

_RUNTIMES = ("crio", "containerd")
_MAX_FILE_BYTES = 64 * 1024
_MAX_NAME_BYTES = 64


def find_runtimes(root: HostRoot, known: Sequence[int] = ()) -> list[int]:
    """Processes that have a container runtime's name.

    Args:
        root: the host.
        known: those of an earlier look. Where all of them are what they were, /proc is not searched again.
    """
    names = (root.try_read_text(f"/proc/{pid}/comm", _MAX_NAME_BYTES) or "" for pid in known)
    if known and all(name.rstrip("\n") in _RUNTIMES for name in names):
        return list(known)
    return find_pids(root, *_RUNTIMES)


def group_names(
    root: HostRoot,
    settings: KubeletSettings,
    mounts: CgroupMounts | None = None,
    runtimes: Callable[[HostRoot], list[int]] = find_runtimes,
) -> CgroupNames:
    """Which groups are meant on this node.

    Args:
        root: the host.
        settings: kubelet's.
        mounts: find kubelet's and the runtime's groups by their processes, which is a search of /proc; ``None``: do not.
        runtimes: finds the runtime's processes.
    """
    root_group, driver = settings.text("cgroupRoot"), settings.text("cgroupDriver")
    # The other driver's name too: without a kubelet the driver is not known.
    pods = tuple(dict.fromkeys(pods_group(root_group, each) for each in (driver, "systemd", "cgroupfs")))
    kubelet, runtime = settings.text("kubeletCgroups"), settings.text("runtimeCgroups")
    if mounts is not None:
        if not kubelet and settings.process is not None:
            kubelet = _group_of(root, [settings.process.pid], mounts, pods)
        if not runtime:
            runtime = _group_of(root, runtimes(root), mounts, pods)
    return CgroupNames(
        system=reserved_group(settings.text("systemCgroups"), "")
        or reserved_group(settings.text("systemReservedCgroup"), driver)
        or CgroupNames().system,
        pods=pods,
        kubelet=reserved_group(kubelet, ""),
        runtime=reserved_group(runtime, ""),
    )


def _group_of(root: HostRoot, pids: list[int], mounts: CgroupMounts, pods: tuple[str, ...]) -> str:
    """The group of the first of these that is the node's own: a pod may run a runtime, too, and as privileged as ours."""
    for pid in pids:
        path = group_of_process(root, pid, mounts)
        in_pod = any(f"{path}/".startswith(f"{place}/") for place in pods)
        if path in {"", "/"} or in_pod:
            continue
        if is_of_node(root.try_read_text(f"/proc/{pid}/status", _MAX_FILE_BYTES) or ""):
            return path
    return ""


def memory_use(node: NodeResources, memory: MemInfo, cgroups: Cgroups) -> MemoryUse:
    """The figures that decisions are made of."""
    system, pods, overhead, root = cgroups.system, cgroups.pods, cgroups.kata_overhead, cgroups.root
    pressure = root.memory_pressure if root is not None else None
    return MemoryUse(
        capacity_bytes=node.budget.capacity_bytes,
        reserved_bytes=node.budget.system_reserved_bytes + node.budget.kube_reserved_bytes,
        allocatable_bytes=node.budget.allocatable_bytes,
        eviction_hard=node.eviction_hard.get("memory.available", ""),
        root_working_set_bytes=root.working_set_bytes if root is not None else None,
        system_rss_bytes=system.rss_bytes if system is not None and system.path == ALERT_GROUP else None,
        system_working_set_bytes=system.working_set_bytes if system is not None else None,
        pods_limit_bytes=pods.limit_bytes if pods is not None else None,
        pods_working_set_bytes=pods.working_set_bytes if pods is not None else None,
        kata_overhead_bytes=overhead.working_set_bytes if overhead is not None else None,
        available_bytes=memory.available_bytes,
        slab_bytes=memory.slab_unreclaimable_bytes,
        page_tables_bytes=memory.page_tables_bytes,
        hugetlb_bytes=memory.hugepages_bytes,
        system_swap_bytes=system.swap_bytes if system is not None else None,
        pressure_percent=pressure.some_avg60 if pressure is not None else None,
    )
