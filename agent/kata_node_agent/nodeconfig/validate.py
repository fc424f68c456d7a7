"""What kubelet would refuse at its next start, in its own kind of words. Pure.

Sources: kubelet's pkg/kubelet/apis/config/validation, pkg/kubelet/eviction (parseThresholdStatement), cmd/kubelet/app
(parseResourceList), pkg/kubelet/cm (validateNodeAllocatable), pkg/kubelet/cm/memorymanager (validateReservedMemory).
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from kata_node_agent.capacity.allocatable import eviction_threshold_bytes
from kata_node_agent.errors import QuantityError
from kata_node_agent.host.facts import parse_cpu_list
from kata_node_agent.nodeconfig.document import printable
from kata_node_agent.nodeconfig.kubelet import Complaint
from kata_node_agent.quantity import Form, format_quantity, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_node_agent.nodeconfig.kubelet import KubeletSettings

_MAX_SAID = 10
_RESERVABLE = {"cpu", "memory", "ephemeral-storage", "pid"}
_SIGNALS = {
    "memory.available",
    "nodefs.available",
    "nodefs.inodesFree",
    "imagefs.available",
    "imagefs.inodesFree",
    "containerfs.available",
    "containerfs.inodesFree",
    "pid.available",
}
# A way to enforce → the cgroup setting and flag that it needs.
_ENFORCEMENTS = {
    "pods": "",
    "none": "",
    "system-reserved": "systemReservedCgroup (--system-reserved-cgroup)",
    "system-reserved-compressible": "systemReservedCgroup (--system-reserved-cgroup)",
    "kube-reserved": "kubeReservedCgroup (--kube-reserved-cgroup)",
    "kube-reserved-compressible": "kubeReservedCgroup (--kube-reserved-cgroup)",
}


def refusals(settings: KubeletSettings, memory_capacity_bytes: int) -> tuple[Complaint, ...]:
    """All that kubelet would refuse of settings whose amounts are amounts."""
    messages = [
        *_reserved_cpus(settings),
        *_enforcement(settings),
        *_amounts(settings),
        *_memory(settings, memory_capacity_bytes),
        *_memory_manager(settings, memory_capacity_bytes),
    ]
    # The first ones are enough to begin with; a hostile file could have thousands.
    return tuple(Complaint("KubeletWouldRefuse", printable(message)) for message in messages[:_MAX_SAID])


def _reserved_cpus(settings: KubeletSettings) -> Iterator[str]:
    cpus = settings.text("reservedSystemCPUs")
    if not cpus:
        return
    if settings.text("systemReservedCgroup") or settings.text("kubeReservedCgroup"):
        yield (
            "invalid configuration: can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup "
            "(--system-reserved-cgroup) or kubeReservedCgroup (--kube-reserved-cgroup)"
        )
    if not parse_cpu_list(cpus):
        yield f"invalid configuration: unable to parse reservedSystemCPUs (--reserved-cpus) {cpus}"


def _enforcement(settings: KubeletSettings) -> Iterator[str]:
    setting = settings.values.get("enforceNodeAllocatable")
    ways = setting.value if setting is not None and isinstance(setting.value, tuple) else ()
    name = "enforceNodeAllocatable (--enforce-node-allocatable)"
    for way in ways:
        needed = _ENFORCEMENTS.get(way)
        if needed is None:
            yield f'invalid configuration: option "{way}" specified for {name}'
        elif needed and not settings.text(needed.partition(" ")[0]):
            yield f'invalid configuration: {needed} must be specified when "{way}" contained in {name}'
    if "none" in ways and len(ways) > 1:
        yield f'invalid configuration: {name} may not contain additional enforcements when "none" is specified'


def _amounts(settings: KubeletSettings) -> Iterator[str]:
    for name, setting in settings.values.items():
        group, _, key = name.partition(".")
        if group in {"systemReserved", "kubeReserved"} and key not in _RESERVABLE:
            yield f'cannot reserve "{key}" resource'
        elif group in {"evictionHard", "evictionSoft"}:
            threshold = str(setting.value)
            if key not in _SIGNALS:
                yield f"unrecognized eviction signal {key}"
            elif not threshold.endswith("%") and not parse(threshold):
                yield f"eviction threshold {key} must be positive: {threshold}"


def _memory(settings: KubeletSettings, capacity_bytes: int) -> Iterator[str]:
    reserved = settings.system_reserved_bytes + settings.kube_reserved_bytes
    reserved += eviction_threshold_bytes(settings.eviction_hard_memory, capacity_bytes)
    if reserved > capacity_bytes:
        kept = format_quantity(reserved, Form.BINARY_SI)
        there = format_quantity(capacity_bytes, Form.BINARY_SI)
        yield (
            f'invalid Node Allocatable configuration. Resource "memory" has a reservation of {kept} but capacity of '
            f"{there}. Expected capacity >= reservation."
        )


def _memory_manager(settings: KubeletSettings, capacity_bytes: int) -> Iterator[str]:
    """The static memory manager wants what is reserved by NUMA node to be just what is reserved of the whole node."""
    setting = settings.values.get("reservedMemory")
    entries = setting.value if setting is not None and isinstance(setting.value, tuple) else ()
    if settings.text("memoryManagerPolicy") != "Static":
        return
    total = Fraction()
    for entry in entries:
        for part in entry.partition(":")[2].split(","):
            kind, _, amount = part.partition("=")
            if kind.strip() == "memory":
                try:
                    total += parse(amount.strip())
                except QuantityError:
                    yield f'invalid reserved memory "{entry}"'
    reserved = settings.system_reserved_bytes + settings.kube_reserved_bytes
    reserved += eviction_threshold_bytes(settings.eviction_hard_memory, capacity_bytes)
    if total != reserved:
        yield (
            f'the total amount "{format_quantity(total, Form.BINARY_SI)}" of type "memory" is not equal to the value '
            f'"{format_quantity(reserved, Form.BINARY_SI)}" determined by Node Allocatable feature'
        )
