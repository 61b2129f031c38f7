"""The contract of thumbnail generators, which are plugins."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from ..blob import Blob, Payload
from ..image_header import image_dimensions
from ..messages import thumbnail_bytes


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """An encoded preview picture.

    Attributes:
        data: the bytes of the picture file (JPEG, PNG or WebP).
        width, height: the size in pixels.
        content_type: the MIME type of `data`.
        picture_width, picture_height: the upright size in pixels of the picture that was read; 0
            when unknown. An image message without a size gets this one, if rtm_sync does not read
            the picture's header itself (AVIF, HEIC and TIFF).
    """

    data: bytes = field(repr=False)
    width: int
    height: int
    content_type: str
    picture_width: int = 0
    picture_height: int = 0


class CannotThumbnail(Exception):
    """A generator cannot make a thumbnail of this blob; the message says why."""


class ThumbnailFailed(Exception):
    """A generator raised an exception, exceeded its time limit, or returned something else.

    The message names the generator.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"The thumbnail generator {name} failed: {reason}.")


class ThumbnailGenerator(ABC):
    """Makes thumbnails of some content types.

    Attributes:
        name: the generator's name, for `thumbnail="name"`.
        priority: of the generators that can handle the content, the one with the highest priority
            serves `thumbnail="auto"`. Our generators have 100.
        time_limit: seconds that `generate` may take. After that the thumbnail has failed.
    """

    name: str
    priority: int = 100
    time_limit: float = 10.0

    @abstractmethod
    def can_handle(self, content_type: str) -> bool:
        """Whether the generator may be able to handle this MIME type. Fast; opens no file."""

    @abstractmethod
    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        """Make the best-looking thumbnail of at most `max_bytes` bytes.

        Called on its own thread, without a lock held, and for several blobs at once. It must end
        within a few seconds and use bounded memory, even for a hostile file.

        Raises:
            CannotThumbnail: the blob is damaged, too large to decode safely, or not a picture.
        """


ThumbnailCallable: TypeAlias = "Callable[[Blob, int], Thumbnail | Blob | bytes]"
"""A function in place of a generator: (blob, max_bytes) → a thumbnail, or a blob or bytes of it."""

ThumbnailSource: TypeAlias = "Payload | Thumbnail | ThumbnailCallable"
"""A thumbnail (`Thumbnail`, bytes, `Path`, binary file, `Blob`), a callable that makes one, or a
`str`: "auto" or a generator's name."""


def given_thumbnail(source: ThumbnailSource) -> Thumbnail:
    """The thumbnail that a caller gave, with its size from the caller or else from its header.

    Args:
        source: a thumbnail, bytes, a `Path`, a binary file or a `Blob`.

    Raises:
        TypeError: another type. A `str` and a callable are refused: they make a thumbnail of the
            content of an upload.
        MessageTooLarge: the thumbnail has more bytes than a message.
        OSError: the file cannot be read.
    """
    if isinstance(source, Thumbnail):
        return source
    if isinstance(source, str) or callable(source):
        raise TypeError(
            f"thumbnail must be the bytes of a picture here, not {_named(source)}, which makes one "
            "of the content of an upload. Pass bytes, a Path, a binary file or a Blob."
        )
    data = thumbnail_bytes(cast("Payload", source))
    width, height = image_dimensions(io.BytesIO(data)) or (0, 0)
    return Thumbnail(data, width, height, "")


def _named(source: object) -> str:
    return f"the name {source!r}" if isinstance(source, str) else "a callable"
