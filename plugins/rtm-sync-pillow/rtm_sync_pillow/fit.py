"""The search for the best-looking encoding that fits a budget. No pictures here, only numbers.

The policy, in order of preference: the largest size; at that size the highest quality from 85 to
60; only when 60 does not fit, a size 15 % smaller. Qualities under 60 are a last resort, at the
smallest size. README.md has the measurements behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


def sides(picture_side: int) -> list[int]:
    """Longest sides worth trying, the best first, never above the picture's own."""
    found = [min(picture_side, LONGEST_SIDE)]
    while (smaller := int(found[-1] * SIDE_STEP)) >= SHORTEST_SIDE:
        found.append(smaller)
    return found


def best_fit(
    encode: Callable[[int, int], bytes], picture_side: int, max_bytes: int
) -> tuple[Attempt, bool]:
    """The best attempt of at most `max_bytes`, and True; or the smallest seen, and False.

    Args:
        encode: (longest side, quality) → the encoded picture.
        picture_side: the picture's longest side.
        max_bytes: any number.
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
            return (best if fits(best) else _highest_quality(attempt, fits, good)), True
        smallest = good if smallest is None else min(smallest, good, key=_size)
    assert smallest is not None
    for quality in LAST_RESORT_QUALITIES:
        poor = attempt(sides(picture_side)[-1], quality)
        if fits(poor):
            return poor, True
        smallest = min(smallest, poor, key=_size)
    return smallest, False


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
