"""Files of many processes at once, below one /proc. Facts only.

The dear ones are read by native code, in batches and without the interpreter's lock; the kernel's walk through a
process' pages (smaps) may take many milliseconds. A process that ends meanwhile is no error: it is not in the answer.
"""

from __future__ import annotations

import errno
import os
import struct
from array import array
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Self

from kata_node_agent.host import native

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from kata_node_agent.host.root import HostRoot

# Guest RAM is a handful of mappings, one for each step of hotplug; of those beyond the first number more are read.
_USUAL_MAPPINGS: Final = 32
_MAX_MAPPINGS: Final = 512
_MAX_FILE_BYTES: Final = 64 * 1024
ALL_MAPPINGS: Final = (1 << 64) - 1
# struct kna_process, kna_memory and kna_mapping of node_agent.h.
_PROCESS: Final = struct.Struct("=4i5Q16s")
_MEMORY: Final = struct.Struct("=4Q2q2i")
_MAPPING: Final = struct.Struct("=9Q8s168s")
_PID: Final = struct.Struct("=i")
# Why a file cannot be opened that says nothing of the process.
_OUR_WANT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM})


class Source(IntEnum):
    """Which file is read: mappings alone, each with its memory, or the memory of all in one sum."""

    MAPS = 0
    SMAPS = 1
    SMAPS_ROLLUP = 2


class Stat(NamedTuple):
    """What /proc/PID/stat says of a process, in bytes.

    ``started`` is in clock ticks since boot, and with the pid tells one process from a later one. ``image`` is where its
    stack begins: another one after exec; 0 where that is not told. ``faults`` are page faults, minor and major.
    ``virtual_bytes`` is 0 for a thread of the kernel and for a process that has ended but is still listed.
    """

    pid: int
    parent: int
    error: int
    threads: int
    started: int
    image: int
    faults: int
    virtual_bytes: int
    resident_bytes: int
    name: bytes


class Mapping(NamedTuple):
    """One mapping that may be read and written. The figures are 0 where only maps was read.

    ``device`` is major << 32 | minor. ``huge_bytes`` (hugetlb) are not in ``resident_bytes`` nor in ``pss_bytes``.
    """

    start: int
    end: int
    inode: int
    device: int
    resident_bytes: int
    pss_bytes: int
    swap_bytes: int
    huge_bytes: int
    page_bytes: int
    permissions: str
    path: str

    @property
    def size_bytes(self) -> int:
        """From start to end."""
        return self.end - self.start


class ProcessMemory(NamedTuple):
    """Sums over all mappings of a process, in bytes, and its large mappings.

    ``vcpus`` is how many vCPUs of KVM it maps. ``unshared_bytes`` is what is resident and neither shared memory nor huge
    pages; it and ``page_table_bytes`` are -1 where they are not told. ``mapping_count`` is more than there are ``mappings``
    where a process has more large ones than anybody wants.
    """

    resident_bytes: int
    pss_bytes: int
    swap_bytes: int
    huge_bytes: int
    page_table_bytes: int
    unshared_bytes: int
    vcpus: int
    mapping_count: int
    mappings: tuple[Mapping, ...] = ()


