"""The rtm-sync plugin: a hook that makes the thumbnail generator for PDF documents."""

from __future__ import annotations

from rtm_sync import ThumbnailGenerator, hookimpl

from .generator import PdfGenerator

__all__ = ["PdfGenerator", "thumbnail"]


@hookimpl
def thumbnail() -> ThumbnailGenerator:
    """Implement the hook `thumbnail`."""
    return PdfGenerator()
