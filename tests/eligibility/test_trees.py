"""Recorded trees, each named after its case."""

from __future__ import annotations

from pathlib import Path

import pytest

from kata_node_agent.eligibility import evaluate
from kata_node_agent.host.facts import collect
from kata_node_agent.host.root import HostRoot

TREES = Path(__file__).parents[1] / "trees"

# tree: profile, verdict, {check: (status, reason)}
CASES: dict[str, tuple[str, str, dict[str, tuple[str, str]]]] = {
    "rhcos-4.12-intel": (
        "openshift",
        "unknown",
        {
            "os": ("pass", "Rhcos"),
            "arch": ("pass", "ArchitectureSupported"),
            "kvm.device": ("unknown", "KvmDeviceUnreachable"),
            "cpu.virtualization": ("pass", "VirtualizationSupported"),
            "cpu.firmware": ("pass", "VirtualizationEnabled"),
            "cpu.consistency": ("pass", "CpusAlike"),
            "cpu.bare-metal": ("unknown", "FactMissing"),
            "module.kvm-vendor": ("pass", "ModuleLoaded"),
            "shm.ceiling": ("warn", "SharedMemoryBelowMemory"),
            "kata.runtime": ("pass", "KataFound"),
            "vhost.net": ("unknown", "FactMissing"),
        },
    ),
    "rhcos-4.19-amd": (
        "openshift",
        "unknown",
        {
            "os": ("pass", "Rhcos"),
            "module.kvm-vendor": ("pass", "ModuleLoaded"),
            "cpu.sse4": ("pass", "Sse4Present"),
        },
    ),
    "firmware-off-intel": (
        "openshift",
        "ineligible",
        {
            "kvm.device": ("fail", "KvmDeviceMissing"),
            "module.kvm": ("pass", "ModuleLoaded"),
            "module.kvm-vendor": ("fail", "KvmVendorModuleMissing"),
            # Without CPUID there is no second side.
            "cpu.firmware": ("unknown", "FactMissing"),
        },
    ),
    "no-modules": (
        "openshift",
        "ineligible",
        {
            "module.kvm": ("fail", "KvmModuleMissing"),
            "module.kvm-vendor": ("fail", "KvmVendorModuleMissing"),
            "kvm.open": ("fail", "KvmDeviceMissing"),
            "kvm.run-guest": ("skip", "NotReached"),
            "vhost.net": ("warn", "DeviceMissing"),
            "cpu.firmware": ("unknown", "FirmwareUnproven"),
        },
    ),
    "modules-built-in": (
        "upstream",
        "unknown",
        {"module.kvm": ("pass", "ModuleBuiltIn"), "module.kvm-vendor": ("pass", "ModuleBuiltIn")},
    ),
    "nested-openstack": ("openshift", "ineligible", {"cpu.bare-metal": ("fail", "NestedVirtualization")}),
    "vm-hidden-hypervisor": ("upstream", "unknown", {"cpu.bare-metal": ("warn", "NestedVirtualization")}),
    "xen-domu": ("upstream", "unknown", {"cpu.bare-metal": ("warn", "NestedVirtualization")}),
    "azure-vm": ("upstream", "unknown", {"cpu.bare-metal": ("warn", "NestedVirtualization")}),
    "aws-vm": (
        "openshift",
        "ineligible",
        {
            "cpu.bare-metal": ("fail", "NestedVirtualization"),
            "cpu.virtualization": ("unknown", "FactMissing"),
        },
    ),
    "aws-metal": ("openshift", "unknown", {"cpu.bare-metal": ("pass", "BareMetal")}),
    "rhel-9-worker": ("upstream", "unknown", {"os": ("warn", "RhelNotSupported")}),
    "fcos": (
        "upstream",
        "unknown",
        {"os": ("warn", "FcosNotRhcos"), "cpu.firmware": ("pass", "VirtualizationEnabled")},
    ),
    "scos-okd": ("upstream", "unknown", {"os": ("warn", "ScosNotRhcos")}),
    "cpus-differ": ("openshift", "ineligible", {"cpu.consistency": ("fail", "CpusDiffer")}),
    "aarch64-aws-metal": (
        "openshift",
        "unknown",
        {
            "arch": ("pass", "ArchitectureSupported"),
            "cpu.virtualization": ("unknown", "FactMissing"),
            "cpu.long-mode": ("skip", "NotOnThisArchitecture"),
            "cpu.bare-metal": ("pass", "BareMetal"),
            "module.kvm": ("pass", "ModuleBuiltIn"),
            "module.kvm-vendor": ("skip", "NotOnThisArchitecture"),
        },
    ),
    "aarch64-vm": ("upstream", "ineligible", {"cpu.bare-metal": ("warn", "NestedVirtualization")}),
    "s390x-lpar": (
        "openshift",
        "unknown",
        {
            "arch": ("pass", "ArchitectureSupported"),
            "cpu.virtualization": ("pass", "VirtualizationSupported"),
            "cpu.bare-metal": ("pass", "BareMetal"),
        },
    ),
    "s390x-zvm": (
        "upstream",
        "unknown",
        {
            "cpu.virtualization": ("warn", "VirtualizationMissing"),
            "cpu.bare-metal": ("warn", "NestedVirtualization"),
        },
    ),
    "ppc64le-powernv": (
        "upstream",
        "unknown",
        {"cpu.bare-metal": ("pass", "BareMetal"), "module.kvm-vendor": ("pass", "ModuleLoaded")},
    ),
    "ppc64le-powervm": ("upstream", "unknown", {"cpu.bare-metal": ("warn", "LogicalPartition")}),
    "ppc64le-kvm-guest": ("upstream", "unknown", {"cpu.bare-metal": ("warn", "NestedVirtualization")}),
    "containerd-kata": ("upstream", "unknown", {"kata.runtime": ("pass", "KataFound")}),
    "kata-without-handler": ("upstream", "unknown", {"kata.runtime": ("warn", "KataHandlerMissing")}),
    "kvm-is-a-file": (
        "upstream",
        "ineligible",
        {
            "kvm.device": ("fail", "KvmDeviceNotCharacter"),
            "kvm.open": ("fail", "KvmDeviceNotCharacter"),
            "vhost.net": ("warn", "DeviceNotCharacter"),
        },
    ),
    "garbage": (
        "upstream",
        "ineligible",
        {
            "os": ("unknown", "FactMissing"),
            "arch": ("unknown", "FactMissing"),
            "shm.ceiling": ("unknown", "FactMissing"),
            "sysctl.panic-on-oom": ("unknown", "FactMissing"),
        },
    ),
}


def test_every_tree_has_a_case() -> None:
    assert {path.name for path in TREES.iterdir()} == set(CASES)


@pytest.mark.parametrize("tree", sorted(CASES))
def test_tree(tree: str) -> None:
    profile, word, expected = CASES[tree]
    verdict = evaluate(collect(HostRoot(TREES / tree)), profile=None)
    found = {check.id: (check.status, check.reason) for check in verdict.checks}
    assert {name: found[name] for name in expected} == expected
    assert (verdict.profile, verdict.verdict) == (profile, word)
