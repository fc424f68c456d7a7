"""Checks of the processors. Pure: facts in, finding out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kata_node_agent.eligibility.findings import fails, holds, missing, only_x86, skip, unknown
from kata_node_agent.eligibility.processor import confidential_abilities

if TYPE_CHECKING:
    from typing import Any

    from kata_node_agent.eligibility.model import Finding
    from kata_node_agent.eligibility.processor import Processor
    from kata_node_agent.host.facts import NodeFacts

ARCHITECTURES = ("x86_64", "aarch64", "s390x", "ppc64le")
_VENDOR_NAMES = {
    "GenuineIntel": "Intel",
    "AuthenticAMD": "AMD",
    "HygonGenuine": "Hygon",
    "CentaurHauls": "Centaur/VIA/Zhaoxin",
    "  Shanghai  ": "Zhaoxin",
}
# From these kernels on the flag in /proc/cpuinfo goes away when the firmware switched the extension off.
_FLAG_TELLS_SINCE = {"vmx": (5, 6), "svm": (6, 7)}


def check_arch(facts: NodeFacts, _cpu: Processor) -> Finding:
    """``arch``: Kata Containers exists for it."""
    evidence = {"arch": facts.arch}
    if facts.arch is None:
        return missing("the architecture is not known", evidence)
    if facts.arch in ARCHITECTURES:
        return holds("ArchitectureSupported", f"{facts.arch}", evidence)
    return fails("ArchitectureUnsupported", f"Kata Containers does not run on {facts.arch}", evidence)


def check_vendor(_facts: NodeFacts, cpu: Processor) -> Finding:
    """``cpu.vendor``: one whose virtualization KVM drives."""
    evidence = {"vendor": cpu.vendor, "brand": cpu.brand}
    if cpu.is_x86 is False:
        return only_x86(evidence)
    if cpu.vendor is None:
        return missing("the processor's vendor is not known", evidence)
    if cpu.vendor in _VENDOR_NAMES:
        return holds("VendorKnown", cpu.brand or _VENDOR_NAMES[cpu.vendor], evidence)
    offers = [name for name, has in (("VMX", cpu.vmx), ("SVM", cpu.svm)) if has]
    offered = f"; it offers {' and '.join(offers)}" if offers else "; it offers neither VMX nor SVM"
    return fails("VendorUnknown", f"unknown vendor {cpu.vendor!r}{offered}", evidence)


def check_virtualization(facts: NodeFacts, cpu: Processor) -> Finding:
    """``cpu.virtualization``: the processors have VMX or SVM, or their architecture's like."""
    evidence: dict[str, Any] = {"vmx": cpu.vmx, "svm": cpu.svm}
    if confidential := confidential_abilities(facts):
        evidence["confidential"] = list(confidential)
    if cpu.is_x86 is False:
        return _virtualization_elsewhere(facts, evidence)
    if cpu.virtualization:
        name = "VMX" if cpu.vmx else "SVM"
        return holds("VirtualizationSupported", f"the processors have {name}", evidence)
    if any(info.vmx or info.svm for info in cpu.infos):
        return fails("VirtualizationOnSomeCpus", "only some of the processors have VMX or SVM", evidence)
    if cpu.virtualization is None:
        return missing("neither VMX nor SVM was seen, and CPUID was not read", evidence)
    # KVM may still work: a kernel can run guests without the processor's help.
    despite = "; KVM runs guests all the same" if _guest_ran(facts) else ""
    return fails("VirtualizationMissing", f"CPUID has neither VMX nor SVM{despite}", evidence)


def check_sse4(_facts: NodeFacts, cpu: Processor) -> Finding:
    """``cpu.sse4``: SSE4.1, which NFD calls SSE4; SSE4.2 is told beside it."""
    evidence = {"sse4_1": cpu.sse4_1, "sse4_2": cpu.sse4_2}
    if cpu.is_x86 is False:
        return only_x86(evidence)
    if cpu.sse4_1 is None:
        return missing("SSE4.1 was not seen, and CPUID was not read", evidence)
    if cpu.sse4_1:
        beside = {True: " and SSE4.2", False: ", not SSE4.2", None: ""}[cpu.sse4_2]
        return holds("Sse4Present", f"the processors have SSE4.1{beside}", evidence)
    return fails("Sse4Missing", "the processors have no SSE4.1", evidence)


def check_long_mode(_facts: NodeFacts, cpu: Processor) -> Finding:
    """``cpu.long-mode``: x86 processors run 64-bit guests."""
    evidence = {"long_mode": cpu.long_mode}
    if cpu.is_x86 is False:
        return only_x86(evidence)
    if cpu.long_mode is None:
        return missing("the 64-bit mode was not seen, and CPUID was not read", evidence)
    if cpu.long_mode:
        return holds("LongModePresent", "the processors run 64-bit code", evidence)
    return fails("LongModeMissing", "the processors run 32-bit code only", evidence)


