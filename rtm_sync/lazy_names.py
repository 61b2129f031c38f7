"""Public names of a package that are loaded when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping


def lazy_names(
    package: str, homes: Mapping[str, tuple[str, ...]], modules: Iterable[str] = ()
) -> Callable[[str], object]:
    """The `__getattr__` of a package whose public names live in its modules.

    Args:
        package: the package's `__name__`.
        homes: the names that each module has, the module relative to the package.
        modules: modules of the package that can be used without an import of their own.
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
