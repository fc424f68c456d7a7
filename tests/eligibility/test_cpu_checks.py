from __future__ import annotations

from typing import Any

import pytest

from kata_node_agent.eligibility import CheckResult, confidential_abilities, evaluate
from kata_node_agent.host.cpuid import CpuRecord
from kata_node_agent.host.cpuinfo import CpuGroup, CpuInfo
from kata_node_agent.host.facts import NodeFacts
from kata_node_agent.host.kernel import Module
from kata_node_agent.host.kvm import KvmFacts, KvmOutcome
from kata_node_agent.host.msr import MsrReading
from kata_node_agent.host.platform import Platform
from tests.eligibility.cases import HYPERVISOR, KVM_NODE, LM, SSE4_1, SSE4_2, SVM, VMX, cpu, flags, good_node

OLD, NEW = "4.18.0-372.43.1.el8_6.x86_64", "6.8.0"
REFUSED = KvmFacts(KVM_NODE, KvmOutcome("open", 13))
LOADED = {"kvm_intel": Module("kvm_intel", builtin=False)}


def check(name: str, **changes: Any) -> CheckResult:
    verdict = evaluate(good_node(**changes), profile="openshift")
    return next(check for check in verdict.checks if check.id == name)


def result(name: str, **changes: Any) -> tuple[str, str]:
    found = check(name, **changes)
    return found.status, found.reason


def test_a_good_node_is_eligible() -> None:
    verdict = evaluate(good_node(), profile=None)
    assert (verdict.verdict, verdict.profile, verdict.blocking) == ("eligible", "openshift", ())
    assert {check.status for check in verdict.checks} == {"pass"}


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        # The kernel dropped the flag: firmware, unless something stronger speaks.
        ({"cpuinfo": flags("lm"), "modules": {}, "kvm": REFUSED}, "fail", "VirtualizationDisabledByFirmware"),
        # clearcpuid= drops it too: the register and KVM decide.
        ({"cpuinfo": flags("lm")}, "pass", "VirtualizationEnabled"),
        (
            {"cpuinfo": flags("lm"), "modules": {}, "msrs": (MsrReading(0x3A, 5, (0,)),)},
            "pass",
            "VirtualizationEnabled",
        ),
        # Locked off, whatever the flag of an old kernel says.
        ({"msrs": (MsrReading(0x3A, 1, (0,)),)}, "fail", "VirtualizationDisabledByFirmware"),
        (
            {"msrs": (MsrReading(0x3A, 5, (0,)), MsrReading(0x3A, 1, (1,)))},
            "fail",
            "VirtualizationDisabledByFirmware",
        ),
        # An old kernel keeps the flag: alone it proves nothing.
        ({"kernel_release": OLD, "modules": {}, "kvm": REFUSED}, "unknown", "FirmwareUnproven"),
        ({"kernel_release": OLD, "modules": LOADED, "kvm": REFUSED}, "pass", "VirtualizationEnabled"),
        (
            {
                "kernel_release": OLD,
                "modules": {"kvm_intel": Module("kvm_intel", builtin=True)},
                "kvm": REFUSED,
            },
            "unknown",
            "FirmwareUnproven",
        ),
        ({"kernel_release": NEW, "modules": {}, "kvm": REFUSED}, "pass", "VirtualizationEnabled"),
        ({"kernel_release": None, "modules": {}, "kvm": REFUSED}, "unknown", "FirmwareUnproven"),
        # KVM by another module proves nothing of this processor's extension.
        (
            {"cpuinfo": flags("lm"), "modules": {"kvm_pvm": Module("kvm_pvm", builtin=True)}},
            "fail",
            "VirtualizationDisabledByFirmware",
        ),
        ({"cpus": (cpu(ecx=SSE4_1),)}, "skip", "NothingToEnable"),
        ({"cpuinfo": None, "modules": None, "kvm": REFUSED}, "unknown", "FactMissing"),
    ],
)
def test_firmware(changes: dict[str, Any], status: str, reason: str) -> None:
    assert result("cpu.firmware", **changes) == (status, reason)


