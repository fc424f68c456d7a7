"""The processors of a node as one: what all CPUs have, by CPUID or by the kernel's flags."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.host.cpuid import SVM_VENDORS, VMX_VENDORS, CpuidInfo, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kata_node_agent.host.facts import NodeFacts

X86 = frozenset({"x86_64", "i386", "i486", "i586", "i686", "x86"})


@dataclass(frozen=True, slots=True)
class Processor:
    """An ability is true if every CPU has it, false if one has not, ``None`` if that cannot be told.

    ``infos`` are the CPUs whose CPUID is known; it is empty in a recorded tree, where a kernel flag proves an
    ability and a missing one proves nothing.
    """

    is_x86: bool | None
    infos: tuple[CpuidInfo, ...]
    vendor: str | None
    brand: str | None
    vmx: bool | None
    svm: bool | None
    sse4_1: bool | None
    sse4_2: bool | None
    long_mode: bool | None
    hypervisor: bool | None
    signature: str | None

    @property
    def virtualization(self) -> bool | None:
        """Whether the processors have one of the two extensions."""
        if self.vmx or self.svm:
            return True
        return False if self.vmx is False and self.svm is False else None

    @property
    def kernel_flag(self) -> str | None:
        """The flag that the kernel shows for this processor's extension, where that is known."""
        if self.vendor in VMX_VENDORS or (self.vmx and not self.svm):
            return "vmx"
        if self.vendor in SVM_VENDORS or (self.svm and not self.vmx):
            return "svm"
        return None


def see_processor(facts: NodeFacts) -> Processor:
    """The processors that the facts describe."""
    infos = _decode_all(facts)
    flags = facts.cpuinfo

    def ability(get: Callable[[CpuidInfo], bool | None], flag: str) -> bool | None:
        if infos:
            return _all(get(info) for info in infos)
        return True if flags is not None and flags.has(flag) else None

    hypervisor = ability(lambda info: info.hypervisor, "hypervisor")
    if any(info.hypervisor for info in infos):
        # One CPU that sees a hypervisor is proof enough.
        hypervisor = True
    first = flags.groups[0] if flags is not None and flags.groups else None
    return Processor(
        is_x86=_is_x86(facts, has_cpuid=bool(infos)),
        infos=infos,
        vendor=next((info.vendor for info in infos if info.vendor), first.vendor if first else None),
        brand=next((info.brand for info in infos if info.brand), first.brand if first else None),
        vmx=ability(lambda info: info.vmx, "vmx"),
        svm=ability(lambda info: info.svm, "svm"),
        sse4_1=ability(lambda info: info.sse4_1, "sse4_1"),
        sse4_2=ability(lambda info: info.sse4_2, "sse4_2"),
        long_mode=ability(lambda info: info.long_mode, "lm"),
        hypervisor=hypervisor,
        signature=next((info.hypervisor_signature for info in infos if info.hypervisor_signature), None),
    )


def confidential_abilities(facts: NodeFacts) -> tuple[str, ...]:
    """Confidential computing that processor and kernel offer to VMs on this node; for information.

    SEV by CPUID, TDX by the kernel's flag for hosts: CPUID does not tell a TDX host.
    """
    infos = _decode_all(facts)
    found = []
    if infos and all(info.sev for info in infos):
        found.append("sev")
    if infos and all(info.sev_es for info in infos):
        found.append("sev-es")
    if infos and all(info.sev_snp for info in infos):
        found.append("sev-snp")
    if facts.cpuinfo is not None and facts.cpuinfo.has("tdx_host_platform"):
        found.append("tdx")
    return tuple(found)


def _decode_all(facts: NodeFacts) -> tuple[CpuidInfo, ...]:
    return tuple(decode(record.leaves) for record in facts.cpus if record.leaves)


def _all(answers: Iterable[bool | None]) -> bool | None:
    known = list(answers)
    if any(answer is False for answer in known):
        return False
    return None if any(answer is None for answer in known) else True


def _is_x86(facts: NodeFacts, *, has_cpuid: bool) -> bool | None:
    if facts.arch is not None:
        return facts.arch in X86
    if has_cpuid:
        return True
    if facts.cpuinfo is not None and facts.cpuinfo.shape is not None:
        return facts.cpuinfo.shape == "x86"
    return None
