"""/proc/cpuinfo: what the kernel made of the processors. Its shape differs with the architecture.

A flag that is here was seen in CPUID *and* kept by the kernel. One that is missing proves nothing by
itself: the firmware, ``clearcpuid=`` or an old kernel may have hidden it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot

PATH = "/proc/cpuinfo"
# More CPUs than any kernel is built for; beyond that the file is not what it claims to be.
_MAX_CPUS = 65536


@dataclass(frozen=True, slots=True)
class CpuGroup:
    """CPUs that the kernel describes alike."""

    cpus: tuple[int, ...]
    vendor: str | None
    brand: str | None
    flags: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """The CPUs in groups; more than one group means that they are not alike.

    ``shape`` names the architecture whose kernel writes such a file, where that can be seen. ``platform`` is
    ppc64le's own line (``PowerNV``, ``pSeries``).
    """

    shape: str | None
    groups: tuple[CpuGroup, ...]
    platform: str | None = None

    def has(self, flag: str) -> bool | None:
        """Whether every CPU has the flag; ``None`` where the file has no flags."""
        if not self.groups or any(group.flags is None for group in self.groups):
            return None
        return all(flag in (group.flags or ()) for group in self.groups)


def parse_cpuinfo(text: str) -> CpuInfo | None:
    """The CPUs of a /proc/cpuinfo, or ``None`` when the text is none."""
    found: dict[tuple[str | None, str | None, str | None], list[int]] = {}
    shared: dict[str, str] = {}
    for block in text.split("\n\n"):
        fields = _fields(block)
        number = fields.get("processor", "")
        if _is_number(number):
            key = (fields.get("vendor_id"), _brand(fields), _flags(fields))
            found.setdefault(key, []).append(int(number))
            if len(found) > _MAX_CPUS:
                return None
            continue
        # s390x and ppc64le describe what all CPUs share in a block of its own.
        for name, value in fields.items():
            shared.setdefault(name, value)
    shape = _shape(text)
    if not found and shape == "s390x":
        found[shared.get("vendor_id"), None, _flags(shared)] = _s390x_cpus(shared)
    if not found:
        return None
    groups = tuple(
        CpuGroup(tuple(sorted(cpus)), vendor, brand, frozenset(flags.split()) if flags is not None else None)
        for (vendor, brand, flags), cpus in found.items()
    )
    return CpuInfo(shape, groups, shared.get("platform") if shape == "ppc64le" else None)


def read_cpuinfo(root: HostRoot) -> CpuInfo | None:
    """The CPUs as the kernel describes them, or ``None``."""
    text = root.try_read_text(PATH)
    return parse_cpuinfo(text) if text is not None else None


def _fields(block: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in block.split("\n"):
        name, separator, value = line.partition(":")
        if separator:
            fields.setdefault(name.strip(), value.strip())
    return fields


def _brand(fields: dict[str, str]) -> str | None:
    return fields.get("model name") or fields.get("cpu") or None


def _flags(fields: dict[str, str]) -> str | None:
    for name in ("flags", "Features", "features"):
        if name in fields:
            return fields[name]
    return None


def _is_number(text: str) -> bool:
    return 0 < len(text) <= 6 and text.isascii() and text.isdigit()


def _s390x_cpus(shared: dict[str, str]) -> list[int]:
    """s390x writes ``processor 0: version = …``, one line a CPU."""
    numbers = [name.removeprefix("processor ") for name in shared if name.startswith("processor ")]
    return [int(number) for number in numbers if _is_number(number)]


def _shape(text: str) -> str | None:
    """Which architecture's kernel writes such a file; ``x86`` does not tell 32 from 64 bits."""
    if "IBM/S390" in text:
        return "s390x"
    if "\nflags\t" in text or "\nflags :" in text:
        return "x86"
    if "\nCPU implementer" in text:
        return "aarch64"
    # POWER is little-endian or big-endian by the kernel, which the file does not say; nodes are
    # little-endian.
    if "\nplatform" in text and "\nrevision" in text:
        return "ppc64le"
    return None
