"""The thumbnail generator. A frame is decoded in a separate process (`poster.py`)."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from rtm_sync import Blob, Thumbnail, ThumbnailGenerator
from rtm_sync.thumbnails.encoding import LONGEST_SIDE, bare_type, encode_thumbnail, read_content
from rtm_sync.thumbnails.subprocess import decoded_apart

CONTENT_TYPES = frozenset(
    {
        "video/mp4",
        "video/x-m4v",
        "video/quicktime",
        "video/3gpp",
        "video/3gpp2",
        "video/webm",
        "video/x-matroska",
        "video/matroska",
    }
)
MAX_FILE_BYTES = 32 * 1024 * 1024  # a medium has at most 30 MB

_POSTER = Path(__file__).with_name("poster.py")


class VideoGenerator(ThumbnailGenerator):
    """Makes thumbnails of frames of common video formats, by PyAV. Thread-safe; two at once."""

    name = "video"
    priority = 100

    def can_handle(self, content_type: str) -> bool:
        """Whether the type is a known video format; its parameters and case are ignored."""
        return bare_type(content_type) in CONTENT_TYPES

    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        """Make the best-looking JPEG of at most `max_bytes` bytes of a frame, upright and in sRGB.

        It shows the first frame, or a later one when the first has only one colour. Its longest
        side has at most 480 pixels, and it is not larger than the video.

        Raises:
            CannotThumbnail: the blob is not a known video format, is damaged or too large to decode
                safely, or no thumbnail fits.
        """
        content = read_content(blob, MAX_FILE_BYTES)
        frame = decoded_apart(_POSTER, content, LONGEST_SIDE)
        picture = Image.frombytes("RGB", (frame.width, frame.height), frame.data)
        return encode_thumbnail(picture, max_bytes)
