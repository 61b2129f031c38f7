"""The contract of every `Mailbox`, as a test case to mix in."""

from __future__ import annotations

import asyncio

from ..hub.engine.mailbox import Mailbox
from .engine_kit import APP, KEEP, OTHER_APP, WEEK, EnginePartContract, peer_message, text_of


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

    async def store(self, *texts: str, uid: str = "bob", sender: str = "alice") -> None:
        """Store offline messages."""
        for text in texts:
            await self.mailbox.store_offline(APP, uid, peer_message(text, sender), KEEP, WEEK)

    async def waiting(self, uid: str = "bob", app_id: str = APP) -> list[str]:
        """The texts of a user's offline messages."""
        found = await self.mailbox.offline(app_id, uid, self.wall)
        return [text_of(item.message) for item in found]

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
        first, second, third = await self.mailbox.offline(APP, "bob", self.wall)
        self.assertEqual(second.message, peer_message("2"))
        await self.mailbox.discard_offline(APP, "bob", [first.key, second.key])
        await self.mailbox.discard_offline(APP, "carol", [third.key])
        await self.mailbox.discard_offline(OTHER_APP, "bob", [third.key])
        await self.mailbox.discard_offline(APP, "bob", [])
        self.assertEqual(await self.waiting(), ["3"])

    async def test_a_key_is_never_given_twice(self) -> None:
        await self.store("1")
        (old,) = await self.mailbox.offline(APP, "bob", self.wall)
        await self.mailbox.discard_offline(APP, "bob", [old.key])
        await self.store("2")
        (new,) = await self.mailbox.offline(APP, "bob", self.wall)
        self.assertGreater(new.key, old.key)

    async def test_waiting_messages_outlive_a_restart(self) -> None:
        await self.store("1", "2", "3")
        first, *_ = await self.mailbox.offline(APP, "bob", self.wall)
        await self.mailbox.discard_offline(APP, "bob", [first.key])
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

    async def test_no_more_are_kept_than_the_caller_says_and_no_longer(self) -> None:
        await self.store("old")
        for text in ("1", "2", "3"):
            await self.mailbox.store_offline(APP, "bob", peer_message(text), 2, 60.0)
        self.assertEqual(await self.waiting(), ["2", "3"])
        await self.store("4")
        self.wall += 90
        self.assertEqual(await self.waiting(), ["4"])

    async def test_a_mailbox_that_is_not_running_refuses(self) -> None:
        await self.assert_needs_running(
            lambda: self.mailbox.store_offline(APP, "bob", peer_message("1"), KEEP, WEEK),
            lambda: self.mailbox.offline(APP, "bob", self.wall),
            lambda: self.mailbox.discard_offline(APP, "bob", [1]),
        )
