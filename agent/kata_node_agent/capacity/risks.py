"""What threatens a sandbox, or threatens others by it: facts in, risks with their numbers and a remedy out. Pure.

A fact that is ``None`` is not known, and a risk that needs it is not said: silence is no promise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from kata_node_agent.dataclass import dataclass
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.capacity.hotplug import Fault

# struct page: 64 bytes of the guest's memory for each page of 4 KiB that is plugged in. Linux, mm_types.h.
_PLUG_SHARE = 64
# A guest's kernel and agent at boot; OpenShift sandboxed containers 4.12, "Resource requirements".
_GUEST_BOOT_BYTES = 110 << 20
# A kernel does not come up in less, with Kata's image.
_TINY_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Risk:
    """A risk: a stable reason, a message with the numbers, and what to do."""

    reason: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class SandboxFacts:
    """One sandbox, as it is and as it will be. Amounts are bytes.

    Attributes:
        vm_bytes: the guest's memory now; 0 before it boots.
        final_bytes: what it becomes by its forecast; ``None`` without one.
        resident_bytes: what of the host's memory it uses, each page counted once, processes of the host included.
        host_overhead_bytes: of these, what is no guest memory.
        limited_overhead_bytes: of the host overhead, what counts against the pod's limit: less than all where some of the
            processes are in another group.
        charge_bytes: what its VMM's cgroup is charged.
        cgroup_limit_bytes: the lowest limit over that group, up to the pod's; ``None`` for no limit.
        outside_bytes: what it is charged for outside of its pod's group.
        outside: that group.
        memory_in: where guest memory lives.
        limits_bytes: what its containers' limits come to.
        requests_bytes: what its containers request.
        overhead_bytes: its podFixed.
        plugs: each hotplug that its forecast has, from and to which size.
        faults: of its forecast.
        cpu_limited: whether its containers have a CPU limit.
        vcpus: CPUs of the VM.
        cpu_quota_millicores: the pod's limit; ``None`` for none.
    """

    vm_bytes: int
    final_bytes: int | None = None
    resident_bytes: int | None = None
    host_overhead_bytes: int | None = None
    limited_overhead_bytes: int | None = None
    charge_bytes: int | None = None
    cgroup_limit_bytes: int | None = None
    outside_bytes: int | None = None
    outside: str = ""
    memory_in: Literal["shm", "memfd", "hugepages", "anonymous", "file", "elsewhere"] = "anonymous"
    limits_bytes: int | None = None
    requests_bytes: int | None = None
    overhead_bytes: int | None = None
    plugs: tuple[tuple[int, int], ...] = ()
    faults: tuple[Fault, ...] = ()
    cpu_limited: bool = False
    vcpus: int | None = None
    cpu_quota_millicores: int | None = None

    @property
    def size_bytes(self) -> int:
        """The VM now, or what it becomes where that is more."""
        return max(self.vm_bytes, self.final_bytes or 0)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What all sandboxes of a node share. Amounts are bytes.

    Attributes:
        allocatable_bytes: memory that pods may request in all.
        shm_bytes: the size of /dev/shm.
        shm_free_bytes: what of it is not used.
        shm_vm_bytes: the sizes of all VMs whose memory lives there.
        host_overhead_bytes: of a VM whose own is not known.
    """

    allocatable_bytes: int | None = None
    shm_bytes: int | None = None
    shm_free_bytes: int | None = None
    shm_vm_bytes: int = 0
    host_overhead_bytes: int = 60 << 20


def find_risks(sandbox: SandboxFacts, node: NodeFacts) -> tuple[Risk, ...]:
    """All risks of a sandbox, those that end it first."""
    found = (rule(sandbox, node) for rule in _RULES)
    return (
        *(risk for risk in found if risk is not None),
        *(Risk(f.reason, f.message, f.remedy) for f in sandbox.faults),
    )


