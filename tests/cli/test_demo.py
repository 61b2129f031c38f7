"""`rtm-sync demo`: its steps are real, it takes any photo, and it leaves no files behind."""

from __future__ import annotations

import functools
import hashlib
import re
import shutil
from pathlib import Path

from tests.cli.support import REPOSITORY, CommandTestCase, with_pillow_plugin
from tests.support import at_once

CAT = REPOSITORY / "tests" / "data" / "cat.jpg"
TRANSPORTS = ("gateway", "memory")
_STEP = re.compile(r"^ +\d+\.\d ms  ([^:]+): (.+)$", re.MULTILINE)


class DemoTest(CommandTestCase):
    def steps(self, *arguments: object, **environment: str) -> dict[str, str]:
        """The result of each step of a successful demo."""
        printed = self.printed("demo", *arguments, **environment)
        self.assertTrue(printed.endswith("All steps worked.\n"), printed)
        self.assertEqual(list(self.home.iterdir()), [], "files in the current folder")
        return dict(_STEP.findall(printed))

    def over_both_transports(
        self, *arguments: object, **environment: str
    ) -> list[tuple[str, dict[str, str]]]:
        """Each transport with the results of a demo over it."""
        demos = (
            functools.partial(self.steps, *arguments, "--transport", transport, **environment)
            for transport in TRANSPORTS
        )
        return list(zip(TRANSPORTS, at_once(*demos), strict=True))

    def small_file(self, name: str, data: bytes) -> Path:
        path = self.folder() / name
        path.write_bytes(data)
        return path

    def test_it_makes_a_photo_and_tells_the_whole_story_over_both_transports(self) -> None:
        for transport, steps in self.over_both_transports():
            with self.subTest(transport):
                size = steps["make a photo"].removeprefix("photo.jpg, ")
                self.assertRegex(size, r"^\d,\d\d\d,\d\d\d bytes$")
                self.assertEqual(steps["log in"], "alice and bob")
                self.assertIn(f"{size}, 4000 × 3000, ", steps["upload the photo"])
                self.assertEqual(steps["send it to bob"], "bob has it")
                self.assertEqual(
                    steps["send it to a channel"], "bob has it from the channel photos"
                )
                self.assertEqual(steps["download it"], size)
                self.assertRegex(
                    steps["compare checksums"], r"^the same bytes, sha256 [0-9a-f]{16}…$"
                )
                self.assertRegex(
                    steps["cancel a large upload"],
                    r"^UPLOAD_MEDIA_ERR_INTERRUPTED after [\d,]+ bytes$",
                )
                self.assertEqual("start a gateway" in steps, transport == "gateway")

    def test_a_photo_of_ones_own_with_a_thumbnail_over_both_transports(self) -> None:
        plugin = with_pillow_plugin(self.folder())
        digest = hashlib.sha256(CAT.read_bytes()).hexdigest()[:16]
        for transport, steps in self.over_both_transports(CAT, **plugin):
            with self.subTest(transport):
                self.assertNotIn("make a photo", steps)
                self.assertIn("30,985 bytes, 451 × 300, ", steps["upload the photo"])
                self.assertRegex(steps["look at its thumbnail"], r"^[\d,]+ bytes, \d+ × \d+$")
                self.assertEqual(steps["send it to bob"], "bob has it, thumbnail and all")
                self.assertEqual(steps["compare checksums"], f"the same bytes, sha256 {digest}…")

    def test_without_a_thumbnail_plugin_it_says_what_to_install_and_goes_on(self) -> None:
        printed = self.printed("demo", CAT, "--transport", "memory")
        self.assertRegex(printed, "no thumbnail: .*pip install rtm-sync-pillow")
        self.assertTrue(printed.endswith("All steps worked.\n"))

    def test_a_photo_of_a_few_bytes_is_enough(self) -> None:
        photo = self.small_file("[red]small.jpg", b"\xff\xd8\xff")
        steps = self.steps(photo, "--transport", "memory")
        self.assertEqual(steps["download it"], "3 bytes")
        self.assertIn("UPLOAD_MEDIA_ERR_INTERRUPTED", steps["cancel a large upload"])

    def test_what_is_no_photo_is_one_clear_line_and_a_failure(self) -> None:
        missing = self.home / "missing.jpg"
        self.assertEqual(
            self.command("demo", missing).stderr,
            f"Error: {missing} is not a file. Pass a photo, or no PHOTO at all.\n",
        )
        wrong = (
            (missing, "is not a file"),
            (self.folder(), "is not a file"),
            (
                self.small_file("[red]empty.jpg", b""),
                r"^Could not upload the photo: .*\[red\]empty\.jpg is empty",
            ),
            (
                self.small_file("large.jpg", bytes(31_457_281)),
                "31,457,281 bytes; the limit is 31,457,280 bytes",
            ),
        )
        refusals = at_once(
            *(functools.partial(self.refused, "demo", photo, status=1) for photo, _ in wrong)
        )
        for (photo, complaint), refusal in zip(wrong, refusals, strict=True):
            with self.subTest(photo.name):
                self.assertRegex(refusal, complaint)

    def test_a_terminal_that_knows_only_ascii_is_no_reason_to_fail(self) -> None:
        printed = self.printed("demo", CAT, "--transport", "memory", PYTHONIOENCODING="ascii")
        self.assertIn("451 ? 300", printed)

    def test_a_copy_with_an_awkward_name_is_a_photo_too(self) -> None:
        photo = self.folder() / "mein Kätzchen & ich #1.jpg"
        shutil.copy(CAT, photo)
        self.assertEqual(self.steps(photo)["download it"], "30,985 bytes")

    def test_an_unknown_transport_is_refused(self) -> None:
        self.assertIn("'gateway', 'memory'", self.refused("demo", "--transport", "x", status=2))
