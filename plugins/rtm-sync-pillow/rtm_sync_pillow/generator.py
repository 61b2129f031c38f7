"""The thumbnail generator: it reads a picture (`picture.py`) and encodes a thumbnail that fits."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

from rtm_sync import Blob, CannotThumbnail, Thumbnail, ThumbnailGenerator
from rtm_sync.thumbnails.encoding import LONGEST_SIDE, bare_type, encode_thumbnail, read_content

from .picture import CONTENT_TYPES, MAX_FILE_BYTES, read_picture

# Pictures decoded at once in this process. Each may take a few hundred megabytes, and each client
# has nine threads that may make thumbnails.
_slots = threading.BoundedSemaphore(2)


class PillowGenerator(ThumbnailGenerator):
    """Makes thumbnails of common picture formats, by Pillow. Thread-safe; two at once."""

    name = "pillow"
    priority = 100

    def can_handle(self, content_type: str) -> bool:
        """Whether the installed Pillow reads the type; its parameters and case are ignored."""
        return bare_type(content_type) in CONTENT_TYPES

    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        """Make the best-looking thumbnail of at most `max_bytes` bytes.

        It is upright, in sRGB and without metadata. Its longest side has at most 480 pixels, and it
        is not larger than the picture. It is a JPEG; for a transparent picture it is a WebP, or a
        PNG where Pillow has no WebP.

        Raises:
            CannotThumbnail: the blob is not a picture, is damaged or too large to decode safely, or
                no thumbnail fits.
        """
        try:
            content = read_content(blob, MAX_FILE_BYTES)
            # On a new thread, because glibc keeps the freed memory of a thread for that thread:
            # nine transfer threads would each keep the memory of their largest picture.
            with _slots, ThreadPoolExecutor(1, "rtm-sync-pillow") as thread:
                return thread.submit(_made, content, max_bytes).result()
        except CannotThumbnail:
            raise
        except MemoryError as error:
            raise CannotThumbnail("There is not enough memory to decode the picture.") from error
        except Exception as error:  # decoders may raise any exception for a hostile file
            reason = f"{error}".rstrip(".") or type(error).__name__
            raise CannotThumbnail(f"The picture is damaged: {reason}.") from error


def _made(content: bytes, max_bytes: int) -> Thumbnail:
    picture, (width, height) = read_picture(content, LONGEST_SIDE)
    made = encode_thumbnail(picture, max_bytes)
    return dataclasses.replace(made, picture_width=width, picture_height=height)
