"""Background threads and loops: how they start, and what happens when they fail."""

from __future__ import annotations

import asyncio
import threading
import unittest

from rtm_sync.supervision import loop_failures, start_thread, supervised, supervised_thread
from rtm_sync.timing import Backoff
from tests.support import RtmTestCase

AT_ONCE = Backoff(0.0, 0.0)


class StartThreadTest(RtmTestCase):
    def test_it_returns_a_running_daemon_of_that_name(self) -> None:
        go = threading.Event()
        thread = start_thread("rtm-sync-test", go.wait)
        self.assertTrue(thread.is_alive())
        self.assertTrue(thread.daemon)
        self.assertEqual(thread.name, "rtm-sync-test")
        go.set()
        thread.join()


class SupervisedTest(unittest.IsolatedAsyncioTestCase):
    async def test_a_failure_is_logged_with_its_traceback_counted_and_tried_again(self) -> None:
        before = loop_failures().get("test", 0)
        runs: list[int] = []

        async def work() -> None:
            runs.append(1)
            if len(runs) < 4:
                raise KeyError("a bug")

        with self.assertLogs("rtm_sync.supervision", "ERROR") as logs:
            await supervised("test", work, backoff=AT_ONCE)
        self.assertEqual(len(runs), 4)
        self.assertEqual(loop_failures()["test"] - before, 3)
        self.assertEqual(len(logs.records), 3)
        self.assertIn("the test loop failed", logs.output[0])
        self.assertIn("KeyError: 'a bug'", logs.output[0])

    async def test_the_waits_grow_and_begin_anew_after_a_long_healthy_run(self) -> None:
        now = 0.0
        waits: list[int] = []

        class Counting(Backoff):
            def wait(self, failures: int, uniform: object = None) -> float:
                waits.append(failures)
                return 0.0

        async def work() -> None:
            nonlocal now
            if len(waits) == 3:
                now += 3600.0
            if len(waits) < 5:
                raise ValueError

        with self.assertLogs("rtm_sync.supervision"):
            await supervised("test", work, backoff=Counting(0.0, 0.0), clock=lambda: now)
        self.assertEqual(waits, [1, 2, 3, 1, 2])

    async def test_cancelling_ends_it(self) -> None:
        async def work() -> None:
            await asyncio.sleep(3600)

        task = asyncio.create_task(supervised("test", work))
        await asyncio.sleep(0)
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task


class SupervisedThreadTest(RtmTestCase):
    def test_it_goes_on_after_a_failure_and_ends_when_it_is_told(self) -> None:
        before = loop_failures().get("test thread", 0)
        stopping = threading.Event()
        runs: list[int] = []

        def work() -> None:
            runs.append(1)
            if len(runs) == 3:
                stopping.set()
            raise ValueError("a bug")

        with self.assertLogs("rtm_sync.supervision", "ERROR"):
            supervised_thread("test thread", work, stopping, backoff=AT_ONCE)
        self.assertEqual(len(runs), 3)
        self.assertEqual(loop_failures()["test thread"] - before, 3)

    def test_it_ends_with_its_work(self) -> None:
        runs: list[int] = []
        supervised_thread("test thread", lambda: runs.append(1), threading.Event())
        self.assertEqual(runs, [1])
