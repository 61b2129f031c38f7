"""Methods that a plugin's class defines by an old name; for one release, while it is deprecated."""

from __future__ import annotations

import warnings


def accept_old_method(cls: type, base: type, old: str, new: str) -> None:
    """Use a class's method `old` as its method `new`, with a DeprecationWarning.

    `base.__init_subclass__` calls it for each class. A class that has a method `new` keeps that.
    """
    for owner in cls.__mro__:
        names = vars(owner)
        if owner is base or new in names:
            return
        if old in names:
            warnings.warn(
                f"{cls.__qualname__}.{old} must be called {new}; "
                "the old name goes in the next release",
                DeprecationWarning,
                stacklevel=4,  # the class statement: above are __init_subclass__ and ABCMeta
            )
            setattr(cls, new, names[old])
            return
