"""Pictures for tests of thumbnails, good and hostile, made by Pillow. Importing needs no Pillow."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

Colour = tuple[int, int, int]
RED, GREEN, BLUE, WHITE = (220, 20, 20), (20, 200, 20), (20, 20, 220), (250, 250, 250)

CONTENT_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
}
"""The formats by Pillow's names for them, and their content types."""

WITH_EXIF = ("JPEG", "PNG", "WEBP", "TIFF")
"""Of those, the ones that Pillow writes with an EXIF orientation."""

_TURNED = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
"""EXIF orientation → `Image.Transpose` that stores a picture so."""


def quarters(width: int = 600, height: int = 400) -> Image.Image:
    """Red, green, blue and white quarters, different in each rotation and mirroring."""
    from PIL import Image

    picture = Image.new("RGB", (width, height), RED)
    picture.paste(GREEN, (width // 2, 0, width, height // 2))
    picture.paste(BLUE, (0, height // 2, width // 2, height))
    picture.paste(WHITE, (width // 2, height // 2, width, height))
    return picture


def photograph(width: int, height: int) -> Image.Image:
    """Gradients and grain, which compress about as well as a photograph."""
    from PIL import Image, ImageChops

    sky = Image.linear_gradient("L").resize((width, height))
    grain = Image.effect_noise((width, height), 20)
    return ImageChops.overlay(
        Image.merge("RGB", (sky, ImageChops.invert(sky), sky)),
        Image.merge("RGB", (grain, grain, grain)),
    )


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The picture as a file; `kind` and options are Pillow's."""
    output = io.BytesIO()
    picture.save(output, kind, **options)
    return output.getvalue()


def turned(kind: str, orientation: int) -> bytes:
    """The quarters, stored so that they are upright only by the EXIF orientation (1 to 8)."""
    from PIL import Image

    turn = _TURNED[orientation]
    picture = quarters() if turn is None else quarters().transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture, kind, exif=exif)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png_of(width: int, height: int, rows: int | None = None) -> bytes:
    """A black PNG of that size with the data of only `rows` rows; of all when not given."""
    rows = height if rows is None else rows
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    line = 1 + 3 * width
    together = max(1, min(rows, 10_000_000 // line))
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(together * line)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, wbits=-15)
    last = rest.compress(bytes(rows % together * line)) + rest.flush()
    size = rows * line
    checksum = struct.pack(">HH", size % 65_521, 1)  # Adler-32 of so many zeros
    packed = b"\x78\xda" + block * (rows // together) + last + checksum
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", packed)
        + png_chunk(b"IEND", b"")
    )


def with_jpeg_size(data: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its frame header."""
    at = next(data.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data)
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def hostile() -> dict[str, tuple[str, bytes]]:
    """Files made to cost memory or time: description → content type and bytes."""
    from PIL import Image

    grey = Image.new("L", (64, 64))
    gif = bytearray(encoded(grey, "GIF"))
    gif[6:10] = struct.pack("<HH", 60_000, 60_000)
    progressive = encoded(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    last = progressive.rindex(b"\xff\xda")
    return {
        "a PNG of 2.5 gigapixels, all of them": ("image/png", png_of(50_000, 50_000, 2_000)),
        "a PNG of 1 × 100,000 pixels": ("image/png", png_of(1, 100_000)),
        "a PNG of 100,000 × 1 pixels": ("image/png", png_of(100_000, 1)),
        "a PNG of 121 megapixels that packs well": ("image/png", png_of(11_000, 11_000)),
        "a JPEG of 60,000 × 60,000": (
            "image/jpeg",
            with_jpeg_size(encoded(grey, "JPEG"), 60_000, 60_000),
        ),
        "a progressive JPEG of 60,000 × 60,000": (
            "image/jpeg",
            with_jpeg_size(progressive, 60_000, 60_000),
        ),
        "a JPEG of 5,000 scans": (
            "image/jpeg",
            progressive[:last] + progressive[last:-2] * 5_000 + progressive[-2:],
        ),
        "a JPEG of nothing but fill bytes": ("image/jpeg", b"\xff\xd8" + b"\xff" * 12_000_000),
        "a GIF of 60,000 × 60,000": ("image/gif", bytes(gif)),
        "a PNG of two million chunks": (
            "image/png",
            encoded(grey, "PNG")[:33] + png_chunk(b"vpAg", b"") * 2_000_000,
        ),
    }
