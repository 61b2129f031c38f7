"""What a thumbnail generator is, and how one is chosen. Generators themselves are plugins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from .blob import Blob
from .errors import PluginError
from .plugins import PluginManager


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


class ThumbnailGenerator(ABC):
    """Makes thumbnails of some kinds of content.

    Attributes:
        name: what `thumbnail="name"` asks for.
        priority: the highest capable generator serves `thumbnail="auto"`; ours have 100.
    """

    name: str
    priority: int = 100

    @abstractmethod
    def can_handle(self, content_type: str) -> bool:
        """Whether content of this MIME type is worth trying. Cheap; opens nothing."""

    @abstractmethod
    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        """Make the best-looking thumbnail of at most `max_bytes` bytes.

        Called on a transfer's thread, never with a lock held; must end within a few seconds and
        use bounded memory whatever the blob holds.

        Raises:
            CannotThumbnail: the blob is damaged, too large to decode safely, or not a picture.
        """


ThumbnailCallable: TypeAlias = Callable[[Blob, int], Thumbnail | bytes]
"""What may stand in for a generator: (blob, max_bytes) → a thumbnail or its bytes."""


def choose_generator(plugins: PluginManager, name: str, content_type: str) -> ThumbnailGenerator:
    """The generator for `thumbnail=name` ("auto" or a generator's name) and that content.

    Raises:
        PluginError: none is installed or capable; says what to install.
    """
    generators = plugins.thumbnail_generators()
    installed = ", ".join(generator.name for generator in generators) or "none"
    if name != "auto":
        for generator in generators:
            if generator.name == name:
                return generator
        raise PluginError(f"No thumbnail generator is named {name!r}; installed: {installed}.")
    for generator in generators:
        if generator.can_handle(content_type):
            return generator
    raise PluginError(
        f'thumbnail="auto" found no generator for {content_type}; installed: {installed}. '
        "Install one, for pictures: pip install rtm-sync-pillow. Or pass the thumbnail's bytes."
    )
