"""Runs `python -m rtm_sync …` as a shell does, in a temporary folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

from click.testing import CliRunner

from rtm_sync.cli.commands import rtm_sync
from tests.support import PATIENCE, RtmTestCase, wait_until

REPOSITORY = Path(__file__).parents[2]
SECRET = "a secret of tests, 32 bytes or more"
_SERVING = re.compile(r"Serving (ws://\S+) with data in (.+)\. Stop with Ctrl-C\.\n")


WRONG_USAGE = 2  # the exit status for wrong options and arguments
INSTALLED_GENERATORS = "pillow,vips,video,pdf"


def child_environment(**extra: str) -> dict[str, str]:
    """The environment of a child process: only these settings, and a known temporary folder."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("RTM_SYNC_")
    }
    ours = {
        "PYTHONPATH": str(REPOSITORY),
        "RTM_SYNC_DISABLE_PLUGINS": INSTALLED_GENERATORS,  # same results with and without them
        "TMPDIR": tempfile.gettempdir(),
        "XDG_CONFIG_HOME": str(REPOSITORY / "tests" / "nobodys"),  # the developer may have profiles
    }
    return inherited | ours | extra


def with_pillow_plugin(folder: Path) -> dict[str, str]:
    """Variables with which a child finds this repository's Pillow plugin, installed or not."""
    plugin = REPOSITORY / "plugins" / "rtm-sync-pillow"
    metadata = folder / "rtm_sync_pillow-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rtm-sync-pillow\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text("[rtm_sync]\npillow = rtm_sync_pillow\n")
    return {
        "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, plugin, folder))),
        "RTM_SYNC_DISABLE_PLUGINS": INSTALLED_GENERATORS.replace("pillow,", ""),
    }


class Gateway:
    """A running `serve`."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process = process
        self._out = out
        self._err = err

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def complaints(self) -> str:
        """The lines of standard error that are not log lines of level info."""
        lines = self.err.splitlines()
        return "\n".join(line for line in lines if not re.match(r"\S+Z INFO ", line))

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def url(self) -> str:
        return self._announced(1)

    @property
    def data(self) -> str:
        return self._announced(2)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, within: float = PATIENCE) -> int:
        """Wait for the end, and return the exit status."""
        return self.process.wait(within)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.ended()

    def _announced(self, group: int) -> str:
        found = _SERVING.fullmatch(self.out)
        assert found is not None, (self.out, self.err)
        return found[group]


class CommandTestCase(RtmTestCase):
    """A test case that runs commands in `self.home`, a temporary folder."""

    def setUp(self) -> None:
        self.home = self.folder()

    def command(
        self, *arguments: object, standard_input: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. A traceback in its output fails the test."""
        done = subprocess.run(
            self._line(arguments),
            input=standard_input,
            cwd=self.home,
            env=child_environment(**environment),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertNotIn("Traceback", done.stdout + done.stderr)
        return done

    def printed(self, *arguments: object, **environment: str) -> str:
        """The output of a command that succeeds without output on standard error."""
        done = self.command(*arguments, **environment)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def refused(self, *arguments: object, status: int, **environment: str) -> str:
        """The last line that a command prints to standard error."""
        if status == WRONG_USAGE:
            returned, complaints = self._run_here(arguments, environment)
        else:
            done = self.command(*arguments, **environment)
            returned, complaints = done.returncode, done.stderr
        self.assertEqual(returned, status, complaints)
        complaint = complaints.splitlines()[-1]
        self.assertTrue(complaint.startswith("Error: "), complaints)
        return complaint.removeprefix("Error: ")

    def _run_here(
        self, arguments: tuple[object, ...], environment: dict[str, str]
    ) -> tuple[int, str]:
        """Run in this process, for commands that are refused early: it takes a quarter as long."""
        before = Path.cwd()
        variables = mock.patch.dict(os.environ, child_environment(**environment), clear=True)
        os.chdir(self.home)
        try:
            with variables:
                done = CliRunner().invoke(rtm_sync, [str(one) for one in arguments], "rtm-sync")
        finally:
            os.chdir(before)
        self.assertIn(type(done.exception), (SystemExit, type(None)), done.exception)
        return done.exit_code, done.stderr

    def serve(self, *arguments: object, **environment: str) -> Gateway:
        """Start `serve` on a free port, and wait until it prints its URL."""
        folder = self.folder()
        out, err = folder / "out", folder / "err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                self._line(("serve", *arguments)),
                cwd=self.home,
                env=child_environment(**({"RTM_SYNC_PORT": "0"} | environment)),
                stdout=stdout,
                stderr=stderr,
            )
        gateway = Gateway(process, out, err)
        self.addCleanup(self._finish, gateway)
        wait_until(lambda: gateway.out.endswith("\n") or process.poll() is not None, PATIENCE)
        self.assertIsNone(process.poll(), gateway.err)
        return gateway

    def _finish(self, gateway: Gateway) -> None:
        gateway.process.kill()
        gateway.ended()
        self.assertNotIn("Traceback", gateway.err)

    @staticmethod
    def _line(arguments: tuple[object, ...]) -> list[str]:
        return [sys.executable, "-m", "rtm_sync", *map(str, arguments)]
