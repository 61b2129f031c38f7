"""Completion with the Tab key: the scripts that `rtm-sync` prints for shells, and their offers."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

from rtm_sync.cli.commands import rtm_sync as command_line
from tests.cli.support import REPOSITORY, CommandTestCase, child_environment
from tests.cli.test_profiles import FILE
from tests.support import PATIENCE, at_once

SHELLS = ("bash", "zsh", "fish")
_ASK = """
set -eu
eval "$(_RTM_SYNC_COMPLETE=bash_source rtm-sync)"
complete -p rtm-sync > registered
function=$(sed 's/.*-F \\([^ ]*\\) .*/\\1/' registered)
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMPREPLY=()
"$function" rtm-sync
printf '%s\\n' "${COMPREPLY[@]}"
"""
"""The steps of bash at Tab: find the command's function, give it the words, take its reply."""


class CompletionTest(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        installed = self.home / "bin" / "rtm-sync"
        installed.parent.mkdir()
        installed.write_text(f'#!/bin/sh\nexec {sys.executable} -m rtm_sync "$@"\n')
        installed.chmod(0o755)
        self.path = f"{installed.parent}:{os.environ['PATH']}"

    def shell(self, command: list[str], **environment: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.home,
            env=child_environment(PATH=self.path, **environment),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def script(self, shell: str) -> str:
        return self.printed(_RTM_SYNC_COMPLETE=f"{shell}_source", PATH=self.path)

    def completed(self, *words: str, **environment: str) -> list[str]:
        """The words that bash offers for the last word."""
        bash = ["bash", "--noprofile", "--norc", "-c", _ASK, "bash", *words]
        return self.shell(bash, **environment).splitlines()

    @unittest.skipUnless(shutil.which("bash"), "bash is not installed")
    def test_bash_offers_every_command(self) -> None:
        self.assertEqual(sorted(self.completed("rtm-sync", "")), sorted(command_line.commands))

    @unittest.skipUnless(shutil.which("bash"), "bash is not installed")
    def test_bash_completes_commands_options_and_profiles(self) -> None:
        self.assertEqual(self.completed("rtm-sync", "do"), ["doctor", "download"])
        self.assertEqual(self.completed("rtm-sync", "listen", "--sa"), ["--save"])
        (self.home / "mine.toml").write_text(FILE)
        words = ("rtm-sync", "listen", "--profile", "w")
        self.assertEqual(self.completed(*words, RTM_SYNC_PROFILES="mine.toml"), ["work"])

    def test_where_a_path_is_wanted_the_shell_is_told_to_offer_files(self) -> None:
        def answer(words: str) -> str:
            line = f"rtm-sync {words} ca"
            return self.printed(
                _RTM_SYNC_COMPLETE="bash_complete",
                COMP_WORDS=line,
                COMP_CWORD=str(line.count(" ")),
            )

        for_paths = ("upload", "send --file", "download --to", "demo", "send --ca-file")
        answers = at_once(*(functools.partial(answer, words) for words in for_paths))
        self.assertEqual(
            dict(zip(for_paths, answers, strict=True)), dict.fromkeys(for_paths, "file,ca\n")
        )

    def test_each_shell_gets_a_script_that_asks_the_installed_command(self) -> None:
        scripts = at_once(*(functools.partial(self.script, shell) for shell in SHELLS))
        for shell, script in zip(SHELLS, scripts, strict=True):
            with self.subTest(shell):
                self.assertIn(f"_RTM_SYNC_COMPLETE={shell}_complete", script)
                self.assertNotIn(str(self.home), script)
                if shutil.which(shell):
                    (self.home / "script").write_text(script)
                    self.shell([shell, "-n", "script"])

    def test_the_document_names_what_each_shell_runs(self) -> None:
        text = Path(REPOSITORY, "docs", "cli.md").read_text()
        lines = re.findall(r"_RTM_SYNC_COMPLETE=(\w+)_source rtm-sync", text)
        self.assertEqual(tuple(lines), SHELLS)
