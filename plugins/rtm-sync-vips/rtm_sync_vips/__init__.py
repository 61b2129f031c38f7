"""The rtm-sync plugin: a hook that makes the libvips thumbnail generator."""

from __future__ import annotations

from rtm_sync import ThumbnailGenerator, hookimpl

from .generator import VipsGenerator

__all__ = ["VipsGenerator", "thumbnail"]


@hookimpl
def thumbnail() -> ThumbnailGenerator:
    """Implement the hook `thumbnail`."""
    return VipsGenerator()
