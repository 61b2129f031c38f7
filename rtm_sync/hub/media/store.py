"""The MediaStore contract: it keeps blobs. Methods block; a hub calls them on its own threads."""

from __future__ import annotations

import functools
import re
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import BinaryIO, TypeVar
from urllib.parse import quote

from ...protocol.values import MediaInfo
from ..old_names import accept_old_method

MEDIA_ID = re.compile(r"[A-Za-z0-9_-]{32}")
"""The form of a blob's id. The hub makes it; it is safe as a file name and in a URL."""

C = TypeVar("C")


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
    """A blob that a killed process had begun, or committed and not finalized.

    Attributes:
        metadata: the metadata that `create` was given with the blob.
        size: its bytes so far.
        is_whole: it was committed, but not finalized.
    """

    media_id: str
    metadata: str
    size: int
    is_whole: bool


class MediaWriter(ABC):
    """Writes one blob. Calls come one after another, but not always on the same thread."""

    @abstractmethod
    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes. Raises OSError when they cannot be kept (the disk is full)."""

    @abstractmethod
    def truncate(self, size: int) -> None:
        """Drop all but the first `size` bytes (a chunk failed its checksum)."""

    @abstractmethod
    def commit(self) -> None:
        """Make the blob durable and visible under its id, whole, at once."""

    @abstractmethod
    def abort(self) -> None:
        """Drop the blob and free its space. Never raises; has no effect after `commit`."""

    def suspend(self) -> None:
        """Close the writer and keep the blob, so that the store can `reopen` it. Never raises."""
        self.abort()


class MediaStore(ABC):
    """Keeps blobs by id. Thread-safe. Only whole blobs are ever visible.

    Ids match `MEDIA_ID`. Names and expiry of blobs are not the store's: the engine has them.

    Attributes:
        threads: how many calls a hub makes at once; more help when a call waits for a network.
    """

    threads: int = 4

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        accept_old_method(cls, MediaStore, "settle", "finalize")

    @abstractmethod
    def create(self, media_id: str, metadata: str) -> MediaWriter:
        """Begin a blob. A store that keeps fragments keeps the metadata until `finalize`."""

    @abstractmethod
    def open(self, media_id: str) -> BinaryIO:
        """A seekable reader of a blob; the caller closes it. Raises FileNotFoundError."""

    @abstractmethod
    def delete(self, media_id: str) -> None:
        """Remove a blob; unknown ones are ignored."""

    def fragments(self) -> list[Fragment]:
        """The blobs that a former process had begun or committed, and not finalized.

        Empty when the store does not keep them beyond the process.
        """
        return []

    def reopen(self, media_id: str) -> tuple[MediaWriter, BinaryIO]:
        """A fragment's writer, at its end, and a reader of its bytes, which the caller closes.

        Raises OSError.
        """
        raise FileNotFoundError(media_id)

    def location(self, info: MediaInfo, seconds: float) -> str | None:
        """A secret URL, valid for `seconds`, from which a client gets the blob's bytes itself.

        It answers GET, with Range, and names and describes the file as `info` does
        (`content_disposition`). None when the bytes come through the hub.

        Raises:
            FileNotFoundError: the store knows that the blob is gone.
            OSError: the store failed.
        """
        return None

    def finalize(self, media_id: str) -> None:  # noqa: B027  an optional capability
        """The engine has the committed blob's record: drop the blob's metadata."""

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
        """Release the files, threads and connections of the store. Idempotent."""


def content_disposition(info: MediaInfo) -> str:
    """The `Content-Disposition` of a download: an attachment with the medium's file name."""
    return f"attachment; filename*=UTF-8''{quote(info.file_name or info.media_id, safe='')}"
