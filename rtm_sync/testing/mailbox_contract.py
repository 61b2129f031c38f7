"""The contract of every `Mailbox`, as a test case to mix in."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace

from ..hub.engine.mailbox import (
    Mailbox,
    MailboxFull,
    MailboxLimits,
    StoredMessage,
    StoredMessages,
)
from ..hub.engine.part import QuotaExceeded, Quotas
from .engine_kit import APP, KEEP, OTHER_APP, WEEK, EnginePartContract, peer_message, text_of

LIMITS = MailboxLimits(offline=KEEP, messages=10_000, bytes=32 * 1024 * 1024, retention=WEEK)


class MailboxContract(EnginePartContract):
    """Mix into a `RtmTestCase` and an `IsolatedAsyncioTestCase` and make the mailbox:

        class MyMailboxTest(MailboxContract, RtmTestCase, unittest.IsolatedAsyncioTestCase):
            def make_mailbox(self) -> Mailbox:
                return MyMailbox(…)

    `EnginePartContract` has the attributes that a test may set or use.
    """

    def make_mailbox(self) -> Mailbox:
        """A mailbox of this test's world, not started.

        A second call, after the first mailbox was stopped, returns the mailbox after a restart.
        """
        raise NotImplementedError

    def make_part(self) -> Mailbox:
        return self.make_mailbox()

    @property
    def mailbox(self) -> Mailbox:
        """The mailbox under test, started."""
        assert isinstance(self.part, Mailbox), f"{self.part!r} is not a Mailbox."
        return self.part

    async def store(
        self,
        *texts: str,
        uid: str = "bob",
        sender: str = "alice",
        is_offered: bool = False,
        limits: MailboxLimits = LIMITS,
    ) -> list[int]:
        """Store messages, and return the keys of those that were not handled before."""
        keys = [
            await self.mailbox.store(
                APP, uid, peer_message(text, sender), limits, is_offered=is_offered
            )
            for text in texts
        ]
        return [key for key in keys if key is not None]

    async def discard(
        self, keys: Sequence[int], *, uid: str = "bob", app_id: str = APP, remember: float = 120.0
    ) -> None:
        """Discard messages, and have their ids remembered."""
        await self.mailbox.discard(app_id, uid, keys, remember=remember)

    async def stored(self, uid: str = "bob", app_id: str = APP) -> list[StoredMessage]:
        """All stored messages of a user, read in pages."""
        found: list[StoredMessage] = []
        after: int | None = 0
        while after is not None:
            page = await self.mailbox.waiting(app_id, uid, after, 90)
            found += page.messages
            after = page.last_key
        return found

    async def waiting(self, uid: str = "bob", app_id: str = APP) -> list[str]:
        """The texts of a user's stored messages."""
        return [text_of(item.message) for item in await self.stored(uid, app_id)]

    async def test_messages_wait_in_order_for_their_receiver_only(self) -> None:
        await self.store("1", "2", "3")
        await self.store("other", uid="carol")
        self.assertEqual(await self.waiting(), ["1", "2", "3"])
        self.assertEqual(await self.waiting("carol"), ["other"])
        self.assertEqual(await self.waiting(app_id=OTHER_APP), [])

    async def test_the_newest_two_hundred_are_kept_for_each_receiver(self) -> None:
        await self.store("carol's", uid="carol")
        await self.store(*map(str, range(205)))
        self.assertEqual(await self.waiting(), [str(number) for number in range(5, 205)])
        self.assertEqual(await self.waiting("carol"), ["carol's"])

    async def test_a_copy_changes_nothing_but_another_senders_is_no_copy(self) -> None:
        await self.store("1", "2", "1")
        self.assertEqual(await self.waiting(), ["1", "2"])
        await self.store("1", sender="carol")
        self.assertEqual(await self.waiting(), ["1", "2", "1"])

    async def test_a_copy_does_not_push_an_old_message_out(self) -> None:
        await self.store(*map(str, range(200)))
        await self.store("199", "0")
        self.assertEqual(await self.waiting(), [str(number) for number in range(200)])

    async def test_only_the_receiver_discards_messages_and_only_those(self) -> None:
        await self.store("1", "2", "3")
        first, second, third = await self.stored()
        self.assertEqual(second.message, peer_message("2"))
        await self.discard([first.key, second.key])
        await self.discard([third.key], uid="carol")
        await self.discard([third.key], app_id=OTHER_APP)
        await self.discard([])
        self.assertEqual(await self.waiting(), ["3"])

    async def test_a_copy_of_a_handled_message_is_not_stored_while_it_is_remembered(self) -> None:
        await self.discard(await self.store("1"))
        if self.outlives_process:
            await self.restart()
        self.assertEqual(await self.store("1"), [])
        self.assertEqual(len(await self.store("1", sender="carol")), 1)
        self.assertEqual(len(await self.store("1", uid="dave")), 1)
        self.wall += 119
        self.assertEqual(await self.store("1"), [])
        self.assertEqual(await self.waiting(), ["1"])  # carol's
        self.wall += 2
        self.assertEqual(len(await self.store("1")), 1)
        self.assertEqual(await self.waiting(), ["1", "1"])

    async def test_the_ids_of_messages_that_only_a_stranger_discards_are_not_remembered(
        self,
    ) -> None:
        keys = await self.store("1")
        await self.discard(keys, uid="carol")
        self.assertEqual(await self.store("1"), keys)

    async def test_a_key_is_never_given_twice(self) -> None:
        await self.store("1")
        (old,) = await self.stored()
        await self.discard([old.key])
        await self.store("2")
        (new,) = await self.stored()
        self.assertGreater(new.key, old.key)

    async def test_waiting_messages_outlive_a_restart(self) -> None:
        await self.store("1", "2", "3")
        first, *_ = await self.stored()
        await self.discard([first.key])
        await self.restart()
        self.assertEqual(await self.waiting(), ["2", "3"] if self.outlives_process else [])

    async def test_after_seven_days_messages_are_gone(self) -> None:
        await self.store("1")
        self.wall += WEEK - 60
        self.assertEqual(await self.waiting(), ["1"])
        self.wall += 120
        self.assertEqual(await self.waiting(), [])

    async def test_many_messages_are_stored_at_once(self) -> None:
        await asyncio.gather(*(self.store(str(number)) for number in range(100)))
        self.assertEqual(sorted(await self.waiting()), sorted(map(str, range(100))))

    async def test_messages_that_are_stored_at_once_have_their_own_keys(self) -> None:
        (known,) = await self.store("known", is_offered=True)
        await self.discard(await self.store("handled", is_offered=True))
        texts = ["1", "handled", "2", "known", "3"]
        outcomes = await asyncio.gather(*(self.store(text, is_offered=True) for text in texts))
        keys = {item.key: text_of(item.message) for item in await self.stored()}
        self.assertEqual(
            [keys[key] for stored in outcomes for key in stored], ["1", "2", "known", "3"]
        )
        self.assertEqual(len(keys), 4)
        self.assertEqual(outcomes[3], [known])

    async def test_no_more_are_kept_than_the_caller_says_and_no_longer(self) -> None:
        await self.store("old")
        for text in ("1", "2", "3"):
            await self.store(text, limits=replace(LIMITS, offline=2, retention=60.0))
        self.assertEqual(await self.waiting(), ["2", "3"])
        await self.store("4")
        self.wall += 90
        self.assertEqual(await self.waiting(), ["4"])

    async def test_a_page_begins_after_a_key_and_is_no_longer_than_asked(self) -> None:
        first, second, third, fourth = await self.store("1", "2", "3", "4")
        page = await self.mailbox.waiting(APP, "bob", first, 2)
        self.assertEqual([item.key for item in page.messages], [second, third])
        self.assertEqual(page.last_key, third)
        self.assertEqual(
            await self.mailbox.waiting(APP, "bob", fourth, 2), StoredMessages((), None)
        )

    async def test_a_key_grows_and_a_copy_has_the_key_of_the_message(self) -> None:
        keys = await self.store("1", "2", "1")
        self.assertEqual(keys[0], keys[2])
        self.assertLess(keys[0], keys[1])
        self.assertEqual([item.key for item in await self.stored()], keys[:2])

    async def test_what_was_offered_is_marked_and_stays_so(self) -> None:
        await self.store("1", "2", "3")
        await self.store("4", "2", is_offered=True)  # "2" is sent again
        first, *_ = await self.stored()
        await self.mailbox.mark_offered(APP, "bob", [first.key, first.key + 1_000_000])
        await self.mailbox.mark_offered(APP, "carol", [item.key for item in await self.stored()])
        expected = [("1", True), ("2", True), ("3", False), ("4", True)]
        for restarted in (False, True):
            if restarted:
                await self.restart()
            found = [(text_of(item.message), item.was_offered) for item in await self.stored()]
            self.assertEqual(found, expected if self.outlives_process or not restarted else [])

    async def test_what_was_offered_is_never_dropped_nor_counted_for_the_two_hundred(self) -> None:
        await self.store("offered", is_offered=True)
        await self.store(*map(str, range(200)))
        await self.store("also offered", is_offered=True)
        self.assertEqual(await self.waiting(), ["offered", *map(str, range(200)), "also offered"])

    async def test_a_full_mailbox_refuses_and_has_room_again(self) -> None:
        for limits in (replace(LIMITS, messages=3), replace(LIMITS, bytes=700)):
            with self.subTest(limits):
                texts = [f"{number} of {limits.messages}" for number in range(10)]
                stored = 0
                with self.assertRaises(MailboxFull):
                    for text in texts:
                        await self.store(text, limits=limits, is_offered=True)
                        stored += 1
                self.assertEqual(await self.waiting(), texts[:stored])
                await self.store(texts[0], uid="carol", limits=limits)  # a limit for each user
                await self.store(texts[0], limits=limits, is_offered=True)  # a copy needs no room
                keys = [item.key for item in await self.stored()]
                await self.discard([keys[0], keys[0]])
                await self.store(texts[-1], limits=limits, is_offered=True)
                await self.discard([item.key for item in await self.stored()])

    async def test_nobodys_messages_push_out_those_of_who_has_sent_fewer(self) -> None:
        await self.store("first", "second", sender="carol")
        await self.store(*map(str, range(KEEP + 50)), sender="mallory")
        await self.store("third", sender="carol")
        own = [str(number) for number in range(53, KEEP + 50)]
        self.assertEqual(await self.waiting(), ["first", "second", *own, "third"])

    async def test_nobody_takes_all_the_room_of_a_mailbox(self) -> None:
        for limits in (
            replace(LIMITS, messages=100, sender_messages=4),
            replace(LIMITS, bytes=100_000, sender_bytes=1000),
        ):
            with self.subTest(limits):
                texts = [f"{number} of {limits.messages}" for number in range(10)]
                with self.assertRaises(MailboxFull) as caught:
                    for text in texts:
                        await self.store(text, sender="mallory", limits=limits, is_offered=True)
                self.assertIn("mallory", str(caught.exception))
                await self.store(texts[0], sender="carol", limits=limits, is_offered=True)
                keys = [item.key for item in await self.stored()]
                await self.discard(keys[:1])
                await self.store(texts[-1], sender="mallory", limits=limits, is_offered=True)
                await self.discard([item.key for item in await self.stored()])

    async def test_a_quota_of_sender_or_app_refuses_until_there_is_room(self) -> None:
        for quotas, is_offered in itertools.product(
            (Quotas(sender=1000), Quotas(app=1000)), (False, True)
        ):
            with self.subTest(quotas=quotas, is_offered=is_offered):
                limits = replace(LIMITS, quotas=quotas)
                with self.assertRaises(QuotaExceeded):
                    for number in range(20):  # to users of whom some may not exist
                        uid = f"nobody-{number % 5}"
                        await self.store("text", uid=uid, limits=limits, is_offered=is_offered)
                        await self.store(f"{number}", uid=uid, limits=limits, is_offered=is_offered)
                others = peer_message("x" * 100, "carol")
                other = self.mailbox.store(APP, "bob", others, limits, is_offered=is_offered)
                if quotas.app is None:
                    await other
                else:
                    with self.assertRaises(QuotaExceeded):
                        await other
                await self.mailbox.store(OTHER_APP, "bob", others, limits, is_offered=False)
                for uid in ("bob", *(f"nobody-{number}" for number in range(5))):
                    for app_id in (APP, OTHER_APP):
                        keys = [item.key for item in await self.stored(uid, app_id)]
                        await self.discard(keys, uid=uid, app_id=app_id, remember=0.0)
                await self.store("again", limits=limits, is_offered=is_offered)
                keys = [item.key for item in await self.stored()]
                await self.discard(keys, remember=0.0)

    async def test_a_mailbox_that_is_not_running_refuses(self) -> None:
        await self.assert_needs_running(
            lambda: self.store("1"),
            lambda: self.mailbox.waiting(APP, "bob", 0, 10),
            lambda: self.mailbox.mark_offered(APP, "bob", [1]),
            lambda: self.discard([1]),
        )
