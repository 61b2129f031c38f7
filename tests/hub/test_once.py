"""Idempotency: the same request twice is performed once, with one outcome."""

from __future__ import annotations

import asyncio
import unittest

from rtm_sync.rules.idempotency import IdempotencyCache


class OnceOnlyTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.done: list[str] = []

    async def work(self, outcome: str = "done") -> str:
        self.done.append(outcome)
        return outcome

    async def test_the_second_gets_the_firsts_outcome(self) -> None:
        once = IdempotencyCache(60, 10)
        self.assertEqual(await once.do("a", lambda: self.work("first")), "first")
        self.assertEqual(await once.do("a", lambda: self.work("second")), "first")
        self.assertEqual(await once.do("b", lambda: self.work("other")), "other")
        self.assertEqual(self.done, ["first", "other"])

    async def test_the_second_waits_while_the_first_is_at_work(self) -> None:
        once, gate = IdempotencyCache(60, 10), asyncio.Event()

        async def slow() -> str:
            await gate.wait()
            return await self.work("slow")

        both = [asyncio.ensure_future(once.do("a", slow)) for _ in range(2)]
        await asyncio.sleep(0)
        both[1].cancel()  # a waiting caller may be cancelled; the work goes on
        third = asyncio.ensure_future(once.do("a", slow))
        await asyncio.sleep(0)
        gate.set()
        self.assertEqual((await both[0], await third, self.done), ("slow", "slow", ["slow"]))

    async def test_failed_work_is_done_again_and_waiters_share_the_failure(self) -> None:
        once, gate = IdempotencyCache(60, 10), asyncio.Event()

        async def fail() -> str:
            await gate.wait()
            raise OSError("the disk is full")

        both = [asyncio.ensure_future(once.do("a", fail)) for _ in range(2)]
        await asyncio.sleep(0)
        gate.set()
        for failed in both:
            with self.assertRaisesRegex(OSError, "the disk is full"):
                await failed
        self.assertEqual(await once.do("a", self.work), "done")

    async def test_an_outcome_that_is_not_final_is_tried_again(self) -> None:
        once = IdempotencyCache(60, 10)
        for outcome in ("not yet", "final", "unwanted"):
            await once.do("a", lambda o=outcome: self.work(o), lambda got: got == "final")  # type: ignore[misc]
        self.assertEqual(self.done, ["not yet", "final"])

    async def test_it_forgets_after_the_window(self) -> None:
        once = IdempotencyCache(0.0, 10)
        for _ in range(2):
            await once.do("a", self.work)
        self.assertEqual(len(self.done), 2)

    async def test_it_remembers_no_more_than_it_may(self) -> None:
        once = IdempotencyCache(60, 100)
        for number in range(1000):
            await once.do(number, self.work)
            self.assertLessEqual(len(once), 100)
        await once.do(999, self.work)
        await once.do(0, self.work)
        self.assertEqual(len(self.done), 1001)  # the newest is remembered, the oldest is forgotten
