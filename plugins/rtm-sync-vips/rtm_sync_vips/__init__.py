"""The rtm-sync plugin: one hook, which gives the libvips thumbnail generator."""

from __future__ import annotations

from rtm_sync import ThumbnailGenerator, hookimpl

from .generator import VipsGenerator

__all__ = ["VipsGenerator", "thumbnail"]


@hookimpl
def thumbnail() -> ThumbnailGenerator:
    """Answer `rtm_sync`'s hook of this name."""
    return VipsGenerator()
