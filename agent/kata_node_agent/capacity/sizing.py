"""How big a pod's VM becomes: a handler's settings and the pod's limits in, a forecast out. Pure.

What is forecast is what the runtime does, its faults included; a VM that is seen is believed before its forecast.
``memory_offset`` has no part in it: it is room for addresses, and no memory.

Source: Kata Containers 4.1.0, src/runtime/virtcontainers (sandbox.go updateResources, qemu.go and clh.go ResizeMemory),
src/runtime/pkg/oci/utils.go (static sizing), src/runtime-rs/crates/resource/src/cpu_mem (initial_size.rs, mem.rs),
src/runtime-rs/crates/hypervisor/src (resize_memory).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from kata_node_agent.capacity.hotplug import ACPI_FACTOR, MIB, RAISE_MAXIMUM, Fault, Vm, grow
from kata_node_agent.capacity.pod import cpu_limits_millicores, limit_of, memory_limits_bytes
from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_node_agent.capacity.hotplug import VmSettings
    from kata_node_agent.capacity.pod import Container, Pod

_EVEN_MIB = 2


@dataclass(frozen=True, slots=True)
class Step:
    """A container that made the VM grow, from what, and what it has from then on."""

    container: str
    before_bytes: int
    vm_bytes: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a pod's VM becomes. Amounts are of the guest's memory, without processes of the host.

    Attributes:
        boot_bytes: at RunPodSandbox; 0 for a VM that is not on this node.
        final_bytes: the most that it will have: the high-water mark.
        settled_bytes: what it has when the last container runs; less than the most only where memory can be taken back.
        steps: each growth, in order.
        faults: what goes wrong on the way, in order. After one that is fatal there are no more steps.
        vcpus: CPUs of the VM in the end.
        memory_in: where the memory lives on the host.
    """

    boot_bytes: int
    final_bytes: int
    settled_bytes: int
    steps: tuple[Step, ...] = ()
    faults: tuple[Fault, ...] = ()
    vcpus: int = 0
    memory_in: Literal["shm", "memfd", "hugepages", "anonymous", "elsewhere"] = "anonymous"

    @property
    def starts(self) -> bool:
        """Whether all containers of the pod come to run."""
        return not any(fault.fatal for fault in self.faults)


def forecast(settings: VmSettings, pod: Pod, now: Vm | None = None) -> Forecast:
    """What the pod's VM becomes.

    Args:
        settings: of the handler, with the pod's annotations on top (`annotations.with_annotations`).
        pod: as it is specified now, after a resize in place too.
        now: the VM as it is, where it runs: it keeps what it was given, and grows from there.
    """
    if not settings.runs_here:
        return Forecast(0, 0, 0, memory_in="elsewhere")
    boot = _boot_bytes(settings, pod)
    vm = now or Vm(boot)
    most = vm.bytes
    steps: list[Step] = []
    # By reason: of several that are the same, the last one has the largest figures.
    faults = {fault.reason: fault for fault in _boot_faults(settings, boot, now)}
    for container, wanted in () if settings.static else _wanted(settings, pod):
        if any(fault.fatal for fault in faults.values()):
            break
        before = vm.bytes
        vm, trouble = grow(settings, vm, wanted)
        faults |= {fault.reason: fault for fault in trouble}
        if vm.bytes > before:
            steps.append(Step(container.name, before, vm.bytes))
        most = max(most, vm.bytes)
    return Forecast(
        boot, most, vm.bytes, tuple(steps), tuple(faults.values()), _vcpus(settings, pod), settings.memory_in
    )


def plugs(settings: VmSettings, becomes: Forecast) -> tuple[tuple[int, int], ...]:
    """Each hotplug of DIMMs that the guest has to find memory for, from and to which size: of a large one the first part."""
    if settings.virtio_mem and settings.kind == "go":
        # Block by block: what was added serves the next.
        return ()
    most = 1 + ACPI_FACTOR if settings.kind == "go" and settings.hypervisor == "qemu" else None
    return tuple(
        (step.before_bytes, min(step.vm_bytes, step.before_bytes * most) if most else step.vm_bytes)
        for step in becomes.steps
    )


def _boot_bytes(settings: VmSettings, pod: Pod) -> int:
    """Memory at RunPodSandbox. Static sizing knows the pod's limits from kubelet, in whole MiB, without huge pages."""
    if not settings.static:
        return settings.default_memory_bytes
    limits_mib = memory_limits_bytes(pod) // MIB
    if settings.kind == "go":
        return settings.default_memory_bytes + limits_mib * MIB
    if not limits_mib and not cpu_limits_millicores(pod):
        return settings.default_memory_bytes
    # runtime-rs asks for an even number; default_memory does not count any more, not even for a CPU limit alone.
    return settings.overhead_memory_bytes + -(-limits_mib // _EVEN_MIB) * _EVEN_MIB * MIB


def _boot_faults(settings: VmSettings, boot: int, now: Vm | None) -> Iterator[Fault]:
    if now is None:
        # runtime-rs raises default_maxmemory where the limits need it.
        if settings.kind == "go" and boot > settings.max_bytes:
            yield Fault(
                "BootBeyondMaximum",
                f"a VM of {boot // MIB} MiB is more than default_maxmemory ({settings.max_bytes // MIB} MiB): "
                "it does not start",
                RAISE_MAXIMUM,
            )
    elif settings.static and boot > now.bytes:
        yield Fault(
            "LimitBeyondVm",
            f"the limits now come to a VM of {boot // MIB} MiB, but it keeps its {now.bytes // MIB} MiB: "
            "with static sizing a VM is never resized",
            "make the pod anew: its VM is then sized by the new limits",
            fatal=False,
        )


def _wanted(settings: VmSettings, pod: Pod) -> Iterator[tuple[Container, int]]:
    """Each container as it is created, and the size that the VM is to have then: all that is not stopped counts."""
    sidecars = total = 0
    for role in ("init", "main", "ephemeral"):
        for container in pod.containers:
            here = "init" if container.role == "sidecar" else container.role
            if here != role:
                continue
            amount = limit_of(pod, container) + container.hugepages_bytes
            if container.role == "init":
                yield container, _target(settings, sidecars + amount)
                continue
            total += amount
            if container.role == "sidecar":
                sidecars = total
            yield container, _target(settings, total)


def _target(settings: VmSettings, limits_bytes: int) -> int:
    if settings.memory_overhead_bytes is not None:
        # OpenShift's: the VM is to have the limits and this, and default_memory counts towards it.
        wanted = max(settings.default_memory_bytes, limits_bytes + settings.memory_overhead_bytes)
    else:
        wanted = settings.default_memory_bytes + limits_bytes
    return wanted // MIB * MIB


def _vcpus(settings: VmSettings, pod: Pod) -> int:
    limits = cpu_limits_millicores(pod)
    if settings.static and settings.kind == "runtime-rs" and (limits or memory_limits_bytes(pod)):
        millis = settings.overhead_vcpu_millis + limits
    else:
        millis = settings.default_vcpu_millis + limits
    vcpus = max(1, -(-millis // 1000))
    return min(vcpus, settings.max_vcpus) if settings.max_vcpus and not settings.static else vcpus
