"""docs/cli.md documents the whole command line, and nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import click

from rtm_sync.cli.commands import rtm_sync as command_line
from rtm_sync.cli.output import ExitCode
from rtm_sync.cli.profiles import SIGTERM_STATUS, Profile, load_profile
from tests.cli.support import REPOSITORY
from tests.support import RtmTestCase

TEXT = (REPOSITORY / "docs" / "cli.md").read_text()
SHARED = {"--json", "--quiet", "--profile", "--profiles", "--help"}


def sections() -> dict[str, str]:
    """The text below each heading."""
    parts = re.split(r"^## (.+)$", TEXT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def options_of(command: click.Command) -> set[str]:
    names = {name for item in command.params for name in item.opts if name.startswith("--")}
    return names - SHARED


class CommandLineDocumentTest(RtmTestCase):
    def test_every_command_has_a_section_and_a_line_in_the_table(self) -> None:
        table = re.findall(r"^\| \[`(\w+)`\]\(#(\w+)\)", TEXT, re.MULTILINE)
        self.assertEqual({name for name, _ in table}, set(command_line.commands))
        for name, anchor in table:
            self.assertEqual(name, anchor)
            self.assertIn(name, sections())

    def test_every_option_is_explained_where_it_is_looked_for(self) -> None:
        settings = {f"--{item.name.replace('_', '-')}" for item in fields(Profile)}
        upload = options_of(command_line.commands["upload"])
        for name, command in command_line.commands.items():
            if name == "serve":
                continue  # the quick start documents it, and has its own test
            own = options_of(command) - settings
            if name == "send":
                own -= upload
            for option in own:
                with self.subTest(name, option=option):
                    self.assertIn(option, sections()[name])
        for option in SHARED | settings:
            self.assertIn(f"`{option}", TEXT)

    def test_the_table_of_settings_is_the_profiles(self) -> None:
        rows = re.findall(r"^\| `(--[\w-]+)` \| `(\w+)` \| `(\w+)` \|", TEXT, re.MULTILINE)
        self.assertEqual({row[2] for row in rows}, {item.name for item in fields(Profile)})
        for option, variable, name in rows:
            self.assertEqual(option, f"--{name.replace('_', '-')}")
            self.assertEqual(variable, f"RTM_SYNC_{name.upper()}")

    def test_the_exit_statuses_are_these(self) -> None:
        listed = re.findall(r"^\| (\d+) \|", sections()["Exit statuses"], re.MULTILINE)
        self.assertEqual(sorted(map(int, listed)), sorted([*map(int, ExitCode), SIGTERM_STATUS]))

    def test_the_profiles_of_the_example_can_be_used(self) -> None:
        [example] = re.findall(r"```toml\n(.+?)```", TEXT, re.DOTALL)
        file = self.folder() / "profiles.toml"
        file.write_text(example)
        self.assertEqual(load_profile(file, None, {}, {}).uid, "alice")
        work = load_profile(file, "work", {}, {})
        self.assertEqual((work.url, work.app_id), ("wss://rtm.example", "work"))

    def test_the_example_of_an_event_is_one(self) -> None:
        [example] = re.findall(r"```json\n(.+?)```", sections()["listen"], re.DOTALL)
        self.assertEqual(json.loads(example)["event"], "message")
