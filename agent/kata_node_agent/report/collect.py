"""Reads all that the report is made of. Each part that cannot be read is said, and the others stand."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kata_node_agent.capacity.usage import Finding, MemoryUse, Signals, findings, signals
from kata_node_agent.host.cgroup_mounts import find_cgroup_mounts
from kata_node_agent.host.cgroups import (
    CgroupNames,
    Cgroups,
    group_of_process,
    pods_group,
    read_cgroups,
)
from kata_node_agent.host.consumers import Consumer, largest_consumers
from kata_node_agent.host.meminfo import MemInfo, read_meminfo
from kata_node_agent.host.processes import find_pids
from kata_node_agent.nodeconfig.node import NodeResources, read_node
from kata_node_agent.report.document import as_document

if TYPE_CHECKING:
    from kata_node_agent.config.schema import Config
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.nodeconfig.kubelet import KubeletSettings

_RUNTIMES = ("crio", "containerd")
_MAX_CONSUMERS = 5


@dataclass(frozen=True, slots=True)
class Report:
    """The node at ``unix_seconds``."""

    unix_seconds: float
    node: NodeResources
    memory: MemInfo
    cgroups: Cgroups
    use: MemoryUse
    signals: Signals
    findings: tuple[Finding, ...]
    consumers: tuple[Consumer, ...] = ()
    problems: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """The document of ``report --format json``."""
        return as_document(self)


def collect_report(root: HostRoot, config: Config) -> Report:
    """The node now.

    Raises:
        HostError: its memory cannot be read, and so nothing can be said.
        QuantityError: a setting of ours is no amount.
    """
    now = time.time()
    node = read_node(root, config.kubelet)
    cgroups = read_cgroups(root, group_names(root, node.settings))
    memory = read_meminfo(root)
    use = memory_use(node, memory, cgroups)
    problems = [node.settings.problem] if node.settings.problem else []
    return Report(
        unix_seconds=now,
        node=node,
        memory=memory,
        cgroups=cgroups,
        use=use,
        signals=signals(use),
        findings=findings(use),
        consumers=largest_consumers(root, cgroups, _MAX_CONSUMERS),
        problems=tuple(problems),
    )


def group_names(root: HostRoot, settings: KubeletSettings) -> CgroupNames:
    """Which groups are meant on this node: by kubelet's settings, and where they say nothing by the running processes."""
    mounts = find_cgroup_mounts(root)

    def of(*names: str) -> str:
        pids = (pid for name in names for pid in find_pids(root, name))
        found = (group_of_process(root, pid, mounts) for pid in pids)
        return next((path for path in found if path not in {"", "/"}), "")

    configured = pods_group(settings.text("cgroupRoot"), settings.text("cgroupDriver"))
    # The other driver's name too: without a kubelet the driver is not known.
    others = (pods_group(settings.text("cgroupRoot"), driver) for driver in ("systemd", "cgroupfs"))
    kubelet = settings.text("kubeletCgroups")
    if not kubelet:
        pid = settings.process.pid if settings.process is not None else None
        kubelet = group_of_process(root, pid, mounts) if pid is not None else ""
    return CgroupNames(
        system=settings.text("systemReservedCgroup") or CgroupNames().system,
        pods=tuple(dict.fromkeys((configured, *others))),
        kubelet=kubelet if kubelet != "/" else "",
        runtime=of(*_RUNTIMES),
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