def cgroup_limit_below_vm(sandbox: SandboxFacts, node: NodeFacts) -> Risk | None:
    """``CgroupLimitBelowVm``: the VMM is killed before the guest is full."""
    limit = sandbox.cgroup_limit_bytes
    # The memory controller does not count huge pages.
    if limit is None or sandbox.memory_in in {"hugepages", "elsewhere"}:
        return None
    beside = sandbox.limited_overhead_bytes
    if beside is None:
        beside = _host_overhead(sandbox, node)
    need = sandbox.size_bytes + beside
    if limit >= need:
        return None
    left = ""
    if sandbox.charge_bytes is not None:
        left = f", {format_bytes(max(0, limit - sandbox.charge_bytes))} from now"
    return Risk(
        "CgroupLimitBelowVm",
        f"the pod's cgroup may use {format_bytes(limit)}, but its VM {_becomes(sandbox)} and {format_bytes(beside)} is "
        f"used beside it: the kernel kills the VM {format_bytes(need - limit)} before the guest is full{left}",
        f"raise overhead.podFixed by {_up(need - limit)}, or make the VM smaller: default_memory, or static sizing",
    )


def evicted_first(sandbox: SandboxFacts, _: NodeFacts) -> Risk | None:
    """``EvictedFirst``: kubelet ranks pods by what they use beyond what they requested."""
    used, requests, overhead = sandbox.resident_bytes, sandbox.requests_bytes, sandbox.overhead_bytes
    if sandbox.memory_in == "hugepages":
        # Requested, counted and never evicted for as a resource of its own.
        used = sandbox.host_overhead_bytes
    if used is None or requests is None or overhead is None or used <= requests + overhead:
        return None
    return Risk(
        "EvictedFirst",
        f"{format_bytes(used)} is in use, {format_bytes(used - requests - overhead)} more than the pod requests "
        f"({format_bytes(requests)}) with its podFixed ({format_bytes(overhead)}): under memory pressure kubelet evicts it "
        "before pods that keep to their requests",
        f"raise the containers' memory requests or overhead.podFixed by {_up(used - requests - overhead)}",
    )


def shm_ceiling(sandbox: SandboxFacts, node: NodeFacts) -> Risk | None:
    """``ShmCeiling``: guest memory lives in a tmpfs that is smaller than all of it."""
    if sandbox.memory_in != "shm" or node.shm_bytes is None:
        return None
    growth = max(0, sandbox.size_bytes - sandbox.vm_bytes)
    wanted = node.shm_vm_bytes + growth
    if wanted <= node.shm_bytes:
        return None
    free = "" if node.shm_free_bytes is None else f", of which {format_bytes(node.shm_free_bytes)} is free"
    return Risk(
        "ShmCeiling",
        f"VMs of {format_bytes(wanted)} in all have their memory in /dev/shm, which holds {format_bytes(node.shm_bytes)}"
        f"{free}: when it is full a new VM does not boot, and one that runs is killed by SIGBUS",
        f"give /dev/shm {_up(wanted)} or more (mount -o remount,size=… /dev/shm, and a mount unit to keep it), or allow "
        "fewer VMs with max_slots",
    )


def vm_beyond_allocatable(sandbox: SandboxFacts, node: NodeFacts) -> Risk | None:
    """``VmBeyondAllocatable``: one VM is larger than all that pods may have."""
    if node.allocatable_bytes is None or sandbox.memory_in in {"hugepages", "elsewhere"}:
        return None
    need = sandbox.size_bytes + _host_overhead(sandbox, node)
    if need <= node.allocatable_bytes:
        return None
    return Risk(
        "VmBeyondAllocatable",
        f"the VM {_becomes(sandbox)}, with the processes beside it {format_bytes(need)}, but all pods of the node together "
        f"may have {format_bytes(node.allocatable_bytes)}: kubelet evicts, or the kernel kills, before it is full",
        "lower the containers' limits, or set default_maxmemory in Kata's configuration to what the node can give",
    )


def overhead_undercounted(sandbox: SandboxFacts, node: NodeFacts) -> Risk | None:
    """``OverheadUndercounted``: podFixed does not cover what the VM has beyond its containers' limits."""
    limits, overhead = sandbox.limits_bytes, sandbox.overhead_bytes
    if limits is None or overhead is None:
        return None
    # A container without a limit lives in what the VM has anyway, of which its request is counted.
    counted = max(limits, sandbox.requests_bytes or 0)
    ordinary = sandbox.memory_in not in {"hugepages", "elsewhere"}
    beyond = max(0, sandbox.size_bytes - counted) if ordinary else 0
    beside = _host_overhead(sandbox, node)
    if overhead >= beyond + beside:
        return None
    return Risk(
        "OverheadUndercounted",
        f"podFixed is {format_bytes(overhead)}, but the VM has {format_bytes(beyond)} beyond its containers' limits "
        f"or requests and {format_bytes(beside)} is used beside it: the scheduler does not know of "
        f"{format_bytes(beyond + beside - overhead)}",
        f"set overhead.podFixed.memory of the RuntimeClass to {_up(beyond + beside)} or more; see `kata-node-agent advise`",
    )


