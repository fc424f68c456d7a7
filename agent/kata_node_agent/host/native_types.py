"""The compiled module as the type checker is to see it: it says nothing of its types itself. Only `native` uses these."""

from __future__ import annotations

from typing import Any, Protocol


class CpuidLeaf(Protocol):
    """``struct kna_cpuid_leaf``."""

    leaf: int
    subleaf: int
    eax: int
    ebx: int
    ecx: int
    edx: int


class Probe(Protocol):
    """``struct kna_kvm_probe``."""

    step: int
    error: int
    api_version: int
    exit_reason: int
    exit_detail: int
    guest_nanoseconds: int
    value: int
    expected: int
    has_value: int
    guest_supported: int
    capabilities: list[int]


class Lib(Protocol):
    """The C functions as cffi gives them; ``node_agent.h`` says what they do."""

    KNA_CPUID_MAX_LEAVES: int
    KNA_CAPABILITIES: int

    def kna_cpuid(self, leaf: int, subleaf: int, result: object) -> int: ...
    def kna_cpuid_read(self, cpu: int, leaves: object, count: object) -> int: ...
    def kna_kvm_probe(self, path: object, guest: int, budget_nanoseconds: int, probe: object) -> int: ...
    def kna_watch_folder(self, path: object, descriptor: object) -> int: ...
    def kna_list_processes(self, proc: int, pids: object, capacity: int, count: object) -> int: ...
    def kna_read_processes(self, proc: int, processes: object, count: int) -> None: ...
    def kna_open_sizes(self, proc: int, pid: int) -> int: ...
    def kna_read_sizes(self, proc: int, pids: object, files: object, count: int, sizes: object) -> None: ...
    def kna_read_memory(
        self, proc: int, pid: int, source: int, min_bytes: int, until: int, *filled_in: object
    ) -> int: ...
    def kna_give_back_memory(self) -> None: ...
    def kna_keep_capabilities(self, keep: int) -> int: ...
    def kna_step_name(self, step: int) -> object: ...
    def kna_capability_name(self, index: int) -> object: ...
    def kna_exit_name(self, exit_reason: int) -> object: ...


class Ffi(Protocol):
    """cffi's own part of the module, as far as `native` uses it."""

    def new(self, declaration: str, init: object = ...) -> Any: ...
    def string(self, text: object) -> bytes: ...
    def from_buffer(self, declaration: str, buffer: object) -> Any: ...
    def buffer(self, data: object, size: int = ...) -> Any: ...
    def sizeof(self, declaration: str) -> int: ...
