"""Guest RAM among a VMM's mappings: how much of it there is, and where it lives. Pure.

The sum of these mappings is the VM's size now, seen without asking the VM: memory that is hotplugged is mapped first.

Sources: QEMU's softmmu/physmem.c (file_ram_open: ``qemu_back_mem.ID.XXXXXX``), backends/hostmem-memfd.c, util/mmap-alloc.c;
the names of other VMMs' memory: cloud-hypervisor's vmm/src/memory_manager.rs, Dragonball's dbs_address_space.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from kata_node_agent.host.process_files import Mapping
    from kata_node_agent.sandboxes.model import MemoryLocation, Vmm
    from kata_node_agent.sandboxes.qemu_line import QemuMemory

MIB = 1 << 20
# Smaller mappings are no RAM of a guest: Kata's smallest VM has 32 MiB.
MIN_BYTES = 16 * MIB
# Anonymous memory has no name. Kata's least step is a block of 128 MiB, and what else a VMM maps at once is smaller: the C
# library's heaps have 64 MiB, threads' stacks 8.
_MIN_ANONYMOUS_BYTES = 128 * MIB
_BACKING_FILE = re.compile(r".*/qemu_back_mem\.(?P<id>.*)\.[0-9A-Za-z]{6}", re.DOTALL)
_DELETED = " (deleted)"
# Blocks of this size are what a virtio-mem device plugs and unplugs on x86: that of a huge page.
_VIRTIO_MEM_BLOCK_BYTES = 2 * MIB
# What Kata rounds the size of its device down to. Source: its qemu.go, setupVirtioMem.
_KATA_ROUNDS_TO_BYTES = 4 * MIB


@dataclass(frozen=True, slots=True)
class GuestRam:
    """The guest RAM that a VMM maps, in bytes.

    Attributes:
        total_bytes: all mappings but those of virtio-mem devices.
        virtio_mem_bytes: mappings of virtio-mem devices, which are as large as the device may become.
        virtio_mem_touched_bytes: how much of these is resident, in whole blocks: the least that is plugged. 0 where
            only maps was read.
        location: where most of it lives.
        files: device and inode of each mapping that shares a file: who else maps it shares the guest's memory.
        began_as: the file that its memory began as a copy of, as a template's VMs do; empty for none.
        resident_bytes, pss_bytes, huge_bytes, swap_bytes: of all these mappings.
    """

    total_bytes: int
    virtio_mem_bytes: int
    virtio_mem_touched_bytes: int
    location: MemoryLocation
    files: frozenset[tuple[int, int]]
    began_as: str
    resident_bytes: int
    pss_bytes: int
    huge_bytes: int
    swap_bytes: int


def find_guest_ram(
    mappings: Sequence[Mapping],
    vmm: Vmm,
    line: QemuMemory,
    *,
    virtio_mem: bool | None = None,
    huge_devices: Collection[int] = (),
) -> GuestRam | None:
    """The guest RAM among the writable mappings of a VMM; ``None`` where there is none (yet).

    Args:
        mappings: of at least `MIN_BYTES`, from maps or smaps.
        vmm: whose they are.
        line: what a QEMU's command line says; empty for others.
        virtio_mem: whether the runtime plugs memory into a virtio-mem device; ``None`` where nothing says it.
        huge_devices: whose files are huge pages, as smaps has said; maps does not.
    """
    sizes = {backend.size_bytes for backend in line.backends if backend.kind == "ram"}
    if not line.backends:
        sizes.add(line.base_bytes)
    files = {(_base_name(backend.path), backend.size_bytes) for backend in line.backends if backend.path}
    found: list[tuple[Mapping, MemoryLocation]] = []
    for mapping in mappings:
        location = _location(mapping, sizes, files)
        if location is not None:
            huge = mapping.inode and mapping.device in huge_devices
            found.append((mapping, "hugepages" if huge else location))
    if not found:
        return None
    resizable = _resizable(found, line, virtio_mem)
    plugged = [mapping for mapping, _ in found if mapping.start not in resizable]
    devices = [mapping for mapping, _ in found if mapping.start in resizable]
    places: dict[MemoryLocation, int] = {}
    for mapping, location in found:
        places[location] = places.get(location, 0) + mapping.size_bytes
    main = max(places, key=lambda place: places[place])
    if main != "hugepages" and vmm == "qemu" and any(backend.huge for backend in line.backends):
        # A memfd of huge pages has the name of any other; maps does not tell.
        main = "hugepages"
    return GuestRam(
        total_bytes=sum(mapping.size_bytes for mapping in plugged),
        virtio_mem_bytes=sum(mapping.size_bytes for mapping in devices),
        virtio_mem_touched_bytes=sum(
            _in_blocks(mapping.resident_bytes + mapping.huge_bytes) for mapping in devices
        ),
        location=main,
        files=frozenset(
            (mapping.device, mapping.inode)
            for mapping, _ in found
            if mapping.inode and not _is_private(mapping)
        ),
        began_as=next(
            (mapping.path for mapping, _ in found if mapping.inode and _is_private(mapping)), ""
        ).removesuffix(_DELETED),
        resident_bytes=sum(mapping.resident_bytes for mapping, _ in found),
        pss_bytes=sum(mapping.pss_bytes for mapping, _ in found),
        huge_bytes=sum(mapping.huge_bytes for mapping, _ in found),
        swap_bytes=sum(mapping.swap_bytes for mapping, _ in found),
    )


def huge_devices_of(mappings: Iterable[Mapping]) -> frozenset[int]:
    """The devices of files that are huge pages, of mappings from smaps."""
    return frozenset(
        mapping.device for mapping in mappings if mapping.inode and mapping.page_bytes >= 2 * MIB
    )


def shared_with(mappings: Iterable[Mapping], files: frozenset[tuple[int, int]]) -> list[Mapping]:
    """Those of another process' mappings that are the guest's memory."""
    return [mapping for mapping in mappings if mapping.inode and (mapping.device, mapping.inode) in files]


def _location(
    mapping: Mapping, sizes: set[int | None], files: set[tuple[str, int | None]]
) -> MemoryLocation | None:
    """Where a mapping of guest RAM lives; ``None`` for one that is something else."""
    path = mapping.path.removesuffix(_DELETED)
    if not mapping.permissions.startswith("rw-"):
        # Executable: code that QEMU's translator made.
        return None
    if path.startswith(("/dev/hugepages", "/anon_hugepage")) or mapping.page_bytes >= 2 * MIB:
        return "hugepages"
    if path.startswith("/memfd:"):
        return "memfd"
    if path.startswith("/dev/shm/"):  # noqa: S108 - what the kernel says of another process
        # Pages that a private mapping writes are not in the file.
        return "file" if _is_private(mapping) else "shm"
    if _BACKING_FILE.fullmatch(path) or (_base_name(path), mapping.size_bytes) in files:
        # Another folder, or a file itself, by `mem-path`: a template's. The kernel may say another path to it.
        return "file"
    anonymous = (not path and not mapping.inode) or path.startswith("/dev/zero")
    if anonymous and (mapping.size_bytes in sizes or mapping.size_bytes >= _MIN_ANONYMOUS_BYTES):
        return "anonymous"
    return None


def _resizable(
    found: Sequence[tuple[Mapping, MemoryLocation]], line: QemuMemory, virtio_mem: bool | None
) -> set[int]:
    """Where the mappings of virtio-mem devices start.

    A file has its backend's name. Other memory has none, and looks to the kernel like that of a DIMM: it is told by its size,
    where the command line has the device; else by Kata, whose one device is as large as the VM may still grow.
    """
    named = {mapping.start for mapping, _ in found if _has_device_name(mapping, line)}
    nameless = [mapping for mapping, location in found if location in {"anonymous", "memfd", "hugepages"}]
    nameless = [
        mapping for mapping in nameless if not _BACKING_FILE.fullmatch(mapping.path.removesuffix(_DELETED))
    ]
    # The guest boots in other memory, and has touched that: of two of one size the device's has less.
    nameless.sort(key=lambda mapping: mapping.resident_bytes + mapping.huge_bytes)
    ordinary = [backend.size_bytes for backend in line.backends if backend.id not in line.virtio_mem]
    wanted = [
        backend.size_bytes for backend in line.backends if backend.id in line.virtio_mem and not backend.path
    ]
    if not named and not wanted and virtio_mem is not False and line.max_bytes and line.base_bytes:
        wanted.append((line.max_bytes - line.base_bytes) // _KATA_ROUNDS_TO_BYTES * _KATA_ROUNDS_TO_BYTES)
    for size in wanted:
        same = [mapping for mapping in nameless if mapping.size_bytes == size and mapping.start not in named]
        if len(same) > ordinary.count(size):
            named.add(same[0].start)
    if not named and virtio_mem:
        # Kata plugs nothing else then: what was not there at the start is the device, whatever its size.
        beyond = [mapping for mapping in nameless if mapping.size_bytes not in {*ordinary, line.base_bytes}]
        named |= {mapping.start for mapping in beyond}
    return named


def _has_device_name(mapping: Mapping, line: QemuMemory) -> bool:
    match = _BACKING_FILE.fullmatch(mapping.path.removesuffix(_DELETED))
    # Kata names the backend of its one device so when it adds it to a running VM.
    return match is not None and (match["id"] in line.virtio_mem or match["id"].startswith("virtiomem"))


def _is_private(mapping: Mapping) -> bool:
    return mapping.permissions.endswith("p")


def _base_name(path: str) -> str:
    return path.rpartition("/")[2]


def _in_blocks(bytes_: int) -> int:
    return -(-bytes_ // _VIRTIO_MEM_BLOCK_BYTES) * _VIRTIO_MEM_BLOCK_BYTES
