"""What CPUID says, decoded from raw leaves. Reads nothing: the leaves come from the probe or a snapshot.

Every answer is true, false or ``None``; ``None`` means that the leaf it stands in was not read. A leaf
beyond the maximum that the processor states is not looked at: Intel answers such a question with another
leaf's data.
"""

from __future__ import annotations

from collections.abc import Mapping

from kata_node_agent.dataclass import dataclass

# (leaf, subleaf) -> (eax, ebx, ecx, edx)
Leaves = Mapping[tuple[int, int], tuple[int, int, int, int]]

EAX, EBX, ECX, EDX = range(4)
# Only these make SVM; for the others a missing extended range says that there is none.
SVM_VENDORS = frozenset({"AuthenticAMD", "HygonGenuine"})
# Zhaoxin's name has its spaces: "  Shanghai  ".
VMX_VENDORS = frozenset({"GenuineIntel", "CentaurHauls", "  Shanghai  "})


@dataclass(frozen=True, slots=True)
class CpuRecord:
    """One online CPU: its leaves, or why there are none."""

    cpu: int
    leaves: Leaves | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class CpuidInfo:
    """The abilities of one CPU that matter here."""

    vendor: str | None = None
    brand: str | None = None
    vmx: bool | None = None
    svm: bool | None = None
    sse4_1: bool | None = None
    sse4_2: bool | None = None
    long_mode: bool | None = None
    hypervisor: bool | None = None
    hypervisor_signature: str | None = None
    sev: bool | None = None
    sev_es: bool | None = None
    sev_snp: bool | None = None


def decode(leaves: Leaves) -> CpuidInfo:
    """The abilities that the leaves of one CPU show."""
    vendor = _vendor(leaves)
    svm = _bit(leaves, 0x80000001, ECX, 2)
    if svm is None and vendor is not None and (vendor not in SVM_VENDORS or _is_older_than_svm(leaves)):
        svm = False
    hypervisor = _bit(leaves, 1, ECX, 31)
    return CpuidInfo(
        vendor=vendor,
        brand=_brand(leaves),
        vmx=_bit(leaves, 1, ECX, 5),
        svm=svm,
        sse4_1=_bit(leaves, 1, ECX, 19),
        sse4_2=_bit(leaves, 1, ECX, 20),
        long_mode=_bit(leaves, 0x80000001, EDX, 29),
        hypervisor=hypervisor,
        # Without the hypervisor bit the range is not defined, and Intel repeats another leaf there.
        hypervisor_signature=_hypervisor_signature(leaves) if hypervisor else None,
        sev=_bit(leaves, 0x8000001F, EAX, 1),
        sev_es=_bit(leaves, 0x8000001F, EAX, 3),
        sev_snp=_bit(leaves, 0x8000001F, EAX, 4),
    )


def _is_older_than_svm(leaves: Leaves) -> bool:
    """Whether the family is before AMD's K8, of which the last made SVM's first."""
    registers = leaves.get((1, 0))
    return registers is not None and (registers[EAX] >> 8 & 0xF) < 0xF


def _leaf(leaves: Leaves, leaf: int) -> tuple[int, int, int, int] | None:
    """The registers of a leaf that was read and that the processor says it has."""
    maximum = leaves.get((leaf & 0x80000000, 0))
    if maximum is not None and not leaf <= maximum[EAX] <= (leaf | 0xFFFF):
        return None
    return leaves.get((leaf, 0))


def _bit(leaves: Leaves, leaf: int, register: int, bit: int) -> bool | None:
    """One feature bit; a leaf that the processor says it has not got has no feature."""
    registers = _leaf(leaves, leaf)
    if registers is not None:
        return bool(registers[register] >> bit & 1)
    maximum = leaves.get((leaf & 0x80000000, 0))
    return False if maximum is not None and maximum[EAX] < leaf else None


def _text(*registers: int) -> str:
    return b"".join(value.to_bytes(4, "little") for value in registers).decode("latin-1")


def _vendor(leaves: Leaves) -> str | None:
    registers = leaves.get((0, 0))
    if registers is None:
        return None
    return _text(registers[EBX], registers[EDX], registers[ECX]).rstrip("\0") or None


def _brand(leaves: Leaves) -> str | None:
    parts = [_leaf(leaves, leaf) for leaf in (0x80000002, 0x80000003, 0x80000004)]
    text = "".join(_text(*part) for part in parts if part is not None)
    return " ".join(text.partition("\0")[0].split()) or None


def _hypervisor_signature(leaves: Leaves) -> str | None:
    registers = leaves.get((0x40000000, 0))
    if registers is None:
        return None
    return _text(registers[EBX], registers[ECX], registers[EDX]).rstrip("\0") or None
