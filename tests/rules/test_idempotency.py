"""Idempotency: the same request twice is performed once, with one outcome."""

from __future__ import annotations

import asyncio
import unittest
from collections.abc import Awaitable, Callable

from hypothesis import given
from hypothesis import strategies as st

from rtm_sync.errors import PeerMessageError
from rtm_sync.hub.tasks import Outcomes, once
from rtm_sync.rules.idempotency import IdempotencyCache, ShareFull
from rtm_sync.rules.limits import Limits
from rtm_sync.rules.rates import Rate


class OnceTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.done: list[str] = []

    async def once(
        self,
        sends: Outcomes,
        key: str,
        work: Callable[[], Awaitable[str]],
        is_final: Callable[[str], bool] = lambda _: True,
    ) -> str:
        return await once(sends, "alice", key, work, PeerMessageError, is_final)

    async def work(self, outcome: str = "done") -> str:
        self.done.append(outcome)
        return outcome

    async def test_the_second_gets_the_firsts_outcome(self) -> None:
        sends: Outcomes = IdempotencyCache(60, 10)
        self.assertEqual(await self.once(sends, "a", lambda: self.work("first")), "first")
        self.assertEqual(await self.once(sends, "a", lambda: self.work("second")), "first")
        self.assertEqual(await self.once(sends, "b", lambda: self.work("other")), "other")
        self.assertEqual(self.done, ["first", "other"])

    async def test_the_second_waits_while_the_first_is_at_work(self) -> None:
        sends: Outcomes = IdempotencyCache(60, 10)
        gate = asyncio.Event()

        async def slow() -> str:
            await gate.wait()
            return await self.work("slow")

        both = [asyncio.ensure_future(self.once(sends, "a", slow)) for _ in range(2)]
        await asyncio.sleep(0)
        both[1].cancel()  # a waiting caller may be cancelled; the work goes on
        third = asyncio.ensure_future(self.once(sends, "a", slow))
        await asyncio.sleep(0)
        gate.set()
        self.assertEqual((await both[0], await third, self.done), ("slow", "slow", ["slow"]))

    async def test_failed_work_is_done_again_and_waiters_share_the_failure(self) -> None:
        sends: Outcomes = IdempotencyCache(60, 10)
        gate = asyncio.Event()

        async def fail() -> str:
            await gate.wait()
            raise OSError("the disk is full")

        both = [asyncio.ensure_future(self.once(sends, "a", fail)) for _ in range(2)]
        await asyncio.sleep(0)
        gate.set()
        for failed in both:
            with self.assertRaisesRegex(OSError, "the disk is full"):
                await failed
        self.assertEqual(await self.once(sends, "a", self.work), "done")

    async def test_an_outcome_that_is_not_final_is_tried_again(self) -> None:
        sends: Outcomes = IdempotencyCache(60, 10)
        for outcome in ("not yet", "final", "unwanted"):
            await self.once(sends, "a", lambda o=outcome: self.work(o), lambda got: got == "final")  # type: ignore[misc]
        self.assertEqual(self.done, ["not yet", "final"])

    async def test_it_forgets_after_the_window(self) -> None:
        sends: Outcomes = IdempotencyCache(0.0, 10)
        for _ in range(2):
            await self.once(sends, "a", self.work)
        self.assertEqual(len(self.done), 2)

    async def test_a_sender_with_too_many_is_refused_and_may_ask_for_the_known_ones(self) -> None:
        sends: Outcomes = IdempotencyCache(60, 100)
        for number in range(100):
            await self.once(sends, f"{number}", self.work)
        with self.assertRaisesRegex(PeerMessageError, "100 messages were sent within 60") as caught:
            await self.once(sends, "one more", self.work)
        self.assertEqual(caught.exception.reason, "TOO_OFTEN")
        self.assertEqual(len(self.done), 100)
        await self.once(sends, "0", self.work)
        await once(sends, "another", "0", self.work, PeerMessageError)
        self.assertEqual(len(self.done), 101)


