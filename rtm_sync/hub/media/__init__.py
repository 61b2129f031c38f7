"""Media of a hub: the store contract, the built-in stores, and the service that uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...lazy_names import lazy_names

if TYPE_CHECKING:
    from .store import (
        MEDIA_ID,
        Fragment,
        MediaStore,
        MediaWriter,
        content_disposition,
        new_media_id,
    )
else:
    __getattr__ = lazy_names(
        __name__,
        {
            ".store": (
                "Fragment",
                "MEDIA_ID",
                "MediaStore",
                "MediaWriter",
                "content_disposition",
                "new_media_id",
            ),
        },
    )

__all__ = [
    "MEDIA_ID",
    "Fragment",
    "MediaStore",
    "MediaWriter",
    "content_disposition",
    "new_media_id",
]
