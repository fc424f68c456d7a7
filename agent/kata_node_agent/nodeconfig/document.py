"""A KubeletConfiguration document, YAML or JSON, as the fields that matter here. Pure: text in, values out.

The document belongs to another program and may be anything: every way in which it cannot be used is one typed error.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from kata_node_agent.capacity.allocatable import parse_percentage
from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import HostError, QuantityError
from kata_node_agent.quantity import parse
from kata_node_agent.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

# KubeletConfiguration is a handful of levels deep.
_MAX_DEPTH = 50
# Real maps and lists have a handful. In YAML a short text can refer to a long one, and a list to a map, any number of times.
_MAX_ENTRIES = 1000

RESERVATIONS = ("systemReserved", "kubeReserved")
THRESHOLDS = ("evictionHard", "evictionSoft")
MAPS = (*RESERVATIONS, *THRESHOLDS)
TEXTS = (
    "reservedSystemCPUs",
    "systemReservedCgroup",
    "kubeReservedCgroup",
    "cgroupDriver",
    "cgroupRoot",
    "kubeletCgroups",
    "systemCgroups",
    "topologyManagerPolicy",
    "topologyManagerScope",
    "memoryManagerPolicy",
    "cpuManagerPolicy",
)

Scalar = str | int | bool | tuple[str, ...]
# A field's value; a map's entries and a field may be null, which means "not set" in a file, "not set by the drop-ins
# before me" in a drop-in.
Value = Scalar | dict[str, str | None] | None


@dataclass(frozen=True, slots=True)
class Document:
    """The fields of one document, and the keys that it has more than once (the last one counts)."""

    fields: Mapping[str, Value]
    duplicates: tuple[str, ...]


def parse_document(content: bytes, *, drop_in: bool = False, configz: bool = False) -> Document:
    """The fields that matter of a KubeletConfiguration.

    Args:
        content: the file.
        drop_in: whether an amount may be null.
        configz: whether it is an answer of kubelet's /configz, which has the settings in ``kubeletconfig``.

    Raises:
        HostError: neither YAML nor JSON, not a KubeletConfiguration (reason ``Kubeconfig`` if it is one), or a field has
            the wrong type.
        QuantityError: a reservation or threshold is no amount.
    """
    duplicates: list[str] = []
    document = _load(content, duplicates)
    if configz:
        document = document.get("kubeletconfig") if isinstance(document, dict) else None
        if not isinstance(document, dict):
            raise HostError("not an answer of /configz", reason="KubeletConfigurationInvalid")
    if not isinstance(document, dict) or (document.get("kind") != "KubeletConfiguration" and not configz):
        other = isinstance(document, dict) and document.get("kind") == "Config"
        reason = "Kubeconfig" if other else "KubeletConfigurationInvalid"
        raise HostError("not a KubeletConfiguration", reason=reason)
    fields = {name: read(name, document[name]) for name, read in _READERS.items() if name in document}
    for name in MAPS:
        amounts = fields.get(name)
        if (
            not drop_in
            and isinstance(amounts, dict)
            and (empty := [k for k, v in amounts.items() if v is None])
        ):
            raise QuantityError(f"{name}.{empty[0]} is no amount: quantities must not be empty")
    check_amounts(fields)
    return Document(fields, tuple(dict.fromkeys(duplicates)))


def check_amounts(fields: Mapping[str, Value]) -> None:
    """Refuses what cannot be reckoned with.

    Raises:
        QuantityError: a reservation or threshold is no amount, in kubelet's words where it has some.
    """
    for name in MAPS:
        amounts = fields.get(name)
        for key, text in amounts.items() if isinstance(amounts, dict) else ():
            if text is None:
                continue
            if name in THRESHOLDS and text.endswith("%"):
                try:
                    parse_percentage(text)
                except QuantityError as error:
                    raise QuantityError(_bad_percentage(key, text), hint=error.hint) from error
            elif parse(text) < 0:
                raise QuantityError(
                    f"eviction threshold {key} must be positive: {text}"
                    if name in THRESHOLDS
                    else f'resource quantity for "{key}" cannot be negative: {text}'
                )


def _bad_percentage(signal: str, text: str) -> str:
    number = text.removesuffix("%")
    if number.removeprefix("-").replace(".", "", 1).isdecimal():
        return f"eviction percentage threshold {signal} must be {'>= 0' if number[0] == '-' else '<= 100'}%: {text}"
    return f"eviction percentage threshold {signal} is no number: {text}"


def _load(content: bytes, duplicates: list[str]) -> object:
    text = content.decode("utf-8", errors="replace")

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(items)
        if len(found) < len(items):
            counts = Counter(name for name, _ in items)
            duplicates.extend(name for name, count in counts.items() if count > 1)
        return found

    try:
        # JSON first: it is YAML too, and does not need the YAML library in memory.
        return json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        duplicates.clear()
    import yaml

    # Base loaders leave every scalar a text: no tag of a hostile file runs a constructor, `<<` merges nothing, and an
    # alias is the same object again, not a copy. The one in C is not in every build of the library.
    loader_class = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        # The C loader recurses without a bound when it composes nodes, and would end the process; events do not.
        depth = 0
        for event in yaml.parse(text, Loader=loader_class):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise HostError(f"nested deeper than {_MAX_DEPTH}", reason="KubeletConfigurationInvalid")
        loader: Any = loader_class(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            duplicates.extend(_duplicates(node, yaml))
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = " ".join(str(error).split())
        raise HostError(f"neither YAML nor JSON: {line}", reason="KubeletConfigurationInvalid") from error


def _duplicates(root: Any, yaml: Any) -> list[str]:
    """Keys that a map of the document has more than once. Each node is visited once, however often it is referred to."""
    found: list[str] = []
    waiting, visited = [root], {id(root)}
    while waiting:
        node = waiting.pop()
        children: list[Any] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [value for _, value in node.value]
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(names)) < len(names):
                found.extend(name for name, count in Counter(names).items() if count > 1)
        for child in children:
            if id(child) not in visited:
                visited.add(id(child))
                waiting.append(child)
    return found


def _null(value: object) -> bool:
    # The base loader does not tell null from its text.
    return value is None or (isinstance(value, str) and value in {"", "null", "~"})


def _wrong(name: str, wanted: str) -> HostError:
    return HostError(f"{name} is not {wanted}", reason="KubeletConfigurationInvalid")


def _few(name: str, entries: int) -> None:
    if entries > _MAX_ENTRIES:
        raise HostError(f"{name} has more than {_MAX_ENTRIES} entries", reason="KubeletConfigurationInvalid")


def _map(name: str, value: object) -> Value:
    if _null(value):
        return None
    if not isinstance(value, dict):
        raise _wrong(name, "a map")
    _few(name, len(value))
    amounts: dict[str, str | None] = {}
    for key, amount in value.items():
        if amount is None or isinstance(amount, str | int | float):
            # A number is taken as its text; kubelet refuses one in JSON.
            amounts[printable(str(key))] = None if _null(amount) else printable(str(amount))
        else:
            raise _wrong(f"{name}.{printable(str(key))}", "an amount")
    return amounts


def _text(name: str, value: object) -> Value:
    if value is None or value in ("null", "~"):
        return None
    if not isinstance(value, str):
        raise _wrong(name, "a text")
    return printable(value, 4096)


def _list(name: str, value: object) -> Value:
    if _null(value):
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong(name, "a list of texts")
    _few(name, len(value))
    return tuple(printable(item) for item in value)


def _integer(name: str, value: object) -> Value:
    if _null(value):
        return None
    text = str(value) if isinstance(value, str) or type(value) is int else ""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 10:
        raise _wrong(name, "a whole number")
    return int(text)


def _boolean(name: str, value: object) -> Value:
    if _null(value):
        return None
    if value not in (True, False, "true", "false") or type(value) is int:
        raise _wrong(name, "true or false")
    return value in (True, "true")


def _reserved_memory(name: str, value: object) -> Value:
    """The memory manager's reservations, each as the flag writes it: ``0:memory=1Gi,hugepages-2Mi=512Mi``."""
    if _null(value):
        return None
    if not isinstance(value, list):
        raise _wrong(name, "a list")
    found: list[str] = []
    total = 0
    for entry in value:
        limits = _map(f"{name}.limits", entry.get("limits")) if isinstance(entry, dict) else None
        node = _integer(f"{name}.numaNode", entry.get("numaNode")) if isinstance(entry, dict) else None
        if not isinstance(limits, dict) or node is None:
            raise _wrong(name, "a list of numaNode and limits")
        total += 1 + len(limits)
        _few(name, total)
        amounts = [f"{kind}={amount}" for kind, amount in limits.items() if amount is not None]
        found.append(f"{node}:{','.join(amounts)}")
    return tuple(found)


_READERS = {
    **dict.fromkeys(MAPS, _map),
    **dict.fromkeys(TEXTS, _text),
    "enforceNodeAllocatable": _list,
    "maxPods": _integer,
    "podPidsLimit": _integer,
    "reservedMemory": _reserved_memory,
    "cgroupsPerQOS": _boolean,
    "mergeDefaultEvictionSettings": _boolean,
}
