"""Picture headers: written by Pillow, truncated anywhere, and of random bytes."""

from __future__ import annotations

import io
import struct
import unittest
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from rtm_sync.image_header import image_dimensions, sniff_content_type
from rtm_sync.testing.pictures import turned
from tests.support import Stopwatch

WIDTH, HEIGHT = 321, 123
NOISE = Image.effect_noise((WIDTH, HEIGHT), 90).convert("RGB")

# Format → Pillow's options for it.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "baseline JPEG": ("JPEG", {}),
    "progressive JPEG": ("JPEG", {"progressive": True}),
    "grey optimised JPEG": ("JPEG", {"optimize": True, "mode": "L"}),
    "JPEG with restart markers": ("JPEG", {"restart_marker_rows": 1}),
    "progressive JPEG with large EXIF and ICC": (
        "JPEG",
        {
            "progressive": True,
            "exif": b"Exif\0\0" + b"\xff\xc0\xff\xd9" * 15_000,
            "icc_profile": b"\xff\xc0" * 60_000,
        },
    ),
    "PNG": ("PNG", {}),
    "palette PNG": ("PNG", {"mode": "P"}),
    "PNG with alpha": ("PNG", {"mode": "RGBA"}),
    "GIF": ("GIF", {"mode": "P"}),
    "BMP": ("BMP", {}),
    "palette BMP": ("BMP", {"mode": "P"}),
    "lossy WebP": ("WEBP", {"quality": 40}),
    "lossless WebP": ("WEBP", {"lossless": True}),
    "lossy WebP with alpha": ("WEBP", {"mode": "RGBA"}),
    "WebP with EXIF": ("WEBP", {"exif": b"Exif\0\0" + b"x" * 100}),
    "animated WebP": ("WEBP", {"save_all": True, "append_images": [NOISE.rotate(90)]}),
}
CONTENT_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "WEBP": "image/webp",
}


def encoded(name: str) -> bytes:
    form, options = VARIANTS[name]
    options = dict(options)
    picture = NOISE.convert(options.pop("mode", "RGB"))
    if picture.mode == "RGBA":
        picture.putalpha(100)
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


PICTURES = {name: encoded(name) for name in VARIANTS}


def dimensions(data: bytes) -> tuple[int, int] | None:
    return image_dimensions(io.BytesIO(data))


