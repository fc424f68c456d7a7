"""One change of a running VM's memory as each of Kata's runtimes makes it, with its roundings, clamps and faults. Pure.

Source: as `sizing`.
"""

from __future__ import annotations

from typing import Literal

from kata_node_agent.dataclass import dataclass

Kind = Literal["go", "runtime-rs"]

MIB = 1 << 20
# A guest needs memory to describe memory: the Go runtime plugs at most so many times what is there in one step.
ACPI_FACTOR = 48
RAISE_MAXIMUM = "raise default_maxmemory in Kata's configuration, or lower the containers' limits"
_WHOLE_BLOCKS = "set default_maxmemory to default_memory and a multiple of the guest's block (128 MiB)"


@dataclass(frozen=True, slots=True)
class VmSettings:
    """What of a handler's configuration, and of a pod's annotations, decides the size of its VM.

    Attributes:
        kind: which of Kata's runtimes.
        hypervisor: ``qemu``, ``clh`` …
        runs_here: whether the VM is on this node; kata-remote's is not.
        static: sized once, at RunPodSandbox.
        default_memory_bytes: of a VM without any limit; whole MiB, as all amounts here.
        overhead_memory_bytes: what static sizing of runtime-rs adds to the limits.
        memory_overhead_bytes: OpenShift's annotation; ``None`` where it is not there.
        max_bytes: default_maxmemory, or the host's memory.
        slots: how many times a DIMM can be plugged.
        block_bytes: a step of hotplug: the guest's block of memory, 128 MiB on x86 and most of arm64, 256 MiB on s390x
            and ppc64le.
        virtio_mem: one device is resized, both ways, instead of DIMMs being plugged.
        hotplug: whether the VM can be given memory at all: a confidential guest cannot, nor Firecracker's.
        memory_in: where the guest's memory lives on the host.
        cgroup_only: whether all of the sandbox's processes are in the pod's cgroup.
        enable_annotations: patterns of the annotations that a pod may set.
        default_vcpu_millis, overhead_vcpu_millis, max_vcpus: CPUs; a maximum of 0 is the host's.
    """

    kind: Kind = "go"
    hypervisor: str = "qemu"
    runs_here: bool = True
    static: bool = False
    default_memory_bytes: int = 2048 * MIB
    overhead_memory_bytes: int = 32 * MIB
    memory_overhead_bytes: int | None = None
    max_bytes: int = 1 << 40
    slots: int = 10
    block_bytes: int = 128 * MIB
    virtio_mem: bool = False
    hotplug: bool = True
    memory_in: Literal["shm", "memfd", "hugepages", "anonymous"] = "shm"
    cgroup_only: bool = False
    enable_annotations: tuple[str, ...] = ()
    default_vcpu_millis: int = 1000
    overhead_vcpu_millis: int = 200
    max_vcpus: int = 0


