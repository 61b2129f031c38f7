"""The search for what fits, with a made-up encoder."""

from __future__ import annotations

import unittest

from hypothesis import given
from hypothesis import strategies as st
from rtm_sync_pillow.fit import BEST_QUALITY, GOOD_QUALITY, best_fit, sides


def encode(side: int, quality: int) -> bytes:
    """As many bytes as pixels × quality would suggest."""
    return bytes(100 + side * side * quality // 400)


class FitTest(unittest.TestCase):
    def test_everything_fits_so_nothing_is_given_up(self) -> None:
        best, fits = best_fit(encode, 5000, 10**6)
        self.assertEqual((best.side, best.quality, fits), (480, BEST_QUALITY, True))

    def test_quality_gives_way_before_size(self) -> None:
        best, _ = best_fit(encode, 5000, len(encode(480, 70)))
        self.assertEqual((best.side, best.quality), (480, 70))

    def test_size_gives_way_where_quality_would_drop_under_60(self) -> None:
        best, _ = best_fit(encode, 5000, len(encode(480, GOOD_QUALITY)) - 1)
        self.assertEqual(best.side, 408)
        self.assertGreater(best.quality, GOOD_QUALITY)

    def test_poor_quality_is_the_last_resort_at_the_smallest_size(self) -> None:
        smallest = sides(480)[-1]
        best, fits = best_fit(encode, 480, len(encode(smallest, 30)))
        self.assertEqual((best.side, best.quality, fits), (smallest, 30, True))

    def test_when_nothing_fits_the_smallest_is_named(self) -> None:
        best, fits = best_fit(encode, 480, 1)
        self.assertFalse(fits)
        self.assertEqual(len(best.data), len(encode(sides(480)[-1], 15)))

    @given(st.integers(1, 70_000))
    def test_sides_shrink_and_never_exceed_the_picture(self, picture_side: int) -> None:
        found = sides(picture_side)
        self.assertEqual(found[0], min(picture_side, 480))
        self.assertEqual(found, sorted(set(found), reverse=True))

    @given(st.integers(1, 2000), st.integers(-5, 50_000))
    def test_what_is_said_to_fit_fits_even_when_sizes_are_erratic(
        self, picture_side: int, max_bytes: int
    ) -> None:
        def erratic(side: int, quality: int) -> bytes:
            return bytes(hash((side, quality, picture_side)) % 60_000)

        best, fits = best_fit(erratic, picture_side, max_bytes)
        self.assertEqual(fits, len(best.data) <= max_bytes)