def check_firmware(facts: NodeFacts, cpu: Processor) -> Finding:
    """``cpu.firmware``: what the processors have is not switched off.

    The lock register decides where it can be read, then KVM's success through the vendor's module; the
    kernel's flag is a hint, as old kernels keep it and ``clearcpuid=`` drops it.
    """
    flag = cpu.kernel_flag
    shown = facts.cpuinfo.has(flag) if flag is not None and facts.cpuinfo is not None else None
    # Without CPUID the bit is known only from that same flag, which is no second side.
    has = cpu.virtualization if cpu.infos else None
    evidence: dict[str, Any] = {"cpuid": has, "kernel_flag": shown, "msr": None}
    if facts.msrs:
        evidence["msr"] = [
            {"register": f"{msr.register:#x}", "value": f"{msr.value:#x}", "locked_off": msr.locked_off}
            for msr in facts.msrs
        ]
    if cpu.is_x86 is False:
        return only_x86(evidence)
    if has is False:
        return skip("NothingToEnable", "the processors have nothing that firmware could switch off", evidence)
    if any(msr.locked_off for msr in facts.msrs):
        message = f"the firmware has locked {(flag or 'virtualization').upper()} off (MSR)"
        return fails("VirtualizationDisabledByFirmware", message, evidence)
    if proof := _enabled_by(facts, flag):
        return holds("VirtualizationEnabled", proof, evidence)
    if has and shown is False:
        message = f"CPUID has {(flag or '').upper()}, and the kernel does not show the flag {flag}"
        return fails("VirtualizationDisabledByFirmware", message, evidence)
    if shown and flag is not None:
        if (version := _version(facts.kernel_release)) is not None and version >= _FLAG_TELLS_SINCE[flag]:
            return holds("VirtualizationEnabled", f"the kernel shows the flag {flag}", evidence)
        message = (
            f"the kernel shows the flag {flag}, which on this kernel stays when firmware switched it off"
        )
        return unknown("FirmwareUnproven", message, evidence)
    return missing("whether firmware switched virtualization off is not known", evidence)


def check_consistency(facts: NodeFacts, cpu: Processor) -> Finding:
    """``cpu.consistency``: a VM may be moved to any CPU of the node, so all must have the same abilities."""
    unread = [record.cpu for record in facts.cpus if not record.leaves]
    groups = facts.cpuinfo.groups if facts.cpuinfo is not None else ()
    total = len(facts.cpus) or sum(len(group.cpus) for group in groups)
    evidence: dict[str, Any] = {"cpus": total or None, "unread": unread}
    if cpu.is_x86 is False:
        return only_x86(evidence)
    what = ("vendor", "vmx", "svm", "sse4_1", "sse4_2", "long_mode", "hypervisor")
    differ = [name for name in what if len({getattr(info, name) for info in cpu.infos}) > 1]
    if differ:
        return fails("CpusDiffer", f"the CPUs differ in {', '.join(differ)}", evidence | {"differ": differ})
    if not cpu.infos or unread:
        # What CPUID did not tell of a CPU that we may not run on, the kernel may.
        if not groups:
            return missing("no CPU could be looked at" if not cpu.infos else _not_all(unread), evidence)
        flags = ("vmx", "svm", "sse4_1", "sse4_2", "lm", "hypervisor")
        kinds = {(group.vendor, *(flag in (group.flags or ()) for flag in flags)) for group in groups}
        if len(kinds) > 1:
            return fails("CpusDiffer", "the kernel describes CPUs that differ", evidence)
        if any(group.flags is None for group in groups):
            return missing("the kernel does not tell the CPUs' flags", evidence)
        covered = {number for group in groups for number in group.cpus}
        if not covered.issuperset(unread):
            return unknown("CpusNotAllSeen", _not_all(unread), evidence)
        return holds("CpusAlike", f"{total} CPUs alike, some by the kernel's word only", evidence)
    return holds("CpusAlike", f"{total} CPUs alike" if total > 1 else "one CPU", evidence)


def _not_all(unread: list[int]) -> str:
    return f"we may not run on {len(unread)} of the CPUs (first: CPU {unread[0]})"


def _virtualization_elsewhere(facts: NodeFacts, evidence: dict[str, Any]) -> Finding:
    """No CPUID: s390x has a flag; elsewhere KVM itself is the only one to ask."""
    outcome = facts.kvm.outcome if facts.kvm is not None else None
    if outcome is not None and outcome.reached("create-vm"):
        return holds("VirtualizationProvenByKvm", "KVM made a VM", evidence)
    sie = facts.cpuinfo.has("sie") if facts.arch == "s390x" and facts.cpuinfo is not None else None
    if sie is not None:
        evidence = evidence | {"sie": sie}
        if sie:
            return holds("VirtualizationSupported", "the processors have SIE", evidence)
        return fails("VirtualizationMissing", "the processors have no SIE", evidence)
    return missing("on this architecture KVM has to tell, and was not asked", evidence)


def _guest_ran(facts: NodeFacts) -> bool:
    return facts.kvm is not None and facts.kvm.outcome is not None and facts.kvm.outcome.step == "done"


def _enabled_by(facts: NodeFacts, flag: str | None) -> str:
    """What proves that the extension is on; empty where nothing does."""
    if facts.msrs:
        return "the lock register allows it"
    name = {"vmx": "kvm_intel", "svm": "kvm_amd"}.get(flag or "")
    module = (facts.modules or {}).get(name or "")
    if module is None:
        return ""
    if _guest_ran(facts):
        return f"{module.name} runs guests"
    # It refuses to load where firmware switched the extension off; built in it stays and does nothing.
    return (
        "" if module.builtin else f"{module.name} is loaded, which it refuses where firmware switched it off"
    )


def _version(release: str | None) -> tuple[int, int] | None:
    match = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", release or "")
    return (int(match[1]), int(match[2])) if match else None
