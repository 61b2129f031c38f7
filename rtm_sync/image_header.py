"""The content type of a file, and the size of an image, from the first bytes.

Reads headers only, never pixels. Every byte is treated as hostile: an invalid header means that the
type or the size is unknown.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

_JPEG_SCAN_LIMIT = 4 * 1024 * 1024
"""Bytes that are searched for a JPEG's frame header; EXIF, ICC and previews come before it."""

_JPEG_MARKER_LIMIT = 10_000
"""The most markers that are skipped; four megabytes of fill bytes would take seconds."""

_PNG_CHUNK_LIMIT = 1_000
"""The most chunks that are skipped before a PNG's pixels."""

_EXIF_LIMIT = 64 * 1024
_ORIENTATION = 0x0112  # the tag
_SHORT = 3  # its type: 16 bits

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
)


def sniff_content_type(head: bytes) -> str | None:
    """The MIME type of a file with these first bytes (16 are enough), or None."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":  # reserved; text begins with BM as well
        return "image/bmp"
    for signature, content_type in _SIGNATURES:
        if head.startswith(signature):
            return content_type
    return None


def image_dimensions(file: BinaryIO) -> tuple[int, int] | None:
    """The width and height in pixels of a JPEG, PNG, BMP, GIF or WebP, or None.

    The size is the upright one, which a browser reports: the sides of a JPEG or PNG that its EXIF
    orientation turns by a quarter are exchanged. Like browsers, this ignores EXIF data behind the
    pixels, where WebP has them. The file must be seekable and at its beginning.
    """
    head = file.read(32)
    content_type = sniff_content_type(head)
    try:
        if content_type == "image/png" and head[12:16] == b"IHDR":
            size = _positive(*struct.unpack(">II", head[16:24]))
            return _turned(size) if _png_is_turned(file) else size
        if content_type == "image/gif":
            return _positive(*struct.unpack("<HH", head[6:10]))
        if content_type == "image/bmp":
            return _bmp(head)
        if content_type == "image/webp":
            return _webp(head)
        if content_type == "image/jpeg":
            return _jpeg(file)
    except struct.error:  # the header is incomplete
        pass
    return None


def _positive(width: int, height: int) -> tuple[int, int] | None:
    return (width, height) if width > 0 and height > 0 else None


def _turned(size: tuple[int, int] | None) -> tuple[int, int] | None:
    return size and (size[1], size[0])


def _bmp(head: bytes) -> tuple[int, int] | None:
    (header_size,) = struct.unpack("<I", head[14:18])
    if header_size == 12:  # BITMAPCOREHEADER
        return _positive(*struct.unpack("<HH", head[18:22]))
    if header_size < 40:
        return None
    width, height = struct.unpack("<ii", head[18:26])
    return _positive(width, abs(height))  # a negative height stores the rows top down


def _webp(head: bytes) -> tuple[int, int] | None:
    kind = head[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(head[24:27], "little") + 1
        height = int.from_bytes(head[27:30], "little") + 1
        return _positive(width, height) if len(head) >= 30 else None
    if kind == b"VP8L" and head[20:21] == b"\x2f":
        (bits,) = struct.unpack("<I", head[21:25])
        return _positive((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", head[26:30])
        return _positive(width & 0x3FFF, height & 0x3FFF)
    return None


def _png_is_turned(file: BinaryIO) -> bool:
    """Whether a PNG has a chunk eXIf before its pixels that turns it by a quarter."""
    position = 8  # after the signature
    for _ in range(_PNG_CHUNK_LIMIT):
        file.seek(position)
        header = file.read(8)
        length, kind = int.from_bytes(header[:4], "big"), header[4:]
        if kind == b"eXIf":
            return _exif_turns(file.read(min(length, _EXIF_LIMIT)))
        if kind in (b"IDAT", b"IEND", b""):
            break
        position += 12 + length
    return False


def _exif_turns(exif: bytes) -> bool:
    """Whether EXIF data turn the picture by a quarter: orientations 5 to 8."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return False
    try:
        (offset,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, offset)
        for number in range(count):
            at = offset + 2 + 12 * number
            tag, kind, values, value = struct.unpack_from(f"{order}HHIH", exif, at)
            if tag == _ORIENTATION:
                return (kind, values) == (_SHORT, 1) and value in (5, 6, 7, 8)
    except struct.error:  # cut off, or an offset beyond the end
        pass
    return False


def _jpeg(file: BinaryIO) -> tuple[int, int] | None:
    position = 2
    is_turned: bool | None = None  # None until there are EXIF data; the first ones count
    for _ in range(_JPEG_MARKER_LIMIT):
        if position >= _JPEG_SCAN_LIMIT:
            break
        file.seek(position)
        marker = file.read(4)
        if len(marker) < 4 or marker[0] != 0xFF:
            return None
        kind = marker[1]
        if kind == 0xFF:  # fill byte
            position += 1
            continue
        if kind == 0x01 or 0xD0 <= kind <= 0xD8:  # markers without a body
            position += 2
            continue
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # a start of frame
            height, width = struct.unpack(">HH", file.read(5)[1:])
            size = _positive(width, height)
            return _turned(size) if is_turned else size
        if kind in (0xD9, 0xDA):  # the end, or pixels before any frame header
            return None
        length = int.from_bytes(marker[2:4], "big")
        if length < 2:
            return None
        if kind == 0xE1 and is_turned is None:
            segment = file.read(length - 2)
            if segment.startswith(b"Exif\0\0"):
                is_turned = _exif_turns(segment[6:])
        position += 2 + length
    return None
