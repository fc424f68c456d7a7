"""The node's memory, from /proc/meminfo. Facts only: what the numbers mean for capacity is said elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import HostError

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot

PATH = "/proc/meminfo"
# No machine has 2^63 bytes; a larger number would not fit the int64 of the protocols we speak.
_MAX_BYTES = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class MemInfo:
    """Memory of the node in bytes; ``None`` where the kernel does not say, or says what is no number.

    ``hugepages_total`` and its siblings are counts of pages of the default huge page size; ``hugetlb_bytes``
    is the memory in huge pages of all sizes.
    """

    total_bytes: int
    free_bytes: int | None = None
    available_bytes: int | None = None
    buffers_bytes: int | None = None
    cached_bytes: int | None = None
    anon_bytes: int | None = None
    shmem_bytes: int | None = None
    unevictable_bytes: int | None = None
    slab_reclaimable_bytes: int | None = None
    slab_unreclaimable_bytes: int | None = None
    kernel_stack_bytes: int | None = None
    page_tables_bytes: int | None = None
    swap_total_bytes: int | None = None
    swap_free_bytes: int | None = None
    hugepages_total: int | None = None
    hugepages_free: int | None = None
    hugepages_reserved: int | None = None
    hugepages_surplus: int | None = None
    hugepage_size_bytes: int | None = None
    hugetlb_bytes: int | None = None
    cma_total_bytes: int | None = None
    cma_free_bytes: int | None = None

    @property
    def hugepages_bytes(self) -> int:
        """Memory set aside as huge pages: of all sizes where the kernel says so, else of the default one."""
        if self.hugetlb_bytes is not None:
            return self.hugetlb_bytes
        return (self.hugepages_total or 0) * (self.hugepage_size_bytes or 0)


_FIELDS = {
    "MemTotal": "total_bytes",
    "MemFree": "free_bytes",
    "MemAvailable": "available_bytes",
    "Buffers": "buffers_bytes",
    "Cached": "cached_bytes",
    "AnonPages": "anon_bytes",
    "Shmem": "shmem_bytes",
    "Unevictable": "unevictable_bytes",
    "SReclaimable": "slab_reclaimable_bytes",
    "SUnreclaim": "slab_unreclaimable_bytes",
    "KernelStack": "kernel_stack_bytes",
    "PageTables": "page_tables_bytes",
    "SwapTotal": "swap_total_bytes",
    "SwapFree": "swap_free_bytes",
    "HugePages_Total": "hugepages_total",
    "HugePages_Free": "hugepages_free",
    "HugePages_Rsvd": "hugepages_reserved",
    "HugePages_Surp": "hugepages_surplus",
    "Hugepagesize": "hugepage_size_bytes",
    "Hugetlb": "hugetlb_bytes",
    "CmaTotal": "cma_total_bytes",
    "CmaFree": "cma_free_bytes",
}


def parse_meminfo(text: str, *, source: str = PATH) -> MemInfo:
    """The numbers of a /proc/meminfo.

    Raises:
        HostError: there is no usable MemTotal; all else may be missing.
    """
    found: dict[str, int] = {}
    for line in text.split("\n"):
        name, separator, rest = line.partition(":")
        field = _FIELDS.get(name)
        if field is None or not separator or field in found:
            continue
        value = _number(rest)
        if value is not None:
            found[field] = value
    if found.get("total_bytes", 0) <= 0:
        raise HostError(
            f"{source}: no usable MemTotal",
            hint="the file must be the kernel's own /proc/meminfo; look at how /proc is mounted",
            reason="HostFactInvalid",
        )
    return MemInfo(**found)


def _number(text: str) -> int | None:
    """``  1234 kB`` in bytes, ``  7`` as it is; ``None`` for anything else."""
    words = text.split()
    # isascii: isdigit alone takes digits of any script, and also superscripts, which int() refuses.
    if not words or len(words) > 2 or len(words[0]) > 19 or not (words[0].isascii() and words[0].isdigit()):
        return None
    value = int(words[0])
    if len(words) == 2:
        if words[1] != "kB":
            return None
        value *= 1024
    return value if value <= _MAX_BYTES else None


def read_meminfo(root: HostRoot) -> MemInfo:
    """The node's memory now.

    Raises:
        HostError: /proc/meminfo cannot be read, or has no usable MemTotal.
    """
    return parse_meminfo(root.read_text(PATH, 1 << 20), source=str(root.resolve(PATH)))
