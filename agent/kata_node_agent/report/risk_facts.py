"""A sandbox that was seen, and what is written down of its pod, become the facts that risks are made of. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kata_node_agent.capacity.annotations import with_annotations
from kata_node_agent.capacity.hotplug import Vm
from kata_node_agent.capacity.pod import Container, Pod, memory_limits_bytes, memory_requests_bytes
from kata_node_agent.capacity.risks import SandboxFacts
from kata_node_agent.capacity.sizing import forecast, plugs
from kata_node_agent.dataclass import dataclass
from kata_node_agent.sandboxes.identity import pod_uid_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from kata_node_agent.capacity.hotplug import VmSettings
    from kata_node_agent.capacity.sizing import Forecast
    from kata_node_agent.host.allocations import PodAllocation
    from kata_node_agent.report.bundle import Bundle
    from kata_node_agent.sandboxes.model import Charge, Sandbox


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What is known of a sandbox's pod. Amounts are bytes and millicores; ``None`` where nothing says it.

    Attributes:
        pod: as far as it is known, for the forecast; ``None`` where its limits are not.
        limits_bytes: what its containers' limits come to.
        requests_bytes: what they request.
        limits_millicores: what their CPU limits come to; 0 for none.
        overhead_bytes, overhead_millicores: podFixed.
    """

    pod: Pod | None = None
    limits_bytes: int | None = None
    requests_bytes: int | None = None
    limits_millicores: int | None = None
    overhead_bytes: int | None = None
    overhead_millicores: int | None = None


def pod_facts(sandbox: Sandbox, bundle: Bundle, allocation: PodAllocation | None) -> PodFacts:
    """What is known of the pod. Kubelet's allocation is newer than the bundle, where a pod was resized in place."""
    pod, limits, requests = None, bundle.limits_bytes, None
    if allocation is not None:
        level = allocation.pod
        pod = Pod(
            tuple(
                Container(
                    name,
                    memory_limit_bytes=each.memory_limit_bytes,
                    memory_request_bytes=each.memory_request_bytes,
                    hugepages_bytes=each.hugepages_bytes,
                    cpu_limit_millicores=each.cpu_limit_millicores,
                )
                for name, each in allocation.containers.items()
            ),
            memory_limit_bytes=level.memory_limit_bytes if level is not None else None,
            memory_request_bytes=level.memory_request_bytes if level is not None else None,
            cpu_limit_millicores=level.cpu_limit_millicores if level is not None else None,
            annotations=bundle.annotations,
        )
        limits, requests = memory_limits_bytes(pod), memory_requests_bytes(pod)
    elif limits is not None:
        pod = Pod(
            (
                Container(
                    "all", memory_limit_bytes=limits, cpu_limit_millicores=bundle.limits_millicores or None
                ),
            ),
            annotations=bundle.annotations,
        )
    overhead = bundle.overhead_bytes
    if overhead is None and sandbox.charge is not None:
        overhead = _overhead(sandbox.charge, max(limits or 0, bundle.limits_bytes or 0))
    return PodFacts(pod, limits, requests, bundle.limits_millicores, overhead, bundle.overhead_millicores)


def _overhead(charge: Charge, limits: int) -> int | None:
    """PodFixed from the limit that kubelet gave the pod's cgroup: it is the limits and podFixed, where all have a limit."""
    if charge.limit_bytes is None or not limits or pod_uid_of(charge.cgroup) is None:
        return None
    rest = charge.limit_bytes - limits
    return rest if rest >= 0 else None


def handler_of(sandbox: Sandbox, handlers: Collection[str]) -> str | None:
    """The sandbox's handler. Where nobody says which, and the node has one, it is that."""
    return next(iter(handlers)) if sandbox.handler is None and len(handlers) == 1 else sandbox.handler


def becomes(sandbox: Sandbox, settings: VmSettings | None, pod: Pod | None) -> Forecast | None:
    """What the sandbox's VM becomes, from what it is; ``None`` where handler or limits are not known."""
    if settings is None or pod is None:
        return None
    own, _ = with_annotations(settings, pod.annotations)
    if not own.static:
        # The runtime goes on with the settings that it had at the start, and QEMU's command line shows them. Of other VMMs
        # the base is what there was when they were first seen, plugged memory included.
        seen = min(own.default_memory_bytes, sandbox.vm_memory_bytes)
        own = replace(own, default_memory_bytes=sandbox.base_bytes if sandbox.vmm == "qemu" else seen)
    return forecast(own, pod, Vm(sandbox.vm_memory_bytes))


def sandbox_facts(
    sandbox: Sandbox,
    known: PodFacts,
    settings: VmSettings | None,
    *,
    vcpus: int | None = None,
    cpu_quota_millicores: int | None = None,
) -> SandboxFacts:
    """The facts that risks are made of.

    Args:
        sandbox: as it was seen.
        known: of its pod.
        settings: of its handler; ``None`` where that is not known.
        vcpus: CPUs of the VM.
        cpu_quota_millicores: what its pod's cgroup may use.
    """
    cost, charge = sandbox.cost, sandbox.charge
    wanted = becomes(sandbox, settings, known.pod)
    outside, outside_bytes = _outside(charge)
    if cpu_quota_millicores is None and known.limits_millicores and known.overhead_millicores is not None:
        cpu_quota_millicores = known.limits_millicores + known.overhead_millicores
    return SandboxFacts(
        vm_bytes=sandbox.vm_memory_bytes,
        final_bytes=wanted.final_bytes if wanted is not None else None,
        resident_bytes=cost.resident_bytes if cost is not None else None,
        host_overhead_bytes=cost.host_overhead_bytes if cost is not None else None,
        limited_overhead_bytes=cost.vmm_bytes + cost.page_table_bytes
        if cost is not None and charge is not None and charge.elsewhere
        else None,
        charge_bytes=charge.bytes if charge is not None else None,
        cgroup_limit_bytes=charge.limit_bytes if charge is not None else None,
        outside_bytes=outside_bytes,
        outside=outside,
        memory_in=sandbox.memory_location,
        limits_bytes=known.limits_bytes,
        requests_bytes=known.requests_bytes,
        overhead_bytes=known.overhead_bytes,
        plugs=plugs(settings, wanted) if settings is not None and wanted is not None else (),
        faults=wanted.faults if wanted is not None else (),
        cpu_limited=bool(known.limits_millicores),
        vcpus=vcpus,
        cpu_quota_millicores=cpu_quota_millicores,
    )


def _outside(charge: Charge | None) -> tuple[str, int | None]:
    """The groups outside of any pod's, and what is charged there."""
    if charge is None:
        return "", None
    groups = [group for group in charge.elsewhere if pod_uid_of(group) is None]
    amount = charge.elsewhere_bytes if groups else 0
    if pod_uid_of(charge.cgroup) is None:
        groups.insert(0, charge.cgroup)
        amount += charge.bytes
    return ", ".join(groups), amount