@dataclass(frozen=True, slots=True)
class Vm:
    """A VM as it is: its memory, and how many DIMMs were plugged into it."""

    bytes: int
    dimms: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong, and what to do. A fatal one: the container, or the sandbox, is not created."""

    reason: str
    message: str
    remedy: str
    fatal: bool = True


def grow(settings: VmSettings, vm: Vm, wanted_bytes: int) -> tuple[Vm, tuple[Fault, ...]]:
    """The VM after it was asked to have so much, and what went wrong."""
    if not settings.hotplug:
        if wanted_bytes <= vm.bytes:
            return vm, ()
        return vm, (
            Fault(
                "HotplugUnsupported",
                f"the containers' limits want a VM of {_mib(wanted_bytes)}, but it cannot be given more than it booted "
                f"with: {_mib(vm.bytes)}",
                "set static_sandbox_resource_mgmt = true, so that the VM is sized at boot",
                fatal=False,
            ),
        )
    if settings.kind == "runtime-rs":
        return _rust(settings, vm, wanted_bytes)
    if settings.hypervisor == "clh":
        return _clamped(settings, vm, wanted_bytes)
    return (_virtio_mem if settings.virtio_mem else _dimms)(settings, vm, wanted_bytes)


def _dimms(settings: VmSettings, vm: Vm, wanted: int) -> tuple[Vm, tuple[Fault, ...]]:
    """The Go runtime with QEMU: clamped first and rounded after, step after step, never back."""
    faults: list[Fault] = []
    if wanted > max(settings.max_bytes, vm.bytes):
        faults.append(_clamp(settings, wanted))
    step_to = vm.bytes
    # The last step is the one that asks for all that is wanted, whatever it was given.
    while vm.bytes < wanted and step_to < wanted:
        step_to = min(wanted, vm.bytes * (1 + ACPI_FACTOR))
        if vm.bytes > settings.max_bytes:
            # Unsigned arithmetic: what is left to the maximum is asked for as 4 PiB.
            text = (
                f"the VM has {_mib(vm.bytes)}, rounded up past default_maxmemory ({_mib(settings.max_bytes)}): every "
                "further hotplug fails, and its container is not created"
            )
            return vm, (*faults, Fault("HotplugUnderflow", text, _WHOLE_BLOCKS))
        add = _round_up(min(step_to, settings.max_bytes) - vm.bytes, settings.block_bytes)
        if not add and step_to < wanted:
            return vm, (*faults, _never_ends(settings, wanted))
        if not add:
            break
        if vm.dimms >= settings.slots:
            return vm, (*faults, _no_slot(settings))
        vm = Vm(vm.bytes + add, vm.dimms + 1)
        if vm.bytes > settings.max_bytes:
            text = (
                f"hotplug was rounded up to {_mib(vm.bytes)}, past default_maxmemory ({_mib(settings.max_bytes)}): "
                "the next container that needs memory fails"
            )
            faults.append(Fault("RoundedPastMaximum", text, _WHOLE_BLOCKS, fatal=False))
    return vm, tuple(faults)


def _virtio_mem(settings: VmSettings, vm: Vm, wanted: int) -> tuple[Vm, tuple[Fault, ...]]:
    """The Go runtime with virtio-mem: to the size that is wanted, up and down, not below what it booted with."""
    if wanted <= settings.max_bytes:
        return Vm(max(wanted, settings.default_memory_bytes)), ()
    return Vm(max(vm.bytes, settings.max_bytes)), (_never_ends(settings, wanted),)


def _clamped(settings: VmSettings, vm: Vm, wanted: int) -> tuple[Vm, tuple[Fault, ...]]:
    """The Go runtime with Cloud Hypervisor: rounded, then clamped."""
    faults = (_clamp(settings, wanted),) if wanted > max(settings.max_bytes, vm.bytes) else ()
    if wanted <= vm.bytes:
        return vm, faults
    rounded = vm.bytes + _round_up(max(0, min(wanted, settings.max_bytes) - vm.bytes), settings.block_bytes)
    return Vm(max(vm.bytes, min(rounded, settings.max_bytes)), vm.dimms), faults


def _rust(settings: VmSettings, vm: Vm, wanted: int) -> tuple[Vm, tuple[Fault, ...]]:
    """runtime-rs: rounded from what it booted with, an error beyond the maximum. An unplug is tried and not counted on."""
    booted = settings.default_memory_bytes
    rounded = booted + _round_up(max(0, wanted - booted), settings.block_bytes)
    if rounded > settings.max_bytes:
        return vm, (
            Fault(
                "BeyondMaximum",
                f"a VM of {_mib(rounded)} is more than default_maxmemory ({_mib(settings.max_bytes)}): the container is "
                "not created",
                RAISE_MAXIMUM,
            ),
        )
    if rounded <= vm.bytes:
        return vm, ()
    if settings.hypervisor == "qemu" and vm.dimms >= settings.slots:
        return vm, (_no_slot(settings),)
    return Vm(rounded, vm.dimms + 1), ()


def _clamp(settings: VmSettings, wanted: int) -> Fault:
    return Fault(
        "HotplugClamped",
        f"the containers' limits want a VM of {_mib(wanted)}, but it gets no more than default_maxmemory "
        f"({_mib(settings.max_bytes)}), and nobody is told",
        RAISE_MAXIMUM,
        fatal=False,
    )


def _never_ends(settings: VmSettings, wanted: int) -> Fault:
    return Fault(
        "ResizeNeverEnds",
        f"a VM of {_mib(wanted)} is more than default_maxmemory ({_mib(settings.max_bytes)}): the runtime tries again and "
        "again, and the container is not created",
        RAISE_MAXIMUM,
    )


def _no_slot(settings: VmSettings) -> Fault:
    return Fault(
        "NoMemorySlotLeft",
        f"all {settings.slots} memory slots hold a DIMM: the container that needs the next one is not created",
        "raise memory_slots in Kata's configuration",
    )


def _round_up(amount: int, step: int) -> int:
    return -(-amount // step) * step


def _mib(amount: int) -> str:
    return f"{amount // MIB} MiB"