def test_firmware_shows_both_sides() -> None:
    evidence = check(
        "cpu.firmware", cpuinfo=flags("lm"), modules={}, msrs=(MsrReading(0x3A, 1, (0,)),)
    ).evidence
    assert evidence["cpuid"] is True
    assert evidence["kernel_flag"] is False
    assert evidence["msr"] == [{"register": "0x3a", "value": "0x1", "locked_off": True}]


def test_amd_kernels_drop_the_flag_later() -> None:
    amd = (cpu(vendor="AuthenticAMD", ecx=SSE4_1, ext_ecx=SVM),)
    seen = flags("svm", vendor="AuthenticAMD")
    changes: dict[str, Any] = {"cpus": amd, "cpuinfo": seen, "modules": {}, "kvm": REFUSED}
    assert result("cpu.firmware", kernel_release="6.6.0", **changes) == ("unknown", "FirmwareUnproven")
    assert result("cpu.firmware", kernel_release="6.7.0", **changes) == ("pass", "VirtualizationEnabled")


@pytest.mark.parametrize(
    ("cpus", "status", "reason", "evidence"),
    [
        ((cpu(),), "pass", "VirtualizationSupported", {"vmx": True, "svm": False}),
        (
            (cpu(vendor="AuthenticAMD", ecx=0, ext_ecx=SVM),),
            "pass",
            "VirtualizationSupported",
            {"vmx": False, "svm": True},
        ),
        ((cpu(ecx=0),), "fail", "VirtualizationMissing", {"vmx": False, "svm": False}),
        ((cpu(0), cpu(1, ecx=0)), "fail", "VirtualizationOnSomeCpus", {"vmx": False, "svm": False}),
    ],
)
def test_virtualization(
    cpus: tuple[CpuRecord, ...], status: str, reason: str, evidence: dict[str, bool]
) -> None:
    found = check("cpu.virtualization", cpus=cpus)
    assert (found.status, found.reason, dict(found.evidence)) == (status, reason, evidence)


def test_a_recorded_flag_proves_and_a_missing_one_does_not() -> None:
    assert result("cpu.virtualization", cpus=())[0] == "pass"
    assert result("cpu.virtualization", cpus=(), cpuinfo=flags("lm")) == ("unknown", "FactMissing")
    assert result("cpu.sse4", cpus=(), cpuinfo=flags("lm")) == ("unknown", "FactMissing")
    assert result("cpu.long-mode", cpus=(), cpuinfo=flags("lm"))[0] == "pass"
    assert result("cpu.bare-metal", cpus=(), cpuinfo=flags("lm")) == ("unknown", "FactMissing")
    assert result("cpu.bare-metal", cpus=(), cpuinfo=flags("hypervisor"))[1] == "NestedVirtualization"


def test_sse4_is_decided_on_sse4_1() -> None:
    without_2 = check("cpu.sse4", cpus=(cpu(ecx=SSE4_1),))
    assert (without_2.status, dict(without_2.evidence)) == ("pass", {"sse4_1": True, "sse4_2": False})
    assert result("cpu.sse4", cpus=(cpu(ecx=SSE4_2),)) == ("fail", "Sse4Missing")


def test_long_mode() -> None:
    assert result("cpu.long-mode", cpus=(cpu(ext_edx=0),)) == ("fail", "LongModeMissing")


@pytest.mark.parametrize(
    ("vendor", "status"),
    [
        ("GenuineIntel", "pass"),
        ("AuthenticAMD", "pass"),
        ("HygonGenuine", "pass"),
        ("CentaurHauls", "pass"),
        ("  Shanghai  ", "pass"),
        ("RiseRiseRise", "warn"),
    ],
)
def test_vendors(vendor: str, status: str) -> None:
    found = check("cpu.vendor", cpus=(cpu(vendor=vendor),))
    assert (found.status, found.evidence["vendor"]) == (status, vendor)


