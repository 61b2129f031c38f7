"""Thumbnails: the contract of generators, the choice of a generator, and tools for authors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names

if TYPE_CHECKING:
    from .contract import (
        CannotThumbnail,
        Thumbnail,
        ThumbnailCallable,
        ThumbnailFailed,
        ThumbnailGenerator,
    )
    from .selection import call_in_place, choose_generator, generate_in_time
else:
    __getattr__ = lazy_names(
        __name__,
        {
            ".contract": (
                "CannotThumbnail",
                "Thumbnail",
                "ThumbnailCallable",
                "ThumbnailFailed",
                "ThumbnailGenerator",
            ),
            ".selection": (
                "call_in_place",
                "choose_generator",
                "generate_in_time",
            ),
        },
    )

__all__ = [
    "CannotThumbnail",
    "Thumbnail",
    "ThumbnailCallable",
    "ThumbnailFailed",
    "ThumbnailGenerator",
    "call_in_place",
    "choose_generator",
    "generate_in_time",
]
