"""From untrusted bytes to a small, upright sRGB picture, in bounded memory and time.

The first bytes decide the format, not a name. Pillow's format classes are called directly and not
through `Image.open`: that warns about large pictures, which cannot be silenced for one thread only,
and it would try formats that are not checked here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from rtm_sync import CannotThumbnail
from rtm_sync.thumbnails.encoding import scaled

from .jpeg_scans import read_jpeg_scans

try:
    from PIL import ImageCms
except ImportError:  # Pillow may be built without LittleCMS
    ImageCms = None  # type: ignore[assignment]

MAX_FILE_BYTES = 32 * 1024 * 1024  # a medium has at most 30 MB; some decoders hold it twice
MAX_SIDE = 65_535  # more than any camera or scanner makes
MAX_JPEG_SCANS = 100  # most progressive JPEGs have ten
MAX_JPEG_STEPS = 100_000  # most files have some dozens
MAX_JPEG_WORK = 4_000_000_000  # buffered bytes × scans; takes 1.2 seconds
MAX_JPEG_BUFFER = 200_000_000  # bytes; 67 MP of progressive 4:2:0, 33 MP of 4:4:4
MAX_RLE_BMP_BYTES = 2 * 1024 * 1024  # Pillow decodes these in Python: a second for each 2 MB

MAX_PNG_CHUNKS = 100_000  # a 30 MB file has 4,000 of the usual 8 KB; Pillow walks them in Python

_BAND_PIXELS = 1_000_000


@dataclass(frozen=True, slots=True)
class _Format:
    """A picture format that is read.

    Attributes:
        name: the format's name in messages.
        content_types: its MIME types.
        open: reads the header.
        max_pixels: the limit with which decoding takes less than 300 MB; measured, see README.md.
    """

    name: str
    content_types: frozenset[str]
    open: Callable[[io.BytesIO], ImageFile.ImageFile]
    max_pixels: int


def _avif() -> _Format | None:
    if not features.check("avif"):
        return None
    from PIL import AvifImagePlugin

    return _Format("AVIF", frozenset({"image/avif"}), AvifImagePlugin.AvifImageFile, 12_500_000)


def _heic() -> _Format | None:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:  # an extra of this distribution, because its decoder has 10 MB
        return None
    return _Format(
        "HEIC",
        frozenset({"image/heic", "image/heif"}),
        HeifImageFile,
        25_000_000,
    )


_JPEG = _Format(
    "JPEG",
    frozenset({"image/jpeg", "image/jpg", "image/pjpeg", "image/mpo"}),
    JpegImagePlugin.JpegImageFile,
    120_000_000,
)
_PNG = _Format(
    "PNG", frozenset({"image/png", "image/apng"}), PngImagePlugin.PngImageFile, 50_000_000
)
_GIF = _Format("GIF", frozenset({"image/gif"}), GifImagePlugin.GifImageFile, 50_000_000)
_BMP = _Format(
    "BMP", frozenset({"image/bmp", "image/x-ms-bmp"}), BmpImagePlugin.BmpImageFile, 50_000_000
)
# A strip may be the whole picture, and the rotation copies it: three pictures in memory.
_TIFF = _Format("TIFF", frozenset({"image/tiff"}), TiffImagePlugin.TiffImageFile, 20_000_000)
# The decoder keeps two canvases and returns a third one; the picture is the fourth.
_WEBP = _Format("WebP", frozenset({"image/webp"}), WebPImagePlugin.WebPImageFile, 12_500_000)
_AVIF = _avif()
_HEIC = _heic()

CONTENT_TYPES = frozenset[str]().union(
    *(
        known.content_types
        for known in (_JPEG, _PNG, _GIF, _BMP, _TIFF, _WEBP, _AVIF, _HEIC)
        if known is not None
    )
)
"""The MIME types that `read_picture()` can handle with the installed Pillow."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = (5, 6, 7, 8)


def read_picture(data: bytes, side: int) -> tuple[Image.Image, tuple[int, int]]:
    """The picture in `data`, upright, in sRGB, with its longest side at most `side` pixels.

    Returns:
        An RGB image without metadata, or RGBA when a part is transparent; and the upright size of
        the picture in `data`.

    Raises:
        CannotThumbnail: the data is not a picture, or it is too large to decode safely.
        Exception: the picture is damaged; Pillow's decoders raise many types of exceptions.
    """
    known = _recognise(data)
    if known is _WEBP:  # opening it allocates its canvas, so check the size before
        _check_size(known, _webp_size(data))
    if known is _JPEG:
        _check_jpeg(data)
    if known is _PNG:
        _check_png(data)
    image = known.open(io.BytesIO(data))
    _check_size(known, image.size)
    width, height = image.size  # `draft` changes it
    if known is _JPEG:
        image.draft(image.mode, scaled(image.size, 2 * side))
    if (
        known is _BMP
        and image.tile
        and image.tile[0][0] == "bmp_rle"
        and len(data) > MAX_RLE_BMP_BYTES
    ):
        raise CannotThumbnail(
            f"The run-length BMP has {len(data):,} bytes; the limit is {MAX_RLE_BMP_BYTES:,}."
        )
    image.load()
    orientation = _orientation(image)
    turn = _UPRIGHT.get(orientation)
    profile = image.info.get("icc_profile")
    small = _shrunk(image, side)
    small = _as_srgb(small, profile)
    size = (height, width) if orientation in _QUARTER_TURNS else (width, height)
    return small if turn is None else small.transpose(turn), size


