"""The rtm-sync plugin: a hook that makes the media store of `s3://…` URLs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtm_sync import hookimpl

if TYPE_CHECKING:
    from rtm_sync.hub.media import MediaStore

__all__ = ["media_store"]


@hookimpl
def media_store(url: str) -> MediaStore | None:
    """Implement the hook `media_store`."""
    if not url.startswith("s3:"):
        return None
    from .store import S3MediaStore  # only now: importing boto3 is slow

    return S3MediaStore.from_url(url)
