"""All facts of a node in one value, and the one function that gathers them.

A fact that could not be had is ``None``: the judgement says ``unknown`` then, and never guesses.
Gathering changes nothing on the node, may be done on any thread, and by several at a time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import HostError
from kata_node_agent.host.cpuid import CpuRecord, Leaves, decode
from kata_node_agent.host.cpuinfo import CpuInfo, read_cpuinfo
from kata_node_agent.host.devices import DeviceNode, read_devices
from kata_node_agent.host.kata import KataFacts, read_kata
from kata_node_agent.host.kernel import Module, read_arch, read_modules, read_release, read_sysctls
from kata_node_agent.host.kvm import KvmFacts, Prober, read_kvm
from kata_node_agent.host.meminfo import MemInfo, read_meminfo
from kata_node_agent.host.msr import MsrReading, read_msrs
from kata_node_agent.host.osrelease import OsRelease, read_os_release
from kata_node_agent.host.platform import Platform, read_platform
from kata_node_agent.host.shm import SharedMemory, read_shared_memory

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot

# Reads the leaves of one CPU; raises HostError where that cannot be.
CpuidReader = Callable[[int], Leaves]
_MAX_CPUS = 8192


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What is known of a node.

    ``cpus`` has CPUID of each online CPU, and is empty where there is none or where the tree is a recording.
    ``allocatable_bytes`` is not read here: who knows kubelet's settings may add it, for ``shm.ceiling``.
    """

    arch: str | None = None
    kernel_release: str | None = None
    os: OsRelease | None = None
    cpus: tuple[CpuRecord, ...] = ()
    cpuinfo: CpuInfo | None = None
    msrs: tuple[MsrReading, ...] = ()
    kvm: KvmFacts | None = None
    modules: Mapping[str, Module] | None = None
    devices: Mapping[str, DeviceNode] | None = None
    platform: Platform | None = None
    sysctls: Mapping[str, int] | None = None
    memory: MemInfo | None = None
    shared_memory: SharedMemory | None = None
    kata: KataFacts | None = None
    allocatable_bytes: int | None = None


def collect(root: HostRoot, *, probe: Prober | None = None, cpuid: CpuidReader | None = None) -> NodeFacts:
    """Reads all facts below the root, and runs a guest on its /dev/kvm.

    Args:
        root: the host. If it is a recorded tree, what only the running machine could tell is left out.
        probe: stands in for the guest run.
        cpuid: stands in for CPUID of this machine.
    """
    kvm = read_kvm(root, probe)
    # A device node that answers belongs to the kernel we run on, whatever lies around it.
    live = (kvm.outcome is not None and kvm.outcome.reached("device")) or is_live(root)
    cpuinfo = read_cpuinfo(root)
    release = read_release(root) or (os.uname().release if live else None)
    cpus = _read_cpus(root, cpuid or _native_cpuid) if live else ()
    vendor = next((decode(record.leaves).vendor for record in cpus if record.leaves), None)
    memory = _read_memory(root)
    return NodeFacts(
        arch=_arch(root, cpuinfo, live=live),
        kernel_release=release,
        os=read_os_release(root),
        cpus=cpus,
        cpuinfo=cpuinfo,
        msrs=read_msrs(root, vendor, [record.cpu for record in cpus]) if live else (),
        kvm=kvm,
        modules=read_modules(root, release),
        devices=read_devices(root),
        platform=read_platform(root),
        sysctls=read_sysctls(root),
        memory=memory,
        shared_memory=read_shared_memory(
            root, live=live, memory_bytes=memory.total_bytes if memory else None
        ),
        kata=read_kata(root),
    )


def is_live(root: HostRoot) -> bool:
    """Whether the tree's /proc is that of the kernel we run on, and not a copy of one.

    statfs(2) would tell procfs apart, but Python does not give its type; our own mount table has it, by the
    device number that stat(2) gives.
    """
    try:
        device = root.resolve("/proc").stat().st_dev
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
            wanted = f"{os.major(device)}:{os.minor(device)}"
            for line in lines:
                mount, _, kind = line.partition(" - ")
                if mount.split(" ", 3)[2] == wanted and kind.startswith("proc "):
                    return True
    except (OSError, IndexError):
        return False
    return False


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """The numbers of a kernel CPU list such as ``0-3,8``; empty for what is none."""
    found: list[int] = []
    for part in text.strip().split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part)
        if match is None:
            return ()
        first, last = int(match[1]), int(match[2] or match[1])
        if last - first >= _MAX_CPUS or len(found) + last - first >= _MAX_CPUS:
            return ()
        found.extend(range(first, last + 1))
    return tuple(sorted(set(found)))


def _read_cpus(root: HostRoot, cpuid: CpuidReader) -> tuple[CpuRecord, ...]:
    online = parse_cpu_list(root.try_read_text("/sys/devices/system/cpu/online", 1 << 16) or "")
    records: list[CpuRecord] = []
    for cpu in online or tuple(sorted(os.sched_getaffinity(0))):
        try:
            records.append(CpuRecord(cpu, cpuid(cpu)))
        except HostError as error:
            if error.reason == "CpuidUnavailable":
                return ()
            records.append(CpuRecord(cpu, None, error.message))
    return tuple(records)


def _native_cpuid(cpu: int) -> Leaves:
    from kata_node_agent.host.native import read_cpuid

    return read_cpuid(cpu)


def _arch(root: HostRoot, cpuinfo: CpuInfo | None, *, live: bool) -> str | None:
    """The kernel's word, else what can be seen from the shape of cpuinfo, else (live only) our own uname."""
    arch = read_arch(root)
    if arch is None and live:
        arch = os.uname().machine
    if arch is None and cpuinfo is not None:
        arch = cpuinfo.shape
        if arch == "x86":
            # `lm` is the 64-bit mode of the processor; a recording of a 32-bit kernel on such a one is a
            # rarity that would say i686 in /proc/sys/kernel/arch.
            arch = "x86_64" if cpuinfo.has("lm") else None
    return arch


def _read_memory(root: HostRoot) -> MemInfo | None:
    try:
        return read_meminfo(root)
    except HostError:
        return None
