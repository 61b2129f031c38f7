"""The rtm-sync plugin: a hook that makes the Pillow thumbnail generator."""

from __future__ import annotations

from rtm_sync import ThumbnailGenerator, hookimpl

from .generator import PillowGenerator

__all__ = ["PillowGenerator", "thumbnail"]


@hookimpl
def thumbnail() -> ThumbnailGenerator:
    """Implement the hook `thumbnail`."""
    return PillowGenerator()
