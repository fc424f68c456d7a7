"""A handler's settings as the sizing of VMs takes them: pure, but for `settings_by_handler`, which reads the node's CPUs.

Source: Kata Containers 4.1.0, src/runtime/pkg/katautils/config.go and src/libs/kata-types/src/config/hypervisor (maxima),
src/runtime/virtcontainers/qemu.go (getMemArgs: where memory lives).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from kata_node_agent.capacity.hotplug import MIB, VmSettings
from kata_node_agent.host.kernel import read_arch
from kata_node_agent.host.machine import online_cpus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.nodeconfig.kata import KataSettings

# The guest's block of memory. Linux, arch/x86/mm/init_64.c and each architecture's SECTION_SIZE_BITS.
_LARGE_BLOCK_ARCHES = ("s390x", "ppc64le")
# Shipped with runtime-rs; a part of a CPU.
_OVERHEAD_VCPU_MILLIS = 200
_SHARED = ("virtio-fs", "virtio-fs-nydus", "inline-virtio-fs")


def settings_by_handler(
    root: HostRoot, katas: Iterable[KataSettings], host_bytes: int | None, *, live: bool
) -> dict[str, VmSettings]:
    """What decides the size of each handler's VMs, on this node.

    Args:
        root: the host.
        katas: the handlers' settings.
        host_bytes: the node's memory; without it no maximum is known, and any VM fits.
        live: whether the root is this machine's.
    """
    arch = read_arch(root) or (os.uname().machine if live else "")
    cpus = online_cpus(root)
    return {kata.handler: vm_settings(kata, host_bytes or 1 << 50, cpus, arch) for kata in katas}


def vm_settings(kata: KataSettings, host_bytes: int, cpus: int | None, arch: str) -> VmSettings:
    """What decides the size of a handler's VMs.

    Args:
        kata: the handler's settings.
        host_bytes: the node's memory, in which the maximum ends.
        cpus: the node's CPUs; ``None`` where not known.
        arch: as ``uname -m`` prints it.
    """
    host_mib = host_bytes // MIB
    most = kata.number("default_maxmemory")
    max_mib = most if 0 < most < host_mib else host_mib
    default_mib = kata.number("default_memory")
    if kata.kind == "runtime-rs":
        default_mib = min(default_mib, host_mib)
    vcpus, max_vcpus = kata.number("default_vcpus"), kata.number("default_maxvcpus")
    if vcpus < 0 or (cpus is not None and vcpus > cpus):
        vcpus = cpus or 1
    if cpus is not None and (max_vcpus <= 0 or max_vcpus > cpus):
        max_vcpus = cpus
    confidential = kata.values["confidential_guest"].value is True
    permitted = str(kata.values["enable_annotations"].value)
    return VmSettings(
        kind=kata.kind,
        hypervisor=kata.hypervisor,
        runs_here=kata.runs_here,
        static=kata.values["static_sandbox_resource_mgmt"].value is True,
        default_memory_bytes=default_mib * MIB,
        overhead_memory_bytes=kata.number("overhead_memory") * MIB if kata.kind == "runtime-rs" else 0,
        max_bytes=max_mib * MIB,
        slots=kata.number("memory_slots") or 10,
        block_bytes=(256 if arch in _LARGE_BLOCK_ARCHES else 128) * MIB,
        virtio_mem=kata.values["enable_virtio_mem"].value is True,
        hotplug=not confidential and kata.hypervisor != "firecracker" and not _no_growth(kata),
        memory_in=_memory_in(kata),
        cgroup_only=kata.values["sandbox_cgroup_only"].value is True,
        enable_annotations=tuple(part for part in permitted.split(", ") if part),
        default_vcpu_millis=max(1, vcpus) * 1000,
        overhead_vcpu_millis=_OVERHEAD_VCPU_MILLIS,
        max_vcpus=max(0, max_vcpus),
    )


def _no_growth(kata: KataSettings) -> bool:
    """Cloud Hypervisor's VMs from a template keep the template's size."""
    return kata.hypervisor == "clh" and kata.values["enable_template"].value is True


def _memory_in(kata: KataSettings) -> Literal["shm", "memfd", "hugepages", "anonymous"]:
    if kata.values["enable_hugepages"].value is True:
        return "hugepages"
    shared = kata.values["shared_fs"].value in _SHARED
    if kata.hypervisor in {"clh", "cloud-hypervisor", "dragonball"}:
        return "memfd" if shared else "anonymous"
    # QEMU: a file below file_mem_backend, or below /dev/shm for virtiofsd to map.
    backend = str(kata.values["file_mem_backend"].value)
    return "shm" if shared or backend.startswith("/dev/shm") else "anonymous"  # noqa: S108 - compared only
