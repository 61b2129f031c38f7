"""The command line as a whole: help, version, unknown commands, missing libraries."""

from __future__ import annotations

import subprocess
import sys

from rtm_sync import __version__
from tests.cli.support import CommandTestCase, child_environment
from tests.support import PATIENCE


class MainTest(CommandTestCase):
    def test_help_names_every_command(self) -> None:
        text = self.printed("--help")
        for command in (
            *("serve", "demo", "send", "listen", "upload", "download"),
            *("token", "plugins", "doctor"),
        ):
            self.assertRegex(text, rf"\n  {command} +\w")

    def test_the_help_of_serve_names_every_option_and_its_default(self) -> None:
        text = " ".join(self.printed("serve", "--help").split()).replace("rtm- data", "rtm-data")
        for option, default in (("host", "127.0.0.1"), ("port", "8765"), ("data", "rtm-data")):
            self.assertRegex(text, rf"--{option} [^\[]*\[default: {default}\]")
        for option in ("config", "engine", "media", "app-id", "app-secret", "limits", "drain"):
            self.assertIn(f"--{option} ", text)

    def test_the_version_is_the_packages(self) -> None:
        self.assertEqual(self.printed("--version"), f"rtm-sync, version {__version__}\n")

    def test_an_unknown_command_is_named(self) -> None:
        self.assertIn("No such command 'sevre'.", self.refused("sevre", status=2))

    def test_an_unknown_option_is_named(self) -> None:
        self.assertIn("--prot", self.refused("serve", "--prot", 1, status=2))

    def test_without_its_libraries_it_says_what_to_install(self) -> None:
        missing = "import sys; sys.modules['click'] = None; from rtm_sync.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", missing],
            env=child_environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual(done.returncode, 1)
        self.assertEqual(
            done.stderr, 'The command line needs more libraries: pip install "rtm-sync[cli]"\n'
        )