class DimensionsTest(unittest.TestCase):
    def test_every_format_that_pillow_writes_is_measured(self) -> None:
        for name, data in PICTURES.items():
            with self.subTest(name):
                self.assertEqual(dimensions(data), (WIDTH, HEIGHT))

    def test_turned_pictures_have_the_upright_size_of_a_browser(self) -> None:
        for kind in ("JPEG", "PNG", "WEBP"):
            for orientation in range(1, 9):
                with self.subTest(kind, orientation=orientation):
                    data = turned(kind, orientation)
                    with Image.open(io.BytesIO(data)) as picture:
                        stored = picture.size
                    # A WebP has its EXIF data behind its pixels, where no browser looks.
                    self.assertEqual(dimensions(data), stored if kind == "WEBP" else (600, 400))

    def test_other_exif_data_turn_nothing(self) -> None:
        def entry(order: str, tag: int, kind: int, count: int, value: int) -> bytes:
            head = b"II*\0" if order == "<" else b"MM\0*"
            return head + struct.pack(f"{order}IHHHIHHI", 8, 1, tag, kind, count, value, 0, 0)

        for exif, is_turned in (
            (entry("<", 0x0112, 3, 1, 6), True),
            (entry(">", 0x0112, 3, 1, 8), True),
            (entry("<", 0x0112, 3, 1, 9), False),
            (entry("<", 0x0112, 4, 1, 6), False),
            (entry("<", 0x0113, 3, 1, 6), False),
            (entry("<", 0x0112, 3, 1, 6)[:15], False),
            (b"II*\0" + b"\xff" * 20, False),
            (b"", False),
        ):
            for kind in ("JPEG", "PNG"):
                with self.subTest(exif, kind=kind):
                    file = io.BytesIO()
                    NOISE.save(file, kind, exif=b"Exif\0\0" + exif)
                    wanted = (HEIGHT, WIDTH) if is_turned else (WIDTH, HEIGHT)
                    self.assertEqual(dimensions(file.getvalue()), wanted)

    def test_every_format_is_recognised_by_its_first_16_bytes(self) -> None:
        for name, data in PICTURES.items():
            with self.subTest(name):
                self.assertEqual(sniff_content_type(data[:16]), CONTENT_TYPES[VARIANTS[name][0]])

    def test_the_large_headers_of_this_test_are_large(self) -> None:
        data = PICTURES["progressive JPEG with large EXIF and ICC"]
        self.assertGreater(data.index(b"\xff\xc2\0\x11\x08"), 150_000)

    def test_the_largest_sizes_of_each_format_are_read(self) -> None:
        self.assertEqual(
            dimensions(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (2**31 - 1).to_bytes(4, "big") * 2),
            (2**31 - 1, 2**31 - 1),
        )
        self.assertEqual(dimensions(b"GIF89a\xff\xff\xff\xff"), (65_535, 65_535))
        self.assertEqual(
            dimensions(b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff"), (65_535, 65_535)
        )
        vp8x = b"RIFF\0\0\0\0WEBPVP8X\n\0\0\0\0\0\0\0"
        self.assertEqual(dimensions(vp8x + b"\xff" * 6), (2**24, 2**24))

    def test_a_bmp_stored_top_down_has_a_positive_height(self) -> None:
        head = bytearray(PICTURES["BMP"])
        head[22:26] = (-HEIGHT).to_bytes(4, "little", signed=True)
        self.assertEqual(dimensions(bytes(head)), (WIDTH, HEIGHT))

    def test_a_bmp_of_the_oldest_form_is_read(self) -> None:
        core = (
            (12).to_bytes(4, "little") + (640).to_bytes(2, "little") + (480).to_bytes(2, "little")
        )
        self.assertEqual(dimensions(b"BM" + b"\0" * 12 + core), (640, 480))

    def test_fill_bytes_before_a_marker_are_passed_over(self) -> None:
        data = PICTURES["baseline JPEG"]
        self.assertEqual(dimensions(data[:2] + b"\xff" * 50 + data[2:]), (WIDTH, HEIGHT))

    def test_a_side_of_zero_is_no_size(self) -> None:
        self.assertIsNone(dimensions(b"GIF89a\0\0\x01\0"))
        self.assertIsNone(dimensions(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\0"))
        self.assertIsNone(dimensions(b"\xff\xd8\xff\xc0\0\x11\x08\0\0\0\1"))


class HostileHeaderTest(unittest.TestCase):
    def assert_answers(self, data: bytes) -> tuple[int, int] | None:
        size = dimensions(data)
        if size is not None:
            width, height = size
            self.assertGreater(min(width, height), 0)
        return size

    def test_a_picture_cut_at_any_byte_is_unknown_or_right(self) -> None:
        for name, data in PICTURES.items():
            # Bytes behind the header do not matter; each header is in the first kilobyte.
            cuts = [*range(min(len(data), 1_000)), *range(1_000, len(data), 997)]
            with self.subTest(name):
                for cut in cuts:
                    self.assertIn(self.assert_answers(data[:cut]), (None, (WIDTH, HEIGHT)))

    def test_a_picture_with_any_one_byte_changed_never_raises(self) -> None:
        for name, data in PICTURES.items():
            with self.subTest(name):
                for position in range(min(len(data), 200)):
                    for value in (0x00, 0xFF, data[position] ^ 0x80):
                        self.assert_answers(
                            data[:position] + bytes([value]) + data[position + 1 : 4000]
                        )

    @given(st.binary(max_size=300))
    @example(b"\xff\xd8\xff")
    @example(b"BM")
    @example(b"RIFF\0\0\0\0WEBPVP8L\x2f")
    def test_any_bytes_never_raise(self, data: bytes) -> None:
        self.assert_answers(data)
        sniff_content_type(data)

    @given(
        st.sampled_from(
            [
                b"\xff\xd8\xff",
                b"\xff\xd8\xff\xc0",
                b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
                b"GIF89a",
                b"BM\0\0\0\0\0\0\0\0",
                b"RIFF\0\0\0\0WEBPVP8 ",
                b"RIFF\0\0\0\0WEBPVP8L",
                b"RIFF\0\0\0\0WEBPVP8X",
            ]
        ),
        st.binary(max_size=300),
    )
    def test_any_bytes_behind_a_true_signature_never_raise(self, head: bytes, rest: bytes) -> None:
        self.assert_answers(head + rest)

    def test_megabytes_of_empty_markers_are_given_up_in_time(self) -> None:
        for filling in (b"\xff" * 4, b"\xff\xe0\0\2", b"\xff\x01\xff\xd0"):
            with self.subTest(filling):
                data = b"\xff\xd8" + filling * (2 << 20)
                watch = Stopwatch()
                self.assertIsNone(dimensions(data))
                self.assertLess(watch.seconds(), 0.5)

    def test_a_frame_header_beyond_the_scan_limit_is_not_looked_for(self) -> None:
        segment = b"\xff\xe1\xff\xff" + b"\0" * 65_533
        data = PICTURES["baseline JPEG"]
        self.assertEqual(dimensions(data[:2] + segment * 60 + data[2:]), (WIDTH, HEIGHT))
        self.assertIsNone(dimensions(data[:2] + segment * 70 + data[2:]))

    def test_text_that_begins_like_a_bitmap_is_none(self) -> None:
        text = b"BMW has built motor cars since nineteen hundred and twenty-eight."
        self.assertIsNone(sniff_content_type(text))
        self.assertIsNone(dimensions(text))

    def test_other_kinds_of_file_are_recognised_and_have_no_size(self) -> None:
        for data, content_type in {
            b"%PDF-1.7\n": "application/pdf",
            b"PK\x03\x04rest": "application/zip",
            b"": None,
            b"plain words": None,
        }.items():
            with self.subTest(content_type):
                self.assertEqual(sniff_content_type(data), content_type)
                self.assertIsNone(dimensions(data))
