"""The node's memory and what kubelet keeps from pods, from /proc/meminfo, kubelet's settings and our own on top."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kata_node_agent.capacity.allocatable import MemoryBudget, Resources, eviction_threshold_bytes
from kata_node_agent.host.machine import numa_nodes, online_cpus, storage_bytes
from kata_node_agent.host.meminfo import read_meminfo
from kata_node_agent.nodeconfig.kubelet import KubeletSettings, read_kubelet_settings
from kata_node_agent.nodeconfig.merge import Setting
from kata_node_agent.nodeconfig.validate import refusals
from kata_node_agent.quantity import Form, format_quantity

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.config.schema import KubeletConfig
    from kata_node_agent.host.meminfo import MemInfo
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.nodeconfig.document import Document


def read_budget(
    root: HostRoot, ours: KubeletConfig, known: KubeletSettings | None = None
) -> tuple[MemoryBudget, KubeletSettings]:
    """The budget, and kubelet's own settings, without ours on top (`with_ours` lays them there).

    Args:
        root: the host.
        ours: what is to be believed instead of kubelet's settings.
        known: good settings read earlier. They stay in force while a source cannot be used: a file that is being
            written must not raise the number of VMs.

    Raises:
        HostError: the node's memory cannot be read.
        QuantityError: a threshold of ours is no amount.
    """
    memory = read_meminfo(root)
    process = known.process if known is not None else None
    settings = read_kubelet_settings(root, ours.config_file, process, _asker(root, ours))
    if settings.problem and known is not None:
        settings = replace(known, problem=settings.problem)
    else:
        refused = refusals(settings, _capacity(root, memory, settings), numa_nodes(root))
        settings = replace(settings, complaints=(*settings.complaints, *refused))
    effective = with_ours(settings, ours)
    budget = MemoryBudget(
        capacity_bytes=memory.total_bytes,
        system_reserved_bytes=effective.system_reserved_bytes,
        kube_reserved_bytes=effective.kube_reserved_bytes,
        eviction_hard_bytes=eviction_threshold_bytes(effective.eviction_hard_memory, memory.total_bytes),
        hugepages_bytes=memory.hugepages_bytes,
    )
    return budget, settings


def _capacity(root: HostRoot, memory: MemInfo, settings: KubeletSettings) -> Resources:
    cpus = online_cpus(root)
    return Resources(
        memory_bytes=memory.total_bytes,
        cpu_millicores=cpus * 1000 if cpus is not None else None,
        ephemeral_storage_bytes=storage_bytes(root, settings.text("rootDir")),
    )


def _asker(root: HostRoot, ours: KubeletConfig) -> Callable[[], Document] | None:
    if not ours.configz_url:
        return None

    def ask() -> Document:
        from kata_node_agent.nodeconfig.configz import read_configz

        return read_configz(root, ours.configz_url, ours.configz_token_file, ours.configz_ca_file)

    return ask


def with_ours(settings: KubeletSettings, ours: KubeletConfig) -> KubeletSettings:
    """The settings with what our own configuration says instead of kubelet's."""
    values = dict(settings.values)

    def put(name: str, value: str, key: str) -> None:
        values[name] = Setting(value, f"our configuration, kubelet.{key}")

    if ours.system_reserved_memory is not None:
        amount = format_quantity(ours.system_reserved_memory, Form.BINARY_SI)
        put("systemReserved.memory", amount, "system_reserved_memory")
    if ours.kube_reserved_memory is not None:
        amount = format_quantity(ours.kube_reserved_memory, Form.BINARY_SI)
        put("kubeReserved.memory", amount, "kube_reserved_memory")
    if ours.eviction_hard_memory:
        put("evictionHard.memory.available", ours.eviction_hard_memory, "eviction_hard_memory")
    return replace(settings, values=values)
