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

    The size is the stored one: an EXIF rotation is not applied. The file must be seekable and at
    its beginning.
    """
    head = file.read(32)
    content_type = sniff_content_type(head)
    try:
        if content_type == "image/png" and head[12:16] == b"IHDR":
            return _positive(*struct.unpack(">II", head[16:24]))
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


def _jpeg(file: BinaryIO) -> tuple[int, int] | None:
    position = 2
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
            return _positive(width, height)
        if kind in (0xD9, 0xDA):  # the end, or pixels before any frame header
            return None
        length = int.from_bytes(marker[2:4], "big")
        if length < 2:
            return None
        position += 2 + length
    return None
