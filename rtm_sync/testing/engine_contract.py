"""What every engine must do, as a test case to mix in."""

from __future__ import annotations

import asyncio
import time
import unittest
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..hub.engine import ChannelEvent, Delivery, Engine, HistoryQuery, MediaUsage
from ..messages import RtmTextMessage
from ..protocol import (
    AttributesUpdated,
    ChannelAttribute,
    ChannelMessage,
    ChannelPosition,
    ConnectionChangeReason,
    HistoricalMessage,
    MediaInfo,
    MemberJoined,
    MemberLeft,
    MessageFromPeer,
    PeerCall,
    PeerOnlineState,
    ReceivedMessageProperties,
)
from .case import RtmTestCase

APP, OTHER_APP = "contract", "other"
_KEEP = 200
_WEEK = 7 * 24 * 3600.0

if TYPE_CHECKING:

    class _Base(RtmTestCase, unittest.IsolatedAsyncioTestCase):
        pass
else:
    _Base = object


@dataclass
class NotingNode:
    """A hub's side of an engine: notes what it is told, in order.

    Attributes:
        told: `(name of the Node's method, its arguments…)`.
        delivery: what becomes of a message that is delivered to a peer here.
    """

    told: list[tuple[object, ...]] = field(default_factory=list)
    delivery: Delivery = Delivery.RECEIVED

    async def deliver_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        self.told.append(("deliver_to_peer", app_id, uid, message))
        return self.delivery

    def deliver_to_channel(self, app_id: str, event: ChannelEvent) -> None:
        self.told.append(("deliver_to_channel", app_id, event))

    def evict(self, app_id: str, uid: str, session_id: str, reason: ConnectionChangeReason) -> None:
        self.told.append(("evict", app_id, uid, session_id, reason))

    def presence_changed(self, app_id: str, uid: str, state: PeerOnlineState) -> None:
        self.told.append(("presence_changed", app_id, uid, state))

    def count_changed(self, app_id: str, channel_id: str, count: int) -> None:
        self.told.append(("count_changed", app_id, channel_id, count))

    def of(self, name: str) -> list[tuple[object, ...]]:
        """The arguments of each call of that method."""
        return [told[1:] for told in self.told if told[0] == name]

    def events(self, app_id: str = APP) -> list[ChannelEvent]:
        """What was delivered to an app's channels."""
        return [told[2] for told in self.told if told[:2] == ("deliver_to_channel", app_id)]  # type: ignore[misc]


