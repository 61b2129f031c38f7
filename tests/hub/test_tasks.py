"""The background tasks of a hub."""

from __future__ import annotations

import asyncio
import unittest

from rtm_sync.hub.tasks import BackgroundTasks


class BackgroundTasksTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.tasks = BackgroundTasks()

    async def close(self, timeout: float = 5.0) -> None:
        """Close within a time limit: since Python 3.12 a wait for done tasks may never yield."""
        await asyncio.wait_for(self.tasks.close(timeout), 10.0)

    async def test_it_waits_for_what_runs_and_for_what_that_spawns(self) -> None:
        done: list[str] = []

        async def second() -> None:
            await asyncio.sleep(0.01)
            done.append("second")

        async def first() -> None:
            await asyncio.sleep(0.01)
            self.tasks.spawn(second())
            done.append("first")

        self.tasks.spawn(first())
        await self.close()
        self.assertEqual(done, ["first", "second"])
        self.assertEqual(len(self.tasks), 0)

    async def test_tasks_that_are_done_and_not_yet_forgotten_do_not_hold_it_up(self) -> None:
        async def nothing() -> None:
            pass

        for _ in range(100):
            self.tasks.spawn(nothing())
        held = set(self.tasks._tasks)
        while not all(task.done() for task in held):
            await asyncio.sleep(0)
        self.tasks._tasks |= held  # as if their callbacks had not run yet
        await self.close()
        self.assertEqual(len(self.tasks), 0)

    async def test_it_cancels_what_does_not_end_in_time(self) -> None:
        cancelled = asyncio.Event()

        async def stuck() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                cancelled.set()

        self.tasks.spawn(stuck())
        await asyncio.sleep(0)
        await self.close(timeout=0.01)
        self.assertTrue(cancelled.is_set())

    async def test_it_ends_its_loops(self) -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        async def loop() -> None:
            began.set()
            try:
                await asyncio.sleep(3600)
            finally:
                ended.set()

        self.tasks.run_loop("test", loop)
        await began.wait()
        await self.close()
        self.assertTrue(ended.is_set())

    async def test_a_failed_task_is_logged(self) -> None:
        async def fails() -> None:
            raise KeyError("a bug")

        with self.assertLogs("rtm_sync.hub.tasks", "ERROR") as logs:
            self.tasks.spawn(fails())
            await self.close()
        self.assertIn("KeyError: 'a bug'", logs.output[0])
