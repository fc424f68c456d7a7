"""What kubelet would refuse at its next start, in its own kind of words. Pure.

Sources: kubelet's pkg/kubelet/apis/config/validation, pkg/kubelet/eviction (parseThresholdStatement), cmd/kubelet/app
(parseResourceList), pkg/kubelet/cm (GetNodeAllocatableReservation, validateNodeAllocatable), pkg/kubelet/cm/cpumanager
(NewManager), pkg/kubelet/cm/memorymanager (NewManager, validateReservedMemory). Kubelet stops at the first kind of fault;
here all are said.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from fractions import Fraction
from typing import TYPE_CHECKING

from kata_node_agent.capacity.allocatable import eviction_threshold_bytes
from kata_node_agent.errors import QuantityError
from kata_node_agent.host.facts import parse_cpu_list
from kata_node_agent.nodeconfig.document import RESERVATIONS
from kata_node_agent.nodeconfig.kubelet import Complaint
from kata_node_agent.quantity import Form, format_quantity, parse
from kata_node_agent.text import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from kata_node_agent.capacity.allocatable import Resources
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
# Setting → its flag and all that it may be.
_CHOICES = {
    "topologyManagerPolicy": (
        "topology-manager-policy",
        ("none", "best-effort", "restricted", "single-numa-node"),
    ),
    "topologyManagerScope": ("topology-manager-scope", ("container", "pod")),
}


def refusals(
    settings: KubeletSettings, capacity: Resources, numa_nodes: Collection[int] | None = None
) -> tuple[Complaint, ...]:
    """All that kubelet would refuse of settings whose amounts are amounts.

    Args:
        settings: kubelet's.
        capacity: what the node has. What is not known is not judged, nor are pids: kubelet does not judge them either.
        numa_nodes: the node's NUMA nodes; ``None`` where they are not known.
    """
    messages = [
        *_reserved_cpus(settings),
        *_enforcement(settings),
        *_groups_and_choices(settings),
        *_amounts(settings),
        *_over_capacity(settings, capacity),
        *_cpu_manager(settings),
        *_memory_manager(settings, capacity, numa_nodes),
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
    for way, times in Counter(ways).items():
        if times > 1:
            yield f'invalid configuration: duplicated enforcements "{way}" in {name}'
    for kept in ("system-reserved", "kube-reserved"):
        if kept in ways and f"{kept}-compressible" in ways:
            yield f'invalid configuration: both "{kept}" and "{kept}-compressible" cannot be specified together in {name}'
    per_qos = settings.values.get("cgroupsPerQOS")
    if per_qos is not None and per_qos.value is False:
        for way in dict.fromkeys(ways):
            if way in _ENFORCEMENTS and way != "none":
                need = "cgroupsPerQOS (--cgroups-per-qos) must be set to true"
                yield f'invalid configuration: {need} when "{way}" contained in {name}'


def _groups_and_choices(settings: KubeletSettings) -> Iterator[str]:
    if settings.text("systemCgroups") and not settings.text("cgroupRoot"):
        yield (
            "invalid configuration: systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not "
            "specified"
        )
    pods = settings.values.get("maxPods")
    if pods is not None and isinstance(pods.value, int) and pods.value < 0:
        yield f"invalid configuration: maxPods (--max-pods) {pods.value} must not be a negative number"
    for name, (flag, choices) in _CHOICES.items():
        if name in settings.values and settings.text(name) not in choices:
            among = " ".join(f'"{choice}"' for choice in choices)
            yield f'invalid configuration: {name} (--{flag}) "{settings.text(name)}" must be one of: [{among}]'
    for name, known in (
        ("cpuManagerPolicy", ("none", "static")),
        ("memoryManagerPolicy", ("None", "Static")),
    ):
        if name in settings.values and settings.text(name) not in known:
            yield f'{name}: unknown policy: "{settings.text(name)}"'


def _amounts(settings: KubeletSettings) -> Iterator[str]:
    for name, setting in settings.values.items():
        group, _, key = name.partition(".")
        if group in RESERVATIONS and key not in _RESERVABLE:
            yield f'cannot reserve "{key}" resource'
        elif group in {"evictionHard", "evictionSoft"}:
            threshold = str(setting.value)
            if key not in _SIGNALS:
                yield f"unrecognized eviction signal {key}"
            elif not threshold.endswith("%") and not parse(threshold):
                yield f"eviction threshold {key} must be positive: {threshold}"


def _over_capacity(settings: KubeletSettings, capacity: Resources) -> Iterator[str]:
    has = {
        "cpu": (
            Fraction(capacity.cpu_millicores, 1000) if capacity.cpu_millicores is not None else None,
            Form.DECIMAL_SI,
        ),
        "ephemeral-storage": (capacity.ephemeral_storage_bytes, Form.BINARY_SI),
        "memory": (capacity.memory_bytes, Form.BINARY_SI),
    }
    faults: list[str] = []
    for resource, (total, form) in has.items():
        if total is not None and (kept := _kept(settings, resource, capacity)) > total:
            faults.append(
                f'Resource "{resource}" has a reservation of {format_quantity(kept, form)} but capacity of '
                f"{format_quantity(total, form)}. Expected capacity >= reservation."
            )
    if faults:
        yield "invalid Node Allocatable configuration. " + " ".join(faults)


def _kept(settings: KubeletSettings, resource: str, capacity: Resources) -> Fraction:
    """All that is kept of a resource: both reservations, and the hard threshold where there is one for it."""
    kept = _reserved(settings, resource)
    signal, total = {
        "memory": ("memory.available", capacity.memory_bytes),
        "ephemeral-storage": ("nodefs.available", capacity.ephemeral_storage_bytes),
    }.get(resource, ("", None))
    return kept + eviction_threshold_bytes(settings.text(f"evictionHard.{signal}"), total or 0)


def _reserved(settings: KubeletSettings, resource: str) -> Fraction:
    return sum((parse(settings.text(f"{name}.{resource}") or "0") for name in RESERVATIONS), Fraction())


def _cpu_manager(settings: KubeletSettings) -> Iterator[str]:
    if settings.text("cpuManagerPolicy") == "static" and not _reserved(settings, "cpu"):
        yield "unable to determine reserved CPU resources for static policy"


def _memory_manager(
    settings: KubeletSettings, capacity: Resources, numa_nodes: Collection[int] | None
) -> Iterator[str]:
    """What is reserved by NUMA node has to be, under the static policy and for each type, what is reserved of the whole node.

    Of huge pages nothing can be reserved of the whole node, so that kubelet does not start with a reservation of those.
    """
    setting = settings.values.get("reservedMemory")
    entries = setting.value if setting is not None and isinstance(setting.value, tuple) else ()
    static = settings.text("memoryManagerPolicy") == "Static"
    totals: defaultdict[str, Fraction] = defaultdict(Fraction)
    seen: set[tuple[str, str]] = set()
    for entry in entries:
        node, _, limits = entry.partition(":")
        if static and numa_nodes and not (node.isascii() and node.isdigit() and int(node[:10]) in numa_nodes):
            yield f"the reserved memory configuration references a NUMA node {node} that does not exist on this machine"
        for kind, _, amount in (part.strip().partition("=") for part in limits.split(",")):
            try:
                value = parse(amount.strip())
            except QuantityError:
                yield f'invalid reserved memory "{entry}"'
                continue
            where = f'for NUMA node {node} and resource "{kind}"'
            if kind != "memory" and not kind.startswith("hugepages-"):
                only = "only [memory hugepages-<HugePageSize>] is accepted"
                yield f'invalid configuration: the limit type "{kind}" for NUMA node {node} is not supported, {only}'
            if not value:
                yield f"invalid configuration: reserved memory may not be zero {where}"
            if (node, kind) in seen:
                yield f"invalid configuration: the reserved memory has a duplicate value {where}"
            seen.add((node, kind))
            totals[kind] += value
    if not static:
        return
    for kind in dict.fromkeys(("memory", *totals)):
        kept = _kept(settings, kind, capacity) if kind == "memory" else Fraction()
        if totals[kind] != kept:
            yield (
                f'the total amount "{format_quantity(totals[kind], Form.BINARY_SI)}" of type "{kind}" is not equal to '
                f'the value "{format_quantity(kept, Form.BINARY_SI)}" determined by Node Allocatable feature'
            )
