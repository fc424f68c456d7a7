"""Frozen dataclasses to JSON and back, by their annotations. For snapshots; only the types that facts have.

Reading is strict about types and lenient about fields: one that we do not know is ignored, one that is
missing gets its default. Whatever is wrong is one HostError that names the place.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from kata_node_agent.errors import HostError

# What fits the integers of C and of other JSON readers' 64 bits.
_MIN_INT, _MAX_INT = -(1 << 63), (1 << 64) - 1


def encode(value: Any) -> Any:
    """JSON's shape of a fact; fields that are ``None`` are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: encode(item) for name, item in items if item is not None}
    if isinstance(value, Mapping):
        return {str(name): encode(item) for name, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    return value


def decode(kind: Any, value: Any, where: str) -> Any:
    """The value of a type from JSON's shape.

    Raises:
        HostError: the shape is another; ``where`` says at which place.
    """
    origin = get_origin(kind)
    if origin in {Union, types.UnionType}:
        inner = [option for option in get_args(kind) if option is not type(None)]
        return None if value is None else decode(inner[0], value, where)
    if origin is tuple:
        items = _expect(value, list, where)
        return tuple(
            decode(get_args(kind)[0], item, f"{where}[{number}]") for number, item in enumerate(items)
        )
    if origin is frozenset:
        return frozenset(decode(get_args(kind)[0], item, where) for item in _expect(value, list, where))
    if origin is Mapping:
        table = _expect(value, dict, where)
        return {
            text(name): decode(get_args(kind)[1], item, f"{where}.{text(name)}")
            for name, item in table.items()
        }
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, _expect(value, dict, where), where)
    if kind is str:
        return text(_expect(value, str, where))
    if kind is bool:
        return _expect(value, bool, where)
    return integer(value, where)


def integer(value: Any, where: str) -> int:
    """An integer of 64 bits.

    Raises:
        HostError: it is none; true and false are none either.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not _MIN_INT <= value <= _MAX_INT:
        raise invalid(where, "is no 64-bit integer")
    return value


def text(value: str) -> str:
    """The text with what no output can encode (half of a surrogate pair) replaced."""
    return value.encode("utf-8", errors="replace").decode("utf-8")


def invalid(where: str, what: str) -> HostError:
    """The error of a snapshot that does not make sense; the place is cut, as it may be hostile."""
    return HostError(
        f"snapshot: {where[:120]!r} {what}",
        hint="record it anew with: kata-node-agent snapshot",
        reason="SnapshotInvalid",
    )


def _expect(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        names = {dict: "object", list: "array", str: "string", bool: "boolean"}
        raise invalid(where, f"is no {names[kind]}")
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, localns={"Mapping": Mapping})


def _decode_dataclass(kind: Any, table: dict[str, Any], where: str) -> Any:
    hints = _hints(kind)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name in table:
            found[field.name] = decode(hints[field.name], table[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            if type(None) not in get_args(hints[field.name]):
                raise invalid(f"{where}.{field.name}", "is missing")
            found[field.name] = None
    return kind(**found)
