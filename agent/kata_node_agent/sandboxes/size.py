"""How large a VM is, and how well that is known. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from kata_node_agent.sandboxes.guest_ram import GuestRam
    from kata_node_agent.sandboxes.model import SizeCertainty
    from kata_node_agent.sandboxes.persisted import Persisted
    from kata_node_agent.sandboxes.qemu_line import QemuMemory


@dataclass(frozen=True, slots=True)
class Size:
    """The guest's memory in bytes: what it booted with, and what was added since."""

    base_bytes: int
    hotplugged_bytes: int
    certainty: SizeCertainty = "exact"

    @property
    def bytes(self) -> int:
        """Both."""
        return self.base_bytes + self.hotplugged_bytes


def size_of(
    line: QemuMemory,
    ram: GuestRam | None,
    *,
    first_total_bytes: int | None = None,
    touched_bytes: int = 0,
    persisted: Persisted | None = None,
) -> Size:
    """The size of a VM.

    What a virtio-mem device has plugged is between it and its guest: no file of the kernel says it. What Kata asked for is
    taken, or else what the device was asked for at its start; without either only what is resident, which is the least.

    Args:
        line: what a QEMU's command line says; empty for others.
        ram: what is mapped; ``None`` where that may not be read.
        first_total_bytes: what was mapped when the VM was first seen.
        touched_bytes: how much of its virtio-mem devices is resident, as it was last read.
        persisted: what Kata has written down.
    """
    if ram is None:
        return Size(line.base_bytes or 0, 0)
    total = ram.total_bytes
    # Other VMMs are told by their API how much they get: what there was when they were first seen is their base.
    base = min(total, line.base_bytes if line.base_bytes is not None else first_total_bytes or total)
    if not ram.virtio_mem_bytes:
        return Size(base, total - base)
    requested: int | None = None
    if persisted is not None and persisted.virtio_mem:
        requested = persisted.hotplugged_bytes
    elif line.virtio_mem_requested_bytes:
        requested = line.virtio_mem_requested_bytes
    # A guest that has not given back yet has more than it is asked to have.
    plugged = min(max(requested or 0, touched_bytes), ram.virtio_mem_bytes)
    return Size(base, total - base + plugged, "at_least" if requested is None else "requested")


def size_notes(line: QemuMemory, ram: GuestRam | None, size: Size) -> list[str]:
    """What does not fit together, or is not known, in words."""
    notes = [line.disagreement] if line.disagreement else []
    if ram is None:
        notes.append("its mappings cannot be read: the size is that of its command line")
    elif line.base_bytes is not None and ram.total_bytes < line.base_bytes:
        notes.append(f"-m is {line.base_bytes} bytes, but {ram.total_bytes} bytes of guest RAM are mapped")
    if line.max_bytes and size.bytes > line.max_bytes:
        notes.append(f"maxmem is {line.max_bytes} bytes, but the VM has {size.bytes}")
    if size.certainty == "at_least":
        notes.append(
            "it has a virtio-mem device, and nothing says how much of it is plugged: of that what the guest has touched is "
            "counted, which is the least"
        )
    elif size.certainty == "requested":
        notes.append(
            "it has a virtio-mem device: what was requested of the guest is counted, which may have taken less so far"
        )
    if ram is not None and ram.began_as:
        notes.append(
            f"its memory began as a copy of {ram.began_as}: what a VM has not written is there once for all that share it"
        )
    return notes