def test_an_unknown_vendor_is_said_with_what_it_offers() -> None:
    assert check("cpu.vendor", cpus=(cpu(vendor="RiseRiseRise"),)).message.endswith("it offers VMX")


def test_consistency() -> None:
    assert result("cpu.consistency") == ("pass", "CpusAlike")
    different = check("cpu.consistency", cpus=(cpu(0), cpu(1, ecx=VMX)))
    assert (different.status, different.evidence["differ"]) == ("fail", ["sse4_1", "sse4_2"])


def test_cpus_that_we_may_not_run_on_are_believed_by_the_kernels_word() -> None:
    unreachable = CpuRecord(1, None, "not ours")
    assert result("cpu.consistency", cpus=(cpu(0), unreachable)) == ("pass", "CpusAlike")
    assert result("cpu.consistency", cpus=(cpu(0), unreachable), cpuinfo=None) == ("unknown", "FactMissing")
    only_first = flags("vmx", cpus=(0,))
    assert result("cpu.consistency", cpus=(cpu(0), unreachable), cpuinfo=only_first) == (
        "unknown",
        "CpusNotAllSeen",
    )
    two = CpuInfo(
        "x86", (CpuGroup((0,), "V", None, frozenset({"vmx"})), CpuGroup((1,), "V", None, frozenset()))
    )
    assert result("cpu.consistency", cpus=(cpu(0), unreachable), cpuinfo=two) == ("fail", "CpusDiffer")


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({}, "pass", "BareMetal"),
        ({"cpus": (cpu(ecx=HYPERVISOR, signature="KVMKVMKVM"),)}, "fail", "NestedVirtualization"),
        ({"cpus": (cpu(0), cpu(1, ecx=HYPERVISOR))}, "fail", "NestedVirtualization"),
        ({"platform": Platform("QEMU", "Standard PC (Q35 + ICH9, 2009)")}, "fail", "NestedVirtualization"),
        ({"platform": Platform(hypervisor_type="xen")}, "fail", "NestedVirtualization"),
        ({"platform": Platform("Amazon EC2", "c7i.metal-24xl")}, "pass", "BareMetal"),
        ({"platform": Platform("Amazon EC2", "i3.metal")}, "pass", "BareMetal"),
        ({"platform": Platform("Amazon EC2", "m5.large")}, "fail", "NestedVirtualization"),
        ({"platform": Platform("Google", "Google Compute Engine")}, "fail", "UnsupportedCloudBareMetal"),
        (
            {"platform": Platform("Oracle", "X9-2", cloud_tag="Oracle Cloud")},
            "fail",
            "UnsupportedCloudBareMetal",
        ),
        ({"platform": None}, "pass", "BareMetal"),
    ],
)
def test_where_we_are(changes: dict[str, Any], status: str, reason: str) -> None:
    assert result("cpu.bare-metal", **changes) == (status, reason)


def test_bare_metal_evidence() -> None:
    evidence = check("cpu.bare-metal", cpus=(cpu(ecx=HYPERVISOR, signature="VMwareVMware"),)).evidence
    assert (evidence["hypervisor_bit"], evidence["signature"]) == (True, "VMwareVMware")


def test_confidential_abilities() -> None:
    record = cpu(vendor="AuthenticAMD", ext_ecx=SVM, ext_edx=LM)
    leaves = {
        **(record.leaves or {}),
        (0x80000000, 0): (0x80000021, 0, 0, 0),
        (0x8000001F, 0): (0b1011, 0, 0, 0),
    }
    facts = NodeFacts(cpus=(CpuRecord(0, leaves),))
    assert confidential_abilities(facts) == ("sev", "sev-es")
    assert confidential_abilities(NodeFacts(cpuinfo=flags("tdx_host_platform"))) == ("tdx",)
    assert confidential_abilities(NodeFacts()) == ()
