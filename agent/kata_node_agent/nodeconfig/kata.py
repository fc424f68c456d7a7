"""Kata's effective settings, for each handler of the container runtime: which file it reads, and how big its VMs become.

CRI-O or containerd names a file for a handler, or the runtime searches its own places. Files in ``config.d`` beside it are
laid over it in name order. The two runtimes, Go and runtime-rs, have other defaults and mean some settings otherwise.

Sources: Kata Containers 4.1.0, src/runtime/config and src/runtime-rs/config (defaults), src/runtime/pkg/katautils and
src/libs/kata-types/src/config (order of search, drop-ins).
"""

from __future__ import annotations

import posixpath
from dataclasses import field
from typing import TYPE_CHECKING, Any

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import HostError
from kata_node_agent.host.kata import SEARCH, KataHandler, Kind, read_kata, table_in
from kata_node_agent.nodeconfig.merge import Setting
from kata_node_agent.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_node_agent.host.root import HostRoot

_MAX_FILE_BYTES = 1 << 20
_MAX_DROP_INS = 100
_MIB = 1 << 20
# More is no machine's; a product of it still fits the protocols' int64.
_MAX_NUMBER = 1 << 40

# Of [hypervisor.NAME]: the settings that decide the size of a VM, and where its memory lives.
HYPERVISOR_DEFAULTS: Mapping[str, int | bool | str] = {
    "default_memory": 2048,
    "memory_slots": 10,
    "default_maxmemory": 0,
    "memory_offset": 0,
    "default_vcpus": 1,
    "default_maxvcpus": 0,
    "enable_virtio_mem": False,
    "enable_hugepages": False,
    "enable_template": False,
    "vm_cache_number": 0,
    "confidential_guest": False,
    "shared_fs": "virtio-fs",
    "file_mem_backend": "",
    "enable_annotations": "",
}
_TABLES = {"enable_template": "factory", "vm_cache_number": "factory"}
# What of it the files that runtime-rs is shipped with say, and what the program itself does without a word.
# overhead_memory is added to the containers' limits when a VM is sized at boot.
_RUST_SHIPPED: Mapping[str, int | bool] = {"static_sandbox_resource_mgmt": True, "overhead_memory": 32}
_RUST_PROGRAM: Mapping[str, int | bool] = {
    "static_sandbox_resource_mgmt": False,
    "overhead_memory": 0,
    "default_memory": 128,
}
_RUNTIME_DEFAULTS: Mapping[str, bool] = {"static_sandbox_resource_mgmt": False, "sandbox_cgroup_only": False}
# The Go runtime takes its default for less.
_GO_LEAST_MEMORY = 256
DEFAULT_ORIGIN = "Kata's defaults"


@dataclass(frozen=True, slots=True)
class KataSettings:
    """What a handler's VMs are made of.

    Attributes:
        handler: its name at the container runtime.
        runtime: ``crio`` or ``containerd``.
        kind: which of Kata's runtimes it starts; both read TOML, and differ in defaults.
        hypervisor: ``qemu``, ``clh``, ``remote`` …; ``unknown`` where no file says it.
        file: the file that was read; empty for none.
        values: each setting by its name in the file, with its origin. Memory is MiB, as there.
        problem: why a file was not used, or what of it; empty when all is well.
    """

    handler: str
    runtime: str
    kind: Kind
    hypervisor: str = "unknown"
    file: str = ""
    values: Mapping[str, Setting] = field(default_factory=dict)
    problem: str = ""

    def number(self, name: str) -> int:
        """A whole number among the settings."""
        value = self.values[name].value
        return value if isinstance(value, int) else 0

    @property
    def default_memory_bytes(self) -> int:
        """Memory of a VM at boot, before any container counts."""
        return self.number("default_memory") * _MIB

    @property
    def runs_here(self) -> bool:
        """Whether the VM is on this node: that of kata-remote is not, only its shim is."""
        return self.hypervisor != "remote"


def read_kata_settings(root: HostRoot) -> tuple[KataSettings, ...]:
    """The settings of every Kata handler of the node, by runtime and name; empty where there is none. Never raises."""
    facts = read_kata(root)
    return tuple(_of_handler(root, handler) for handler in facts.handlers) if facts is not None else ()