def outside_pod_cgroup(sandbox: SandboxFacts, _: NodeFacts) -> Risk | None:
    """``OutsidePodCgroup``: memory that no limit and no alert sees."""
    if not sandbox.outside_bytes:
        return None
    return Risk(
        "OutsidePodCgroup",
        f"{format_bytes(sandbox.outside_bytes)} is charged to {sandbox.outside or 'another cgroup'}, outside of the pod: no "
        "limit holds it, and neither the pod's usage nor that of the system shows it",
        "set sandbox_cgroup_only = true in Kata's configuration, with a podFixed that covers it",
    )


def guest_needs_memory_to_plug(sandbox: SandboxFacts, _: NodeFacts) -> Risk | None:
    """``GuestNeedsMemoryToPlug``: the guest has to describe new memory in memory that it has."""
    for before, after in sandbox.plugs:
        needed, left = (after - before) // _PLUG_SHARE, max(0, before - _GUEST_BOOT_BYTES)
        if needed > left:
            return Risk(
                "GuestNeedsMemoryToPlug",
                f"to take {format_bytes(after - before)} more the guest needs {format_bytes(needed)} first, but of its "
                f"{format_bytes(before)} only {format_bytes(left)} is left by its kernel: the hotplug may fail, or its "
                "kernel kill processes",
                f"raise default_memory to {_up(_GUEST_BOOT_BYTES + needed)}, or set enable_virtio_mem",
            )
    return None


def cpu_only_limit_tiny_vm(sandbox: SandboxFacts, _: NodeFacts) -> Risk | None:
    """``CpuOnlyLimitTinyVm``: runtime-rs, sizing at boot, adds overhead_memory to no memory limit at all."""
    size = sandbox.size_bytes
    if not sandbox.cpu_limited or sandbox.limits_bytes != 0 or not 0 < size < _TINY_BYTES:
        return None
    return Risk(
        "CpuOnlyLimitTinyVm",
        f"its containers have a CPU limit and no memory limit, so its VM has overhead_memory alone: {format_bytes(size)}, "
        "in which a guest hardly boots",
        "give a container a memory limit, or raise overhead_memory in Kata's configuration",
    )


def vcpus_beyond_pod_cpu(sandbox: SandboxFacts, _: NodeFacts) -> Risk | None:
    """``VcpusBeyondPodCpu``: a whole vCPU that the pod's quota can never run."""
    vcpus, quota = sandbox.vcpus, sandbox.cpu_quota_millicores
    if vcpus is None or not quota or vcpus <= -(-quota // 1000):
        return None
    return Risk(
        "VcpusBeyondPodCpu",
        f"the VM has {vcpus} vCPUs, but its pod may use {quota}m of CPU: under load vCPUs are stopped at any point, while "
        "they hold locks of the guest's kernel too",
        f"raise overhead.podFixed.cpu by {vcpus * 1000 - quota}m, or lower default_vcpus",
    )


_RULES: tuple[Callable[[SandboxFacts, NodeFacts], Risk | None], ...] = (
    cgroup_limit_below_vm,
    shm_ceiling,
    vm_beyond_allocatable,
    cpu_only_limit_tiny_vm,
    guest_needs_memory_to_plug,
    evicted_first,
    overhead_undercounted,
    outside_pod_cgroup,
    vcpus_beyond_pod_cpu,
)


def _host_overhead(sandbox: SandboxFacts, node: NodeFacts) -> int:
    known = sandbox.host_overhead_bytes
    return known if known is not None else node.host_overhead_bytes


def _becomes(sandbox: SandboxFacts) -> str:
    if not sandbox.vm_bytes:
        return f"will have {format_bytes(sandbox.size_bytes)}"
    if sandbox.size_bytes > sandbox.vm_bytes:
        return f"has {format_bytes(sandbox.vm_bytes)} and will have {format_bytes(sandbox.size_bytes)}"
    return f"has {format_bytes(sandbox.vm_bytes)}"


def _up(amount: int) -> str:
    """An amount to write into a configuration: whole MiB, rounded up."""
    return f"{-(-amount // (1 << 20))}Mi"
