"""The contract of thumbnail generators, which are plugins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from ..blob import Blob


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """An encoded preview picture.

    Attributes:
        data: the bytes of the picture file (JPEG, PNG or WebP).
        width, height: the size in pixels.
        content_type: the MIME type of `data`.
    """

    data: bytes = field(repr=False)
    width: int
    height: int
    content_type: str


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


ThumbnailCallable: TypeAlias = Callable[[Blob, int], Thumbnail | bytes]
"""A function in place of a generator: (blob, max_bytes) → a thumbnail, or its bytes."""
