"""The rtm-sync plugin: one hook, which gives the generator of first pages."""

from __future__ import annotations

from rtm_sync import ThumbnailGenerator, hookimpl

from .generator import PdfGenerator

__all__ = ["PdfGenerator", "thumbnail"]


@hookimpl
def thumbnail() -> ThumbnailGenerator:
    """Answer `rtm_sync`'s hook of this name."""
    return PdfGenerator()
