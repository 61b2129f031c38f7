"""The rtm-sync plugin: a hook that makes the thumbnail generator for videos."""

from __future__ import annotations

from rtm_sync import ThumbnailGenerator, hookimpl

from .generator import VideoGenerator

__all__ = ["VideoGenerator", "thumbnail"]


@hookimpl
def thumbnail() -> ThumbnailGenerator:
    """Implement the hook `thumbnail`."""
    return VideoGenerator()
