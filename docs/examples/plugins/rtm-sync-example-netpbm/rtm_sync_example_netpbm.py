"""Thumbnails in ten minutes: PNG previews of Netpbm pictures (binary PPM), without a library."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from rtm_sync import Blob, CannotThumbnail, Thumbnail, ThumbnailGenerator, hookimpl
from rtm_sync.thumbnails.encoding import bare_type, read_content

_HEADER = re.compile(rb"P6\s+(\d{1,9})\s+(\d{1,9})\s+255\s")
_MOST_PIXELS = 10_000_000
_MOST_BYTES = 31_000_000
_LONGEST_SIDE = 256


# begin: hook
@hookimpl
def thumbnail() -> ThumbnailGenerator:
    """Implement the hook: return the generator."""
    return NetpbmGenerator()


# end: hook


# begin: generator
class NetpbmGenerator(ThumbnailGenerator):
    """Makes thumbnails by skipping pixels."""

    name = "netpbm"

    def can_handle(self, content_type: str) -> bool:
        return bare_type(content_type) in ("image/x-portable-pixmap", "image/x-portable-anymap")

    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        content = memoryview(read_content(blob, _MOST_BYTES))
        width, height, start = _size_of(content)
        side = _LONGEST_SIDE
        while side >= 1:
            step = max(1, -(-max(width, height) // side))  # rounded up
            rows = list(_rows(content[start:], width, height, step))
            data = _png(rows)
            if len(data) <= max_bytes:
                return Thumbnail(data, len(rows[0]) // 3, len(rows), "image/png")
            side = int(side * 0.7)
        raise CannotThumbnail(f"No PNG fits {max_bytes:,} bytes.")


# end: generator


# begin: reading
def _size_of(content: memoryview) -> tuple[int, int, int]:
    """Width, height, and the position of the pixels. Raises CannotThumbnail for unsafe files."""
    header = _HEADER.match(content[:64])
    if header is None:
        raise CannotThumbnail("It is not a binary PPM picture of 8 bits a colour.")
    width, height = int(header[1]), int(header[2])
    if not 1 <= width * height <= _MOST_PIXELS:
        raise CannotThumbnail(
            f"It has {width:,} x {height:,} pixels; the limit is {_MOST_PIXELS:,} in all."
        )
    if len(content) < header.end() + width * height * 3:
        raise CannotThumbnail("It is cut off: there are fewer pixels than its header says.")
    return width, height, header.end()


def _rows(pixels: memoryview, width: int, height: int, step: int) -> Iterator[bytes]:
    """Every step-th pixel of every step-th row."""
    for y in range(0, height, step):
        row = pixels[y * width * 3 : (y + 1) * width * 3]
        picked = bytearray(-(-width // step) * 3)
        for colour in range(3):
            picked[colour::3] = row[colour :: 3 * step]
        yield bytes(picked)


# end: reading


# begin: png
def _png(rows: list[bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    size = struct.pack(">IIBBBBB", len(rows[0]) // 3, len(rows), 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


# end: png
