"""The node's resources as kubelet counts them: capacity, what is kept, what is left, with the settings behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.capacity.allocatable import Resources, allocatable, eviction_threshold_bytes
from kata_node_agent.dataclass import dataclass
from kata_node_agent.host.machine import Machine, read_machine
from kata_node_agent.nodeconfig.document import MAPS
from kata_node_agent.nodeconfig.memory import read_budget, with_ours
from kata_node_agent.quantity import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_node_agent.capacity.allocatable import MemoryBudget
    from kata_node_agent.config.schema import KubeletConfig
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.nodeconfig.kubelet import KubeletSettings


@dataclass(frozen=True, slots=True)
class NodeResources:
    """A node's resources. Amounts are bytes, millicores and numbers of process ids.

    Attributes:
        capacity: what the node has.
        budget: its memory, part by part.
        machine: huge pages of each size, and what else was read of the machine.
        system_reserved, kube_reserved: what the settings keep; a resource that they do not name is 0.
        allocatable: what pods may request in all.
        eviction_hard, eviction_soft: signal → threshold as configured, an amount or a percentage.
        nodefs_threshold_bytes: the hard threshold of nodefs.available, where the size of the file system is known.
        settings: all effective settings, ours on top.
    """

    capacity: Resources
    budget: MemoryBudget
    machine: Machine
    system_reserved: Resources
    kube_reserved: Resources
    allocatable: Resources
    eviction_hard: Mapping[str, str]
    eviction_soft: Mapping[str, str]
    nodefs_threshold_bytes: int | None
    settings: KubeletSettings


def read_node(root: HostRoot, ours: KubeletConfig, known: KubeletSettings | None = None) -> NodeResources:
    """The node's resources now.

    Args:
        root: the host.
        ours: what is to be believed instead of kubelet's settings.
        known: settings read earlier; see `read_budget`.

    Raises:
        HostError: the node's memory cannot be read.
        QuantityError: a setting of ours is no amount.
    """
    budget, kubelet = read_budget(root, ours, known)
    settings = with_ours(kubelet, ours)
    machine = read_machine(root, settings.text("rootDir"))
    groups = {name: _group(settings, name) for name in MAPS}
    capacity = Resources(
        memory_bytes=budget.capacity_bytes,
        cpu_millicores=machine.cpus * 1000 if machine.cpus is not None else None,
        ephemeral_storage_bytes=machine.storage_bytes,
        pids=machine.pids,
    )
    hard = groups["evictionHard"]
    nodefs = None
    if machine.storage_bytes is not None:
        nodefs = eviction_threshold_bytes(hard.get("nodefs.available", ""), machine.storage_bytes)
    return NodeResources(
        capacity=capacity,
        budget=budget,
        machine=machine,
        system_reserved=_reserved(groups["systemReserved"]),
        kube_reserved=_reserved(groups["kubeReserved"]),
        allocatable=allocatable(
            capacity, (groups["systemReserved"], groups["kubeReserved"]), hard, budget.hugepages_bytes
        ),
        eviction_hard=hard,
        eviction_soft=groups["evictionSoft"],
        nodefs_threshold_bytes=nodefs,
        settings=settings,
    )


def _group(settings: KubeletSettings, name: str) -> dict[str, str]:
    start = f"{name}."
    return {
        key.removeprefix(start): str(setting.value)
        for key, setting in settings.values.items()
        if key.startswith(start)
    }


def _reserved(amounts: Mapping[str, str]) -> Resources:
    def whole(resource: str, scale: int = 1) -> int:
        value = parse(amounts.get(resource, "0")) * scale
        # As Kubernetes rounds: up.
        return -(-value.numerator // value.denominator)

    return Resources(whole("memory"), whole("cpu", 1000), whole("ephemeral-storage"), whole("pid"))
