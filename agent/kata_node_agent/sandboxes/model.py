"""A sandbox as it was seen: facts, each of them ``None`` where nothing says it."""

from __future__ import annotations

from typing import Literal

from kata_node_agent.dataclass import dataclass

Vmm = Literal["qemu", "cloud-hypervisor", "dragonball", "firecracker"]
# ``file``: one outside of /dev/shm, such as a template's; what a VM writes may be its own memory then.
MemoryLocation = Literal["shm", "memfd", "hugepages", "anonymous", "file"]
# How well a VM's size is known: by its mappings; of a virtio-mem device by what Kata asked the guest to take, or only by
# what the guest has touched, which is the least that it has.
SizeCertainty = Literal["exact", "requested", "at_least"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a sandbox uses of the host's memory now, in bytes.

    Each is the sum over the sandbox's processes of what the kernel attributes to them (PSS), so a page that QEMU and
    virtiofsd both map is in it once, and a page that several VMs share (a library, a template) is shared out.

    Attributes:
        guest_bytes: guest RAM that is resident: what the guest has touched, its file cache included.
        vmm_bytes: the VMM without guest RAM.
        virtiofsd_bytes: virtiofsd without guest RAM.
        shim_bytes: the shim; with Dragonball, which runs in it, what is not guest RAM is here and ``vmm_bytes`` is 0.
        page_table_bytes: page tables of these processes; those that KVM keeps for the guest are not told apart by any file.
        guest_swapped_bytes: guest RAM that is swapped out; not in ``guest_bytes``.
        rss_sum_bytes: what adding up the resident sets would have said: shared pages as often as they are mapped.
        guest_huge_bytes: of ``guest_bytes``, what is in huge pages (hugetlb), which the memory controller does not charge.
    """

    guest_bytes: int
    vmm_bytes: int
    virtiofsd_bytes: int
    shim_bytes: int
    page_table_bytes: int
    guest_swapped_bytes: int
    rss_sum_bytes: int
    guest_huge_bytes: int = 0

    @property
    def resident_bytes(self) -> int:
        """All of it, each shared page counted once."""
        return self.guest_bytes + self.host_overhead_bytes

    @property
    def host_overhead_bytes(self) -> int:
        """What the VM costs beside its guest's RAM."""
        return self.vmm_bytes + self.virtiofsd_bytes + self.shim_bytes + self.page_table_bytes


@dataclass(frozen=True, slots=True)
class Charge:
    """What control groups are charged for a sandbox, in bytes, beside what it costs.

    Attributes:
        cgroup: the group of its VMM, below the memory hierarchy.
        bytes: what is charged there, file cache included.
        limit_bytes: the group's own limit, or the lowest above it up to the pod's; ``None`` for none.
        file_cache_bytes: of these, cache of files that no process need map: virtiofsd's reads and writes leave it there.
        kernel_bytes: slab, stacks, page tables, KVM's among them; ``None`` where the kernel does not say.
        elsewhere: groups of the sandbox's other processes where these differ (``sandbox_cgroup_only=false``).
        elsewhere_bytes: what is charged there.
        difference: why the charge is not the cost, in words; empty where they agree within a twentieth.
    """

    cgroup: str
    bytes: int
    limit_bytes: int | None
    file_cache_bytes: int | None
    kernel_bytes: int | None
    elsewhere: tuple[str, ...]
    elsewhere_bytes: int
    difference: str


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a sandbox: its part in it, and what tells it from a later one of the same number."""

    pid: int
    role: Literal["vmm", "virtiofsd", "shim"]
    started: int


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One VM, as seen at one moment.

    Attributes:
        id: the sandbox's.
        pod_uid: of its pod, as its control group says.
        pod: ``namespace/name``.
        handler: of the RuntimeClass, where the container runtime wrote it down.
        vmm: what runs the guest.
        pid: of the process that does.
        started: when that process started, in clock ticks since boot.
        base_bytes: the VM's memory at boot.
        hotplugged_bytes: what was added since.
        max_bytes: what it may grow to (``maxmem``).
        memory_location: where guest RAM lives.
        virtio_mem_bytes: size of its virtio-mem devices, plugged or not; 0 for none.
        size_certainty: how well ``hotplugged_bytes`` is known.
        cost: what it costs; ``None`` where that may not be read.
        charge: what its control group is charged.
        cgroup: of its VMM.
        shim_pid: of its shim.
        processes: all of them.
        notes: what does not fit together, in words.
    """

    id: str
    pod_uid: str | None
    pod: str | None
    handler: str | None
    vmm: Vmm
    pid: int
    started: int
    base_bytes: int
    hotplugged_bytes: int
    max_bytes: int | None
    memory_location: MemoryLocation
    cost: Cost | None
    charge: Charge | None
    cgroup: str | None
    virtio_mem_bytes: int = 0
    size_certainty: SizeCertainty = "exact"
    shim_pid: int | None = None
    processes: tuple[Process, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def vm_memory_bytes(self) -> int:
        """The VM's size now."""
        return self.base_bytes + self.hotplugged_bytes


@dataclass(frozen=True, slots=True)
class Unbelieved:
    """A process that says it belongs to a sandbox, without evidence that it does.

    Attributes:
        pid: of the process.
        claim: the part and the sandbox that its command line claims, printable.
        why: what is missing.
    """

    pid: int
    claim: str
    why: str