def _recognise(data: bytes) -> _Format:
    known: _Format | None = None
    if data.startswith(b"\xff\xd8\xff"):
        known = _JPEG
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        known = _PNG
    elif data.startswith((b"GIF87a", b"GIF89a")):
        known = _GIF
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        known = _WEBP
    elif data.startswith(b"BM"):
        known = _BMP
    elif data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        known = _TIFF
    elif data[4:8] == b"ftyp":
        known = _of_brands(data)
    if known is None:
        raise CannotThumbnail(
            "The blob does not begin like a picture that this Pillow reads (JPEG, PNG, GIF, WebP, "
            f"BMP, TIFF{', AVIF' if _AVIF else ''}{', HEIC' if _HEIC else ''})."
        )
    return known


def _of_brands(data: bytes) -> _Format | None:
    """The format of an ISO media file: the brands distinguish AVIF and HEIC."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    if brands & {b"avif", b"avis"}:
        return _AVIF
    return _HEIC if brands & {b"heic", b"heix", b"heim", b"heis", b"mif1"} else None


def _check_size(known: _Format, size: tuple[int, int]) -> None:
    width, height = size
    if min(size) < 1:
        raise CannotThumbnail(f"The {known.name} claims {width} × {height} pixels.")
    if max(size) > MAX_SIDE:
        raise CannotThumbnail(
            f"The {known.name} claims {width:,} × {height:,} pixels; the limit is {MAX_SIDE:,} "
            "on a side."
        )
    if width * height > known.max_pixels:
        raise CannotThumbnail(
            f"The {known.name} claims {width:,} × {height:,} pixels; the limit is "
            f"{known.max_pixels:,} in all, to decode it in bounded memory."
        )


def _check_jpeg(data: bytes) -> None:
    cost = read_jpeg_scans(data, MAX_JPEG_SCANS, MAX_JPEG_STEPS)
    if cost.scans > MAX_JPEG_SCANS or cost.scans * cost.buffered_bytes > MAX_JPEG_WORK:
        raise CannotThumbnail(f"The JPEG has too many scans: {cost.scans} or more.")
    if cost.steps > MAX_JPEG_STEPS:
        raise CannotThumbnail(f"The JPEG's header has more than {MAX_JPEG_STEPS:,} parts.")
    if cost.buffered_bytes > MAX_JPEG_BUFFER:
        raise CannotThumbnail(
            f"The progressive JPEG needs {cost.buffered_bytes:,} bytes to decode; the limit is "
            f"{MAX_JPEG_BUFFER:,}."
        )


def _check_png(data: bytes) -> None:
    position = 8  # after the signature
    for _ in range(MAX_PNG_CHUNKS):
        if position >= len(data):
            return
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    raise CannotThumbnail(f"The PNG has {MAX_PNG_CHUNKS:,} chunks or more.")


def _webp_size(data: bytes) -> tuple[int, int]:
    """The canvas size that the first chunk of a WebP declares."""
    kind = data[12:16]
    if len(data) >= 30 and kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if len(data) >= 30 and kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if len(data) >= 25 and kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise CannotThumbnail("The WebP is cut off, or its first chunk is not a picture.")


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a picture with damaged EXIF is still usable
        return 1
    return found if isinstance(found, int) else 1


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    """`image` in one of the plain modes, reduced to `side`.

    It works in bands: converting a whole large picture (and premultiplying it, for transparency)
    would need two or three copies of it.
    """
    width, height = image.size
    factor = max(1, max(image.size) // (2 * side))  # the final resampling needs twice the size
    lowest, highest = _range(image)
    rows = max(1, _BAND_PIXELS // (width * factor)) * factor
    reduced: Image.Image | None = None
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        plain = _plain(band, lowest, highest)
        if factor > 1:
            plain = plain.reduce(factor)
        if reduced is None:
            reduced = Image.new(plain.mode, (plain.width, -(-height // factor)))
        reduced.paste(plain, (0, top // factor))
    assert reduced is not None  # a picture has at least one row
    return reduced.resize(scaled(image.size, side), Image.Resampling.LANCZOS)


def _range(image: Image.Image) -> tuple[float, float]:
    """The levels of black and white in a grey picture of more than eight bits."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return 0, 65_535
    if image.mode in ("I", "F"):  # 32-bit and float pictures do not define a level of white
        low, high = image.getextrema()
        if isinstance(low, (int, float)) and isinstance(high, (int, float)):
            return low, high
    return 0, 255


def _plain(band: Image.Image, lowest: float, highest: float) -> Image.Image:
    """`band` in a plain mode (L, RGB, CMYK, LA or RGBA), which can be shrunk and has profiles."""
    mode = band.mode
    if mode.startswith(("I", "F")):
        scale = 255 / (highest - lowest) if highest > lowest else 0.0
        grey = band.convert("F").point(lambda value: value * scale - lowest * scale)
        return grey.convert("L")
    if mode in ("LA", "RGBA", "CMYK"):
        return band
    if mode in ("PA", "La", "RGBa") or "transparency" in band.info:
        return band.convert("RGBA")
    if mode == "1":
        return band.convert("L")
    return band if mode in ("L", "RGB") else band.convert("RGB")


def _as_srgb(image: Image.Image, profile: object) -> Image.Image:
    """`image` as RGB, or RGBA when a part is transparent, by its profile if that is valid."""
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    colours = image.convert(image.mode.removesuffix("A")) if alpha else image
    colours = _by_profile(colours, profile) or colours.convert("RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        colours.putalpha(alpha)
    colours.info.clear()  # otherwise comments and profiles would be saved with the thumbnail
    return colours


def _by_profile(image: Image.Image, profile: object) -> Image.Image | None:
    """`image` converted from its embedded ICC profile to sRGB; None when that fails."""
    if ImageCms is None or not isinstance(profile, bytes):
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted: Image.Image | None = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        return converted
    except Exception:  # a damaged or wrong profile: use the colours without it
        return None
    return converted
