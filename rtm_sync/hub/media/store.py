"""The MediaStore contract: where blobs live. Methods block; a hub calls them on its own threads."""

from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote

from ...protocol.values import MediaInfo

MEDIA_ID = re.compile(r"[A-Za-z0-9_-]{32}")
"""What names a blob: made by the hub, safe as a file name and in a URL."""


def new_media_id() -> str:
    """192 bits that nobody guesses; no hyphen first, or command lines take it for an option."""
    while (media_id := secrets.token_urlsafe(24)).startswith("-"):
        pass
    return media_id


@dataclass(frozen=True, slots=True)
class Fragment:
    """A blob that a process which was killed left on its way in.

    Attributes:
        metadata: what `create` was given to keep beside it.
        size: how many bytes are there.
        is_whole: it was committed, but not settled.
    """

    media_id: str
    metadata: str
    size: int
    is_whole: bool


class MediaWriter(ABC):
    """One blob on its way in. Calls come one after another, though not always on one thread."""

    @abstractmethod
    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes. Raises OSError when they cannot be kept (the disk is full)."""

    @abstractmethod
    def truncate(self, size: int) -> None:
        """Forget what was written after the first `size` bytes (a chunk failed its checksum)."""

    @abstractmethod
    def commit(self) -> None:
        """Make the blob durable and visible under its id, whole, at once."""

    @abstractmethod
    def abort(self) -> None:
        """Forget the blob; nothing of it stays. Never raises; harmless after `commit`."""

    def suspend(self) -> None:
        """Let go of the blob, so that the store can `reopen` it. Never raises."""
        self.abort()


class MediaStore(ABC):
    """Keeps blobs by id. Thread-safe. Only whole blobs are ever visible.

    Ids match `MEDIA_ID`. What a blob is called and when it ends is the engine's to know.

    Attributes:
        threads: how many calls a hub makes at once; more pays where they wait for a network.
    """

    threads: int = 4

    @abstractmethod
    def create(self, media_id: str, metadata: str) -> MediaWriter:
        """Begin a blob. A store that keeps fragments keeps the note beside it until `finalize`."""

    @abstractmethod
    def open(self, media_id: str) -> BinaryIO:
        """A seekable reader of a blob; the caller closes it. Raises FileNotFoundError."""

    @abstractmethod
    def delete(self, media_id: str) -> None:
        """Remove a blob; unknown ones are ignored."""

    def fragments(self) -> list[Fragment]:
        """What was begun and not settled, after a restart; empty where fragments do not outlive
        the process."""
        return []

    def reopen(self, media_id: str) -> tuple[MediaWriter, BinaryIO]:
        """A fragment's writer, at its end, and a reader of what it has, which the caller closes.

        Raises OSError.
        """
        raise FileNotFoundError(media_id)

    def location(self, info: MediaInfo, seconds: float) -> str | None:
        """Where a client can get a blob's bytes itself: a secret URL that holds for so long.

        It answers GET, with Range, and names and describes the file as `info` does
        (`content_disposition`). None where the bytes come through the hub.

        Raises:
            FileNotFoundError: the store knows that the blob is gone.
            OSError: the store failed.
        """
        return None

    def finalize(self, media_id: str) -> None:  # noqa: B027  an optional capability
        """A committed blob is recorded: its note is of no more use."""

    def close(self) -> None:  # noqa: B027  an optional capability
        """Let go of what the store holds."""


def content_disposition(info: MediaInfo) -> str:
    """The `Content-Disposition` of a medium that is downloaded: a file to keep, and its name."""
    return f"attachment; filename*=UTF-8''{quote(info.file_name or info.media_id, safe='')}"
