"""The MediaStore contract: storage for blobs. Methods block; a hub calls them on its threads."""

from __future__ import annotations

import functools
import re
import secrets
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import BinaryIO, TypeVar
from urllib.parse import quote

from ...old_names import accept_old_method
from ...protocol.values import MediaInfo

MEDIA_ID = re.compile(r"[A-Za-z0-9_-]{32}")
"""The form of a media id. The hub creates ids; they are safe as file names and in URLs."""

C = TypeVar("C")


def new_media_id() -> str:
    """A new media id: 192 random bits. It never starts with a hyphen, which marks an option."""
    while (media_id := secrets.token_urlsafe(24)).startswith("-"):
        pass
    return media_id


def _accepts_note(cls: type[C]) -> type[C]:
    """Let `Fragment(note=…)` mean `Fragment(metadata=…)`: the old name, deprecated."""
    init = cls.__init__

    @functools.wraps(init)
    def accept(self: C, *args: object, **options: object) -> None:
        if "note" in options:
            warnings.warn(
                "Fragment(note=…) must be called Fragment(metadata=…); "
                "the old name goes in the next release",
                DeprecationWarning,
                stacklevel=2,
            )
            options["metadata"] = options.pop("note")
        init(self, *args, **options)

    cls.__init__ = accept  # type: ignore[assignment]
    return cls


@_accepts_note
@dataclass(frozen=True, slots=True)
class Fragment:
    """An unfinished blob that a killed process left behind.

    Attributes:
        media_id: the blob's id.
        metadata: the metadata that was given to `create`.
        size: the number of stored bytes.
        is_whole: the blob was committed, but not finalized.
    """

    media_id: str
    metadata: str
    size: int
    is_whole: bool


class MediaWriter(ABC):
    """Writes one blob. Calls come one after another, but not always on the same thread."""

    @abstractmethod
    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes. Raises OSError when they cannot be stored (the disk is full)."""

    @abstractmethod
    def truncate(self, size: int) -> None:
        """Discard all bytes after the first `size` (a chunk failed its checksum)."""

    @abstractmethod
    def commit(self) -> None:
        """Make the blob durable and visible under its id, atomically."""

    @abstractmethod
    def abort(self) -> None:
        """Discard the blob; nothing of it stays. Never raises. Does nothing after `commit`."""

    def suspend(self) -> None:
        """Release the blob, so that the store can `reopen` it. Never raises."""
        self.abort()


class MediaStore(ABC):
    """Keeps blobs by id. Thread-safe. Only whole blobs are visible.

    Ids match `MEDIA_ID`. The engine's media index keeps a blob's file name and expiry.

    Attributes:
        threads: the number of concurrent calls that a hub makes. A store on a network gains from
            more.
    """

    threads: int = 4

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        accept_old_method(cls, MediaStore, "settle", "finalize")

    @abstractmethod
    def create(self, media_id: str, metadata: str) -> MediaWriter:
        """Begin a blob.

        Args:
            media_id: the blob's id.
            metadata: a text that a store with fragments keeps beside the blob until `finalize`.
        """

    @abstractmethod
    def open(self, media_id: str) -> BinaryIO:
        """A seekable reader of a blob; the caller closes it. Raises FileNotFoundError."""

    @abstractmethod
    def delete(self, media_id: str) -> None:
        """Remove a blob. An unknown id is ignored."""

    def fragments(self) -> list[Fragment]:
        """The blobs that were begun and not finalized. Called once, after a restart.

        Empty when the store's fragments do not outlive the process.
        """
        return []

    def reopen(self, media_id: str) -> tuple[MediaWriter, BinaryIO]:
        """A writer at the fragment's end, and a reader of its bytes; the caller closes the reader.

        Raises:
            OSError: the fragment cannot be opened.
        """
        raise FileNotFoundError(media_id)

    def location(self, info: MediaInfo, seconds: float) -> str | None:
        """A secret URL from which a client downloads the blob itself, or None.

        The URL is valid for `seconds`. It answers GET, with Range, and sends the content type and
        the file name of `info` (`content_disposition`). None when downloads go through the hub.

        Raises:
            FileNotFoundError: the store knows that the blob does not exist.
            OSError: the store failed.
        """
        return None

    def finalize(self, media_id: str) -> None:  # noqa: B027  an optional capability
        """A committed blob is recorded: remove its metadata."""

    def problem(self) -> str | None:
        """The sentence that says why the store cannot be used for now, or None.

        It makes the gateway's `/readyz` answer 503. Everybody may read it: it names no path or
        host.

        Raises:
            OSError: the store failed.
        """
        return None

    def settle(self, media_id: str) -> None:
        """Deprecated: the former name of `finalize`."""
        warnings.warn(
            "MediaStore.settle is called finalize; the old name goes in the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        if type(self).settle is MediaStore.settle:  # else a store that has the old name called it
            self.finalize(media_id)

    def close(self) -> None:  # noqa: B027  an optional capability
        """Release the store's resources."""


def content_disposition(info: MediaInfo) -> str:
    """The `Content-Disposition` header of a download: an attachment with its file name."""
    return f"attachment; filename*=UTF-8''{quote(info.file_name or info.media_id, safe='')}"
