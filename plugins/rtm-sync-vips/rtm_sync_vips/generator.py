"""Thumbnails by libvips, which shrinks a picture while it reads it.

libvips supports many formats, some through large libraries. It gets only bytes that begin like one
of the formats below, so its other loaders never read an untrusted file.
"""

from __future__ import annotations

import dataclasses
import threading

import pyvips

from rtm_sync import Blob, CannotThumbnail, Thumbnail, ThumbnailGenerator
from rtm_sync.thumbnails.encoding import LONGEST_SIDE, bare_type, best_fit, read_content

MAX_FILE_BYTES = 32 * 1024 * 1024  # a medium has at most 30 MB
MAX_PIXELS = 120_000_000  # of a picture that is streamed; it takes half a second
MAX_WHOLE_BYTES = 200_000_000  # of a picture decoded as a whole; decoders hold it once or twice
MAX_SCANS = 100  # of a progressive JPEG; most have ten
MAX_CHUNKS = 100_000  # of a PNG; a 30 MB file has 4,000 of the usual 8 KB
MAX_MARKERS = 100_000  # segments and fill bytes before a JPEG's first scan; most have some dozens

# libvips' cache of operations would keep pictures: a gigabyte after ten progressive JPEGs.
pyvips.cache_set_max(0)

_QUARTER_TURNS = (5, 6, 7, 8)  # of EXIF's orientations

_slots = threading.BoundedSemaphore(2)  # pictures decoded at once in this process


@dataclasses.dataclass(frozen=True, slots=True)
class _Format:
    """A picture format that is read.

    Attributes:
        name: the format's name in messages.
        loader: the name of libvips' operation.
        content_types: its MIME types.
        streams: whether it is decoded row by row, unless it is interlaced.
    """

    name: str
    loader: str
    content_types: frozenset[str]
    streams: bool


_JPEG = _Format(
    "JPEG", "jpegload", frozenset({"image/jpeg", "image/jpg", "image/pjpeg", "image/mpo"}), True
)
_PNG = _Format("PNG", "pngload", frozenset({"image/png", "image/apng"}), True)
_GIF = _Format("GIF", "gifload", frozenset({"image/gif"}), False)
_WEBP = _Format("WebP", "webpload", frozenset({"image/webp"}), False)
_TIFF = _Format("TIFF", "tiffload", frozenset({"image/tiff"}), False)

_FORMATS = tuple(
    known
    for known in (_JPEG, _PNG, _GIF, _WEBP, _TIFF)
    if pyvips.type_find("VipsOperation", f"{known.loader}_buffer")
)
CONTENT_TYPES = frozenset[str]().union(*(known.content_types for known in _FORMATS))
"""The MIME types that the installed libvips can handle."""


class VipsGenerator(ThumbnailGenerator):
    """Makes thumbnails of common picture formats, by libvips. Thread-safe; two at once."""

    name = "vips"
    priority = 110  # above Pillow's: measured as fast or faster, in less memory

    def can_handle(self, content_type: str) -> bool:
        """Whether the installed libvips reads the type; its parameters and case are ignored."""
        return bare_type(content_type) in CONTENT_TYPES

    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        """Make the best-looking thumbnail of at most `max_bytes` bytes.

        It is upright, in sRGB and without metadata. Its longest side has at most 480 pixels, and it
        is not larger than the picture. It is a JPEG, or a WebP for a transparent picture.

        Raises:
            CannotThumbnail: the blob is not a picture, is damaged or too large to decode safely, or
                no thumbnail fits.
        """
        content = read_content(blob, MAX_FILE_BYTES)
        try:
            with _slots:
                width, height = _checked_size(content)
                made = _encoded(_small(content), max_bytes)
                return dataclasses.replace(made, picture_width=width, picture_height=height)
        except pyvips.Error as error:
            reason = " ".join(f"{error}".split())
            raise CannotThumbnail(f"The picture is damaged: {reason}.") from error


def _small(content: bytes) -> pyvips.Image:
    """The picture, upright, in sRGB, at most 480 pixels long, in memory."""
    picture = pyvips.Image.thumbnail_buffer(
        content,
        LONGEST_SIDE,
        height=LONGEST_SIDE,
        size="down",
        output_profile="srgb",
        fail_on="error",  # otherwise the missing part of a truncated picture would be grey
    )
    if picture.format != "uchar" or picture.interpretation not in ("srgb", "b-w"):
        picture = picture.colourspace("srgb")
    picture = picture.copy_memory()
    if picture.hasalpha() and picture[picture.bands - 1].min() == 255:
        picture = picture[0 : picture.bands - 1]
    return picture


