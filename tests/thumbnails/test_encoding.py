"""What generators share: the search for what fits, with a made-up encoder; reading blobs."""

from __future__ import annotations

import contextlib
import io
import unittest

from hypothesis import given
from hypothesis import strategies as st

from rtm_sync import Blob, CannotThumbnail
from rtm_sync.thumbnails.encoding import (
    BEST_QUALITY,
    GOOD_QUALITY,
    bare_type,
    best_fit,
    read_content,
    sides,
)


def encode(side: int, quality: int) -> bytes:
    """As many bytes as pixels × quality would suggest."""
    return bytes(100 + side * side * quality // 400)


class FitTest(unittest.TestCase):
    def test_everything_fits_so_nothing_is_given_up(self) -> None:
        best = best_fit(encode, 5000, 10**6)
        self.assertEqual((best.side, best.quality), (480, BEST_QUALITY))

    def test_quality_gives_way_before_size(self) -> None:
        best = best_fit(encode, 5000, len(encode(480, 70)))
        self.assertEqual((best.side, best.quality), (480, 70))

    def test_size_gives_way_where_quality_would_drop_under_60(self) -> None:
        best = best_fit(encode, 5000, len(encode(480, GOOD_QUALITY)) - 1)
        self.assertEqual(best.side, 408)
        self.assertGreater(best.quality, GOOD_QUALITY)

    def test_poor_quality_is_the_last_resort_at_the_smallest_size(self) -> None:
        smallest = sides(480)[-1]
        best = best_fit(encode, 480, len(encode(smallest, 30)))
        self.assertEqual((best.side, best.quality), (smallest, 30))

    def test_when_nothing_fits_the_smallest_is_named(self) -> None:
        smallest = len(encode(sides(480)[-1], 15))
        with self.assertRaisesRegex(CannotThumbnail, f"has {smallest:,} bytes; 1 are left"):
            best_fit(encode, 480, 1)

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

        with contextlib.suppress(CannotThumbnail):
            self.assertLessEqual(len(best_fit(erratic, picture_side, max_bytes).data), max_bytes)


class ReadTest(unittest.TestCase):
    def test_a_file_over_the_limit_is_not_even_opened(self) -> None:
        def opened() -> io.BytesIO:
            raise AssertionError("opened")

        blob = Blob(opened, 11, "", "image/png")
        with self.assertRaisesRegex(CannotThumbnail, "has 11 bytes; the limit is 10"):
            read_content(blob, 10)

    def test_what_grew_since_is_cut(self) -> None:
        blob = Blob(lambda: io.BytesIO(b"x" * 100), 10, "", "image/png")
        self.assertEqual(read_content(blob, 10), b"x" * 10)

    def test_types_are_compared_without_case_and_parameters(self) -> None:
        self.assertEqual(bare_type(" Image/PNG ; q=1"), "image/png")
