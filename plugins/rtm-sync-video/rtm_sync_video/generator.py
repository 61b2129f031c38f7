"""The thumbnail generator: has a frame decoded (`poster.py`, in a process of its own)."""

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
    """Poster frames of the common kinds of video by PyAV. Thread-safe; two at once."""

    name = "video"
    priority = 100

    def can_handle(self, content_type: str) -> bool:
        """Whether it is video of a kind we read; parameters and case do not count."""
        return bare_type(content_type) in CONTENT_TYPES

    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        """The best-looking JPEG of at most `max_bytes` that shows a frame: upright, in sRGB.

        The first frame, or one further on where that is all of one colour. At most 480 pixels on
        its longest side and never larger than the video.

        Raises:
            CannotThumbnail: not such a video, damaged, too large to decode safely, or none fits.
        """
        content = read_content(blob, MAX_FILE_BYTES)
        frame = decoded_apart(_POSTER, content, LONGEST_SIDE)
        picture = Image.frombytes("RGB", (frame.width, frame.height), frame.data)
        return encode_thumbnail(picture, max_bytes)
