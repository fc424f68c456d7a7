"""The node's memory and what kubelet keeps from pods, from /proc/meminfo, kubelet's settings and our own on top."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kata_node_agent.capacity.allocatable import MemoryBudget, eviction_threshold_bytes
from kata_node_agent.host.meminfo import read_meminfo
from kata_node_agent.nodeconfig.kubelet import KubeletSettings, read_kubelet_settings

if TYPE_CHECKING:
    from kata_node_agent.config.schema import KubeletConfig
    from kata_node_agent.host.root import HostRoot


def read_budget(
    root: HostRoot, ours: KubeletConfig, known: KubeletSettings | None = None
) -> tuple[MemoryBudget, KubeletSettings]:
    """The budget, and the settings it was made with.

    Args:
        root: the host.
        ours: what is to be believed instead of kubelet's settings.
        known: good settings read earlier. They stay in force while the file cannot be used: a file that is being written
            must not raise the number of VMs.

    Raises:
        HostError: the node's memory cannot be read.
        QuantityError: a threshold of ours is no amount.
    """
    memory = read_meminfo(root)
    settings = read_kubelet_settings(root, ours.config_file)
    if settings.problem and known is not None:
        settings = replace(known, problem=settings.problem)
    system, kube = ours.system_reserved_memory, ours.kube_reserved_memory
    budget = MemoryBudget(
        capacity_bytes=memory.total_bytes,
        system_reserved_bytes=settings.system_reserved_bytes if system is None else system,
        kube_reserved_bytes=settings.kube_reserved_bytes if kube is None else kube,
        eviction_hard_bytes=eviction_threshold_bytes(
            ours.eviction_hard_memory or settings.eviction_hard_memory, memory.total_bytes
        ),
        hugepages_bytes=memory.hugepages_bytes,
    )
    return budget, settings
