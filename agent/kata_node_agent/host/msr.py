"""Whether the firmware locked virtualization off, from the processors' own registers (/dev/cpu/N/msr).

Needs root and the msr module; without them there is no fact, which is a value here. Nothing is written.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.host.cpuid import SVM_VENDORS, VMX_VENDORS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kata_node_agent.host.root import HostRoot

IA32_FEATURE_CONTROL = 0x3A
VM_CR = 0xC0010114
_MSR_MAJOR = 202


@dataclass(frozen=True, slots=True)
class MsrReading:
    """One register of some CPUs that all hold the same value."""

    register: int
    value: int
    cpus: tuple[int, ...]

    @property
    def locked_off(self) -> bool:
        """Whether the firmware forbids virtualization until the next reset.

        Intel: locked (bit 0) without VMX outside SMX (bit 2); unlocked is fine, as the kernel then
        switches it on.
        AMD: SVM disabled (bit 4) and locked (bit 3).
        """
        if self.register == IA32_FEATURE_CONTROL:
            return self.value & 0b101 == 0b001
        return self.value & 0b11000 == 0b11000


def read_msrs(root: HostRoot, vendor: str | None, cpus: Iterable[int]) -> tuple[MsrReading, ...]:
    """The register that this vendor's firmware locks, of each CPU that lets us read it."""
    if vendor in VMX_VENDORS:
        register = IA32_FEATURE_CONTROL
    elif vendor in SVM_VENDORS:
        register = VM_CR
    else:
        return ()
    values: dict[int, list[int]] = {}
    for cpu in cpus:
        value = _read(root, cpu, register)
        if value is None:
            # What one CPU refuses the others refuse as well; most nodes have no msr device at all.
            break
        values.setdefault(value, []).append(cpu)
    return tuple(MsrReading(register, value, tuple(on)) for value, on in values.items())


def _read(root: HostRoot, cpu: int, register: int) -> int | None:
    try:
        descriptor = os.open(root.resolve(f"/dev/cpu/{cpu}/msr"), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISCHR(status.st_mode) or os.major(status.st_rdev) != _MSR_MAJOR:
            return None
        data = os.pread(descriptor, 8, register)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return int.from_bytes(data, "little") if len(data) == 8 else None
