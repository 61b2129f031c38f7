"""For authors of thumbnail generators: reading a blob, and the best encoding that fits a budget.

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
    """One encoding: its bytes, and what they were made with."""

    side: int
    quality: int
    data: bytes


def read_content(blob: Blob, max_bytes: int) -> bytes:
    """All bytes of a blob; opened only when there are at most so many.

    Raises:
        CannotThumbnail: it is empty, larger, or cannot be read.
    """
    if not blob.size:
        raise CannotThumbnail("The blob is empty.")
    if blob.size > max_bytes:
        raise CannotThumbnail(f"The file has {blob.size:,} bytes; the limit is {max_bytes:,}.")
    try:
        with blob.open() as file:
            return file.read(max_bytes)  # the file may have grown since
    except (OSError, ValueError) as error:  # ValueError: the file object behind it was closed
        raise CannotThumbnail(f"The blob could not be read: {error}.") from error


def bare_type(content_type: str) -> str:
    """A MIME type in lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def sides(picture_side: int) -> list[int]:
    """Longest sides worth trying, the best first, never above the picture's own."""
    found = [min(picture_side, LONGEST_SIDE)]
    while (smaller := int(found[-1] * SIDE_STEP)) >= SHORTEST_SIDE:
        found.append(smaller)
    return found


def best_fit(encode: Callable[[int, int], bytes], picture_side: int, max_bytes: int) -> Attempt:
    """The best-looking encoding of at most `max_bytes`.

    In order of preference: the largest size, 480 pixels at most; at that size the highest quality
    from 85 to 60; only when 60 does not fit, a size 15 % smaller. Qualities under 60 are a last
    resort, at the smallest size. (Measured, in the README of rtm-sync-pillow.)

    Args:
        encode: (longest side, quality) → the encoded picture.
        picture_side: the picture's longest side.
        max_bytes: any number.

    Raises:
        CannotThumbnail: not even the smallest fits.
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
    """The best-looking thumbnail of at most `max_bytes` of a picture that Pillow has.

    A JPEG; where the picture is transparent a WebP (a PNG where Pillow has no WebP).

    Args:
        picture: RGB, or RGBA when some of it is transparent, without metadata.
        max_bytes: any number.

    Raises:
        CannotThumbnail: none fits. ImportError: Pillow is not installed.
    """
    from PIL import Image

    kind = _kind(picture)
    resized = picture  # the search asks for one side several times in a row

    def encode(side: int, quality: int) -> bytes:
        nonlocal resized
        size = scaled(picture.size, side)
        if resized.size != size:
            resized = picture.resize(size, Image.Resampling.LANCZOS)
        output = io.BytesIO()
        # Each encoder takes what it knows: PNG has no quality, only JPEG can be progressive.
        resized.save(output, kind, quality=quality, optimize=True, progressive=True)
        return output.getvalue()

    best = best_fit(encode, max(picture.size), max_bytes)
    width, height = scaled(picture.size, best.side)
    return Thumbnail(best.data, width, height, f"image/{kind.lower()}")


def _highest_quality(
    attempt: Callable[[int, int], Attempt], fits: Callable[[Attempt], bool], good: Attempt
) -> Attempt:
    """Bisect between `good`, which fits, and the best quality, which does not.

    Sizes do not grow strictly with quality; whatever is returned was seen to fit.
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
    """The format to write: JPEG, which every receiver can show, unless it would lose the alpha."""
    from PIL import features

    if picture.mode == "RGB":
        return "JPEG"
    return "WEBP" if features.check("webp") else "PNG"


def scaled(size: tuple[int, int], side: int) -> tuple[int, int]:
    """`size` with its longest side brought down to `side`; never up, never under one pixel."""
    longest = max(size)
    if longest <= side:
        return size
    width, height = (max(1, round(length * side / longest)) for length in size)
    return width, height
