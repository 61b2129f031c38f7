"""Public names of a package that are loaded when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping


def lazy_names(package: str, homes: Mapping[str, tuple[str, ...]]) -> Callable[[str], object]:
    """The `__getattr__` of a package whose public names live in its modules.

    Args:
        package: the package's `__name__`.
        homes: the names that each module has, the module relative to the package.
    """
    home_of = {name: module for module, names in homes.items() for name in names}
    own = vars(sys.modules[package])
    own["__dir__"] = lambda: sorted({*own, *home_of})  # for `help`, completion and Sphinx

    def load(name: str) -> object:
        home = home_of.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(importlib.import_module(home, package), name)
        own[name] = value
        return value

    return load