class EngineContract(_Base):
    """Mix into a `RtmTestCase` and an `IsolatedAsyncioTestCase` and say what the engine is:

        class MyEngineTest(EngineContract, RtmTestCase, unittest.IsolatedAsyncioTestCase):
            def make_engine(self) -> Engine:
                return MyEngine(…)

    Each test has a world of its own, empty at first. A test of a new method of `Engine` needs no
    more than `self.engine`, started before each test, and `self.node`, which notes what it is told.

    Attributes:
        outlives_process: what was stored is there after a restart.
        wall: the time that the tests tell the engine, seconds since the epoch; an engine that
            takes a clock may be given `lambda: self.wall`.
        patience: seconds that news may take to reach the node.
    """

    outlives_process: bool = True
    patience: float = 10.0

    def make_engine(self) -> Engine:
        """An engine of this test's world, not started.

        Called again, with the first one stopped, it stands for the engine after a restart.
        """
        raise NotImplementedError

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.wall = time.time()
        self.node = NotingNode()
        self.engine = await self.started()

    async def started(self) -> Engine:
        """Another engine of this world, stopped after the test."""
        engine = self.make_engine()
        await engine.start(self.node)
        self.addAsyncCleanup(engine.stop)
        return engine

    async def restart(self) -> None:
        """Stop the engine, and start one in its place."""
        await self.engine.stop()
        self.engine = await self.started()

    # -- helpers --

    async def soon(self, expected: object, actual: Callable[[], object]) -> None:
        """Assert that `actual()` becomes what is expected: news may take its time."""
        deadline = time.monotonic() + self.patience
        while actual() != expected and time.monotonic() < deadline:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.005)
        self.assertEqual(actual(), expected)

    async def store(self, *texts: str, uid: str = "bob", sender: str = "alice") -> None:
        """Store offline messages."""
        for text in texts:
            await self.engine.store_offline(APP, uid, peer_message(text, sender), _KEEP, _WEEK)

    async def waiting(self, uid: str = "bob", app_id: str = APP) -> list[str]:
        """The texts of a user's offline messages."""
        found = await self.engine.offline(app_id, uid, self.wall)
        return [text_of(item.message) for item in found]

    async def store_conversations(self) -> None:
        """Store four messages, m0 to m3: to and from bob, another's, and in a channel "bob"."""
        for number, (source, destination, is_channel) in enumerate(
            (
                ("alice", "bob", False),
                ("bob", "alice", False),
                ("carol", "bob", False),
                ("alice", "bob", True),
            )
        ):
            await self.engine.store_history(
                APP,
                historical(
                    f"{number}", source, destination, is_channel=is_channel, ms=100 + number
                ),
                _WEEK,
            )

    async def texts(self, query: HistoryQuery) -> list[str]:
        """The texts of the messages that a query finds."""
        found = await self.engine.history(APP, query, self.wall)
        return [text_of(item) for _, item in found]

    # -- claims --

    async def test_a_claim_evicts_whoever_held_the_user(self) -> None:
        await self.engine.claim(APP, "bob", "first")
        await self.engine.claim(APP, "bob", "first")
        await self.engine.claim(OTHER_APP, "bob", "stranger")
        await self.engine.claim(APP, "bob", "second")
        await self.soon(
            [(APP, "bob", "first", ConnectionChangeReason.REMOTE_LOGIN)],
            lambda: self.node.of("evict"),
        )

    async def test_only_the_holder_can_give_a_claim_up(self) -> None:
        await self.engine.claim(APP, "bob", "first")
        await self.engine.claim(APP, "bob", "second")
        await self.engine.release(APP, "bob", "first")
        sent = self.engine.send_to_peer(APP, "bob", peer_message("hi"))
        self.assertIs(await sent, Delivery.RECEIVED)
        await self.engine.release(APP, "bob", "second")
        sent = self.engine.send_to_peer(APP, "bob", peer_message("hi"))
        self.assertIs(await sent, Delivery.OFFLINE)

    async def test_releasing_what_nobody_holds_is_no_matter(self) -> None:
        await self.engine.release(APP, "bob", "session")
        self.assertEqual(await self.engine.user_attributes(APP, "bob"), None)
        self.assertEqual(self.node.of("presence_changed"), [])

    async def test_many_users_are_claimed_at_once(self) -> None:
        uids = [f"user {number}" for number in range(100)]
        await asyncio.gather(*(self.engine.claim(APP, uid, f"of {uid}") for uid in uids))
        states = await self.engine.presence(APP, uids)
        self.assertEqual(states, dict.fromkeys(uids, PeerOnlineState.ONLINE))
        self.assertEqual(self.node.of("evict"), [])

    async def test_of_many_claims_at_once_one_holds(self) -> None:
        sessions = [f"session {number}" for number in range(10)]
        await asyncio.gather(*(self.engine.claim(APP, "bob", session) for session in sessions))
        await self.soon(9, lambda: len({told[2] for told in self.node.of("evict")}))
        (holder,) = set(sessions) - {told[2] for told in self.node.of("evict")}
        assert isinstance(holder, str)
        await self.engine.release(APP, "bob", holder)
        states = await self.engine.presence(APP, ["bob"])
        self.assertEqual(states, {"bob": PeerOnlineState.OFFLINE})

    async def test_whoever_holds_a_user_can_be_kicked(self) -> None:
        self.assertFalse(await self.engine.kick(APP, "bob"))
        await self.engine.claim(APP, "bob", "session")
        self.assertFalse(await self.engine.kick(OTHER_APP, "bob"))
        self.assertTrue(await self.engine.kick(APP, "bob"))
        await self.soon(
            [(APP, "bob", "session", ConnectionChangeReason.BANNED_BY_SERVER)],
            lambda: self.node.of("evict"),
        )

    async def test_a_ban_holds_for_its_user_until_it_is_ended(self) -> None:
        self.assertEqual(await self.engine.banned_until(APP, "bob"), 0.0)
        for until in (self.wall + 60, self.wall + 3600.5):
            await self.engine.ban(APP, "bob", until)
            self.assertEqual(await self.engine.banned_until(APP, "bob"), until)
        self.assertEqual(await self.engine.banned_until(APP, "carol"), 0.0)
        self.assertEqual(await self.engine.banned_until(OTHER_APP, "bob"), 0.0)
        for _ in range(2):
            await self.engine.ban(APP, "bob", 0.0)
            self.assertEqual(await self.engine.banned_until(APP, "bob"), 0.0)

    async def test_the_bans_of_an_app_can_be_listed(self) -> None:
        self.assertEqual(await self.engine.bans(APP, self.wall), {})
        for uid, seconds in (("bob", 60), ("carol", 30), ("dora", 10)):
            await self.engine.ban(APP, uid, self.wall + seconds)
        await self.engine.ban(APP, "dora", 0.0)
        await self.engine.ban(OTHER_APP, "eve", self.wall + 60)
        listed = await self.engine.bans(APP, self.wall)
        self.assertEqual(list(listed.items()), [("carol", self.wall + 30), ("bob", self.wall + 60)])
        self.assertEqual(list(await self.engine.bans(APP, self.wall + 30)), ["bob"])

    async def test_a_revocation_is_one_users_alone_and_outlives_a_restart(self) -> None:
        self.assertEqual(await self.engine.revoked_before(APP, "bob"), 0.0)
        for before in (self.wall, self.wall + 1.5):
            await self.engine.revoke(APP, "bob", before)
            self.assertEqual(await self.engine.revoked_before(APP, "bob"), before)
        self.assertEqual(await self.engine.revoked_before(APP, "carol"), 0.0)
        self.assertEqual(await self.engine.revoked_before(OTHER_APP, "bob"), 0.0)
        await self.restart()
        kept = self.wall + 1.5 if self.outlives_process else 0.0
        self.assertEqual(await self.engine.revoked_before(APP, "bob"), kept)

    async def test_a_ban_outlives_a_restart(self) -> None:
        until = self.wall + 60
        await self.engine.ban(APP, "bob", until)
        await self.restart()
        kept = until if self.outlives_process else 0.0
        self.assertEqual(await self.engine.banned_until(APP, "bob"), kept)

    # -- presence --

    async def test_presence_is_told_as_it_changes(self) -> None:
        await self.engine.claim(APP, "bob", "session")
        await self.engine.set_reachable(APP, "bob", "session", reachable=False)
        await self.engine.set_reachable(APP, "bob", "session", reachable=True)
        await self.engine.release(APP, "bob", "session")
        states = [
            PeerOnlineState.ONLINE,
            PeerOnlineState.UNREACHABLE,
            PeerOnlineState.ONLINE,
            PeerOnlineState.OFFLINE,
        ]
        await self.soon(
            [(APP, "bob", state) for state in states], lambda: self.node.of("presence_changed")
        )

    async def test_presence_is_answered_for_each_asked_in_order(self) -> None:
        await self.engine.claim(APP, "alice", "a")
        await self.engine.claim(APP, "bob", "b")
        await self.engine.claim(OTHER_APP, "carol", "c")
        await self.engine.set_reachable(APP, "bob", "b", reachable=False)
        found = await self.engine.presence(APP, ["carol", "bob", "alice"])
        self.assertEqual(
            list(found.items()),
            [
                ("carol", PeerOnlineState.OFFLINE),
                ("bob", PeerOnlineState.UNREACHABLE),
                ("alice", PeerOnlineState.ONLINE),
            ],
        )
        self.assertEqual(await self.engine.presence(APP, []), {})

    async def test_a_former_session_changes_nothing(self) -> None:
        await self.engine.claim(APP, "bob", "first")
        await self.engine.claim(APP, "bob", "second")
        await self.engine.put_user_attributes(APP, "bob", "second", {"mood": "fine"})
        await self.engine.set_reachable(APP, "bob", "first", reachable=False)
        await self.engine.put_user_attributes(APP, "bob", "first", {"mood": "bad"})
        await self.engine.release(APP, "bob", "first")
        states = await self.engine.presence(APP, ["bob"])
        self.assertEqual(states, {"bob": PeerOnlineState.ONLINE})
        self.assertEqual(await self.engine.user_attributes(APP, "bob"), {"mood": "fine"})

    # -- attributes --

    async def test_a_users_attributes_live_as_long_as_the_claim(self) -> None:
        self.assertIsNone(await self.engine.user_attributes(APP, "bob"))
        await self.engine.claim(APP, "bob", "session")
        self.assertEqual(await self.engine.user_attributes(APP, "bob"), {})
        for attributes in ({"mood": "fine", "näme": "Böb 🎉"}, {"mood": "tired"}):
            await self.engine.put_user_attributes(APP, "bob", "session", attributes)
            self.assertEqual(await self.engine.user_attributes(APP, "bob"), attributes)
        self.assertIsNone(await self.engine.user_attributes(OTHER_APP, "bob"))
        await self.engine.release(APP, "bob", "session")
        self.assertIsNone(await self.engine.user_attributes(APP, "bob"))
        await self.engine.claim(APP, "bob", "another")
        self.assertEqual(await self.engine.user_attributes(APP, "bob"), {})

    async def test_a_channels_attributes_are_changed_by_a_function_of_them(self) -> None:
        topic = ChannelAttribute("cats", "alice", 1)
        seen: list[dict[str, ChannelAttribute]] = []

        def set_topic(before: dict[str, ChannelAttribute]) -> dict[str, ChannelAttribute]:
            seen.append(dict(before))
            return {**before, "topic": topic}

        after = await self.engine.change_channel_attributes(APP, "room", set_topic)
        self.assertEqual((seen, after), ([{}], {"topic": topic}))
        self.assertEqual(await self.engine.channel_attributes(APP, "room"), {"topic": topic})
        self.assertEqual(await self.engine.channel_attributes(OTHER_APP, "room"), {})
        self.assertEqual(await self.engine.channel_attributes(APP, "other"), {})
        await self.engine.change_channel_attributes(APP, "room", lambda _: {})
        self.assertEqual(await self.engine.channel_attributes(APP, "room"), {})

    async def test_a_change_that_raises_changes_nothing(self) -> None:
        topic = ChannelAttribute("cats", "alice", 1)
        await self.engine.change_channel_attributes(APP, "room", lambda _: {"topic": topic})

        def refuse(before: dict[str, ChannelAttribute]) -> dict[str, ChannelAttribute]:
            raise KeyError("refused")

        with self.assertRaisesRegex(KeyError, "refused"):
            await self.engine.change_channel_attributes(APP, "room", refuse)
        self.assertEqual(await self.engine.channel_attributes(APP, "room"), {"topic": topic})

    async def test_changes_of_a_channel_at_the_same_time_all_count(self) -> None:
        def adding(name: str) -> Awaitable[dict[str, ChannelAttribute]]:
            attribute = ChannelAttribute("x", name, 1)
            return self.engine.change_channel_attributes(
                APP, "room", lambda before: {**before, name: attribute}
            )

        names = [f"n{number}" for number in range(20)]
        await asyncio.gather(*map(adding, names))
        found = await self.engine.channel_attributes(APP, "room")
        self.assertEqual(sorted(found), sorted(names))

    # -- peers --

    async def test_a_peers_message_arrives_unchanged_with_its_answer(self) -> None:
        await self.engine.claim(APP, "bob", "session")
        message = peer_message("héllo 你好 \u0000 🎉")
        for delivery in Delivery:
            self.node.delivery = delivery
            self.assertIs(await self.engine.send_to_peer(APP, "bob", message), delivery)
        self.assertEqual(self.node.of("deliver_to_peer"), [(APP, "bob", message)] * 3)

    async def test_a_user_of_another_app_is_not_there(self) -> None:
        await self.engine.claim(APP, "bob", "session")
        sent = self.engine.send_to_peer(OTHER_APP, "bob", peer_message("hi"))
        self.assertIs(await sent, Delivery.OFFLINE)
        self.assertEqual(self.node.of("deliver_to_peer"), [])

    async def test_messages_to_many_peers_at_once_all_arrive(self) -> None:
        uids = [f"user {number}" for number in range(50)]
        for uid in uids:
            await self.engine.claim(APP, uid, uid)
        answers = await asyncio.gather(
            *(self.engine.send_to_peer(APP, uid, peer_message(uid)) for uid in uids)
        )
        self.assertEqual(answers, [Delivery.RECEIVED] * 50)
        self.assertEqual(len(set(map(str, self.node.of("deliver_to_peer")))), 50)

    # -- channels --

    async def test_joins_and_leaves_are_told_once_and_the_count_before(self) -> None:
        for uid in ("alice", "bob", "bob"):
            await self.engine.join(APP, "room", uid)
        self.assertEqual(sorted(await self.engine.members(APP, "room")), ["alice", "bob"])
        self.assertEqual(await self.engine.members(OTHER_APP, "room"), [])
        for uid in ("alice", "alice", "bob"):
            await self.engine.leave(APP, "room", uid)
        self.assertEqual(await self.engine.members(APP, "room"), [])
        await self.soon(
            [
                ("count_changed", APP, "room", 1),
                ("deliver_to_channel", APP, MemberJoined("room", "alice")),
                ("count_changed", APP, "room", 2),
                ("deliver_to_channel", APP, MemberJoined("room", "bob")),
                ("count_changed", APP, "room", 1),
                ("deliver_to_channel", APP, MemberLeft("room", "alice")),
                ("count_changed", APP, "room", 0),
                ("deliver_to_channel", APP, MemberLeft("room", "bob")),
            ],
            lambda: self.node.told,
        )

    async def test_members_are_counted_for_each_channel_asked_in_order(self) -> None:
        for uid in ("alice", "bob"):
            await self.engine.join(APP, "room", uid)
        await self.engine.join(APP, "hall", "bob")
        await self.engine.join(OTHER_APP, "cellar", "bob")
        found = await self.engine.member_counts(APP, ["hall", "cellar", "room"])
        self.assertEqual(list(found.items()), [("hall", 1), ("cellar", 0), ("room", 2)])

    async def test_many_users_join_at_once(self) -> None:
        uids = [f"user {number}" for number in range(50)]
        await asyncio.gather(*(self.engine.join(APP, "room", uid) for uid in uids))
        self.assertEqual(sorted(await self.engine.members(APP, "room")), sorted(uids))
        self.assertEqual(await self.engine.member_counts(APP, ["room"]), {"room": 50})

    async def test_what_is_published_comes_in_order_with_its_place(self) -> None:
        await self.engine.join(APP, "room", "bob")
        messages = [channel_message(f"{number}") for number in range(20)]
        for message in messages:
            await self.engine.publish(APP, message)
        await self.soon(21, lambda: len(self.node.events()))
        told = [event for event in self.node.events() if isinstance(event, ChannelMessage)]
        self.assertEqual([replace(event, position=None) for event in told], messages)
        places = [event.position for event in told if event.position is not None]
        sequences = [place.sequence for place in places]
        self.assertEqual(sequences, list(range(sequences[0], sequences[0] + 20)))
        self.assertEqual(len({place.epoch for place in places}), 1)

    async def test_news_of_attributes_reaches_the_channel(self) -> None:
        await self.engine.join(APP, "room", "bob")
        news = AttributesUpdated("room", {"topic": ChannelAttribute("cats", "alice", 1)})
        await self.engine.publish(APP, news)
        await self.soon([MemberJoined("room", "bob"), news], self.node.events)

    async def test_who_comes_back_gets_what_was_missed(self) -> None:
        await self.engine.join(APP, "room", "bob")
        for text in ("1", "2", "3"):
            await self.engine.publish(APP, channel_message(text))
        await self.soon(4, lambda: len(self.node.events()))
        _, first, second, third = self.node.events()
        assert isinstance(first, ChannelMessage) and isinstance(third, ChannelMessage)
        missed = await self.engine.missed(APP, "room", first.position)
        self.assertEqual((missed.messages, missed.complete), ((second, third), True))
        self.assertEqual(missed.position, third.position)
        nothing = await self.engine.missed(APP, "room", third.position)
        self.assertEqual((nothing.messages, nothing.complete), ((), True))
        new = await self.engine.missed(APP, "room", None)
        self.assertEqual((new.messages, new.position), ((), third.position))

    async def test_a_place_that_nobody_knows_is_said_to_be_incomplete(self) -> None:
        await self.engine.join(APP, "room", "bob")
        await self.engine.publish(APP, channel_message("1"))
        missed = await self.engine.missed(APP, "room", ChannelPosition("of another life", 7))
        self.assertFalse(missed.complete)

    # -- offline messages --

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
        first, second, third = await self.engine.offline(APP, "bob", self.wall)
        self.assertEqual(second.message, peer_message("2"))
        await self.engine.discard_offline(APP, "bob", [first.key, second.key])
        await self.engine.discard_offline(APP, "carol", [third.key])
        await self.engine.discard_offline(OTHER_APP, "bob", [third.key])
        await self.engine.discard_offline(APP, "bob", [])
        self.assertEqual(await self.waiting(), ["3"])

    async def test_a_key_is_never_given_twice(self) -> None:
        await self.store("1")
        (old,) = await self.engine.offline(APP, "bob", self.wall)
        await self.engine.discard_offline(APP, "bob", [old.key])
        await self.store("2")
        (new,) = await self.engine.offline(APP, "bob", self.wall)
        self.assertGreater(new.key, old.key)

    async def test_waiting_messages_outlive_a_restart(self) -> None:
        await self.store("1", "2", "3")
        first, *_ = await self.engine.offline(APP, "bob", self.wall)
        await self.engine.discard_offline(APP, "bob", [first.key])
        await self.restart()
        self.assertEqual(await self.waiting(), ["2", "3"] if self.outlives_process else [])

    async def test_after_seven_days_messages_are_gone(self) -> None:
        await self.store("1")
        self.wall += _WEEK - 60
        self.assertEqual(await self.waiting(), ["1"])
        self.wall += 120
        self.assertEqual(await self.waiting(), [])

    async def test_many_messages_are_stored_at_once(self) -> None:
        await asyncio.gather(*(self.store(str(number)) for number in range(100)))
        self.assertEqual(sorted(await self.waiting()), sorted(map(str, range(100))))

    # -- history --

    async def test_each_kind_of_conversation_is_found(self) -> None:
        await self.store_conversations()
        for query, texts in (
            (HistoryQuery(source="alice"), ["0", "3"]),
            (HistoryQuery(destination="bob"), ["0", "2", "3"]),
            (HistoryQuery(destination="bob", is_channel=True), ["3"]),
            (HistoryQuery(source="alice", destination="bob", is_channel=False), ["0"]),
            (
                HistoryQuery(source="alice", destination="bob", is_channel=False, both_ways=True),
                ["0", "1"],
            ),
            (HistoryQuery(start=101, end=103), ["1", "2"]),
            (HistoryQuery(newest_first=True), ["3", "2", "1", "0"]),
            (HistoryQuery(source="nobody"), []),
        ):
            with self.subTest(query=query):
                self.assertEqual(await self.texts(query), texts)
                count = await self.engine.history_count(APP, query, self.wall)
                self.assertEqual(count, len(texts))
        self.assertEqual(await self.engine.history(OTHER_APP, HistoryQuery(), self.wall), [])

    async def test_a_message_of_the_history_is_what_was_stored(self) -> None:
        message = historical("héllo 🎉", "alice", "bob", ms=1_700_000_000_123)
        await self.engine.store_history(APP, message, _WEEK)
        ((_, found),) = await self.engine.history(APP, HistoryQuery(), self.wall)
        self.assertEqual(found, message)

    async def test_pages_meet_without_gap_or_copy_in_both_orders(self) -> None:
        await self.store_conversations()
        for newest_first in (False, True):
            seen: list[str] = []
            after = None
            while True:
                query = HistoryQuery(newest_first=newest_first, after=after, limit=3)
                page = await self.engine.history(APP, query, self.wall)
                if not page:
                    break
                seen += [item.message_id for _, item in page]
                after = page[-1][0]
            self.assertEqual(seen, sorted(("m0", "m1", "m2", "m3"), reverse=newest_first))
        offset = HistoryQuery(offset=1, limit=2)
        self.assertEqual(await self.texts(offset), ["1", "2"])
        self.assertEqual(await self.engine.history_count(APP, offset, self.wall), 4)

    async def test_a_copy_is_kept_once_and_everything_seven_days(self) -> None:
        await self.store_conversations()
        await self.store_conversations()
        self.assertEqual(await self.texts(HistoryQuery()), ["0", "1", "2", "3"])
        self.wall += _WEEK + 60
        self.assertEqual(await self.texts(HistoryQuery()), [])
        self.assertEqual(await self.engine.history_count(APP, HistoryQuery(), self.wall), 0)

    async def test_the_history_outlives_a_restart(self) -> None:
        await self.store_conversations()
        await self.restart()
        kept = ["0", "1", "2", "3"] if self.outlives_process else []
        self.assertEqual(await self.texts(HistoryQuery()), kept)

    # -- media records --

    async def test_a_medium_is_known_to_its_app_until_it_is_deleted(self) -> None:
        info = medium("M" * 32, self.wall + _WEEK)
        self.assertIsNone(await self.engine.media(APP, info.media_id))
        await self.engine.put_media(APP, "alice", info)
        self.assertEqual(await self.engine.media(APP, info.media_id), info)
        self.assertIsNone(await self.engine.media(OTHER_APP, info.media_id))
        for _ in range(2):
            await self.engine.delete_media(info.media_id)
            self.assertIsNone(await self.engine.media(APP, info.media_id))

    async def test_the_record_of_a_medium_outlives_a_restart(self) -> None:
        info = medium("M" * 32, self.wall + _WEEK)
        await self.engine.put_media(APP, "alice", info)
        await self.restart()
        kept = info if self.outlives_process else None
        self.assertEqual(await self.engine.media(APP, info.media_id), kept)

    async def test_expired_media_come_until_all_are_deleted(self) -> None:
        ids = {f"{number:032}" for number in range(20)}
        for media_id in ids:
            await self.engine.put_media(APP, "alice", medium(media_id, self.wall + _WEEK))
        await self.engine.put_media(APP, "alice", medium("L" * 32, self.wall + _WEEK + 120))
        self.assertEqual(await self.engine.expired_media(self.wall + _WEEK - 60), [])
        seen: set[str] = set()
        while batch := await self.engine.expired_media(self.wall + _WEEK + 60):
            self.assertFalse(seen & set(batch))
            seen.update(batch)
            for media_id in batch:
                await self.engine.delete_media(media_id)
        self.assertEqual(seen, ids)
        self.assertIsNotNone(await self.engine.media(APP, "L" * 32))

    async def test_what_media_take_is_known_of_each_user_and_app(self) -> None:
        ends_at = self.wall + _WEEK
        for app_id, uid, media_id, size in (
            (APP, "alice", "1" * 32, 100),
            (APP, "alice", "2" * 32, 20),
            (APP, "bob", "3" * 32, 3),
            (OTHER_APP, "alice", "4" * 32, 4_000),
        ):
            info = replace(medium(media_id, ends_at), size=size)
            await self.engine.put_media(app_id, uid, info)
        for app_id, uid, usage in (
            (APP, "alice", MediaUsage(120, 123)),
            (APP, "carol", MediaUsage(0, 123)),
            ("nowhere", "alice", MediaUsage(0, 0)),
        ):
            self.assertEqual(await self.engine.media_usage(app_id, uid), usage)
        await self.engine.delete_media("1" * 32)
        self.assertEqual(await self.engine.media_usage(APP, "alice"), MediaUsage(20, 23))

    # -- life --

    async def test_stopping_is_idempotent_and_a_stopped_engine_refuses(self) -> None:
        await self.engine.stop()
        await self.engine.stop()
        with self.assertRaises(OSError):
            await self.store("1")
        with self.assertRaises(OSError):
            await self.waiting()

    async def test_an_engine_that_was_not_started_refuses(self) -> None:
        await self.engine.stop()
        new = self.make_engine()
        with self.assertRaises(OSError):
            await new.claim(APP, "bob", "session")
            await new.store_offline(APP, "bob", peer_message("1"), _KEEP, _WEEK)


