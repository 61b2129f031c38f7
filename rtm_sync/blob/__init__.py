"""Blobs: bytes with a name and a content type, from any source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names

if TYPE_CHECKING:
    from .blob import CHUNK, MEDIA_LIMIT, Blob, BlobTooLarge, Payload, atomic_write
else:
    __getattr__ = lazy_names(
        __name__,
        {
            ".blob": ("CHUNK", "MEDIA_LIMIT", "Blob", "BlobTooLarge", "Payload", "atomic_write"),
        },
    )

__all__ = ["CHUNK", "MEDIA_LIMIT", "Blob", "BlobTooLarge", "Payload", "atomic_write"]
