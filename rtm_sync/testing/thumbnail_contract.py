"""The contract of every thumbnail generator, as a test case to mix in."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..blob import Blob
from ..thumbnails.contract import CannotThumbnail, Thumbnail, ThumbnailGenerator
from . import pictures
from .case import RtmTestCase

if TYPE_CHECKING:
    from PIL import Image

    _Base = RtmTestCase
else:
    _Base = object

ROOM = 30_000
"""Bytes that a message of 32 KB leaves for a thumbnail."""

_BUDGETS = (32_000, 12_000, 4_000, 1_500)
_SECONDS = 5.0
_MEGABYTES = 300.0
_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


class ThumbnailContract(_Base):
    """Mix into a `RtmTestCase` and name the generator:

        class MyGeneratorTest(ThumbnailContract, RtmTestCase):
            generator_class = MyGenerator

    The kit uses those of its pictures whose content type the generator can handle. Pillow makes
    and reads them: `pip install Pillow`.

    Attributes:
        generator_class: made without arguments; importable, as hostile files are tried in a process
            of their own, whose time and memory can be measured.
        seconds, megabytes: the most that a thumbnail of any file may take. Memory is measured
            where Python has the module `resource`: not on Windows.
        damaged: how many damaged copies of each sample are tried.
    """

    generator_class: ClassVar[type[ThumbnailGenerator]]
    seconds: float = _SECONDS
    megabytes: float = _MEGABYTES
    damaged: int = 40

    def samples(self) -> Mapping[str, bytes]:
        """Good files by content type; override to add files of formats that the kit lacks."""
        from PIL import features

        kinds = [
            kind for kind in pictures.CONTENT_TYPES if kind != "AVIF" or features.check("avif")
        ]
        return {
            pictures.CONTENT_TYPES[kind]: pictures.encoded(pictures.quarters(), kind)
            for kind in kinds
            if self.can(kind)
        }

    # -- helpers --

    def can(self, kind: str) -> bool:
        """Whether the generator takes the kit's pictures of that kind."""
        return self.generator_class().can_handle(pictures.CONTENT_TYPES[kind])

    def made(self, data: bytes, content_type: str, room: int = ROOM) -> Thumbnail:
        """The generator's thumbnail of those bytes."""
        blob = Blob.from_bytes(data, name="file", content_type=content_type)
        return self.generator_class().generate(blob, room)

    def tried(self, data: bytes, content_type: str, room: int = ROOM) -> Thumbnail | None:
        """A valid thumbnail, or None for a proper refusal; otherwise the test fails."""
        try:
            made = self.made(data, content_type, room)
        except CannotThumbnail as error:
            self.assertTrue(str(error), "the reason is empty")
            return None
        self.shown(made, room)
        return made

    def shown(self, made: Thumbnail, room: int = ROOM) -> Image.Image:
        """The thumbnail's picture; its format and size must be those it states."""
        from PIL import Image

        self.assertIsInstance(made, Thumbnail)
        self.assertLessEqual(len(made.data), room)
        with Image.open(io.BytesIO(made.data)) as picture:
            picture.load()
            self.assertIn(picture.format, _TYPES)
            self.assertEqual(made.content_type, _TYPES[str(picture.format)])
            self.assertEqual((made.width, made.height), picture.size)
            self.assertLessEqual(max(picture.size), 1024)
            converted: Image.Image = picture.convert("RGBA")
            return converted

    def assert_quarters(self, made: Thumbnail, tolerance: int = 48) -> None:
        """The thumbnail must show the kit's red, green, blue and white quarters, upright."""
        picture = self.shown(made)
        for index, colour in enumerate(
            (pictures.RED, pictures.GREEN, pictures.BLUE, pictures.WHITE)
        ):
            place = (
                (1 + 2 * (index % 2)) * picture.width // 4,
                (1 + 2 * (index // 2)) * picture.height // 4,
            )
            pixel: Any = picture.getpixel(place)
            for seen, wanted in zip(pixel, (*colour, 255), strict=True):
                self.assertLess(abs(seen - wanted), tolerance, f"{place}: {pixel}, not {colour}")

    # -- identity --

    def test_it_has_a_name_a_priority_and_a_time_limit(self) -> None:
        generator = self.generator_class()
        self.assertIsInstance(generator.name, str)
        self.assertRegex(generator.name, r"^[a-z][a-z0-9_-]*$")
        self.assertIsInstance(generator.priority, int)
        self.assertGreater(generator.time_limit, 0)

    def test_it_says_what_it_can_handle_whatever_the_spelling(self) -> None:
        generator = self.generator_class()
        samples = self.samples()
        self.assertTrue(samples, "it can handle none of the samples")
        for content_type in samples:
            for spelt in (content_type, content_type.upper(), f"{content_type}; charset=binary"):
                self.assertIs(generator.can_handle(spelt), True, spelt)
        for content_type in ("", "nonsense", "application/x-rtm-sync-unknown", "image/", "é/\0"):
            self.assertIs(generator.can_handle(content_type), False, content_type)

    # -- good files --

    def test_every_sample_becomes_a_thumbnail(self) -> None:
        for content_type, data in self.samples().items():
            with self.subTest(content_type):
                self.shown(self.made(data, content_type))

    def test_a_size_of_the_picture_is_the_upright_one(self) -> None:
        for kind in filter(self.can, pictures.WITH_EXIF):
            for orientation in (1, 3, 6, 8):
                with self.subTest(kind, orientation=orientation):
                    data = pictures.turned(kind, orientation)
                    made = self.made(data, pictures.CONTENT_TYPES[kind])
                    size = (made.picture_width, made.picture_height)
                    self.assertIn(size, ((600, 400), (0, 0)))

    def test_the_budget_is_kept_whatever_it_is(self) -> None:
        for content_type, data in self.samples().items():
            for room in _BUDGETS:
                with self.subTest(content_type, room=room):
                    self.tried(data, content_type, room)
            for room in (1, 0, -1):
                with self.subTest(content_type, room=room), self.assertRaises(CannotThumbnail):
                    self.made(data, content_type, room)

    def test_nine_threads_get_the_same(self) -> None:
        content_type, data = next(iter(self.samples().items()))
        start = threading.Barrier(9)

        def work(_: int) -> bytes:
            start.wait(30)
            return self.made(data, content_type).data

        with ThreadPoolExecutor(9) as threads:
            self.assertEqual(len(set(threads.map(work, range(9)))), 1)

    def test_colours_stay_in_every_format_and_mode(self) -> None:
        quarters = pictures.quarters()
        files = {
            kind: pictures.encoded(quarters, kind)
            for kind, content_type in pictures.CONTENT_TYPES.items()
            if content_type in self.samples()
        }
        if self.can("JPEG"):
            cmyk = pictures.encoded(quarters.convert("CMYK"), "JPEG", quality=95)
            # Without a profile, a press has duller colours than a screen; or it has not.
            self.assert_quarters(self.made(cmyk, "image/jpeg"), tolerance=110)
            files["JPEG, progressive"] = pictures.encoded(quarters, "JPEG", progressive=True)
        if self.can("PNG"):
            files["PNG with a palette"] = pictures.encoded(quarters.quantize(16), "PNG")
            files["PNG with an opaque alpha"] = pictures.encoded(quarters.convert("RGBA"), "PNG")
            files["PNG with a broken profile"] = pictures.encoded(
                quarters, "PNG", icc_profile=b"not a profile"
            )
        for name, data in files.items():
            with self.subTest(name):
                self.assert_quarters(
                    self.made(data, pictures.CONTENT_TYPES[name.split()[0].strip(",")])
                )

    def test_all_eight_orientations_end_upright(self) -> None:
        for kind in filter(self.can, pictures.WITH_EXIF):
            for orientation in range(1, 9):
                with self.subTest(kind, orientation=orientation):
                    made = self.made(
                        pictures.turned(kind, orientation), pictures.CONTENT_TYPES[kind]
                    )
                    self.assertGreater(made.width, made.height)
                    self.assert_quarters(made)

    def test_of_an_animation_the_first_frame_is_shown(self) -> None:
        from PIL import Image

        quarters = pictures.quarters()
        frames = [Image.new("RGB", quarters.size, pictures.BLUE)] * 2
        for kind in filter(self.can, ("GIF", "WEBP", "PNG")):
            with self.subTest(kind):
                data = pictures.encoded(quarters, kind, save_all=True, append_images=frames)
                self.assert_quarters(self.made(data, pictures.CONTENT_TYPES[kind]))

    def test_sixteen_bits_are_scaled_not_cut(self) -> None:
        from PIL import Image

        ramp = Image.linear_gradient("L").convert("I").point(lambda value: value * 257)
        for kind in filter(self.can, ("PNG", "TIFF")):
            with self.subTest(kind):
                data = pictures.encoded(ramp.convert("I;16"), kind)
                grey = self.shown(self.made(data, pictures.CONTENT_TYPES[kind])).convert("L")
                for part in (0.25, 0.5, 0.75):
                    seen: Any = grey.getpixel((grey.width // 2, int(grey.height * part)))
                    self.assertAlmostEqual(seen, 255 * part, delta=24)

    def test_what_is_transparent_is_not_black(self) -> None:
        picture = pictures.quarters().convert("RGBA")
        picture.paste((0, 0, 0, 0), (0, 0, 300, 200))
        for kind in filter(self.can, ("PNG", "WEBP")):
            with self.subTest(kind):
                data = pictures.encoded(picture, kind)
                shown = self.shown(self.made(data, pictures.CONTENT_TYPES[kind]))
                pixel: Any = shown.getpixel((shown.width // 4, shown.height // 4))
                self.assertTrue(pixel[3] < 16 or min(pixel[:3]) > 200, f"{pixel}")

    def test_metadata_is_left_behind(self) -> None:
        from PIL import Image

        exif = Image.Exif()
        exif[0x010E] = "a secret place"
        for kind in filter(self.can, pictures.WITH_EXIF):
            with self.subTest(kind):
                data = pictures.encoded(pictures.quarters(), kind, exif=exif)
                self.assertIn(b"secret", data)
                made = self.made(data, pictures.CONTENT_TYPES[kind])
                self.assertNotIn(b"secret", made.data)

    # -- bad files --

    def test_what_is_no_file_of_its_kind_cannot_be_thumbnailed(self) -> None:
        for content_type, data in self.samples().items():
            for bad in (b"", b"x", bytes(5_000), b"hello " * 1000, data[:3], data[:12]):
                with self.subTest(content_type, bad=bad[:12]), self.assertRaises(CannotThumbnail):
                    self.made(bad, content_type)

    def test_what_is_cut_off_gives_a_thumbnail_or_a_clean_refusal(self) -> None:
        for content_type, data in self.samples().items():
            for eighth in range(1, 8):
                with self.subTest(content_type, eighth=eighth):
                    self.tried(data[: len(data) * eighth // 8], content_type)

    def test_what_is_damaged_gives_a_thumbnail_or_a_clean_refusal(self) -> None:
        chance = random.Random(1)
        for content_type, data in self.samples().items():
            for _ in range(self.damaged):
                damaged = bytearray(data)
                for _ in range(chance.randint(1, 20)):
                    damaged[chance.randrange(len(damaged))] = chance.randrange(256)
                with self.subTest(content_type):
                    self.tried(bytes(damaged), content_type)

    def test_a_lying_name_and_content_type_do_no_harm(self) -> None:
        samples = list(self.samples().items())
        for (content_type, _), (_, data) in zip(samples, samples[1:] + samples[:1], strict=True):
            with self.subTest(content_type):
                self.tried(data, content_type)

    def test_a_blob_that_cannot_be_read_any_more_is_a_clean_refusal(self) -> None:
        content_type, data = next(iter(self.samples().items()))
        path = self.folder() / "gone"
        path.write_bytes(data)
        blob = Blob.from_path(path, content_type=content_type)
        path.unlink()
        with self.assertRaises(CannotThumbnail):
            self.generator_class().generate(blob, ROOM)

    def test_hostile_files_cost_little_memory_and_time(self) -> None:
        generator = self.generator_class()
        files = {
            name: (content_type, data)
            for name, (content_type, data) in {**pictures.hostile(), **self.more_hostile()}.items()
            if generator.can_handle(content_type)
        }
        if not files:
            self.skipTest("the kit has no hostile file of its content types; see more_hostile")
        folder = self.folder()
        for number, (content_type, data) in enumerate(files.values()):
            (folder / f"{number}").write_bytes(data)
            (folder / f"{number}.type").write_text(content_type)
        done = subprocess.run(
            [sys.executable, "-m", __name__, self._import_path(), str(folder)],
            capture_output=True,
            text=True,
            timeout=2 * self.seconds * len(files) + 30,
            check=False,
        )
        self.assertEqual(done.returncode, 0, f"it crashed: {done.stderr[-2000:]}")
        results = [json.loads(line) for line in done.stdout.splitlines()]
        for name, result in zip(files, results, strict=True):
            with self.subTest(name):
                self.assertIn(result["outcome"], ("made", "cannot"))
                self.assertLess(result["seconds"], self.seconds)
                self.assertLess(result["megabytes"], self.megabytes)

    def more_hostile(self) -> Mapping[str, tuple[str, bytes]]:
        """More files made to cost memory or time: description → content type and bytes."""
        return {}

    def _import_path(self) -> str:
        return f"{self.generator_class.__module__}:{self.generator_class.__qualname__}"


def _peak() -> float:
    """The most memory this process had so far, in MB."""
    try:
        status = Path("/proc/self/status").read_text()  # getrusage also counts the parent process
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, ValueError, IndexError):
        return _most_used("RUSAGE_SELF")


def _most_used(whose: str) -> float:
    """The most memory that this process or one of its children had, in MB; 0 on Windows."""
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(getattr(resource, whose)).ru_maxrss / 1024


def _measure(import_path: str, folder: Path) -> None:
    """Try every file of the folder; print a line for each with its result and its cost."""
    module, _, name = import_path.partition(":")
    __import__(module)
    generator: ThumbnailGenerator = getattr(sys.modules[module], name)()
    before = _peak()
    for number in range(len(list(folder.glob("*.type")))):
        blob = Blob.from_path(
            folder / f"{number}", content_type=(folder / f"{number}.type").read_text()
        )
        began = time.monotonic()
        try:
            generator.generate(blob, ROOM)
            outcome = "made"
        except CannotThumbnail:
            outcome = "cannot"
        except Exception as error:  # the test shows the exception
            outcome = f"raised {error!r}"
        seconds = time.monotonic() - began
        children = _most_used("RUSAGE_CHILDREN")
        print(
            json.dumps(
                {
                    "outcome": outcome,
                    "seconds": seconds,
                    "megabytes": max(_peak() - before, children),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    _measure(sys.argv[1], Path(sys.argv[2]))
