"""Reads all that the report is made of. Each part that cannot be read is said, and the others stand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kata_node_agent.advice.reserved import Advice, Reservation, advise
from kata_node_agent.capacity.oddities import Oddities, explain
from kata_node_agent.capacity.usage import Finding, MemoryUse, Signals, findings, signals
from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import AgentError
from kata_node_agent.host.cgroup_mounts import find_cgroup_mounts
from kata_node_agent.host.cgroups import Cgroups, read_cgroups
from kata_node_agent.host.consumers import Consumer, largest_consumers
from kata_node_agent.host.facts import is_live
from kata_node_agent.host.meminfo import MemInfo, read_meminfo
from kata_node_agent.host.osrelease import read_os_release
from kata_node_agent.nodeconfig.kata import KataSettings, read_kata_settings
from kata_node_agent.nodeconfig.node import NodeResources, read_node
from kata_node_agent.report.document import as_document
from kata_node_agent.report.history import HISTORY_NAME, OUTSIDE
from kata_node_agent.report.use import find_runtimes, group_names, memory_use
from kata_node_agent.series import Observed, read_observed

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.config.schema import Config
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.nodeconfig.kubelet import KubeletSettings

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
    kata: tuple[KataSettings, ...] = ()
    advice: tuple[Advice, ...] = ()
    observed: tuple[Observed, ...] = ()
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document of ``report --format json``."""
        return as_document(self)


def collect_report(
    root: HostRoot,
    config: Config,
    known: KubeletSettings | None = None,
    runtimes: Callable[[HostRoot], list[int]] = find_runtimes,
) -> Report:
    """The node now.

    Args:
        root: the host.
        config: the configuration in force.
        known: kubelet's settings read earlier, which spares a search for its process.
        runtimes: finds the runtime's processes.

    Raises:
        HostError: its memory cannot be read, and so nothing can be said.
        QuantityError: a setting of ours is no amount.
    """
    now = time.time()
    node = read_node(root, config.kubelet, known)
    mounts = find_cgroup_mounts(root)
    # The report is about the node: no pod is told from another in it.
    cgroups = read_cgroups(root, group_names(root, node.settings, mounts, runtimes), mounts, each_pod=False)
    memory = read_meminfo(root)
    use = memory_use(node, memory, cgroups)
    problems = [node.settings.problem] if node.settings.problem else []
    observed: tuple[Observed, ...] = ()
    try:
        # The history is this machine's: a recorded tree has none.
        observed = () if not is_live(root) else read_observed(config.state_dir / HISTORY_NAME, now)
    except AgentError as error:
        problems.append(str(error))
    return Report(
        unix_seconds=now,
        node=node,
        memory=memory,
        cgroups=cgroups,
        use=use,
        signals=signals(use),
        findings=(*_complaints(node), *findings(use), *explain(_oddities(node, memory))),
        consumers=largest_consumers(root, cgroups, _MAX_CONSUMERS),
        kata=read_kata_settings(root),
        advice=advise(_reservation(root, node), next((o for o in observed if o.name == OUTSIDE), None)),
        observed=observed,
        problems=tuple(problems),
    )


def _complaints(node: NodeResources) -> tuple[Finding, ...]:
    """What kubelet would say of its settings, in its own words."""
    return tuple(
        Finding(complaint.reason, complaint.message, complaint.remedy, problem=True)
        for complaint in node.settings.complaints
    )


def _oddities(node: NodeResources, memory: MemInfo) -> Oddities:
    machine = node.machine
    return Oddities(
        capacity_bytes=memory.total_bytes,
        offline_blocks=machine.offline_blocks,
        offline_bytes=machine.offline_blocks * machine.memory_block_bytes,
        hugepages_bytes=memory.hugepages_bytes,
        hugepages_free_bytes=(memory.hugepages_free or 0) * (memory.hugepage_size_bytes or 0),
        hugepages_surplus_bytes=(memory.hugepages_surplus or 0) * (memory.hugepage_size_bytes or 0),
        cma_bytes=memory.cma_total_bytes or 0,
        cma_free_bytes=memory.cma_free_bytes or 0,
        block_bytes=machine.online_blocks * machine.memory_block_bytes,
        crash_kernel_bytes=machine.crash_kernel_bytes,
    )


def _reservation(root: HostRoot, node: NodeResources) -> Reservation:
    settings, release = node.settings, read_os_release(root)
    origin = settings.values.get("systemReserved.memory")
    return Reservation(
        capacity_bytes=node.budget.capacity_bytes,
        cpus=node.machine.cpus,
        reserved_bytes=node.budget.system_reserved_bytes + node.budget.kube_reserved_bytes,
        kube_reserved_bytes=node.budget.kube_reserved_bytes,
        origin=origin.origin if origin is not None else "kubelet's defaults",
        openshift=release is not None and release.family == "rhcos",
    )
