"""Thumbnails of good, odd and hostile pictures."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import threading
import unittest
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat
from rtm_sync_pillow import PillowGenerator
from rtm_sync_pillow.fit import sides

from rtm_sync import Blob, CannotThumbnail, Thumbnail

ROOM = 32_000
RED, GREEN, BLUE, WHITE = (220, 20, 20), (20, 200, 20), (20, 20, 220), (250, 250, 250)


def corners(width: int = 600, height: int = 400) -> Image.Image:
    """Red, green, blue and white quarters: every turn and mirroring looks different."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(GREEN, (width // 2, 0, width, height // 2))
    picture.paste(BLUE, (0, height // 2, width // 2, height))
    picture.paste(WHITE, (width // 2, height // 2, width, height))
    return picture


def photograph(width: int, height: int) -> Image.Image:
    sky = Image.linear_gradient("L").resize((width, height))
    grain = Image.effect_noise((width, height), 20)
    return ImageChops.overlay(
        Image.merge("RGB", (sky, ImageChops.invert(sky), sky)),
        Image.merge("RGB", (grain, grain, grain)),
    )


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    output = io.BytesIO()
    picture.save(output, kind, **options)
    return output.getvalue()


def thumbnail(data: bytes, room: int = ROOM) -> Thumbnail:
    return PillowGenerator().generate(Blob.from_bytes(data, name="picture"), room)


def shown(made: Thumbnail) -> Image.Image:
    picture = Image.open(io.BytesIO(made.data))
    picture.load()
    return picture


class PillowTest(unittest.TestCase):
    def assertIsCorners(self, made: Thumbnail, tolerance: int = 40) -> None:
        picture = shown(made).convert("RGB")
        self.assertEqual(picture.size, (made.width, made.height))
        right, bottom = 3 * made.width // 4, 3 * made.height // 4
        left, top = made.width // 4, made.height // 4
        for place, colour in (
            ((left, top), RED),
            ((right, top), GREEN),
            ((left, bottom), BLUE),
            ((right, bottom), WHITE),
        ):
            pixel = picture.getpixel(place)
            assert isinstance(pixel, tuple)
            for seen, wanted in zip(pixel, colour, strict=True):
                self.assertLess(abs(seen - wanted), tolerance, f"{place}: {pixel} not {colour}")

    def test_all_eight_orientations_end_upright(self) -> None:
        turns = {
            1: None,
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270,
        }
        for orientation, turn in turns.items():
            for kind in ("JPEG", "PNG", "WEBP"):
                with self.subTest(orientation=orientation, kind=kind):
                    stored = corners() if turn is None else corners().transpose(turn)
                    exif = Image.Exif()
                    exif[0x0112] = orientation
                    made = thumbnail(encoded(stored, kind, exif=exif))
                    self.assertEqual((made.width, made.height), (480, 320))
                    self.assertIsCorners(made)
                    self.assertNotIn(0x0112, shown(made).getexif())

    def test_every_format_and_mode_keeps_its_colours(self) -> None:
        pictures = {
            "jpeg": encoded(corners(), "JPEG", quality=95),
            "cmyk": encoded(corners().convert("CMYK"), "JPEG", quality=95),
            "png": encoded(corners(), "PNG"),
            "palette": encoded(corners().quantize(16), "PNG"),
            "gif": encoded(corners(), "GIF"),
            "webp": encoded(corners(), "WEBP"),
            "bmp": encoded(corners(), "BMP"),
            "tiff": encoded(corners(), "TIFF"),
            "small": encoded(corners(40, 30), "PNG"),
        }
        for name, data in pictures.items():
            with self.subTest(name):
                self.assertIsCorners(thumbnail(data))

    def test_the_first_frame_of_an_animation_is_shown(self) -> None:
        frames = [Image.new("RGB", corners().size, BLUE)] * 2
        data = encoded(corners(), "GIF", save_all=True, append_images=frames)
        self.assertIsCorners(thumbnail(data))

    def test_sixteen_bit_greys_are_scaled_not_clipped(self) -> None:
        picture = Image.linear_gradient("L").convert("I").point(lambda value: value * 257)
        made = shown(thumbnail(encoded(picture.convert("I;16"), "PNG"))).convert("L")
        low, high = made.getextrema()
        self.assertLess(low, 20)
        self.assertGreater(high, 235)
        self.assertAlmostEqual(ImageStat.Stat(made).mean[0], 127, delta=10)

    def test_transparency_is_kept_and_never_turns_black(self) -> None:
        picture = corners().convert("RGBA")
        picture.paste((0, 0, 0, 0), (0, 0, 300, 200))
        made = thumbnail(encoded(picture, "PNG"))
        self.assertEqual(made.content_type, "image/webp")
        seen = shown(made).convert("RGBA")
        self.assertLess(seen.getpixel((made.width // 4, made.height // 4))[3], 10)
        self.assertGreater(seen.getpixel((3 * made.width // 4, 10))[3], 245)

    def test_opaque_alpha_becomes_a_jpeg(self) -> None:
        made = thumbnail(encoded(corners().convert("RGBA"), "PNG"))
        self.assertEqual(made.content_type, "image/jpeg")
        self.assertIsCorners(made)

    def test_a_broken_colour_profile_is_ignored(self) -> None:
        self.assertIsCorners(thumbnail(encoded(corners(), "JPEG", icc_profile=b"not a profile")))

    def test_the_budget_is_kept_whatever_it_is(self) -> None:
        data = encoded(photograph(1600, 1200), "JPEG", quality=92)
        sides = []
        for room in (800, 2_000, 5_000, 10_000, 20_000, 32_768):
            made = thumbnail(data, room)
            self.assertLessEqual(len(made.data), room)
            sides.append(made.width)
        self.assertEqual(sides, sorted(sides))
        with self.assertRaisesRegex(CannotThumbnail, r"[\d,]+ bytes; 100 are left"):
            thumbnail(data, 100)

    def test_a_thumbnail_resembles_its_picture(self) -> None:
        picture = photograph(1600, 1200)
        made = shown(thumbnail(encoded(picture, "JPEG", quality=95)))
        reference = picture.resize(made.size, Image.Resampling.LANCZOS)
        difference = ImageStat.Stat(ImageChops.difference(made, reference)).mean
        self.assertLess(max(difference), 8)

    def test_small_pictures_are_not_enlarged(self) -> None:
        made = thumbnail(encoded(Image.new("RGB", (7, 3), RED), "PNG"))
        self.assertEqual((made.width, made.height), (7, 3))
        self.assertEqual(max(sides(100)), 100)
        self.assertEqual(max(sides(5000)), 480)

    def test_bombs_are_refused_before_they_are_decoded(self) -> None:
        for width, height in ((50_000, 50_000), (1, 100_000), (100_000, 1)):
            header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
            data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
            with self.subTest(width=width), self.assertRaisesRegex(CannotThumbnail, "pixels"):
                thumbnail(data)

    def test_bad_input_cannot_be_thumbnailed(self) -> None:
        good = encoded(corners(), "JPEG")
        for data in (b"", b"x", b"GIF89a", good[:20], good[: len(good) // 8], b"\x00" * 5000):
            with self.subTest(data=data[:10]), self.assertRaises(CannotThumbnail):
                thumbnail(data)

    def test_a_lying_name_does_not_matter(self) -> None:
        blob = Blob.from_bytes(encoded(corners(), "PNG"), name="lie.jpg")
        self.assertIsCorners(PillowGenerator().generate(blob, ROOM))

    def test_nine_threads_at_once(self) -> None:
        data = encoded(photograph(2000, 1500), "JPEG")
        start = threading.Barrier(9)

        def work(_: int) -> bytes:
            start.wait(10)
            return thumbnail(data).data

        with ThreadPoolExecutor(9) as pool:
            self.assertEqual(len(set(pool.map(work, range(9)))), 1)

    def test_nine_large_pictures_at_once_take_the_memory_of_two(self) -> None:
        script = """
import io, resource
from concurrent.futures import ThreadPoolExecutor
from PIL import Image
from rtm_sync_pillow import PillowGenerator
from rtm_sync import Blob

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

file = io.BytesIO()
Image.new("RGB", (5000, 4000), "teal").save(file, "PNG")
blob = Blob.from_bytes(file.getvalue())
PillowGenerator().generate(blob, 30_000)
before = peak()
with ThreadPoolExecutor(9) as pool:
    assert len(list(pool.map(lambda _: PillowGenerator().generate(blob, 30_000), range(9)))) == 9
print(peak() - before)
"""
        grown = int(subprocess.check_output([sys.executable, "-c", script], timeout=60))
        self.assertLess(grown, 2 * 100)  # one of 20 megapixels takes 80 MB

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(kind=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"]), seed=st.integers())
    def test_damaged_files_give_a_thumbnail_or_a_clean_refusal(self, kind: str, seed: int) -> None:
        chance = random.Random(seed)
        data = bytearray(encoded(corners(90, 60), kind))
        for _ in range(chance.randint(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        data = data[: chance.randint(1, len(data))] if chance.random() < 0.3 else data
        try:
            made = thumbnail(bytes(data))
        except CannotThumbnail as error:
            self.assertTrue(str(error))
        else:
            self.assertLessEqual(len(made.data), ROOM)


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
