"""Parts of large libraries, without what their packages load by themselves."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType


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
