"""Recorded nodes that have more than a tree can tell: CPUID (real dumps, see data/cpuid.json) and KVM's answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from kata_node_agent.eligibility import evaluate
from kata_node_agent.host.snapshot import read_snapshot, write_snapshot

SNAPSHOTS = Path(__file__).parents[1] / "data" / "snapshots"

# snapshot: profile, verdict, what stands in the way
CASES: dict[str, tuple[str, str, dict[str, str]]] = {
    "rhcos-4.12-intel": ("openshift", "eligible", {}),
    "rhcos-4.19-amd": ("openshift", "eligible", {}),
    "amd-firmware-off": (
        "openshift",
        "ineligible",
        {
            "kvm.device": "KvmDeviceMissing",
            "kvm.open": "KvmDeviceMissing",
            "cpu.firmware": "VirtualizationDisabledByFirmware",
            "module.kvm-vendor": "KvmVendorModuleMissing",
        },
    ),
    "intel-locked-off-old-kernel": (
        "openshift",
        "ineligible",
        {
            "kvm.open": "KvmNoDevice",
            "cpu.firmware": "VirtualizationDisabledByFirmware",
            "module.kvm-vendor": "KvmVendorModuleMissing",
        },
    ),
    "hyper-v-guest": (
        "openshift",
        "ineligible",
        {
            "kvm.device": "KvmDeviceMissing",
            "kvm.open": "KvmDeviceMissing",
            "cpu.virtualization": "VirtualizationMissing",
            "cpu.bare-metal": "NestedVirtualization",
            "module.kvm": "KvmModuleMissing",
            "module.kvm-vendor": "KvmVendorModuleMissing",
        },
    ),
    "hygon-upstream": ("upstream", "eligible", {}),
    "google-bare-metal": ("openshift", "ineligible", {"cpu.bare-metal": "UnsupportedCloudBareMetal"}),
    "unprivileged": (
        "openshift",
        "unknown",
        {
            "kvm.open": "KvmPermissionDenied",
            "kvm.api-version": "NotReached",
            "kvm.create-vm": "NotReached",
            "kvm.run-guest": "NotReached",
        },
    ),
    "looping-guest": ("openshift", "ineligible", {"kvm.run-guest": "GuestTimedOut"}),
    "aarch64-bare-metal": ("openshift", "eligible", {}),
}


def test_every_snapshot_has_a_case() -> None:
    assert {path.stem for path in SNAPSHOTS.iterdir()} == set(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_snapshot(name: str) -> None:
    profile, word, blocking = CASES[name]
    data = (SNAPSHOTS / f"{name}.json").read_bytes()
    facts = read_snapshot(data)
    verdict = evaluate(facts, profile=None)
    assert (verdict.profile, verdict.verdict) == (profile, word)
    assert {check.id: check.reason for check in verdict.blocking} == blocking
    assert write_snapshot(facts).encode() == data
