"""The thumbnail generator: has the first page drawn (`page.py`, in a process of its own)."""

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
    """First pages of PDF documents by PDFium. Thread-safe; two at once."""

    name = "pdf"
    priority = 100

    def can_handle(self, content_type: str) -> bool:
        """Whether it is PDF; parameters and case do not count."""
        return bare_type(content_type) in CONTENT_TYPES

    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        """The best-looking JPEG of at most `max_bytes` that shows the first page, on white paper.

        At most 480 pixels on its longest side.

        Raises:
            CannotThumbnail: not a PDF, damaged, locked, too costly to draw, or none fits.
        """
        content = read_content(blob, MAX_FILE_BYTES)
        page = decoded_apart(_PAGE, content, LONGEST_SIDE)
        picture = Image.frombytes("RGB", (page.width, page.height), page.data)
        return encode_thumbnail(picture, max_bytes)