class ProcessFiles:
    """An open /proc, for the length of a ``with`` block."""

    def __init__(self, root: HostRoot) -> None:
        """Opens it.

        Raises:
            OSError: there is none, or it may not be read.
        """
        self._proc = os.open(root.resolve("/proc"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        os.close(self._proc)

    def pids(self) -> array[int]:
        """The numbers of all processes, in no order.

        Raises:
            OSError: they cannot be listed.
        """
        return native.list_processes(self._proc)

    def stats(self, pids: Iterable[int]) -> list[Stat]:
        """What stat says of each of them that is there.

        Raises:
            OSError: we lack what it takes to see whether one is there: descriptors, or memory of the kernel's.
        """
        numbers = array("i", pids)
        records = bytearray(_PROCESS.size * len(numbers))
        for place, pid in enumerate(numbers):
            _PID.pack_into(records, place * _PROCESS.size, pid)
        if numbers:
            native.read_processes(self._proc, records, len(numbers))
        found = [Stat._make(fields) for fields in _PROCESS.iter_unpack(records) if not fields[2]]
        if len(found) != len(numbers):
            for pid, _, error, *_ in _PROCESS.iter_unpack(records):
                if error in _OUR_WANT:
                    raise OSError(error, os.strerror(error), f"/proc/{pid}/stat")
        return found

    def sizes(self, pids: array[int], files: array[int] | None = None) -> array[int]:
        """Virtual and resident size of each in bytes, one after the other; 0 and 0 for one that is gone.

        Where `files` has a descriptor of `open_sizes`, and not -1, that is read: at a quarter of the price.
        """
        return native.read_sizes(
            self._proc, pids, files if files is not None else array("i", [-1]) * len(pids)
        )

    def open_sizes(self, pid: int) -> int:
        """A descriptor for `sizes`, of this very process; -1 where there is none. The caller closes it."""
        return native.open_sizes(self._proc, pid)

    def memory(
        self, pid: int, source: Source, min_bytes: int, until: int = ALL_MAPPINGS
    ) -> ProcessMemory | None:
        """The memory of one process; ``None`` where it has ended, or may not be read.

        Args:
            pid: of the process.
            source: which file is read; smaps costs a walk through all its pages.
            min_bytes: smaller mappings are in the sums only.
            until: mappings that begin above this address are not read, and in no sum.
        """
        try:
            memory, mappings = native.read_memory(self._proc, pid, source, min_bytes, until, _USUAL_MAPPINGS)
            if _MEMORY.unpack(memory)[-1] > _USUAL_MAPPINGS:
                memory, mappings = native.read_memory(
                    self._proc, pid, source, min_bytes, until, _MAX_MAPPINGS
                )
        except OSError:
            return None
        sums = _MEMORY.unpack(memory)
        found = tuple(
            Mapping._make((*fields[:9], _text(fields[9]), _text(fields[10])))
            for fields in _MAPPING.iter_unpack(mappings)
        )
        return ProcessMemory._make((*sums, found))

    def read(self, pid: int, name: str, limit: int = _MAX_FILE_BYTES) -> bytes | None:
        """The first `limit` bytes of a file of a process; ``None`` where it is gone, or may not be read."""
        try:
            # O_NONBLOCK: a FIFO in a tree that is no /proc must not hang us.
            descriptor = os.open(
                f"{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=self._proc
            )
        except OSError:
            return None
        try:
            chunks: list[bytes] = []
            size = 0
            while size < limit and (chunk := os.read(descriptor, limit - size)):
                chunks.append(chunk)
                size += len(chunk)
            return b"".join(chunks)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def namespace(self, pid: int | Literal["self"], kind: str) -> str | None:
        """A process' namespace (``mnt:[4026531841]``); ``None`` where it cannot be seen."""
        try:
            return os.readlink(f"{pid}/ns/{kind}", dir_fd=self._proc)
        except OSError:
            return None

    def forbids(self, pid: int) -> bool:
        """Whether we lack the right to look into a process: its namespaces, and by the same rule its memory.

        That of ptrace(2), "Ptrace access mode checking". One that has ended forbids nothing.
        """
        try:
            os.readlink(f"{pid}/ns/mnt", dir_fd=self._proc)
        except OSError as error:
            return error.errno in _FORBIDDEN
        return False

    def names(self, pid: int, folder: str) -> list[str]:
        """What is in a folder of a process, such as ``task``; empty where it cannot be seen."""
        try:
            descriptor = os.open(
                f"{pid}/{folder}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._proc
            )
        except OSError:
            return []
        try:
            return os.listdir(descriptor)
        except OSError:
            return []
        finally:
            os.close(descriptor)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", errors="replace")
