"""The leak-checking test case, run on suites that leak on purpose."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from rtm_sync.testing import case
from tests.support import RtmTestCase, Stopwatch, wait_until

LINUX = sys.platform == "linux"


def outcome(body: Callable[[RtmTestCase], None]) -> unittest.TestResult:
    """Run a test with this `body`, with a short timeout for threads and files that are closing."""

    class Inner(RtmTestCase):
        def test_it(self) -> None:
            body(self)

    result = unittest.TestResult()
    with mock.patch.object(case, "_SETTLE", 0.1):
        Inner("test_it").run(result)
    return result


class LeakTest(unittest.TestCase):
    """Not an `RtmTestCase`: each test here cleans up the leaks of its inner test."""

    def assert_fails(self, result: unittest.TestResult, what: str) -> None:
        self.assertEqual(len(result.failures), 1, result)
        self.assertIn(f"the test leaves behind: {what}", result.failures[0][1])
        self.assertEqual(result.errors, [])

    def assert_passes(self, result: unittest.TestResult) -> None:
        self.assertTrue(result.wasSuccessful(), result.failures + result.errors)
        self.assertEqual(result.testsRun, 1)

    def test_a_test_that_leaves_nothing_passes(self) -> None:
        self.assert_passes(outcome(lambda test: None))

    def test_a_thread_left_running_fails_the_test_by_its_name(self) -> None:
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait, name="forgotten", daemon=True)
        self.addCleanup(thread.join, 5)
        self.addCleanup(stop.set)
        self.assert_fails(outcome(lambda test: thread.start()), "thread forgotten")

    @unittest.skipUnless(LINUX, "sockets are seen on Linux only")
    def test_a_socket_left_open_fails_the_test(self) -> None:
        left: list[socket.socket] = []
        result = outcome(lambda test: left.append(socket.socket()))
        left[0].close()
        self.assert_fails(result, "socket ")

    @unittest.skipUnless(LINUX, "children are seen on Linux only")
    def test_a_child_process_left_running_fails_the_test(self) -> None:
        left: list[subprocess.Popen[bytes]] = []
        command = [sys.executable, "-c", "input()"]

        def start(test: RtmTestCase) -> None:
            left.append(subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL))

        result = outcome(start)
        left[0].kill()
        left[0].communicate()
        self.assert_fails(result, f"child process {left[0].pid}")

    @unittest.skipUnless(LINUX, "children are seen on Linux only")
    def test_a_child_older_than_the_test_is_not_its_leak(self) -> None:
        command = [sys.executable, "-c", "input()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            started = time.monotonic()
            nothing: frozenset[str] = frozenset()  # as when the list missed the child
            with tempfile.TemporaryDirectory() as folder, mock.patch.object(case, "_SETTLE", 0.1):

                def leaks(began: float) -> list[str]:
                    threads = frozenset(threading.enumerate())
                    sockets = case._sockets()
                    return RtmTestCase()._leaks(Path(folder), threads, sockets, nothing, began)

                self.assertEqual(leaks(started + 1.0), [])
                self.assertEqual(leaks(started - 1.0), [f"child process {child.pid}"])
            child.communicate()

    def test_a_temporary_file_left_behind_fails_the_test_and_is_removed(self) -> None:
        left: list[str] = []

        def forget(test: RtmTestCase) -> None:
            with tempfile.NamedTemporaryFile(delete=False, suffix=".left") as file:
                left.append(file.name)

        self.assert_fails(outcome(forget), "temporary file ")
        self.assertFalse(Path(left[0]).exists())

    def test_all_that_is_left_is_named_at_once(self) -> None:
        stop = threading.Event()
        threads = [threading.Thread(target=stop.wait, name=name) for name in ("one", "two")]

        def forget(test: RtmTestCase) -> None:
            for thread in threads:
                thread.start()

        text = outcome(forget).failures[0][1]
        stop.set()
        for thread in threads:
            thread.join(5)
        self.assertIn("thread one", text)
        self.assertIn("thread two", text)

    def test_the_check_comes_after_tear_down_and_every_clean_up(self) -> None:
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        events: list[str] = []

        class Inner(RtmTestCase):
            def tearDown(self) -> None:
                events.append("tear down")

            def test_it(self) -> None:
                thread.start()
                self.addCleanup(events.append, "clean up")
                self.addCleanup(thread.join, 5)
                self.addCleanup(stop.set)

        def checked(*args: object) -> list[str]:
            events.append("leak check")
            return real_check(*args)

        real_check = RtmTestCase._leaks
        result = unittest.TestResult()
        with mock.patch.object(RtmTestCase, "_leaks", checked):
            Inner("test_it").run(result)
        self.assert_passes(result)
        self.assertEqual(events, ["tear down", "clean up", "leak check"])

    def test_what_ends_by_itself_soon_enough_is_no_leak(self) -> None:
        release = threading.Event()
        thread = threading.Thread(target=release.wait)

        def begin(test: RtmTestCase) -> None:
            thread.start()
            ender = threading.Timer(0.02, release.set)
            ender.start()

        self.assert_passes(outcome(begin))

    def test_a_folder_given_by_the_test_case_does_not_count_and_is_removed(self) -> None:
        given: list[Path] = []

        def use(test: RtmTestCase) -> None:
            given.append(test.folder())
            (given[0] / "file").write_bytes(b"x")

        self.assert_passes(outcome(use))
        self.assertFalse(given[0].exists())

    def test_what_was_there_before_the_test_is_not_blamed_on_it(self) -> None:
        with socket.socket():
            self.assert_passes(outcome(lambda test: None))

    def test_a_failing_test_that_also_leaks_reports_both(self) -> None:
        left: list[str] = []

        def fail(test: RtmTestCase) -> None:
            left.append(tempfile.mkdtemp())
            raise RuntimeError("the real trouble")

        result = outcome(fail)
        self.assertIn("the real trouble", result.errors[0][1])
        self.assertIn("temporary file", result.failures[0][1])

    def test_the_usual_temporary_folder_is_back_after_the_test(self) -> None:
        before = tempfile.gettempdir()
        seen: list[str] = []
        outcome(lambda test: seen.append(tempfile.gettempdir()))
        self.assertNotEqual(seen, [before])
        self.assertEqual(tempfile.gettempdir(), before)

    def test_an_entered_context_is_left_after_the_test(self) -> None:
        events: list[str] = []

        @contextlib.contextmanager
        def context():  # type: ignore[no-untyped-def]
            events.append("in")
            yield "value"
            events.append("out")

        self.assert_passes(outcome(lambda test: events.append(test.entered(context()))))
        self.assertEqual(events, ["in", "value", "out"])


class WaitUntilTest(unittest.TestCase):
    def test_it_returns_once_the_predicate_is_true(self) -> None:
        answers = iter([False, 0, "", "yes"])
        wait_until(lambda: next(answers))
        self.assertEqual(list(answers), [])

    def test_it_fails_with_the_given_message_when_time_is_up(self) -> None:
        with self.assertRaisesRegex(AssertionError, "the cat never came"):
            wait_until(lambda: False, timeout=0.01, message="the cat never came")

    def test_it_names_the_predicate_when_no_message_is_given(self) -> None:
        with self.assertRaisesRegex(AssertionError, "not true after 0.01 seconds"):
            wait_until(lambda: False, timeout=0.01)

    def test_a_true_predicate_is_enough_even_without_any_time(self) -> None:
        wait_until(lambda: True, timeout=0)


class StopwatchTest(RtmTestCase):
    def test_it_counts_what_is_done_and_what_is_waited_for(self) -> None:
        watch = Stopwatch()
        threading.Event().wait(0.05)
        self.assertGreaterEqual(watch.seconds(), 0.04)
        compute(0.05)
        self.assertGreaterEqual(watch.seconds(), 0.08)

    @unittest.skipUnless(LINUX, "what waits for a core is seen on Linux only")
    def test_it_does_not_count_the_time_that_others_have_the_cores(self) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(3 * (os.cpu_count() or 1)):
                other = stack.enter_context(
                    subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
                )
                stack.callback(other.kill)
            began, watch = time.monotonic(), Stopwatch()
            compute(0.1)
            took = time.monotonic() - began
            self.assertLess(watch.seconds(), took - 0.05)


def compute(seconds: float) -> None:
    """Use a core for this time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
