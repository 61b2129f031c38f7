"""Pictures that cost much memory or time, and leaks of state into or out of the process."""

from __future__ import annotations

import io
import struct
import time
import unittest
import warnings
import zlib
from collections.abc import Callable

from PIL import Image, ImageCms, features
from rtm_sync_pillow import PillowGenerator
from rtm_sync_pillow.jpeg_scans import read_jpeg_scans

from rtm_sync import Blob, CannotThumbnail, Thumbnail
from rtm_sync.testing.pictures import encoded, with_jpeg_size


def thumbnail(data: bytes, room: int = 32_000) -> Thumbnail:
    return PillowGenerator().generate(Blob.from_bytes(data), room)


def shown(made: Thumbnail) -> Image.Image:
    picture = Image.open(io.BytesIO(made.data))
    picture.load()
    return picture


class HostileTest(unittest.TestCase):
    def assertRefusedAtOnce(self, data: bytes, why: str) -> None:
        started = time.monotonic()
        with self.assertRaisesRegex(CannotThumbnail, why):
            thumbnail(data)
        self.assertLess(time.monotonic() - started, 1.0)

    def test_every_format_has_a_pixel_limit(self) -> None:
        grey = Image.new("L", (8, 8))
        gif = bytearray(encoded(grey, "GIF"))
        gif[6:10] = struct.pack("<HH", 60_000, 60_000)
        bmp = bytearray(encoded(grey, "BMP"))
        bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
        webp = bytearray(encoded(grey, "WEBP", lossless=True))
        self.assertEqual(webp[12:16], b"VP8L")
        webp[21:25] = struct.pack("<I", 0x0FFFFFFF)  # 16,384 both ways, in 14 bits each
        claims = {
            "JPEG": with_jpeg_size(encoded(grey, "JPEG"), 60_000, 60_000),
            "GIF": bytes(gif),
            "BMP": bytes(bmp),
            "WebP": bytes(webp),
        }
        for name, data in claims.items():
            with self.subTest(name):
                self.assertRefusedAtOnce(data, f"The {name} claims .* the limit is [\\d,]+ in all")

    def test_a_large_progressive_jpeg_is_refused_where_a_baseline_one_is_not(self) -> None:
        small = Image.new("RGB", (64, 64))
        progressive = with_jpeg_size(encoded(small, "JPEG", progressive=True), 10_000, 10_000)
        self.assertRefusedAtOnce(progressive, "needs 300,[0-9,]+ bytes")
        baseline = with_jpeg_size(encoded(small, "JPEG"), 10_000, 10_000)
        self.assertEqual(read_jpeg_scans(baseline, 9, 999).buffered_bytes, 0)

    def test_a_jpeg_of_endless_scans_is_refused(self) -> None:
        data = encoded(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
        last = data.rindex(b"\xff\xda")
        self.assertRefusedAtOnce(data[:last] + data[last:-2] * 5000 + data[-2:], "scans")

    def test_a_jpeg_whose_header_is_junk_is_refused(self) -> None:
        for junk in (b"\xff", b"\0", b"\xff\xfe\0\2"):
            with self.subTest(junk):
                self.assertRefusedAtOnce(b"\xff\xd8\xff" + junk * 4_000_000, "parts")

    def test_a_png_of_endless_chunks_is_refused(self) -> None:
        good = encoded(Image.new("L", (8, 8)), "PNG")
        chunk = struct.pack(">I4sI", 0, b"vpAg", zlib.crc32(b"vpAg"))
        self.assertRefusedAtOnce(good[:33] + chunk * 2_000_000 + good[33:], "chunks")

    def test_no_budget_is_too_odd(self) -> None:
        data = encoded(Image.effect_noise((900, 700), 90), "JPEG")
        for room in (-1, 0, 1, 299):
            with self.subTest(room), self.assertRaisesRegex(CannotThumbnail, "are left"):
                thumbnail(data, room)

    def test_large_pictures_do_not_warn(self) -> None:
        picture = Image.new("L", (11_000, 9_000))  # Pillow warns from 89 megapixels on
        data = encoded(picture, "JPEG", quality=10)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assertEqual(thumbnail(data).width, 480)


class ColourTest(unittest.TestCase):
    def test_an_embedded_profile_is_applied(self) -> None:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        for name, icc in (("sRGB", srgb), ("of another kind", profile)):
            with self.subTest(name):
                data = encoded(Image.new("RGB", (64, 64), (200, 100, 50)), "PNG", icc_profile=icc)
                seen = shown(thumbnail(data)).getpixel((32, 32))
                assert isinstance(seen, tuple)
                for got, wanted in zip(seen, (200, 100, 50), strict=True):
                    self.assertAlmostEqual(got, wanted, delta=5)

    def test_swapped_primaries_in_the_profile_change_the_pixels(self) -> None:
        srgb = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
        red, green = srgb.index(b"rXYZ"), srgb.index(b"gXYZ")
        srgb[red : red + 4], srgb[green : green + 4] = b"gXYZ", b"rXYZ"
        data = encoded(Image.new("RGB", (64, 64), (230, 20, 20)), "PNG", icc_profile=bytes(srgb))
        seen = shown(thumbnail(data)).getpixel((32, 32))
        assert isinstance(seen, tuple)
        self.assertGreater(seen[1], seen[0])

    def test_colours_under_full_transparency_do_not_bleed(self) -> None:
        picture = Image.new("RGBA", (2000, 2000), (0, 255, 0, 0))
        picture.paste((255, 0, 0, 255), (0, 0, 1003, 2000))
        seen = shown(thumbnail(encoded(picture, "PNG"))).convert("RGBA")
        for x in range(seen.width):
            red, green, _, alpha = seen.getpixel((x, 200))  # type: ignore[misc]
            if alpha > 128:
                self.assertGreater(red, green + 100, f"column {x}")

    def test_odd_kinds_of_pictures(self) -> None:
        grey = Image.linear_gradient("L").resize((640, 512))
        makers: dict[str, Callable[[], bytes]] = {
            "1-bit TIFF": lambda: encoded(grey.convert("1"), "TIFF"),
            "real-number TIFF": lambda: encoded(grey.convert("F"), "TIFF"),
            "32-bit TIFF": lambda: encoded(grey.convert("I"), "TIFF"),
            "CMYK TIFF": lambda: encoded(grey.convert("RGB").convert("CMYK"), "TIFF"),
            "grey with alpha": lambda: encoded(grey.convert("LA"), "PNG"),
            "grey JPEG": lambda: encoded(grey, "JPEG"),
            "two-picture JPEG": lambda: encoded(
                grey, "MPO", save_all=True, append_images=[Image.new("L", (64, 64))]
            ),
        }
        if features.check("avif"):
            makers["AVIF"] = lambda: encoded(grey.convert("RGB"), "AVIF")
        for name, make in makers.items():
            with self.subTest(name):
                seen = shown(thumbnail(make(), 100_000)).convert("L")
                self.assertEqual(seen.size, (480, 384))
                for y in (40, 190, 340):
                    self.assertAlmostEqual(
                        seen.resize((1, 384)).getpixel((0, y)), y * 256 / 384, delta=16
                    )

    def test_all_orientations_of_tiff_and_avif(self) -> None:
        kinds = ["TIFF", "AVIF"] if features.check("avif") else ["TIFF"]
        left_red = Image.new("RGB", (200, 100), (20, 20, 220))
        left_red.paste((220, 20, 20), (0, 0, 100, 100))
        turned = left_red.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[0x0112] = 6
        for kind in kinds:
            with self.subTest(kind):
                made = thumbnail(encoded(turned, kind, exif=exif))
                self.assertEqual((made.width, made.height), (200, 100))
                seen = shown(made).getpixel((30, 50))
                assert isinstance(seen, tuple)
                self.assertGreater(seen[0], seen[2])
