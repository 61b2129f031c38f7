"""Runs half of the suite in a second process, beside the other half.

Most of the suite's time is spent waiting for processes and clocks, and one process uses one core.
`tests.load_tests` puts a `Beginning` before the tests of this process and an `End` behind them.
The second process writes the outcome of each test into a file, and `End` reports them as if the
tests had run here: counts, failures and skips are those of the whole suite.

    python -m tests.beside OUTCOMES MODULE…
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tests import support

BESIDE = ("tests.cli.", "tests.faults.", "tests.flask.", "tests.gateway.")
"""How the names of the modules begin that run in the second process."""

_TIMEOUT = 1200.0


class Second:
    """The second process, from `start` to `outcomes`. It is killed when this one exits early."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = modules
        self._folder = tempfile.TemporaryDirectory(prefix="rtm-sync-beside-")
        self._written = Path(self._folder.name) / "outcomes"
        self._printed = Path(self._folder.name) / "printed"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._written.touch()
        with self._printed.open("wb") as printed:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.beside", str(self._written), *self._modules],
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )
        support.BESIDE.add(str(self._process.pid))
        atexit.register(self._process.kill)

    def outcomes(self) -> Iterator[tuple[str, str, str]]:
        """Wait for the end; each test's id, outcome and details. Prints what the tests printed."""
        assert self._process is not None
        status = self._process.wait(_TIMEOUT)
        atexit.unregister(self._process.kill)
        for line in self._written.read_text("utf-8").splitlines():
            name, outcome, details = json.loads(line)
            yield name, outcome, details
        sys.stderr.write(self._printed.read_text("utf-8", "replace"))
        if status:
            yield "tests.beside", "error", f"The second process ended with status {status}."
        self._folder.cleanup()


class Beginning(unittest.TestSuite):
    """Starts the second process; has no tests."""

    def __init__(self, second: Second) -> None:
        super().__init__()
        self._second = second

    def run(self, result: unittest.TestResult, debug: bool = False) -> unittest.TestResult:
        self._second.start()
        return result


class End(unittest.TestSuite):
    """Reports the outcomes of the second process."""

    def __init__(self, second: Second) -> None:
        super().__init__()
        self._second = second

    def run(self, result: unittest.TestResult, debug: bool = False) -> unittest.TestResult:
        for name, outcome, details in self._second.outcomes():
            test = _Reported(name)
            result.startTest(test)
            error = AssertionError(f"in the second process:\n{details}")
            if outcome == "success":
                result.addSuccess(test)
            elif outcome == "skip":
                result.addSkip(test, details)
            elif outcome == "failure":
                result.addFailure(test, (AssertionError, error, None))
            else:
                result.addError(test, (AssertionError, error, None))
            result.stopTest(test)
        return result


class _Reported(unittest.TestCase):
    """A test that ran in the second process."""

    def __init__(self, name: str) -> None:
        super().__init__("reported")
        self._name = name

    def reported(self) -> None:
        """Never runs."""

    def id(self) -> str:
        return self._name

    def shortDescription(self) -> None:
        return None

    def __str__(self) -> str:
        return self._name


class _Writer(unittest.TestResult):
    """Writes the outcome of each test, as one line of JSON."""

    def __init__(self, file: IO[str]) -> None:
        super().__init__()
        self._file = file

    def _write(self, test: unittest.TestCase, outcome: str, details: str = "") -> None:
        print(json.dumps([test.id(), outcome, details]), file=self._file, flush=True)

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._write(test, "success")

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._write(test, "failure", self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self._write(test, "error", self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._write(test, "skip", reason)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self.addFailure(subtest, err)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._write(test, "success")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._write(test, "failure", "an unexpected success")


def main() -> None:
    path, *modules = sys.argv[1:]
    with Path(path).open("a", encoding="utf-8") as file:
        unittest.defaultTestLoader.loadTestsFromNames(modules).run(_Writer(file))


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("default")  # as `python -m unittest` does
    main()
