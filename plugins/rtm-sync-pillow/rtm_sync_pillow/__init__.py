"""The rtm-sync plugin: one hook, which gives the Pillow thumbnail generator."""

from __future__ import annotations

from rtm_sync import ThumbnailGenerator, hookimpl

from .generator import PillowGenerator, encode_thumbnail

__all__ = ["PillowGenerator", "encode_thumbnail", "thumbnail"]


@hookimpl
def thumbnail() -> ThumbnailGenerator:
    """Answer `rtm_sync`'s hook of this name."""
    return PillowGenerator()
