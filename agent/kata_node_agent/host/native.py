"""The typed face of the compiled module: CPUID, the proof that KVM runs a guest, and files of many processes.

The only room that knows ``_native``; no other touches ``ffi`` or ``lib``. Importing it calls nothing. Every
function may be called on any thread, lets other threads run during native calls, and leaves nothing behind:
no mapping, no CPU affinity, no signal mask, and no descriptor but the one it was asked for; but for capabilities that
were given up, which is for good.

These read the machine we run on, whatever ``--host-root`` says: a processor has no other root.
"""

from __future__ import annotations

import errno as errnos
import os
from array import array
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import HostError, describe_os_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kata_node_agent.host.native_types import CpuidLeaf, Ffi, Lib, Probe

Registers = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX."""

MAX_TIMEOUT_SECONDS: Final = 60.0

# enum kna_guest in node_agent.h. Only the first is for use.
_GUEST_COMPUTE: Final = 0
_GUEST_LOOP: Final = 1
_GUEST_EXITS: Final = 2


# By name, as a compiled module says nothing of its types.
_module: Final = import_module("kata_node_agent._native")
_lib: Lib = cast("Lib", _module.lib)
_ffi: Final = cast("Ffi", _module.ffi)


class CpuidUnavailableError(HostError):
    """This processor has no CPUID instruction: it is no x86."""

    reason = "CpuidUnavailable"


class Step(StrEnum):
    """The steps of :func:`probe_kvm`, in the order they are taken."""

    OPEN = "open"
    DEVICE = "device"
    API_VERSION = "api-version"
    CREATE_VM = "create-vm"
    MEMORY = "memory"
    CREATE_VCPU = "create-vcpu"
    MMAP = "mmap"
    REGISTERS = "registers"
    RUN = "run"
    VALUE = "value"
    DONE = "done"


_STEPS: Final = tuple(Step)


@dataclass(frozen=True, slots=True)
class KvmProbe:
    """How far a VM got on this machine, and what it computed.

    Attributes:
        step: the first step that failed, or :attr:`Step.DONE`.
        errno: why; 0 when done. Besides what the kernel says: at DEVICE ENODEV (no character device); at
            API_VERSION EPROTO (not 12); at RUN ENOSYS (``guest_supported`` is false: not attempted),
            ETIMEDOUT, EIO (an exit the guest never causes); at VALUE ENODATA (none), EBADMSG (a wrong one).
        api_version: ``None`` before it is known. 12 on every Linux since 2.6.22.
        exit_reason: the last KVM exit; ``None`` when the guest was not run.
        exit_reason_name: ``KVM_EXIT_HLT`` and so on; empty for none, or one we have no name for.
        exit_detail: what belongs to that exit: hardware failure reason, suberror, port, address; else 0.
        value: what the guest computed; ``None`` if it gave nothing.
        expected: what it should have computed; differs from run to run.
        microseconds: from entering the guest to its end; ``None`` when it was not run.
        capabilities: KVM's answer by name (0: absent), those it would not answer left out.
        guest_supported: whether we have a guest for this architecture.
    """

    step: Step
    errno: int
    api_version: int | None
    exit_reason: int | None
    exit_reason_name: str
    exit_detail: int
    value: int | None
    expected: int | None
    microseconds: int | None
    capabilities: dict[str, int]
    guest_supported: bool

    @property
    def ok(self) -> bool:
        """A guest ran here and computed what it should."""
        return self.step is Step.DONE

    @property
    def error(self) -> str:
        """The errno in words: ``Permission denied (EACCES)``; empty when done."""
        return describe_os_error(OSError(self.errno, os.strerror(self.errno))) if self.errno else ""


def cpuid(leaf: int, subleaf: int = 0) -> Registers:
    """One leaf of the CPU that runs the calling thread at this moment.

    A leaf beyond the maximum that leaf 0 or 0x80000000 states gives what the processor likes.

    Raises:
        CpuidUnavailableError: no x86.
    """
    result = _ffi.new("struct kna_cpuid_leaf *")
    _check_cpuid(_lib.kna_cpuid(leaf, subleaf, result), "CPUID")
    return _registers(cast("CpuidLeaf", result))


def read_cpuid(cpu: int | None = None) -> dict[tuple[int, int], Registers]:
    """The leaves that tell what a CPU is, by (leaf, subleaf), up to the maximum it states.

    They are 0, 1, 7 (and 7.1), the hypervisor's from 0x40000000, 0x80000000 to 0x80000008, 0x8000000A and
    0x8000001F.

    Args:
        cpu: number of the CPU; the calling thread, and only it, moves there and gets its affinity back.
            ``None`` reads where the thread happens to be.

    Raises:
        CpuidUnavailableError: no x86.
        HostError: this thread may not run there: no such CPU, offline, or outside of our cpuset.
    """
    if cpu is not None and not 0 <= cpu < 1 << 31:
        raise ValueError(f"no number of a CPU: {cpu}")
    what = "CPUID" if cpu is None else f"CPUID of CPU {cpu}"
    leaves = _ffi.new("struct kna_cpuid_leaf[]", _lib.KNA_CPUID_MAX_LEAVES)
    count = _ffi.new("int *")
    _check_cpuid(_lib.kna_cpuid_read(-1 if cpu is None else cpu, leaves, count), what)
    return {(leaves[i].leaf, leaves[i].subleaf): _registers(leaves[i]) for i in range(count[0])}


def probe_kvm(path: str = "/dev/kvm", *, timeout_seconds: float = 1.0) -> KvmProbe:
    """Makes a VM on the device, runs a small guest in it, and checks what the guest computes.

    Whatever it finds is in what it returns.

    Args:
        path: the KVM device.
        timeout_seconds: bound for the guest's run, above 0 and up to 60; the other steps run no guest.

    Raises:
        ValueError: the arguments make no sense.
    """
    return _probe(path, timeout_seconds, _GUEST_COMPUTE)


def watch_folder(path: str) -> int:
    """A non-blocking descriptor, readable when something in the folder is made, removed or renamed.

    What is read from it are inotify(7) events. The caller closes it.

    Raises:
        OSError: no such folder, or no inotify instance left (EMFILE).
    """
    descriptor = _ffi.new("int *")
    error = _lib.kna_watch_folder(_path(path), descriptor)
    if error:
        raise OSError(error, os.strerror(error), path)
    return cast("int", descriptor[0])


def give_back_memory() -> None:
    """What was freed in this process goes back to the kernel: milliseconds, for which other threads may wait to allocate."""
    _lib.kna_give_back_memory()


def keep_capabilities(numbers: Iterable[int]) -> None:
    """Gives up all capabilities of this thread but these, for good, and the gaining of any by exec.

    Threads that run already keep theirs: so it is called before there are any.

    Args:
        numbers: as in capabilities(7), below 64.

    Raises:
        OSError: the kernel does not let us.
    """
    error = _lib.kna_keep_capabilities(sum(1 << number for number in set(numbers)))
    if error:
        raise OSError(error, os.strerror(error))


def list_processes(proc: int) -> array[int]:
    """The numbers of all processes below an open /proc, in no order.

    Raises:
        OSError: it cannot be listed.
    """
    capacity = 4096
    while True:
        pids = array("i", bytes(4 * capacity))
        count = _ffi.new("int *")
        if error := _lib.kna_list_processes(proc, _ffi.from_buffer("int32_t[]", pids), capacity, count):
            raise OSError(error, os.strerror(error), "/proc")
        if count[0] <= capacity:
            return pids[: count[0]]
        capacity = 2 * count[0]


def read_processes(proc: int, records: bytearray, count: int) -> None:
    """Fills in the ``struct kna_process`` of each of the processes that the records name."""
    _lib.kna_read_processes(proc, _ffi.from_buffer("struct kna_process[]", records), count)


def open_sizes(proc: int, pid: int) -> int:
    """A descriptor of the statm of this very process; -1 where there is none. The caller closes it."""
    return _lib.kna_open_sizes(proc, pid)


def read_sizes(proc: int, pids: array[int], files: array[int]) -> array[int]:
    """Virtual and resident size in bytes of each process, one after the other; 0 and 0 for one that is gone.

    Where `files` has a descriptor of `open_sizes`, and not -1, that is read.
    """
    if len(files) != len(pids):
        raise ValueError(f"{len(pids)} processes, {len(files)} descriptors")
    sizes = array("Q", bytes(16 * len(pids)))
    if pids:
        given, wanted = _ffi.from_buffer("int32_t[]", pids), _ffi.from_buffer("uint64_t[]", sizes)
        _lib.kna_read_sizes(proc, given, _ffi.from_buffer("int32_t[]", files), len(pids), wanted)
    return sizes


def read_memory(
    proc: int, pid: int, source: int, min_bytes: int, until: int, capacity: int
) -> tuple[bytes, bytes]:
    """One ``struct kna_memory``, and as many of ``struct kna_mapping`` as there are, up to `capacity`.

    Raises:
        OSError: the process has ended, or may not be read.
    """
    memory = _ffi.new("struct kna_memory *")
    mappings = _ffi.new("struct kna_mapping[]", capacity)
    if error := _lib.kna_read_memory(proc, pid, source, min_bytes, until, memory, mappings, capacity):
        raise OSError(error, os.strerror(error), f"/proc/{pid}")
    size = _ffi.sizeof("struct kna_mapping") * min(capacity, memory.mappings)
    return bytes(_ffi.buffer(memory)), bytes(_ffi.buffer(mappings, size))


def _probe(path: str, timeout_seconds: float, guest: int) -> KvmProbe:
    """As :func:`probe_kvm`; tests choose guests that never end."""
    if not 0 < timeout_seconds <= MAX_TIMEOUT_SECONDS:
        raise ValueError(
            f"timeout_seconds is above 0 and up to {MAX_TIMEOUT_SECONDS:g}, not {timeout_seconds}"
        )
    encoded = _path(path)
    raw = _ffi.new("struct kna_kvm_probe *")
    _lib.kna_kvm_probe(encoded, guest, round(timeout_seconds * 1e9), raw)
    return _from_raw(cast("Probe", raw))


def _path(path: str) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError(f"a path has no NUL: {path!r}")
    return encoded


def _from_raw(raw: Probe) -> KvmProbe:
    ran = raw.guest_nanoseconds >= 0
    return KvmProbe(
        step=_STEPS[raw.step],
        errno=raw.error,
        api_version=raw.api_version if raw.api_version >= 0 else None,
        exit_reason=raw.exit_reason if ran else None,
        exit_reason_name=_text(_lib.kna_exit_name(raw.exit_reason)) if ran else "",
        exit_detail=raw.exit_detail,
        value=raw.value if raw.has_value else None,
        expected=raw.expected if ran else None,
        microseconds=raw.guest_nanoseconds // 1000 if ran else None,
        capabilities=_capabilities(raw) if raw.api_version >= 0 else {},
        guest_supported=bool(raw.guest_supported),
    )


def _capabilities(raw: Probe) -> dict[str, int]:
    names = (_text(_lib.kna_capability_name(index)) for index in range(_lib.KNA_CAPABILITIES))
    return {name: answer for name, answer in zip(names, raw.capabilities, strict=True) if answer >= 0}


def _check_cpuid(error: int, what: str) -> None:
    if error == errnos.ENOSYS:
        raise CpuidUnavailableError(f"{what}: this processor has no such instruction")
    if error:
        words = describe_os_error(OSError(error, os.strerror(error)))
        hint = "CPU is offline, does not exist, or is outside of our cpuset" if error == errnos.EINVAL else ""
        raise HostError(f"{what}: {words}", hint=hint, reason="CpuUnreachable")


def _registers(leaf: CpuidLeaf) -> Registers:
    return leaf.eax, leaf.ebx, leaf.ecx, leaf.edx


def _text(text: object) -> str:
    return _ffi.string(text).decode("ascii")
