"""The contract of every `Bus`, as a test case to mix in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace

from ..hub.engine.bus import Bus
from ..hub.engine.directory import Directory
from ..hub.engine.node import Delivery
from ..protocol.events import AttributesUpdated, MemberJoined, MemberLeft
from ..protocol.values import ChannelAttribute, ChannelPosition
from .engine_kit import APP, OTHER_APP, EnginePartContract, channel_message, peer_message


class BusContract(EnginePartContract):
    """Mix into a `RtmTestCase` and an `IsolatedAsyncioTestCase` and make the bus:

        class MyBusTest(BusContract, RtmTestCase, unittest.IsolatedAsyncioTestCase):
            def make_bus(self) -> Bus:
                return MyBus(…)

    `EnginePartContract` has the attributes that a test may set or use.

    A bus that finds users by a directory's claims overrides `log_in`.
    """

    def make_bus(self) -> Bus:
        """A bus of this test's world, not started.

        A second call, after the first bus was stopped, returns the bus after a restart.
        """
        raise NotImplementedError

    def make_part(self) -> Bus:
        return self.make_bus()

    @property
    def bus(self) -> Bus:
        """The bus under test, started."""
        assert isinstance(self.part, Bus), f"{self.part!r} is not a Bus."
        return self.part

    async def log_in(self, uid: str, app_id: str = APP) -> None:
        """Give a user a session on this node.

        An object that is also the directory claims the user itself. A bus that is made with another
        directory overrides this method: call it first, then claim the user there.
        """
        self.node.here.add((app_id, uid))
        if isinstance(self.part, Directory):
            await self.part.claim(app_id, uid, f"session of {uid}")

    # -- peers --

    async def test_a_peers_message_arrives_unchanged_with_its_answer(self) -> None:
        await self.log_in("bob")
        message = peer_message("héllo 你好 \u0000 🎉")
        for delivery in Delivery:
            self.node.delivery = delivery
            self.assertIs(await self.bus.send_to_peer(APP, "bob", message), delivery)
        self.assertEqual(self.node.of("deliver_to_peer"), [(APP, "bob", message)] * 3)

    async def test_it_says_who_takes_stored_messages(self) -> None:
        self.node.here.add((APP, "bob"))
        self.assertTrue(await self.bus.listens(APP, "bob"))
        self.assertFalse(await self.bus.listens(APP, "carol"))
        self.assertFalse(await self.bus.listens(OTHER_APP, "bob"))

    async def test_a_user_who_is_nowhere_or_in_another_app_is_offline(self) -> None:
        await self.log_in("bob")
        for app_id, uid in ((OTHER_APP, "bob"), (APP, "carol")):
            sent = self.bus.send_to_peer(app_id, uid, peer_message("hi"))
            self.assertIs(await asyncio.wait_for(sent, self.patience), Delivery.OFFLINE)
        self.assertEqual(self.node.of("deliver_to_peer"), [])

    async def test_messages_to_a_peer_arrive_in_the_order_they_were_sent(self) -> None:
        await self.log_in("bob")
        messages = [peer_message(f"{number}") for number in range(30)]
        sends = (self.bus.send_to_peer(APP, "bob", message) for message in messages)
        self.assertEqual(await asyncio.gather(*sends), [Delivery.RECEIVED] * 30)
        self.assertEqual([told[2] for told in self.node.of("deliver_to_peer")], messages)

    async def test_messages_to_many_peers_at_once_all_arrive(self) -> None:
        uids = [f"user {number}" for number in range(50)]
        for uid in uids:
            await self.log_in(uid)
        answers = await asyncio.gather(
            *(self.bus.send_to_peer(APP, uid, peer_message(uid)) for uid in uids)
        )
        self.assertEqual(answers, [Delivery.RECEIVED] * 50)
        self.assertEqual({told[1] for told in self.node.of("deliver_to_peer")}, set(uids))

    # -- members --

    async def test_joins_and_leaves_are_told_once_and_so_are_the_counts(self) -> None:
        for uid in ("alice", "bob", "bob"):
            await self.bus.join(APP, "room", uid, f"of {uid}")
        self.assertEqual(sorted(await self.bus.members(APP, "room")), ["alice", "bob"])
        self.assertEqual(await self.bus.members(OTHER_APP, "room"), [])
        for uid in ("alice", "alice", "bob"):
            await self.bus.leave(APP, "room", uid, f"of {uid}")
        self.assertEqual(await self.bus.members(APP, "room"), [])
        await self.soon(
            [
                MemberJoined("room", "alice"),
                MemberJoined("room", "bob"),
                MemberLeft("room", "alice"),
                MemberLeft("room", "bob"),
            ],
            self.node.events,
        )
        counts = [(APP, "room", count) for count in (1, 2, 1, 0)]
        await self.soon(counts, lambda: self.node.of("count_changed"))

    async def test_a_late_leave_of_a_former_session_leaves_its_successor_in(self) -> None:
        await self.bus.join(APP, "room", "bob", "first")
        await self.bus.join(APP, "room", "bob", "second")
        self.assertEqual(await self.bus.member_counts(APP, ["room"]), {"room": 1})
        await self.bus.leave(APP, "room", "bob", "first")
        self.assertEqual(await self.bus.members(APP, "room"), ["bob"])
        await self.bus.leave(APP, "room", "bob", "first")
        await self.bus.leave(APP, "room", "bob", "never joined")
        self.assertEqual(await self.bus.members(APP, "room"), ["bob"])
        await self.bus.leave(APP, "room", "bob", "second")
        self.assertEqual(await self.bus.members(APP, "room"), [])
        told = [MemberJoined("room", "bob"), MemberLeft("room", "bob")]
        await self.soon(told, self.node.events)

    async def test_a_late_join_of_a_former_session_does_not_harm_its_successor(self) -> None:
        await self.bus.join(APP, "room", "bob", "second")
        await self.bus.join(APP, "room", "bob", "first")
        await self.bus.leave(APP, "room", "bob", "first")
        self.assertEqual(await self.bus.members(APP, "room"), ["bob"])
        await self.bus.leave(APP, "room", "bob", "second")
        self.assertEqual(await self.bus.members(APP, "room"), [])

    async def test_a_session_that_joined_twice_leaves_at_once(self) -> None:
        for _ in range(2):
            await self.bus.join(APP, "room", "bob", "session")
        await self.bus.leave(OTHER_APP, "room", "bob", "session")
        await self.bus.leave(APP, "hall", "bob", "session")
        self.assertEqual(await self.bus.members(APP, "room"), ["bob"])
        await self.bus.leave(APP, "room", "bob", "session")
        self.assertEqual(await self.bus.members(APP, "room"), [])

    async def test_members_are_counted_for_each_channel_asked_in_order(self) -> None:
        for uid in ("alice", "bob"):
            await self.bus.join(APP, "room", uid, f"of {uid}")
        await self.bus.join(APP, "hall", "bob", "of bob")
        await self.bus.join(OTHER_APP, "cellar", "bob", "of bob")
        found = await self.bus.member_counts(APP, ["hall", "cellar", "room"])
        self.assertEqual(list(found.items()), [("hall", 1), ("cellar", 0), ("room", 2)])

    async def test_many_users_join_at_once(self) -> None:
        uids = [f"user {number}" for number in range(50)]
        await asyncio.gather(*(self.bus.join(APP, "room", uid, f"of {uid}") for uid in uids))
        self.assertEqual(sorted(await self.bus.members(APP, "room")), sorted(uids))
        self.assertEqual(await self.bus.member_counts(APP, ["room"]), {"room": 50})
        await self.soon((APP, "room", 50), lambda: self.node.of("count_changed")[-1])

    # -- messages of channels --

    async def test_what_is_published_comes_in_order_with_growing_positions(self) -> None:
        await self.bus.join(APP, "room", "bob", "session")
        messages = [channel_message(f"{number}") for number in range(20)]
        for message in messages:
            await self.bus.publish(APP, message)
        await self.soon(20, lambda: len(self.node.messages()))
        told = self.node.messages()
        self.assertEqual([replace(message, position=None) for message in told], messages)
        positions = [message.position for message in told if message.position is not None]
        self.assertEqual(len({position.epoch for position in positions}), 1)
        sequences = [position.sequence for position in positions]
        self.assertEqual(sequences, sorted(set(sequences)))
        self.assertEqual(len(sequences), 20)

    async def test_a_message_of_another_apps_channel_is_told_as_that_apps(self) -> None:
        for app_id in (APP, OTHER_APP):
            await self.bus.join(app_id, "room", "bob", f"session in {app_id}")
        await self.bus.publish(OTHER_APP, channel_message("1"))
        await self.bus.publish(APP, channel_message("2"))
        await self.soon(["id-2"], lambda: [message.message_id for message in self.node.messages()])
        await self.soon(2, lambda: len(self.node.events(OTHER_APP)))
        missed = await self.bus.recover(OTHER_APP, "room", None)
        self.assertFalse((await self.bus.recover(APP, "room", missed.position)).complete)

    async def test_news_of_attributes_reaches_the_channel(self) -> None:
        await self.bus.join(APP, "room", "bob", "session")
        news = AttributesUpdated("room", {"topic": ChannelAttribute("cats", "alice", 1)})
        await self.bus.publish(APP, news)
        await self.soon([MemberJoined("room", "bob"), news], self.node.events)

    async def test_a_member_recovers_what_came_after_its_position(self) -> None:
        await self.bus.join(APP, "room", "bob", "session")
        for text in ("1", "2", "3"):
            await self.bus.publish(APP, channel_message(text))
        await self.soon(3, lambda: len(self.node.messages()))
        first, second, third = self.node.messages()
        missed = await self.bus.recover(APP, "room", first.position)
        self.assertEqual((missed.messages, missed.complete), ((second, third), True))
        self.assertEqual(missed.position, third.position)
        nothing = await self.bus.recover(APP, "room", third.position)
        self.assertEqual((nothing.messages, nothing.complete), ((), True))
        new = await self.bus.recover(APP, "room", None)
        self.assertEqual((new.messages, new.position), ((), third.position))
        self.assertTrue(new.complete)

    async def test_what_comes_after_the_recovered_position_is_told(self) -> None:
        async def enter() -> ChannelPosition:
            await self.bus.join(APP, "room", "bob", "session")
            return (await self.bus.recover(APP, "room", None)).position

        entering = asyncio.ensure_future(enter())
        for number in range(30):
            await self.bus.publish(APP, channel_message(f"{number}"))
            await asyncio.sleep(0)  # joins while messages are published
        position = await entering
        await self.bus.publish(APP, channel_message("last"))
        later = await self.bus.recover(APP, "room", position)
        self.assertTrue(later.complete)
        self.assertIn("id-last", [message.message_id for message in later.messages])
        expected = [message.message_id for message in later.messages]
        await self.soon(
            expected,
            lambda: [
                message.message_id
                for message in self.node.messages()
                if message.message_id in expected
            ],
        )

    async def test_an_unknown_position_makes_the_answer_incomplete(self) -> None:
        await self.bus.join(APP, "room", "bob", "session")
        await self.bus.publish(APP, channel_message("1"))
        missed = await self.bus.recover(APP, "room", ChannelPosition("of another life", 7))
        self.assertFalse(missed.complete)

    async def test_messages_of_a_channel_outlive_a_restart(self) -> None:
        await self.bus.join(APP, "room", "bob", "session")
        for text in ("1", "2", "3"):
            await self.bus.publish(APP, channel_message(text))
        await self.soon(3, lambda: len(self.node.messages()))
        first, second, third = self.node.messages()
        await self.restart()
        await self.bus.join(APP, "room", "bob", "another session")
        missed = await self.bus.recover(APP, "room", first.position)
        if not self.outlives_process:  # then the member has to be told
            self.assertFalse(missed.complete)
            return
        self.assertEqual((missed.messages, missed.complete), ((second, third), True))
        await self.bus.publish(APP, channel_message("4"))
        missed = await self.bus.recover(APP, "room", third.position)
        self.assertEqual([message.message_id for message in missed.messages], ["id-4"])
        self.assertTrue(missed.complete)
        await self.soon("id-4", lambda: self.node.messages()[-1].message_id)

    async def test_a_message_sent_again_after_a_restart_comes_once(self) -> None:
        await self.bus.join(APP, "room", "bob", "session")
        start = (await self.bus.recover(APP, "room", None)).position
        await self.bus.publish(APP, channel_message("1"))
        await self.restart()
        if not self.outlives_process:
            return
        await self.bus.join(APP, "room", "bob", "another session")
        await self.bus.publish(APP, channel_message("1"))
        await self.bus.publish(APP, channel_message("1", sender="bob"))
        missed = await self.bus.recover(APP, "room", start)
        self.assertEqual([message.member_id for message in missed.messages], ["alice", "bob"])
        told = lambda: [message.member_id for message in self.node.messages()]  # noqa: E731
        await self.soon(["alice", "bob"], told)

    # -- attributes of channels --

    async def test_a_channels_attributes_are_changed_by_a_function_of_them(self) -> None:
        topic = ChannelAttribute("cats", "alice", 1)
        seen: list[dict[str, ChannelAttribute]] = []

        def set_topic(before: dict[str, ChannelAttribute]) -> dict[str, ChannelAttribute]:
            seen.append(dict(before))
            return {**before, "topic": topic}

        after = await self.bus.change_channel_attributes(APP, "room", set_topic)
        self.assertEqual((seen, after), ([{}], {"topic": topic}))
        self.assertEqual(await self.bus.channel_attributes(APP, "room"), {"topic": topic})
        self.assertEqual(await self.bus.channel_attributes(OTHER_APP, "room"), {})
        self.assertEqual(await self.bus.channel_attributes(APP, "other"), {})
        await self.bus.change_channel_attributes(APP, "room", lambda _: {})
        self.assertEqual(await self.bus.channel_attributes(APP, "room"), {})

    async def test_a_change_that_raises_changes_nothing(self) -> None:
        topic = ChannelAttribute("cats", "alice", 1)
        await self.bus.change_channel_attributes(APP, "room", lambda _: {"topic": topic})

        def refuse(before: dict[str, ChannelAttribute]) -> dict[str, ChannelAttribute]:
            raise KeyError("refused")

        with self.assertRaisesRegex(KeyError, "refused"):
            await self.bus.change_channel_attributes(APP, "room", refuse)
        self.assertEqual(await self.bus.channel_attributes(APP, "room"), {"topic": topic})

    async def test_changes_of_a_channel_at_the_same_time_all_count(self) -> None:
        def adding(name: str) -> Awaitable[dict[str, ChannelAttribute]]:
            attribute = ChannelAttribute("x", name, 1)
            return self.bus.change_channel_attributes(
                APP, "room", lambda before: {**before, name: attribute}
            )

        names = [f"n{number}" for number in range(20)]
        await asyncio.gather(*map(adding, names))
        found = await self.bus.channel_attributes(APP, "room")
        self.assertEqual(sorted(found), sorted(names))

    async def test_a_channel_that_was_left_keeps_its_attributes_for_a_while(self) -> None:
        topic = ChannelAttribute("cats", "alice", 1)
        await self.bus.join(APP, "room", "bob", "session")
        await self.bus.change_channel_attributes(APP, "room", lambda _: {"topic": topic})
        await self.bus.leave(APP, "room", "bob", "session")
        self.assertEqual(await self.bus.channel_attributes(APP, "room"), {"topic": topic})

    # -- life --

    async def test_a_bus_that_is_not_running_refuses(self) -> None:
        await self.assert_needs_running(
            lambda: self.bus.send_to_peer(APP, "bob", peer_message("1")),
            lambda: self.bus.listens(APP, "bob"),
            lambda: self.bus.join(APP, "room", "bob", "session"),
            lambda: self.bus.leave(APP, "room", "bob", "session"),
            lambda: self.bus.members(APP, "room"),
            lambda: self.bus.member_counts(APP, ["room"]),
            lambda: self.bus.publish(APP, channel_message("1")),
            lambda: self.bus.recover(APP, "room", None),
            lambda: self.bus.change_channel_attributes(APP, "room", lambda before: before),
            lambda: self.bus.channel_attributes(APP, "room"),
        )
