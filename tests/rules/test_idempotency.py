"""Idempotency: the same request twice is performed once, with one outcome."""

from __future__ import annotations

import asyncio
import unittest
from typing import Any

from rtm_sync.hub.tasks import once
from rtm_sync.rules.idempotency import IdempotencyCache

Sends = IdempotencyCache[asyncio.Future[Any]]


class OnceTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.done: list[str] = []

    async def work(self, outcome: str = "done") -> str:
        self.done.append(outcome)
        return outcome

    async def test_the_second_gets_the_firsts_outcome(self) -> None:
        sends: Sends = IdempotencyCache(60, 10)
        self.assertEqual(await once(sends, "a", lambda: self.work("first")), "first")
        self.assertEqual(await once(sends, "a", lambda: self.work("second")), "first")
        self.assertEqual(await once(sends, "b", lambda: self.work("other")), "other")
        self.assertEqual(self.done, ["first", "other"])

    async def test_the_second_waits_while_the_first_is_at_work(self) -> None:
        sends: Sends = IdempotencyCache(60, 10)
        gate = asyncio.Event()

        async def slow() -> str:
            await gate.wait()
            return await self.work("slow")

        both = [asyncio.ensure_future(once(sends, "a", slow)) for _ in range(2)]
        await asyncio.sleep(0)
        both[1].cancel()  # a waiting caller may be cancelled; the work goes on
        third = asyncio.ensure_future(once(sends, "a", slow))
        await asyncio.sleep(0)
        gate.set()
        self.assertEqual((await both[0], await third, self.done), ("slow", "slow", ["slow"]))

    async def test_failed_work_is_done_again_and_waiters_share_the_failure(self) -> None:
        sends: Sends = IdempotencyCache(60, 10)
        gate = asyncio.Event()

        async def fail() -> str:
            await gate.wait()
            raise OSError("the disk is full")

        both = [asyncio.ensure_future(once(sends, "a", fail)) for _ in range(2)]
        await asyncio.sleep(0)
        gate.set()
        for failed in both:
            with self.assertRaisesRegex(OSError, "the disk is full"):
                await failed
        self.assertEqual(await once(sends, "a", self.work), "done")

    async def test_an_outcome_that_is_not_final_is_tried_again(self) -> None:
        sends: Sends = IdempotencyCache(60, 10)
        for outcome in ("not yet", "final", "unwanted"):
            await once(sends, "a", lambda o=outcome: self.work(o), lambda got: got == "final")  # type: ignore[misc]
        self.assertEqual(self.done, ["not yet", "final"])

    async def test_it_forgets_after_the_window(self) -> None:
        sends: Sends = IdempotencyCache(0.0, 10)
        for _ in range(2):
            await once(sends, "a", self.work)
        self.assertEqual(len(self.done), 2)

    async def test_it_remembers_no_more_than_it_may(self) -> None:
        sends: Sends = IdempotencyCache(60, 100)
        for number in range(1000):
            await once(sends, number, self.work)
            self.assertLessEqual(len(sends), 100)
        await once(sends, 999, self.work)
        await once(sends, 0, self.work)
        self.assertEqual(len(self.done), 1001)  # the newest is remembered, the oldest is forgotten


class IdempotencyCacheTest(unittest.TestCase):
    def test_an_outcome_is_known_for_the_window(self) -> None:
        cache: IdempotencyCache[str] = IdempotencyCache(60, 10)
        cache.put("a", "done", 100.0)
        self.assertEqual(cache.get("a", 159.9), "done")
        self.assertIsNone(cache.get("a", 160.0))
        self.assertIsNone(cache.get("b", 100.0))

    def test_only_the_outcome_that_is_meant_is_forgotten(self) -> None:
        cache: IdempotencyCache[object] = IdempotencyCache(60, 10)
        first, second = object(), object()
        cache.put("a", first, 0.0)
        cache.put("a", second, 1.0)
        cache.forget("a", first)
        self.assertIs(cache.get("a", 2.0), second)
        cache.forget("a", second)
        self.assertIsNone(cache.get("a", 2.0))

    def test_outcomes_that_are_too_old_take_no_room(self) -> None:
        cache: IdempotencyCache[int] = IdempotencyCache(60, 1000)
        for number in range(100):
            cache.put(number, number, float(number))
        self.assertEqual(len(cache), 60)
        self.assertIsNone(cache.get(39, 99.0))
        self.assertEqual(cache.get(40, 99.0), 40)
