"""The rtm-sync plugin: one hook, which gives the Pillow thumbnail generator."""

from __future__ import annotations

from rtm_sync import ThumbnailGenerator, hookimpl

from .generator import PillowGenerator

__all__ = ["PillowGenerator", "thumbnail"]


@hookimpl
def thumbnail() -> ThumbnailGenerator:
    """Answer `rtm_sync`'s hook of this name."""
    return PillowGenerator()
