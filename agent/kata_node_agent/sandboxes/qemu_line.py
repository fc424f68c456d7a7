"""The memory that a QEMU was started with, by its command line. Pure.

Sources: QEMU's qemu-options.hx (-m, -object, -numa, -machine) and util/cutils.c (qemu_strtosz).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SIZE = re.compile(r"([0-9]{1,15})(?:\.0*)?([bkmgtpe]?)", re.IGNORECASE)
_SHIFTS = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
# More is no size of anything, and would not fit other programs' integers.
_MAX_BYTES = (1 << 63) - 1
_MAX_OBJECTS = 256


@dataclass(frozen=True, slots=True)
class Backend:
    """A ``-object memory-backend-…``: ``kind`` is ``file``, ``ram`` or ``memfd``; ``path`` where its file lies."""

    id: str
    kind: str
    size_bytes: int | None
    path: str = ""
    huge: bool = False


@dataclass(frozen=True, slots=True)
class QemuMemory:
    """What the command line says of memory; ``None`` where it does not.

    Attributes:
        base_bytes: ``-m``: the memory at boot.
        slots: how many DIMMs may be plugged; a confidential guest has none.
        max_bytes: ``maxmem``.
        backends: where guest RAM of the start lives, and other memory that was there at the start.
        virtio_mem: ids of the backends of virtio-mem devices.
        virtio_mem_requested_bytes: what these were asked to plug at the start.
        disagreement: what does not fit together, in words; empty when all does.
    """

    base_bytes: int | None = None
    slots: int | None = None
    max_bytes: int | None = None
    backends: tuple[Backend, ...] = ()
    virtio_mem: frozenset[str] = frozenset()
    virtio_mem_requested_bytes: int = 0
    disagreement: str = ""


def parse_qemu_memory(words: Sequence[str]) -> QemuMemory:
    """The memory arguments of a QEMU; the last ``-m`` counts."""
    base = slots = most = None
    backends: list[Backend] = []
    nodes: list[str] = []
    virtio_mem: set[str] = set()
    requested = 0
    for flag, value in _options(words):
        keys = dict(_pairs(value))
        match flag:
            case "m":
                base = parse_size(keys.get("size", keys.get("", "")), default="m")
                slots, most = _number(keys.get("slots")), parse_size(keys.get("maxmem", ""), default="m")
            case "object" if len(backends) < _MAX_OBJECTS and keys.get("", "").startswith("memory-backend-"):
                backends.append(_backend(keys))
            case "numa" | "machine":
                nodes += [keys[key] for key in ("memdev", "memory-backend") if key in keys]
            case "device" if len(virtio_mem) < _MAX_OBJECTS and keys.get("", "").startswith("virtio-mem"):
                virtio_mem.add(keys.get("memdev", ""))
                requested += parse_size(keys.get("requested-size", "")) or 0
    sizes = [backend.size_bytes for backend in backends if backend.id in nodes]
    total = sum(size for size in sizes if size is not None)
    disagreement = ""
    if base is not None and sizes and None not in sizes and total != base:
        disagreement = f"-m is {base} bytes, its memory backends are {total}"
    return QemuMemory(
        base, slots, most, tuple(backends), frozenset(virtio_mem), min(requested, _MAX_BYTES), disagreement
    )


def parse_size(text: str, *, default: str = "b") -> int | None:
    """A size as QEMU writes it (``2048M``, ``2G``) in bytes; ``None`` for anything else."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    size = int(match[1]) << _SHIFTS[(match[2] or default).lower()]
    return size if size <= _MAX_BYTES else None


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each option without its dashes, with the word behind it."""
    for place, word in enumerate(words[:-1]):
        if word.startswith("-") and (name := word.removeprefix("-").removeprefix("-")):
            yield name, words[place + 1]


def _pairs(value: str) -> Iterator[tuple[str, str]]:
    """``a,key=value`` as pairs; the first without a key has an empty one. A doubled comma is a comma."""
    for part in value.replace(",,", "\0").split(","):
        key, equals, rest = part.replace("\0", ",").partition("=")
        yield (key, rest) if equals else ("", key)


def _backend(keys: dict[str, str]) -> Backend:
    path = keys.get("mem-path", "")
    return Backend(
        id=keys.get("id", ""),
        kind=keys[""].removeprefix("memory-backend-"),
        size_bytes=parse_size(keys.get("size", "")),
        path=path,
        huge=keys.get("hugetlb") == "on" or path.startswith("/dev/hugepages"),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None
