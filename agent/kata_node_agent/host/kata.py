"""Whether Kata Containers is on the node: runtime binary, configuration, and a handler that leads to it.

Presence only: what the configuration means is another room's. Being absent is no fault, as the operator
installs Kata after the node is found eligible.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kata_node_agent.host.root import HostRoot

BINARIES = (
    "/usr/bin/containerd-shim-kata-v2",
    "/usr/local/bin/containerd-shim-kata-v2",
    "/opt/kata/bin/containerd-shim-kata-v2",
    "/opt/kata/runtime-rs/bin/containerd-shim-kata-v2",
)
Kind = Literal["go", "runtime-rs"]
# Each runtime's own order of search.
SEARCH: Mapping[Kind, tuple[str, ...]] = {
    "go": (
        "/etc/kata-containers/configuration.toml",
        "/usr/share/kata-containers/defaults/configuration.toml",
        "/usr/share/defaults/kata-containers/configuration.toml",
        "/opt/kata/share/defaults/kata-containers/configuration.toml",
    ),
    "runtime-rs": (
        "/etc/kata-containers/runtime-rs/configuration.toml",
        "/usr/share/defaults/kata-containers/runtime-rs/configuration.toml",
        "/opt/kata/share/defaults/kata-containers/runtime-rs/configuration.toml",
    ),
}
CONFIGURATIONS = (*SEARCH["go"], *SEARCH["runtime-rs"])
CRIO = ("/etc/crio/crio.conf", "/etc/crio/crio.conf.d", "/usr/share/crio/crio.conf.d")
CONTAINERD = ("/etc/containerd/config.toml", "/etc/containerd/conf.d", "/etc/containerd/config.toml.d")
_MAX_FILE_BYTES = 1 << 20
# CRI-O's name of it and containerd's. By its line: the files that say it are mostly not worth the parser.
_DEFAULT = re.compile(
    r"""^[ \t]*default_runtime(?:_name)?[ \t]*=[ \t]*["']([^"'\n]{0,200})["']""", re.MULTILINE
)
_CONTAINERD_PLUGINS = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")


@dataclass(frozen=True, slots=True)
class KataHandler:
    """A handler of the container runtime (``crio`` or ``containerd``) that starts Kata.

    Attributes:
        config_path: the file of Kata's that it names; empty where the runtime is to search.
        binary: the shim that it names by its path; empty where it is found by name.
    """

    name: str
    runtime: str
    config_path: str = ""
    binary: str = ""


@dataclass(frozen=True, slots=True)
class KataFacts:
    """What of Kata was found; ``unreadable`` names runtime configurations that could not be understood."""

    binaries: tuple[str, ...] = ()
    configurations: tuple[str, ...] = ()
    handlers: tuple[KataHandler, ...] = ()
    unreadable: tuple[str, ...] = ()


def read_kata(root: HostRoot) -> KataFacts | None:
    """What of Kata is on the node; ``None`` in a tree that has neither /usr, /opt nor /etc to look in."""
    if not any(root.exists(folder) for folder in ("/usr", "/opt", "/etc")):
        return None
    handlers: dict[tuple[str, str], KataHandler] = {}
    unreadable: list[str] = []
    for runtime, places, find in (
        ("crio", CRIO, crio_handlers),
        ("containerd", CONTAINERD, containerd_handlers),
    ):
        for path in _files(root, places):
            document = _toml(root, path)
            if document is None:
                unreadable.append(path)
                continue
            # Later files override earlier ones.
            handlers.update({(runtime, found.name): found for found in find(document)})
    named = [handler.config_path for handler in handlers.values() if handler.config_path]
    return KataFacts(
        binaries=tuple(path for path in BINARIES if root.exists(path)),
        configurations=tuple(path for path in dict.fromkeys((*CONFIGURATIONS, *named)) if root.exists(path)),
        handlers=tuple(handlers[key] for key in sorted(handlers)),
        unreadable=tuple(unreadable),
    )


def read_default_handlers(root: HostRoot) -> dict[str, str]:
    """By runtime (``crio``, ``containerd``): the handler, Kata's or not, of a pod that names none, where a file says it."""
    found: dict[str, str] = {}
    for runtime, places in (("crio", CRIO), ("containerd", CONTAINERD)):
        for path in _files(root, places):
            if names := _DEFAULT.findall(root.try_read_text(path, _MAX_FILE_BYTES) or ""):
                found[runtime] = names[-1]
    return found


def crio_handlers(document: Mapping[str, Any]) -> Iterator[KataHandler]:
    """Handlers of a CRI-O configuration that start VMs."""
    for name, table in table_in(document, "crio", "runtime", "runtimes").items():
        path = table.get("runtime_path") if isinstance(table, dict) else None
        if not isinstance(table, dict) or (
            table.get("runtime_type") != "vm" and not (isinstance(path, str) and "kata" in path)
        ):
            continue
        yield KataHandler(name, "crio", _text(table.get("runtime_config_path")), _text(path))


def containerd_handlers(document: Mapping[str, Any]) -> Iterator[KataHandler]:
    """Handlers of a containerd configuration (version 2 or 3) whose shim is Kata's."""
    for plugin in _CONTAINERD_PLUGINS:
        for name, table in table_in(document, "plugins", plugin, "containerd", "runtimes").items():
            if not isinstance(table, dict) or "kata" not in _text(table.get("runtime_type")):
                continue
            options = table_in(table, "options")
            # A runtime type may be the shim's path itself.
            path = next(
                (
                    p
                    for key in ("runtime_path", "runtime_type")
                    if (p := _text(table.get(key))).startswith("/")
                ),
                "",
            )
            yield KataHandler(name, "containerd", _text(options.get("ConfigPath")), path)


def _files(root: HostRoot, places: tuple[str, ...]) -> Iterator[str]:
    for place in places:
        if not place.endswith(".d"):
            if root.exists(place):
                yield place
            continue
        for name in root.list_names(place):
            # CRI-O takes any name; Kata's operators have written some without an ending.
            if not name.startswith(".") and (name.endswith((".conf", ".toml")) or "kata" in name):
                yield f"{place}/{name}"


def _toml(root: HostRoot, path: str) -> Mapping[str, Any] | None:
    text = root.try_read_text(path, _MAX_FILE_BYTES)
    if text is None:
        return None
    if "kata" not in text and '"vm"' not in text and "'vm'" not in text:
        # Most nodes' files: not worth the parser's import.
        return {}
    import tomllib

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        # ValueError: its own error, and int()'s for numbers of thousands of digits.
        return None


def table_in(document: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """A table within tables; empty where there is none, or something else in its place."""
    for key in keys:
        inner = document.get(key)
        if not isinstance(inner, dict):
            return {}
        document = inner
    return document


def _text(value: object) -> str:
    return value[:4096] if isinstance(value, str) else ""
