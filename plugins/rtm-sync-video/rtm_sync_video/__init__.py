"""The rtm-sync plugin: one hook, which gives the generator of poster frames."""

from __future__ import annotations

from rtm_sync import ThumbnailGenerator, hookimpl

from .generator import VideoGenerator

__all__ = ["VideoGenerator", "thumbnail"]


@hookimpl
def thumbnail() -> ThumbnailGenerator:
    """Answer `rtm_sync`'s hook of this name."""
    return VideoGenerator()
