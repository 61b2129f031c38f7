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
        data: the picture file's bytes (JPEG, PNG or WebP).
        width, height: in pixels.
        content_type: of `data`.
    """

    data: bytes = field(repr=False)
    width: int
    height: int
    content_type: str


class CannotThumbnail(Exception):
    """A generator cannot make a thumbnail of this blob; the message says why."""


class ThumbnailFailed(Exception):
    """A generator raised, did not answer in time, or made nonsense; the message names it."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"The thumbnail generator {name} failed: {why}.")


class ThumbnailGenerator(ABC):
    """Makes thumbnails of some kinds of content.

    Attributes:
        name: what `thumbnail="name"` asks for.
        priority: the highest capable generator serves `thumbnail="auto"`; ours have 100.
        time_limit: seconds that `generate` may take before its thumbnail is given up.
    """

    name: str
    priority: int = 100
    time_limit: float = 10.0

    @abstractmethod
    def can_handle(self, content_type: str) -> bool:
        """Whether content of this MIME type is worth trying. Cheap; opens nothing."""

    @abstractmethod
    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        """Make the best-looking thumbnail of at most `max_bytes` bytes.

        Called on a thread of its own, never with a lock held, and for several blobs at once; must
        end within a few seconds and use bounded memory whatever the blob holds.

        Raises:
            CannotThumbnail: the blob is damaged, too large to decode safely, or not a picture.
        """


ThumbnailCallable: TypeAlias = Callable[[Blob, int], Thumbnail | bytes]
"""What may stand in for a generator: (blob, max_bytes) → a thumbnail or its bytes."""
