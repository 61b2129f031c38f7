"""The thumbnail generator: reads a picture (`picture.py`), writes what fits."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from rtm_sync import Blob, CannotThumbnail, Thumbnail, ThumbnailGenerator
from rtm_sync.thumbnails.encoding import LONGEST_SIDE, bare_type, encode_thumbnail, read_content

from .picture import CONTENT_TYPES, MAX_FILE_BYTES, read_picture

# Pictures decoded at once in this process: each may take a few hundred megabytes, and every client
# has nine threads that may all want a thumbnail.
_decoding = threading.BoundedSemaphore(2)


class PillowGenerator(ThumbnailGenerator):
    """Thumbnails of the common picture formats by Pillow. Thread-safe; two at once."""

    name = "pillow"
    priority = 100

    def can_handle(self, content_type: str) -> bool:
        """Whether this Pillow reads such content; parameters and case do not count."""
        return bare_type(content_type) in CONTENT_TYPES

    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        """The best-looking thumbnail of at most `max_bytes`: upright, sRGB, without metadata.

        At most 480 pixels on its longest side and never larger than the picture. A JPEG; where
        the picture is transparent a WebP (a PNG where Pillow has no WebP).

        Raises:
            CannotThumbnail: not a picture, damaged, too large to decode safely, or none fits.
        """
        try:
            content = read_content(blob, MAX_FILE_BYTES)
            # On a thread of its own, because glibc keeps a thread's freed memory for that thread:
            # nine transfer threads would each go on holding what their largest picture took.
            with _decoding, ThreadPoolExecutor(1, "rtm-sync-pillow") as thread:
                return thread.submit(_made, content, max_bytes).result()
        except CannotThumbnail:
            raise
        except MemoryError as error:
            raise CannotThumbnail("There is not enough memory to decode the picture.") from error
        except Exception as error:  # seven decoders, a stranger's bytes: they raise anything
            reason = f"{error}".rstrip(".") or type(error).__name__
            raise CannotThumbnail(f"The picture is damaged: {reason}.") from error


def _made(content: bytes, max_bytes: int) -> Thumbnail:
    return encode_thumbnail(read_picture(content, LONGEST_SIDE), max_bytes)
