"""Parts of large libraries, without what their packages load by themselves."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


def bare_package(name: str) -> None:
    """Has the modules of a package found without running its ``__init__``.

    A package of that name with the same path stands in for it in this process; who needs a part imports its module. Where the
    package is loaded already, or is not there, nothing happens.
    """
    spec = importlib.util.find_spec(name)
    if name not in sys.modules and spec is not None and spec.submodule_search_locations is not None:
        package = ModuleType(name)
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules[name] = package


class _LateModule(ModuleType):
    """Loads the module of its name when something is wanted of it. importlib's LazyLoader does when it is imported."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def load_late(name: str) -> None:
    """Has a module loaded when something of it is first used, and not when it is imported.

    For what a library imports and does not use here. Where the module is loaded already, nothing happens.
    """
    if name not in sys.modules:
        sys.modules[name] = _LateModule(name)
