"""`dataclass`, without compiling anew for each class what all of them do alike.

The standard library writes and compiles six functions for a frozen class, which takes half a millisecond. The daemon
loads more than a hundred of them before it can register: that was a fifth of its start. Here only ``__init__`` is
compiled; comparing, hashing and showing are functions that all share, over the fields in their order. What comes out is a
dataclass for all of `dataclasses` (``replace``, ``fields``, ``asdict``).

One difference: that a frozen value is not assigned to is seen by the type checker, which is shown the library's own
decorator, and not while the program runs.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from dataclasses import dataclass
else:

    def dataclass(cls: type | None = None, /, *, frozen: bool = False, slots: bool = False) -> Any:
        """As `dataclasses.dataclass`; see above. Without ``frozen`` a value can be compared, but not hashed."""

        def make(kind: type) -> type:
            made = dataclasses.dataclass(kind, slots=slots, repr=False, eq=False)
            _share(made, frozen=frozen)
            return made

        return make if cls is None else make(cls)


def _share(made: Any, *, frozen: bool) -> None:
    own, fields = made.__dict__, dataclasses.fields(made)
    key = _key([field.name for field in fields if field.compare])
    if "__repr__" not in own:
        made.__repr__ = _shower([field.name for field in fields if field.repr])
    if "__eq__" not in own:
        made.__eq__ = _comparer(key)
    # A class that says how to compare gets None from Python.
    if own.get("__hash__") is None:
        made.__hash__ = (lambda self: hash(key(self))) if frozen else None


def _key(names: Sequence[str]) -> Callable[[Any], Any]:
    return attrgetter(*names) if names else lambda _: ()


def _comparer(key: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: (
        key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented
    )


def _shower(names: Sequence[str]) -> Callable[[Any], str]:
    def show(self: Any) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({values})"

    return show
