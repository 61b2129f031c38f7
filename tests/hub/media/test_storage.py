"""The threads of the media store, on a system without threads for a moment and at its end."""

from __future__ import annotations

import asyncio
import threading
import unittest
from unittest import mock

from rtm_sync.hub.media.storage import StorageThreads
from rtm_sync.testing import RtmTestCase


class StorageThreadsTest(RtmTestCase, unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.threads = StorageThreads(1)
        self.addCleanup(self.threads.close)
        self.calls: list[str] = []

    async def test_a_call_without_a_thread_is_made_once(self) -> None:
        refused = RuntimeError("can't start new thread")
        with mock.patch.object(threading.Thread, "start", side_effect=refused):
            await self.threads.run(self.calls.append, "a write")
        self.assertEqual(self.calls, ["a write"])
        # The executor has the call in its queue, and now gets the thread to make it.
        await self.threads.run(self.calls.append, "another")
        self.assertEqual(self.calls, ["a write", "another"])

    async def test_a_call_after_the_end_of_the_threads_is_made(self) -> None:
        self.threads.close()
        await self.threads.run(self.calls.append, "a deletion")
        self.assertEqual(self.calls, ["a deletion"])

    async def test_an_error_of_the_call_itself_is_not_taken_for_one_of_the_threads(self) -> None:
        def fail() -> None:
            self.calls.append("called")
            raise RuntimeError("of the store")

        with self.assertRaisesRegex(RuntimeError, "of the store"):
            await self.threads.run(fail)
        self.assertEqual(self.calls, ["called"])

    async def test_a_cleanup_is_made_although_its_caller_is_cancelled(self) -> None:
        begun, go_on = threading.Event(), threading.Event()
        self.addCleanup(go_on.set)

        def clean_up() -> None:
            begun.set()
            go_on.wait(60)
            self.calls.append("cleaned up")

        task = asyncio.ensure_future(self.threads.finish(clean_up))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        go_on.set()
        await asyncio.to_thread(self.threads.close)
        self.assertEqual(self.calls, ["cleaned up"])
