"""Which control groups are meant on this node, and the figures that decisions are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.capacity.usage import MemoryUse
from kata_node_agent.host.cgroup_mounts import CgroupMounts, find_cgroup_mounts
from kata_node_agent.host.cgroups import CgroupNames, group_of_process, pods_group
from kata_node_agent.host.processes import find_pids

if TYPE_CHECKING:
    from kata_node_agent.host.cgroups import Cgroups
    from kata_node_agent.host.meminfo import MemInfo
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.nodeconfig.kubelet import KubeletSettings
    from kata_node_agent.nodeconfig.node import NodeResources

_RUNTIMES = ("crio", "containerd")


def group_names(root: HostRoot, settings: KubeletSettings, *, processes: bool = True) -> CgroupNames:
    """Which groups are meant on this node.

    Args:
        root: the host.
        settings: kubelet's.
        processes: find kubelet's and the runtime's groups by their processes, which is a search of /proc.
    """
    mounts = find_cgroup_mounts(root) if processes else CgroupMounts()

    def of(*names: str) -> str:
        pids = (pid for name in names for pid in find_pids(root, name))
        found = (group_of_process(root, pid, mounts) for pid in pids)
        return next((path for path in found if path not in {"", "/"}), "")

    configured = pods_group(settings.text("cgroupRoot"), settings.text("cgroupDriver"))
    # The other driver's name too: without a kubelet the driver is not known.
    others = (pods_group(settings.text("cgroupRoot"), driver) for driver in ("systemd", "cgroupfs"))
    kubelet = settings.text("kubeletCgroups")
    if not kubelet and processes:
        pid = settings.process.pid if settings.process is not None else None
        kubelet = group_of_process(root, pid, mounts) if pid is not None else ""
    return CgroupNames(
        system=settings.text("systemCgroups")
        or settings.text("systemReservedCgroup")
        or CgroupNames().system,
        pods=tuple(dict.fromkeys((configured, *others))),
        kubelet=kubelet if kubelet != "/" else "",
        runtime=of(*_RUNTIMES) if processes else "",
    )


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
        system_rss_bytes=system.rss_bytes if system is not None else None,
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
