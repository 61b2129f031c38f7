"""A test case that fails when a test leaves a thread, socket, child process or temporary file."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

PATIENCE = 60.0
"""Seconds that a test waits for a condition before it fails.

Long, because the machine may be busy. A passing test waits only until the condition is true.
Tests of a shorter promised time use their own bound.
"""

_SETTLE = 10.0  # seconds that threads, sockets and children may take to end
_POLL = 0.005
_ROUNDING = 0.1  # seconds, well above what the system rounds the age of a process to
T = TypeVar("T")


def wait_until(
    predicate: Callable[[], object], timeout: float = PATIENCE, message: str = ""
) -> None:
    """Return as soon as `predicate()` is true.

    Raises:
        AssertionError: it did not become true in `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(message or f"not true after {timeout:g} seconds: {predicate}")
        time.sleep(_POLL)


class RtmTestCase(unittest.TestCase):
    """Fails a test that leaks; the check runs after `tearDown` and all clean-ups.

    The check finds temporary files where `tempfile` makes them during the test. The folders of
    `folder()` are removed and do not count. Sockets and children are seen on Linux only.
    """

    def folder(self) -> Path:
        """A new empty folder, removed after the test."""
        path = Path(tempfile.mkdtemp(prefix="rtm-sync-test-", dir=_real_temp))
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        return path

    def entered(self, context: AbstractContextManager[T]) -> T:
        """Enter a context manager that is left after the test."""
        value = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return value

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        if result is None:
            result = self.defaultTestResult()
        watched = Path(tempfile.mkdtemp(prefix="rtm-sync-watched-", dir=_real_temp))
        before = tempfile.tempdir
        tempfile.tempdir = str(watched)
        try:
            gc.collect()
            gc.freeze()  # collecting all living objects for each test takes minutes
            threads, sockets, children = _threads(), _sockets(), _children()
            began = time.monotonic()
            outcome = super().run(result)
            leaks = self._leaks(watched, threads, sockets, children, began)
            if leaks:
                try:
                    raise AssertionError(f"the test leaves behind: {'; '.join(leaks)}")
                except AssertionError:
                    result.addFailure(self, sys.exc_info())
            return outcome
        finally:
            tempfile.tempdir = before
            shutil.rmtree(watched, ignore_errors=True)

    def _leaks(
        self,
        watched: Path,
        threads: frozenset[threading.Thread],
        sockets: frozenset[str],
        children: frozenset[str],
        began: float,
    ) -> list[str]:
        def age() -> float:
            return time.monotonic() - began + _ROUNDING

        def present() -> list[str]:
            return [
                *(f"thread {thread.name}" for thread in _threads() - threads),
                *(f"socket {name}" for name in _sockets() - sockets),
                *(f"child process {pid}" for pid in _children() - children if _age(pid) < age()),
                *(f"temporary file {path.name}" for path in watched.iterdir()),
            ]

        if present():
            gc.collect()  # an object in an unreachable reference cycle is not a leak
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not present(), _SETTLE)
        return present()


_real_temp = tempfile.gettempdir()


def _threads() -> frozenset[threading.Thread]:
    """The threads that Python started; C libraries' threads have names such as "Dummy-1"."""
    return frozenset(
        thread for thread in threading.enumerate() if not thread.name.startswith("Dummy-")
    )


def _sockets() -> frozenset[str]:
    found = set()
    with contextlib.suppress(OSError):
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(entry.readlink())
                if target.startswith("socket:"):
                    found.add(target)
    return frozenset(found)


def _children() -> frozenset[str]:
    """Ids of the child processes.

    The child of a thread that is ending may be missing: the system gives it to another thread, and
    the lists are read one after the other. So a child also has to be younger than the test.
    """
    found: set[str] = set()
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                found.update((task / "children").read_text().split())
    return frozenset(found)


def _age(pid: str) -> float:
    """Seconds since the process was started, to a hundredth; 0 when it has ended."""
    try:
        # The name in parentheses may have spaces; the start is field 22, in ticks since the boot.
        fields = Path("/proc", pid, "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        now = float(Path("/proc/uptime").read_text().split()[0])
        return now - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0.0
