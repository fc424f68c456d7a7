"""Nodes made up for one case each."""

from __future__ import annotations

import dataclasses
from typing import Any

from kata_node_agent.host.cpuid import CpuRecord
from kata_node_agent.host.cpuinfo import CpuGroup, CpuInfo
from kata_node_agent.host.devices import DeviceNode
from kata_node_agent.host.facts import NodeFacts
from kata_node_agent.host.kata import KataFacts, KataHandler
from kata_node_agent.host.kernel import Module
from kata_node_agent.host.kvm import KvmFacts, KvmOutcome
from kata_node_agent.host.meminfo import MemInfo
from kata_node_agent.host.osrelease import OsRelease
from kata_node_agent.host.platform import Platform
from kata_node_agent.host.shm import SharedMemory

VMX, SSE4_1, SSE4_2, HYPERVISOR = 1 << 5, 1 << 19, 1 << 20, 1 << 31
SVM, LM = 1 << 2, 1 << 29
KVM_NODE = DeviceNode("/dev/kvm", "char", 10, 232, 0o666, 0, 36)
DONE = KvmOutcome(
    "done",
    0,
    12,
    5,
    "KVM_EXIT_HLT",
    value=7,
    expected=7,
    microseconds=60,
    capabilities={"user-memory": 1, "sync-mmu": 1, "irqchip": 1, "irqfd": 1, "ioeventfd": 1},
)


def words(text: str) -> tuple[int, int, int]:
    a, b, c = (int.from_bytes(text.encode()[i : i + 4].ljust(4, b"\0"), "little") for i in (0, 4, 8))
    return a, b, c


def cpu(
    number: int = 0,
    vendor: str = "GenuineIntel",
    ecx: int = VMX | SSE4_1 | SSE4_2,
    ext_ecx: int = 0,
    ext_edx: int = LM,
    signature: str = "",
) -> CpuRecord:
    a, b, c = words(vendor)
    leaves = {
        (0, 0): (0x16, a, c, b),
        (1, 0): (0x50654, 0, ecx, 0),
        (0x80000000, 0): (0x80000008, 0, 0, 0),
        (0x80000001, 0): (0, 0, ext_ecx, ext_edx),
    }
    if signature:
        leaves[0x40000000, 0] = (0x40000001, *words(signature))
    return CpuRecord(number, leaves)


def flags(*names: str, cpus: tuple[int, ...] = (0, 1), vendor: str = "GenuineIntel") -> CpuInfo:
    return CpuInfo("x86", (CpuGroup(cpus, vendor, "A processor", frozenset(names)),))


def good_node(**changes: Any) -> NodeFacts:
    """RHCOS on Intel, bare metal, all as it should be; with changes."""
    facts = NodeFacts(
        arch="x86_64",
        kernel_release="5.14.0-570.16.1.el9_6.x86_64",
        os=OsRelease("rhel", "coreos", "9.6", "Red Hat Enterprise Linux CoreOS 9.6", "4.19"),
        cpus=(cpu(0), cpu(1)),
        cpuinfo=flags("vmx", "sse4_1", "lm"),
        kvm=KvmFacts(KVM_NODE, DONE),
        modules={"kvm": Module("kvm", builtin=False), "kvm_intel": Module("kvm_intel", builtin=False)},
        devices={
            "vhost-net": DeviceNode("/dev/vhost-net", "char", 10, 238),
            "vhost-vsock": DeviceNode("/dev/vhost-vsock", "char", 10, 241),
            "tun": DeviceNode("/dev/net/tun", "char", 10, 200),
        },
        platform=Platform(sys_vendor="Dell Inc.", product_name="PowerEdge R640"),
        sysctls={"vm.overcommit_memory": 1, "vm.panic_on_oom": 0},
        memory=MemInfo(64 << 30),
        shared_memory=SharedMemory(64 << 30, "statfs"),
        kata=KataFacts(
            ("/usr/bin/containerd-shim-kata-v2",), ("/etc/x.toml",), (KataHandler("kata", "crio"),)
        ),
    )
    return dataclasses.replace(facts, **changes)


def with_outcome(outcome: KvmOutcome | None) -> NodeFacts:
    return good_node(kvm=KvmFacts(KVM_NODE, outcome))
