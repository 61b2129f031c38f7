"""Tools for authors of thumbnail generators: read a blob, and find the best encoding that fits.

Only `encode_thumbnail` needs Pillow (`pip install rtm-sync[thumbnails]`).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..blob import Blob
from .contract import CannotThumbnail, Thumbnail

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

LONGEST_SIDE = 480
SHORTEST_SIDE = 16
SIDE_STEP = 0.85

BEST_QUALITY = 85
GOOD_QUALITY = 60
LAST_RESORT_QUALITIES = (45, 30, 15)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One encoding: its bytes, with the longest side and the quality that made them."""

    side: int
    quality: int
    data: bytes


def read_content(blob: Blob, max_bytes: int) -> bytes:
    """All bytes of a blob. A blob of more than `max_bytes` bytes is not opened.

    Raises:
        CannotThumbnail: the blob is empty, larger, or cannot be read.
    """
    if not blob.size:
        raise CannotThumbnail("The blob is empty.")
    if blob.size > max_bytes:
        raise CannotThumbnail(f"The file has {blob.size:,} bytes; the limit is {max_bytes:,}.")
    try:
        with blob.open() as file:
            return file.read(max_bytes)  # the file may have grown since its size was taken
    except (OSError, ValueError) as error:  # ValueError: the blob's file object was closed
        raise CannotThumbnail(f"The blob could not be read: {error}.") from error


def bare_type(content_type: str) -> str:
    """A MIME type in lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def sides(picture_side: int) -> list[int]:
    """The longest sides to try, in pixels: largest first, and not above the picture's own."""
    found = [min(picture_side, LONGEST_SIDE)]
    while (smaller := int(found[-1] * SIDE_STEP)) >= SHORTEST_SIDE:
        found.append(smaller)
    return found


def best_fit(encode: Callable[[int, int], bytes], picture_side: int, max_bytes: int) -> Attempt:
    """The best-looking encoding of at most `max_bytes` bytes.

    The largest size of at most 480 pixels is preferred, with the highest quality from 85 to 60 that
    fits. When quality 60 does not fit, the next size is 15 % smaller. Qualities below 60 are used
    only at the smallest size. (The README of rtm-sync-pillow has the measurements.)

    Args:
        encode: (longest side in pixels, quality) → the encoded picture.
        picture_side: the picture's longest side in pixels.
        max_bytes: the limit in bytes; any number.

    Raises:
        CannotThumbnail: the smallest encoding is larger.
    """

    def attempt(side: int, quality: int) -> Attempt:
        return Attempt(side, quality, encode(side, quality))

    def fits(tried: Attempt) -> bool:
        return len(tried.data) <= max_bytes

    smallest: Attempt | None = None
    for side in sides(picture_side):
        good = attempt(side, GOOD_QUALITY)
        if fits(good):
            best = attempt(side, BEST_QUALITY)
            return best if fits(best) else _highest_quality(attempt, fits, good)
        smallest = good if smallest is None else min(smallest, good, key=_size)
    assert smallest is not None
    for quality in LAST_RESORT_QUALITIES:
        poor = attempt(sides(picture_side)[-1], quality)
        if fits(poor):
            return poor
        smallest = min(smallest, poor, key=_size)
    raise CannotThumbnail(
        f"The smallest thumbnail has {len(smallest.data):,} bytes; {max_bytes:,} are left in the "
        "message. Shorten the description or the file name."
    )


def encode_thumbnail(picture: Picture, max_bytes: int) -> Thumbnail:
    """The best-looking thumbnail of at most `max_bytes` bytes of a Pillow picture.

    It is a JPEG. For a transparent picture it is a WebP, or a PNG where Pillow has no WebP.

    Args:
        picture: an RGB picture, or RGBA when a part is transparent, without metadata.
        max_bytes: the limit in bytes; any number.

    Raises:
        CannotThumbnail: the smallest thumbnail is larger.
        ImportError: Pillow is not installed.
    """
    from PIL import Image

    kind = _kind(picture)
    resized = picture  # kept, because the search tries several qualities at one size

    def encode(side: int, quality: int) -> bytes:
        nonlocal resized
        size = scaled(picture.size, side)
        if resized.size != size:
            resized = picture.resize(size, Image.Resampling.LANCZOS)
        output = io.BytesIO()
        # Encoders ignore unknown options: PNG has no quality, and only JPEG can be progressive.
        resized.save(output, kind, quality=quality, optimize=True, progressive=True)
        return output.getvalue()

    best = best_fit(encode, max(picture.size), max_bytes)
    width, height = scaled(picture.size, best.side)
    return Thumbnail(best.data, width, height, f"image/{kind.lower()}")


def _highest_quality(
    attempt: Callable[[int, int], Attempt], fits: Callable[[Attempt], bool], good: Attempt
) -> Attempt:
    """Bisect between the quality of `good`, which fits, and the best quality, which does not.

    A higher quality may give fewer bytes, but the returned attempt was measured and fits.
    """
    too_much = BEST_QUALITY
    while too_much - good.quality > 1:
        middle = attempt(good.side, (good.quality + too_much) // 2)
        if fits(middle):
            good = middle
        else:
            too_much = middle.quality
    return good


def _size(tried: Attempt) -> int:
    return len(tried.data)


def _kind(picture: Picture) -> str:
    """The format to write: JPEG, which every receiver can show, except for transparent pictures."""
    from PIL import features

    if picture.mode == "RGB":
        return "JPEG"
    return "WEBP" if features.check("webp") else "PNG"


def scaled(size: tuple[int, int], side: int) -> tuple[int, int]:
    """`size` reduced so that its longest side is `side`. It is never enlarged or under 1 pixel."""
    longest = max(size)
    if longest <= side:
        return size
    width, height = (max(1, round(length * side / longest)) for length in size)
    return width, height
