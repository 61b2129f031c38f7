"""The thumbnail generator: reads a picture (`picture.py`), finds what fits (`fit.py`)."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor

from PIL import Image, features

from rtm_sync import Blob, CannotThumbnail, Thumbnail, ThumbnailGenerator

from .fit import LONGEST_SIDE, best_fit
from .picture import CONTENT_TYPES, MAX_FILE_BYTES, read_picture, scaled

# Pictures decoded at once in this process: each may take a few hundred megabytes, and every client
# has nine threads that may all want a thumbnail.
_decoding = threading.BoundedSemaphore(2)


class PillowGenerator(ThumbnailGenerator):
    """Thumbnails of the common picture formats by Pillow. Thread-safe; two at once."""

    name = "pillow"
    priority = 100

    def can_handle(self, content_type: str) -> bool:
        """Whether this Pillow reads such content; parameters and case do not count."""
        return content_type.partition(";")[0].strip().lower() in CONTENT_TYPES

    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        """The best-looking thumbnail of at most `max_bytes`: upright, sRGB, without metadata.

        At most 480 pixels on its longest side and never larger than the picture. A JPEG; where
        the picture is transparent a WebP (a PNG where Pillow has no WebP).

        Raises:
            CannotThumbnail: not a picture, damaged, too large to decode safely, or none fits.
        """
        try:
            content = _content(blob)
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


def _content(blob: Blob) -> bytes:
    """All of the blob; opened only when its size is one we take."""
    if not blob.size:
        raise CannotThumbnail("The blob is empty.")
    if blob.size > MAX_FILE_BYTES:
        raise CannotThumbnail(
            f"The picture has {blob.size:,} bytes; the limit is {MAX_FILE_BYTES:,}."
        )
    try:
        with blob.open() as file:
            return file.read(MAX_FILE_BYTES)  # the file may have grown since
    except (OSError, ValueError) as error:  # ValueError: the file object behind it was closed
        raise CannotThumbnail(f"The blob could not be read: {error}.") from error


def _made(content: bytes, max_bytes: int) -> Thumbnail:
    return _fitted(read_picture(content, LONGEST_SIDE), max_bytes)


def _fitted(picture: Image.Image, max_bytes: int) -> Thumbnail:
    kind = _kind(picture)
    resized = picture  # the search asks for one side several times in a row

    def encode(side: int, quality: int) -> bytes:
        nonlocal resized
        size = scaled(picture.size, side)
        if resized.size != size:
            resized = picture.resize(size, Image.Resampling.LANCZOS)
        output = io.BytesIO()
        # Each encoder takes what it knows: PNG has no quality, only JPEG can be progressive.
        resized.save(output, kind, quality=quality, optimize=True, progressive=True)
        return output.getvalue()

    best, fits = best_fit(encode, max(picture.size), max_bytes)
    if not fits:
        raise CannotThumbnail(
            f"The smallest thumbnail has {len(best.data):,} bytes; {max_bytes:,} are left in the "
            "message. Shorten the description or the file name."
        )
    width, height = scaled(picture.size, best.side)
    return Thumbnail(best.data, width, height, f"image/{kind.lower()}")


def _kind(picture: Image.Image) -> str:
    """The format to write: JPEG, which every receiver can show, unless it would lose the alpha."""
    if picture.mode == "RGB":
        return "JPEG"
    return "WEBP" if features.check("webp") else "PNG"