def _of_handler(root: HostRoot, handler: KataHandler) -> KataSettings:
    problems: list[str] = []
    by_path = _is_rust(handler)
    kind: Kind = "runtime-rs" if by_path else "go"
    places = (handler.config_path,) if handler.config_path else SEARCH[kind]
    path = next((place for place in places if place.startswith("/") and root.exists(place)), "")
    documents: list[tuple[Mapping[str, Any], str]] = []
    if not path and handler.config_path:
        problems.append(f"{handler.config_path} is not there")
    elif not path:
        problems.append(f"none of {', '.join(places)} is there")
    else:
        for file in (path, *_drop_ins(root, path)):
            document = _toml(root, file, problems)
            if document is not None:
                documents.append((document, file))
    if problems:
        problems.append("Kata's defaults are taken where nothing else is said")
    if not by_path and not handler.config_path and _looks_rust(documents):
        kind = "runtime-rs"
    hypervisor = _hypervisor(documents)
    return KataSettings(
        handler=printable(handler.name, 200),
        runtime=handler.runtime,
        kind=kind,
        hypervisor=hypervisor,
        file=printable(path),
        values=_values(documents, hypervisor, kind, problems),
        problem="; ".join(printable(problem) for problem in problems[:5]),
    )


def _is_rust(handler: KataHandler) -> bool:
    """By the path of its binary or of its file: runtime-rs is installed in a folder of its own name."""
    return any("runtime-rs" in path.split("/") for path in (handler.config_path, handler.binary))


def _looks_rust(documents: list[tuple[Mapping[str, Any], str]]) -> bool:
    """Only runtime-rs has a [runtime] with a hypervisor's name in it."""
    return any("hypervisor_name" in table_in(document, "runtime") for document, _ in documents)


def _hypervisor(documents: list[tuple[Mapping[str, Any], str]]) -> str:
    """The section in use: runtime-rs names it, the Go runtime takes the one that is there."""
    for document, _ in reversed(documents):
        name = table_in(document, "runtime").get("hypervisor_name")
        if isinstance(name, str) and name:
            return printable(name, 40)
    names = [name for document, _ in documents for name in table_in(document, "hypervisor")]
    return printable(names[0], 40) if names else "unknown"


def _values(
    documents: list[tuple[Mapping[str, Any], str]], hypervisor: str, kind: Kind, problems: list[str]
) -> dict[str, Setting]:
    wanted: dict[str, tuple[tuple[str, ...], int | bool | str]] = {
        name: ((_TABLES[name],) if name in _TABLES else ("hypervisor", hypervisor), default)
        for name, default in HYPERVISOR_DEFAULTS.items()
    }
    wanted |= {name: (("runtime",), default) for name, default in _RUNTIME_DEFAULTS.items()}
    if kind == "runtime-rs":
        wanted["overhead_memory"] = (("hypervisor", hypervisor), 0)
        # A file that leaves something out is no file as shipped: the program's own default counts.
        ours = _RUST_PROGRAM if documents else _RUST_SHIPPED
        wanted |= {name: (wanted[name][0], default) for name, default in ours.items()}
    values: dict[str, Setting] = {}
    for name, (table, default) in wanted.items():
        values[name] = Setting(default, DEFAULT_ORIGIN)
        for document, file in documents:
            found = table_in(document, *table).get(name)
            if found is None:
                continue
            if (value := _typed(found, default)) is None:
                problems.append(f"{file}: {'.'.join(table)}.{name} cannot be {found!r}"[:300])
                continue
            values[name] = Setting(value, printable(file))
    least = _GO_LEAST_MEMORY if kind == "go" else 1
    memory = values["default_memory"].value
    if isinstance(memory, int) and memory < least:
        values["default_memory"] = Setting(wanted["default_memory"][1], DEFAULT_ORIGIN)
    return values


def _typed(found: object, default: int | bool | str) -> int | bool | str | None:
    """The value in the type of its default; ``None`` for what cannot be meant."""
    if isinstance(default, bool):
        return found if isinstance(found, bool) else None
    if isinstance(default, int):
        if isinstance(found, bool):
            return None
        if isinstance(found, float) and found == found and 0 <= found <= _MAX_NUMBER:
            # runtime-rs takes parts of a CPU.
            return -int(-found // 1)
        return found if isinstance(found, int) and -1 <= found <= _MAX_NUMBER else None
    if isinstance(found, list) and all(isinstance(part, str) for part in found):
        return printable(", ".join(found), 1000)
    return printable(found, 1000) if isinstance(found, str) else None


def _drop_ins(root: HostRoot, path: str) -> list[str]:
    folder = posixpath.join(posixpath.dirname(path), "config.d")
    names = [name for name in root.list_names(folder) if name.endswith(".toml") and not name.startswith(".")]
    return [f"{folder}/{name}" for name in names[:_MAX_DROP_INS]]


def _toml(root: HostRoot, path: str, problems: list[str]) -> Mapping[str, Any] | None:
    # The daemon does without the parser until a handler is there.
    import tomllib

    try:
        return tomllib.loads(root.read_text(path, _MAX_FILE_BYTES))
    except HostError as error:
        problems.append(error.message)
    except (ValueError, RecursionError) as error:
        # ValueError: its own error, and int()'s for numbers of thousands of digits.
        problems.append(f"{root.resolve(path)}: no TOML: {error}")
    return None