class IdempotencyCacheTest(unittest.TestCase):
    def test_an_outcome_is_known_for_the_window(self) -> None:
        cache: IdempotencyCache[str] = IdempotencyCache(60, 10)
        cache.put("alice", "a", "done", 100.0)
        self.assertEqual(cache.get("alice", "a", 159.9), "done")
        self.assertIsNone(cache.get("alice", "a", 167.5))  # an eighth later at the latest
        self.assertIsNone(cache.get("alice", "b", 100.0))
        self.assertIsNone(cache.get("bob", "a", 100.0))

    def test_only_the_outcome_that_is_meant_is_forgotten_or_replaced(self) -> None:
        cache: IdempotencyCache[object] = IdempotencyCache(60, 10)
        first, second, third = object(), object(), object()
        cache.put("alice", "a", first, 0.0)
        cache.put("alice", "a", second, 1.0)
        cache.forget("alice", "a", first)
        cache.replace("alice", "a", first, third)
        self.assertIs(cache.get("alice", "a", 2.0), second)
        cache.replace("alice", "a", second, third)
        self.assertIs(cache.get("alice", "a", 2.0), third)
        cache.forget("alice", "a", third)
        self.assertIsNone(cache.get("alice", "a", 2.0))

    def test_outcomes_that_are_too_old_take_no_room(self) -> None:
        cache: IdempotencyCache[int] = IdempotencyCache(60, 1000)
        for number in range(200):
            cache.put("alice", f"{number}", number, float(number))
        self.assertLess(len(cache), 60 * 10 / 8)
        for number in range(140, 200):
            self.assertEqual(cache.get("alice", f"{number}", 199.0), number)
        cache.put("bob", "1", 1, 300.0)  # those of senders that are quiet take none either
        self.assertEqual(len(cache), 1)

    def test_no_sender_pushes_out_the_ids_of_another(self) -> None:
        cache: IdempotencyCache[int] = IdempotencyCache(60, 100)
        cache.put("bob", "1", 1, 0.0)
        for number in range(100):
            cache.put("alice", f"{number}", number, 1.0)
        with self.assertRaises(ShareFull):
            cache.put("alice", "100", 100, 2.0)
        cache.put("bob", "2", 2, 2.0)
        self.assertEqual(cache.get("bob", "1", 59.0), 1)
        self.assertEqual(cache.get("alice", "0", 59.0), 0)
        cache.put("alice", "100", 100, 70.0)

    def test_the_window_holds_at_the_highest_rate_that_is_allowed(self) -> None:
        for limits in (Limits(), Limits.web(), Limits(sends=Rate(7, 0.5), duplicate_window=10.2)):
            most = limits.remembered_sends_of_sender
            cache: IdempotencyCache[int] = IdempotencyCache(limits.duplicate_window, most)
            step = limits.sends.seconds / limits.sends.count
            number, now = 0, 0.0
            while now < 1.2 * limits.duplicate_window:
                cache.put("alice", f"{number}", number, now)
                number, now = number + 1, number * step
            oldest = number - int(limits.duplicate_window / step) + 2
            self.assertEqual(cache.get("alice", f"{oldest}", now), oldest)

    @given(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.floats(0, 40)),
            max_size=40,
        )
    )
    def test_it_knows_what_a_plain_dict_knows(self, puts: list[tuple[str, str, float]]) -> None:
        cache: IdempotencyCache[int] = IdempotencyCache(60, 1000)
        plain: dict[tuple[str, str], tuple[int, float]] = {}
        now = 0.0
        for number, (sender, key, wait) in enumerate(puts, 1):
            now += wait
            cache.put(sender, key, number, now)
            plain[sender, key] = number, now
            for each, (outcome, at) in plain.items():
                known = cache.get(*each, now)
                if now - at < 60:
                    self.assertEqual(known, outcome)
                elif now - at >= 67.5:
                    self.assertIsNone(known)