def _checked_size(content: bytes) -> tuple[int, int]:
    """The picture's upright size in pixels.

    Raises:
        CannotThumbnail: the format is another one, or decoding takes too much memory or time.
    """
    known = _recognised(content)
    if known is _JPEG:
        _check_jpeg(content)
    if known is _PNG:
        _check_png(content)
    header = pyvips.Image.new_from_buffer(content, "", access="sequential")
    width, height = header.width, header.height
    if width * height > MAX_PIXELS:
        raise CannotThumbnail(
            f"The {known.name} claims {width:,} × {height:,} pixels; the limit is {MAX_PIXELS:,}."
        )
    size = width * height * _whole_bytes(known, header)
    if size > MAX_WHOLE_BYTES:
        raise CannotThumbnail(
            f"The {known.name} of {width:,} × {height:,} pixels takes {size:,} bytes to decode; "
            f"the limit is {MAX_WHOLE_BYTES:,}."
        )
    fields = header.get_fields()
    is_turned = "orientation" in fields and header.get("orientation") in _QUARTER_TURNS
    return (height, width) if is_turned else (width, height)


def _whole_bytes(known: _Format, header: pyvips.Image) -> int:
    """Bytes of memory for each pixel; 0 for a picture that is decoded row by row."""
    fields = header.get_fields()
    if "jpeg-multiscan" in fields and header.get("jpeg-multiscan"):
        chroma = header.get("jpeg-chroma-subsample") if "jpeg-chroma-subsample" in fields else ""
        return 3 if chroma == "4:2:0" else 6  # each coefficient has two bytes
    if known.streams and not ("interlaced" in fields and header.get("interlaced")):
        return 0
    return max(4, int(header.bands)) * (2 if header.format in ("ushort", "short") else 1)


def _recognised(content: bytes) -> _Format:
    found: _Format | None = None
    if content.startswith(b"\xff\xd8\xff"):
        found = _JPEG
    elif content.startswith(b"\x89PNG\r\n\x1a\n"):
        found = _PNG
    elif content.startswith((b"GIF87a", b"GIF89a")):
        found = _GIF
    elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        found = _WEBP
    elif content.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        found = _TIFF
    if found not in _FORMATS or found is None:
        names = ", ".join(known.name for known in _FORMATS)
        raise CannotThumbnail(
            f"The blob does not begin like a picture that this libvips reads ({names})."
        )
    return found


def _check_jpeg(content: bytes) -> None:
    """Limit the scans and segments. Each scan decodes the whole picture, even in a short file."""
    if content.count(b"\xff\xda") > MAX_SCANS:
        raise CannotThumbnail(f"The JPEG has more than {MAX_SCANS} scans.")
    position = 2
    for _ in range(MAX_MARKERS):
        if content[position : position + 1] != b"\xff":
            break
        kind = content[position + 1 : position + 2]
        if kind in (b"\xda", b""):
            return
        if kind == b"\xff":  # a fill byte
            position += 1
            continue
        position += 2 + max(2, int.from_bytes(content[position + 2 : position + 4], "big"))
    else:
        raise CannotThumbnail(f"The JPEG's header has more than {MAX_MARKERS:,} parts.")


def _check_png(content: bytes) -> None:
    position = 8  # after the signature
    for _ in range(MAX_CHUNKS):
        if position >= len(content):
            return
        position += 12 + int.from_bytes(content[position : position + 4], "big")
    raise CannotThumbnail(f"The PNG has {MAX_CHUNKS:,} chunks or more.")


def _encoded(picture: pyvips.Image, max_bytes: int) -> Thumbnail:
    alpha = picture.hasalpha()
    resized = picture  # kept, because the search tries several qualities at one size

    def encode(side: int, quality: int) -> bytes:
        nonlocal resized
        if max(resized.width, resized.height) != side:
            resized = picture.thumbnail_image(side, height=side, size="down").copy_memory()
        if alpha:
            return bytes(resized.webpsave_buffer(Q=quality, keep="none"))
        return bytes(
            resized.jpegsave_buffer(Q=quality, keep="none", optimize_coding=True, interlace=True)
        )

    best = best_fit(encode, max(picture.width, picture.height), max_bytes)
    shown = pyvips.Image.new_from_buffer(best.data, "")
    kind = "image/webp" if alpha else "image/jpeg"
    return Thumbnail(best.data, shown.width, shown.height, kind)
