"""Lazy loading of a package's public names on first use (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping


def lazy_names(
    package: str, homes: Mapping[str, tuple[str, ...]], modules: Iterable[str] = ()
) -> Callable[[str], object]:
    """Return a `__getattr__` for a package that loads public names from its modules.

    Args:
        package: the package's `__name__`.
        homes: the names in each module, by the module's relative name.
        modules: the modules that are attributes of the package without an explicit import.
    """
    home_of = {name: module for module, names in homes.items() for name in names}
    modules = frozenset(modules)
    own = vars(sys.modules[package])
    own["__dir__"] = lambda: sorted({*own, *home_of, *modules})  # for `help`, completion and Sphinx

    def load(name: str) -> object:
        if name in modules:
            return importlib.import_module(f".{name}", package)
        home = home_of.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(importlib.import_module(home, package), name)
        own[name] = value
        return value

    return load
