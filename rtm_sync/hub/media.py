"""The MediaStore contract: where blobs live. Methods block; a hub calls them on its own threads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import BinaryIO


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


class MediaStore(ABC):
    """Keeps blobs by id. Thread-safe. Only whole blobs are ever visible.

    Ids are 32 characters of `A-Z a-z 0-9 _ -`, made by the hub, safe as file names and URLs. What a
    blob is called and when it ends is the engine's to know.
    """

    @abstractmethod
    def create(self, media_id: str) -> MediaWriter:
        """Begin a blob."""

    @abstractmethod
    def open(self, media_id: str) -> BinaryIO:
        """A seekable reader of a blob; the caller closes it. Raises FileNotFoundError."""

    @abstractmethod
    def delete(self, media_id: str) -> None:
        """Remove a blob; unknown ones are ignored."""

    def local_path(self, media_id: str) -> Path | None:
        """The blob as a local file, where there is one, so that the system can send it itself."""
        return None

    def close(self) -> None:  # noqa: B027  an optional capability
        """Let go of what the store holds."""