def peer_message(text: str, sender: str = "alice") -> MessageFromPeer:
    """A message to a peer; its id is made of its text."""
    props = ReceivedMessageProperties(1, is_offline_message=True)
    return MessageFromPeer(RtmTextMessage(text), sender, f"id-{text}", props)


def channel_message(text: str, sender: str = "alice", channel_id: str = "room") -> ChannelMessage:
    """A message in a channel, as it is published: without its place."""
    props = ReceivedMessageProperties(1)
    return ChannelMessage(channel_id, RtmTextMessage(text), sender, f"id-{text}", props)


def historical(
    text: str, source: str, destination: str, *, is_channel: bool = False, ms: int
) -> HistoricalMessage:
    """A message of the history, sent at `ms`; its id is `m` and its text."""
    props = ReceivedMessageProperties(ms, is_historical_message=True)
    return HistoricalMessage(
        RtmTextMessage(text), source, destination, is_channel, f"m{text}", props
    )


def medium(media_id: str, expires_at: float) -> MediaInfo:
    """The record of a medium that ends then."""
    return MediaInfo(media_id, 3, "ab" * 32, "naïve.txt", "text/plain", expires_at)


def text_of(message: MessageFromPeer | HistoricalMessage) -> str:
    """The text of a text message."""
    assert isinstance(message.message, RtmTextMessage)
    return message.message.text
