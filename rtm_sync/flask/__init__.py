"""The Flask extension: one client for each process, and events and media for browsers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names

if TYPE_CHECKING:
    from .extension import SETTINGS, Rtm, status_of
    from .protection import protect
    from .sessions import running
else:
    __getattr__ = lazy_names(
        __name__,
        {
            ".extension": (
                "Rtm",
                "SETTINGS",
                "status_of",
            ),
            ".protection": ("protect",),
            ".sessions": ("running",),
        },
    )

__all__ = [
    "SETTINGS",
    "Rtm",
    "protect",
    "running",
    "status_of",
]
