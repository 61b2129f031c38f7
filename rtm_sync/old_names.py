"""Old names of modules and methods, which work for one release with a DeprecationWarning."""

from __future__ import annotations

import warnings

_UNTIL = "the old name goes in the next release"


def warn_moved(old: str, *new: str) -> None:
    """Warn that a module has moved. The old module calls this while it is imported."""
    warnings.warn(f"{old} has moved to {' and '.join(new)}; {_UNTIL}", DeprecationWarning, 3)


def accept_old_method(cls: type, base: type, old: str, new: str) -> None:
    """Install a class's method `old` as `new`, with a warning at the class statement.

    `base.__init_subclass__` calls this for each class. An existing method `new` is kept.
    """
    for owner in cls.__mro__:
        names = vars(owner)
        if owner is base or new in names:
            return
        if old in names:
            warnings.warn(
                f"{cls.__qualname__}.{old} must be called {new}; {_UNTIL}",
                DeprecationWarning,
                stacklevel=4,  # above this function are __init_subclass__ and ABCMeta.__new__
            )
            setattr(cls, new, names[old])
            return
