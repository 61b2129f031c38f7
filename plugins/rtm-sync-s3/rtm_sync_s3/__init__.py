"""The rtm-sync plugin: one hook, which gives the media store of `s3://…` URLs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtm_sync import hookimpl

if TYPE_CHECKING:
    from rtm_sync.hub.media import MediaStore

__all__ = ["media_store"]


@hookimpl
def media_store(url: str) -> MediaStore | None:
    """Answer `rtm_sync`'s hook of this name."""
    if not url.startswith("s3:"):
        return None
    from .store import S3MediaStore  # boto3 takes its time to import

    return S3MediaStore.from_url(url)
