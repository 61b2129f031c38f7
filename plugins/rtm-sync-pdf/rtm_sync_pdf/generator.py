"""The thumbnail generator. The first page is drawn in a separate process (`page.py`)."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from rtm_sync import Blob, Thumbnail, ThumbnailGenerator
from rtm_sync.thumbnails.encoding import LONGEST_SIDE, bare_type, encode_thumbnail, read_content
from rtm_sync.thumbnails.subprocess import decoded_apart

CONTENT_TYPES = frozenset({"application/pdf", "application/x-pdf"})
MAX_FILE_BYTES = 32 * 1024 * 1024  # a medium has at most 30 MB

_PAGE = Path(__file__).with_name("page.py")


class PdfGenerator(ThumbnailGenerator):
    """Makes thumbnails of the first pages of PDF documents, by PDFium. Thread-safe; two at once."""

    name = "pdf"
    priority = 100

    def can_handle(self, content_type: str) -> bool:
        """Whether the type is PDF; its parameters and case are ignored."""
        return bare_type(content_type) in CONTENT_TYPES

    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        """Make the best-looking JPEG of at most `max_bytes` bytes of the first page, on white.

        Its longest side has at most 480 pixels.

        Raises:
            CannotThumbnail: the blob is not a PDF, is damaged or locked, takes too much time or
                memory to draw, or no thumbnail fits.
        """
        content = read_content(blob, MAX_FILE_BYTES)
        page = decoded_apart(_PAGE, content, LONGEST_SIDE)
        picture = Image.frombytes("RGB", (page.width, page.height), page.data)
        return encode_thumbnail(picture, max_bytes)
