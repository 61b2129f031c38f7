"""Thumbnails of good, odd and hostile pictures."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pillow_heif
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat
from rtm_sync_pillow import PillowGenerator

from rtm_sync import Blob, CannotThumbnail, Thumbnail
from rtm_sync.testing import RtmTestCase, ThumbnailContract
from rtm_sync.testing.pictures import RED, encoded, photograph, quarters, turned
from rtm_sync.thumbnails.encoding import sides

ROOM = 32_000


def thumbnail(data: bytes, room: int = ROOM) -> Thumbnail:
    return PillowGenerator().generate(Blob.from_bytes(data, name="picture"), room)


class PillowTest(ThumbnailContract, RtmTestCase):
    generator_class = PillowGenerator

    def samples(self) -> Mapping[str, bytes]:
        return {**super().samples(), "image/heic": heic()}

    def test_photographs_of_telephones_are_upright_and_in_their_colours(self) -> None:
        for content_type in ("image/heic", "image/heif"):
            self.assertTrue(PillowGenerator().can_handle(content_type))
        self.assert_quarters(self.made(heic(), "image/heic"))
        exif = Image.Exif()
        exif[0x0112] = 6  # libheif turns it by the file's own property, so EXIF must not again
        made = self.made(heic(exif=exif.tobytes()), "image/heic")
        self.assertEqual(max(made.width, made.height), 480)

    def test_the_size_of_the_picture_is_told_where_its_header_is_not_read(self) -> None:
        for data in (heic(), turned("TIFF", 1), turned("TIFF", 6), encoded(quarters(), "AVIF")):
            self.assertIsNone(Blob.from_bytes(data).dimensions())
            made = thumbnail(data)
            self.assertEqual((made.picture_width, made.picture_height), (600, 400))

    def test_a_large_one_is_refused_before_it_is_decoded(self) -> None:
        with self.assertRaisesRegex(CannotThumbnail, "the limit is 25,000,000 in all"):
            self.made(heic(Image.new("RGB", (6000, 5000))), "image/heic")

    def test_transparency_is_kept_and_never_turns_black(self) -> None:
        picture = quarters().convert("RGBA")
        picture.paste((0, 0, 0, 0), (0, 0, 300, 200))
        made = thumbnail(encoded(picture, "PNG"))
        self.assertEqual(made.content_type, "image/webp")
        seen = self.shown(made).convert("RGBA")
        self.assertLess(seen.getpixel((made.width // 4, made.height // 4))[3], 10)
        self.assertGreater(seen.getpixel((3 * made.width // 4, 10))[3], 245)

    def test_opaque_alpha_becomes_a_jpeg(self) -> None:
        made = thumbnail(encoded(quarters().convert("RGBA"), "PNG"))
        self.assertEqual(made.content_type, "image/jpeg")
        self.assert_quarters(made)

    def test_a_larger_budget_never_gives_a_smaller_picture(self) -> None:
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
        made = self.shown(thumbnail(encoded(picture, "JPEG", quality=95))).convert("RGB")
        reference = picture.resize(made.size, Image.Resampling.LANCZOS)
        difference = ImageStat.Stat(ImageChops.difference(made, reference)).mean
        self.assertLess(max(difference), 8)

    def test_small_pictures_are_not_enlarged(self) -> None:
        made = thumbnail(encoded(Image.new("RGB", (7, 3), RED), "PNG"))
        self.assertEqual((made.width, made.height), (7, 3))
        self.assertEqual(max(sides(100)), 100)
        self.assertEqual(max(sides(5000)), 480)

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
        data = bytearray(encoded(quarters(90, 60), kind))
        for _ in range(chance.randint(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        data = data[: chance.randint(1, len(data))] if chance.random() < 0.3 else data
        try:
            made = thumbnail(bytes(data))
        except CannotThumbnail as error:
            self.assertTrue(str(error))
        else:
            self.assertLessEqual(len(made.data), ROOM)


def heic(picture: Image.Image | None = None, **options: Any) -> bytes:
    file = pillow_heif.from_pillow(quarters() if picture is None else picture)
    output = io.BytesIO()
    file.save(output, quality=90, **options)
    return output.getvalue()
