"""Sessions: resumed within their grace period, ended after it, replaced by a second login."""

from __future__ import annotations

import asyncio
import itertools

from rtm_sync.hub.engine.mailbox import StoredMessages
from rtm_sync.hub.local.engine import LocalEngine
from rtm_sync.hub.local.replay import ReplayLimits
from rtm_sync.hub.node import Hub
from rtm_sync.messages import RtmTextMessage
from rtm_sync.protocol.errors import ProtocolError
from rtm_sync.protocol.events import (
    Acknowledge,
    CancelUpload,
    MemberJoined,
    MemberLeft,
    SessionEnded,
)
from rtm_sync.protocol.frames import encode_reply
from rtm_sync.protocol.ids import FRAME_LIMIT
from rtm_sync.protocol.requests import (
    GetHistory,
    JoinChannel,
    LeaveChannel,
    Logout,
    SendChannelMessage,
    SendMessageToPeer,
)
from rtm_sync.protocol.values import (
    ChannelPosition,
    ConnectionChangeReason,
    JoinResult,
    PeerMessageSendResult,
)
from rtm_sync.rules.limits import Limits
from rtm_sync.rules.rates import Rate

from .support import DAY, HubCase, User, eventually

GRACE = 30.0


_ids = itertools.count()


def peer(text: str, to: str = "bob", **more: bool) -> SendMessageToPeer:
    return SendMessageToPeer(to, RtmTextMessage(text), f"m{next(_ids)}", **more)


def channel(text: str, to: str = "room") -> SendChannelMessage:
    return SendChannelMessage(to, RtmTextMessage(text), f"m{next(_ids)}")


async def resumed(hub: Hub, user: User) -> User:
    """The same user on a new connection, with the counts of the old one."""
    again = User(hub)
    again.counted = user.counted
    result = await again.login(user.session.uid, session=user.session.id, received=user.counted)
    assert result.resumed, "the session was not there any more"
    return again


class GraceTest(HubCase):
    async def test_what_came_meanwhile_arrives_in_order_and_once(self) -> None:
        hub = await self.hub()
        alice, bob = await self.user(hub), await self.user(hub, "bob")
        await alice.call(peer("before"))
        bob.lose_connection()
        sends = [asyncio.ensure_future(alice.call(peer(str(n)))) for n in range(5)]
        await eventually(lambda: bob.session.outbox.unsent == 5)
        await self.skip(5.0)
        self.assertFalse(any(send.done() for send in sends))
        again = await resumed(hub, bob)
        for send in sends:
            self.assertEqual(await send, PeerMessageSendResult(has_peer_received=True))
        self.assertEqual((bob.texts(), again.texts()), (["before"], list("01234")))

    async def test_a_frame_that_was_on_its_way_is_sent_again(self) -> None:
        hub = await self.hub()
        alice = await self.user(hub)
        bob = await self.user(hub, "bob", answers=False, acknowledges=False)
        send = asyncio.ensure_future(alice.call(peer("lost")))
        await eventually(lambda: bob.texts() == ["lost"])
        bob.lose_connection()
        bob.counted = 0  # the network lost the frame
        again = await resumed(hub, bob)
        self.assertEqual(await send, PeerMessageSendResult(has_peer_received=True))
        self.assertEqual(again.texts(), ["lost"])

    async def test_a_session_lasts_thirty_seconds_without_a_connection_and_no_longer(self) -> None:
        hub = await self.hub()
        bob = await self.user(hub, "bob")
        bob.lose_connection()
        await self.skip(GRACE - 1)
        again = await resumed(hub, bob)
        await self.skip(2 * GRACE)  # an attached session has no deadline
        self.assertEqual(hub.session_count, 1)
        again.lose_connection()
        await self.skip(GRACE + 1)
        self.assertEqual(hub.session_count, 0)
        late = User(hub)
        self.assertFalse((await late.login("bob", session=bob.session.id)).resumed)
        self.assertNotEqual(late.session.id, bob.session.id)

    async def test_members_hear_of_one_who_is_gone_only_after_the_grace(self) -> None:
        hub = await self.hub()
        alice, bob = await self.user(hub), await self.user(hub, "bob")
        for user in (alice, bob):
            await user.call(JoinChannel("room"))
        bob.lose_connection()
        await self.skip(GRACE - 1)

        def told() -> list[object]:
            return [item for item in alice.received if isinstance(item, MemberJoined | MemberLeft)]

        self.assertEqual(told(), [MemberJoined("room", "bob")])
        await self.skip(2)
        await eventually(lambda: len(told()) == 2)
        self.assertEqual(told()[1], MemberLeft("room", "bob"))

    async def test_nobody_is_told_received_by_one_who_never_came_back(self) -> None:
        hub = await self.hub(limits=Limits(receipt_timeout=2 * GRACE))
        alice, bob = await self.user(hub), await self.user(hub, "bob")
        bob.lose_connection()
        kept = asyncio.ensure_future(alice.call(peer("kept", enable_offline_messaging=True)))
        gone = asyncio.ensure_future(alice.call(peer("gone")))
        await eventually(lambda: bob.session.outbox.unsent == 2)
        await self.skip(GRACE + 1)
        self.assertEqual(await kept, PeerMessageSendResult(False, cached_by_server=True))
        self.assertEqual(await gone, PeerMessageSendResult(False))
        later = await self.user(hub, "bob")
        await eventually(later.texts)
        self.assertEqual(later.texts(), ["kept"])

    async def test_a_receipt_that_does_not_come_is_a_timeout_not_a_lie(self) -> None:
        hub = await self.hub()
        alice = await self.user(hub)
        bob = await self.user(hub, "bob", answers=False)
        send = asyncio.ensure_future(alice.call(peer("hi")))
        await eventually(lambda: bob.texts() == ["hi"])
        await self.skip(hub.limits.receipt_timeout + 1)
        error = await self.refused("PEER_MESSAGE_ERR_TIMEOUT", send)
        self.assertIn("may still arrive", str(error))

    async def test_a_count_that_cannot_be_resumes_nothing(self) -> None:
        hub = await self.hub()
        for uid, impossible in (("alice", -1), ("bob", 7)):
            user = await self.user(hub, uid)
            user.lose_connection()
            result = await User(hub).login(uid, session=user.session.id, received=impossible)
            self.assertFalse(result.resumed)

    async def test_a_new_connection_takes_over_from_one_that_looks_alive(self) -> None:
        hub = await self.hub()
        alice, bob = await self.user(hub), await self.user(hub, "bob")
        again = await resumed(hub, bob)
        self.assertEqual(bob.closed and bob.closed[0], 4000)
        bob.lose_connection()  # late, and therefore ignored
        await self.skip(GRACE + 1)
        self.assertTrue((await alice.call(peer("hi"))).has_peer_received)
        self.assertEqual((bob.texts(), again.texts()), ([], ["hi"]))


class AcknowledgeTest(HubCase):
    async def test_frames_are_acknowledged_after_two_seconds_at_the_latest(self) -> None:
        hub = await self.hub()
        alice = await self.user(hub)
        for number in range(1, 4):
            await alice.call(peer(f"{number}"))
            await self.skip(2.0)
            await eventually(lambda number=number: alice.acknowledged == number)  # type: ignore[misc]

    async def test_many_frames_are_acknowledged_at_once(self) -> None:
        hub = await self.hub()
        alice = await self.user(hub)
        alice.acknowledged = -1
        for _ in range(32):
            alice.tell(CancelUpload("no-such"))
        self.assertEqual(alice.acknowledged, 32)

    async def test_a_client_that_sends_nothing_is_sent_no_acknowledgement(self) -> None:
        hub = await self.hub()
        alice = await self.user(hub)
        alice.acknowledged = -1
        for _ in range(3):
            await self.skip(2.0)
        self.assertEqual(alice.acknowledged, -1)


class SecondLoginTest(HubCase):
    async def test_the_first_is_told_and_may_say_nothing_more(self) -> None:
        hub = await self.hub()
        first, alice = await self.user(hub, "bob"), await self.user(hub)
        second = await self.user(hub, "bob")
        self.assertEqual(first.received, [SessionEnded(ConnectionChangeReason.REMOTE_LOGIN)])
        self.assertEqual(first.closed, (4001, "REMOTE_LOGIN"))
        first.tell(Acknowledge(99))  # an error if the session lived
        self.assertTrue((await alice.call(peer("hi"))).has_peer_received)
        self.assertEqual((first.texts(), second.texts()), ([], ["hi"]))
        await self.skip(1.0)  # stay below the login rate
        late = User(hub)
        self.assertFalse((await late.login("bob", session=first.session.id)).resumed)

    async def test_the_same_uid_of_another_app_is_another_user(self) -> None:
        hub = await self.hub()
        first, other = await self.user(hub), User(hub)
        await other.login("alice", "other-app")
        self.assertIsNone(first.closed)
        self.assertFalse((await other.call(peer("hi", "bob"))).has_peer_received)

    async def test_the_firsts_channels_are_left(self) -> None:
        hub = await self.hub()
        watcher, first = await self.user(hub, "watcher"), await self.user(hub, "bob")
        for user in (watcher, first):
            await user.call(JoinChannel("room"))
        await self.user(hub, "bob")
        await eventually(lambda: MemberLeft("room", "bob") in watcher.received)


class LogoutTest(HubCase):
    async def test_it_is_answered_and_final(self) -> None:
        hub = await self.hub()
        alice = await self.user(hub)
        await alice.call(Logout())
        self.assertEqual(alice.closed, (1000, "logged out"))
        self.assertEqual(hub.session_count, 0)
        self.assertFalse((await User(hub).login(session=alice.session.id)).resumed)


class ChannelTest(HubCase):
    async def test_messages_reach_the_others_of_this_app_and_channel_only(self) -> None:
        hub = await self.hub()
        alice, bob, far = [await self.user(hub, uid) for uid in ("alice", "bob", "far")]
        stranger = User(hub)
        await stranger.login("stranger", "other-app")
        for user, room in ((alice, "room"), (bob, "room"), (far, "other"), (stranger, "room")):
            await user.call(JoinChannel(room))
        for number in range(3):
            await alice.call(channel(str(number)))
        await eventually(lambda: len(bob.texts()) == 3)
        self.assertEqual(
            [user.texts() for user in (alice, bob, far, stranger)], [[], list("012"), [], []]
        )

    async def test_who_left_hears_no_more_and_may_come_back(self) -> None:
        hub = await self.hub()
        alice, bob = await self.user(hub), await self.user(hub, "bob")
        for user in (alice, bob):
            await user.call(JoinChannel("room"))
        await bob.call(LeaveChannel("room"))
        await self.refused("LEAVE_CHANNEL_ERR_NOT_IN_CHANNEL", bob.call(LeaveChannel("room")))
        await self.refused("CHANNEL_MESSAGE_ERR_NOT_IN_CHANNEL", bob.call(channel("x")))
        await alice.call(channel("unheard"))
        await bob.call(JoinChannel("room"))
        await alice.call(channel("heard"))
        await eventually(lambda: bob.texts() == ["heard"])
        self.assertEqual(hub.channels._members.keys(), {("app", "room")})

    async def test_the_same_channel_twice_in_five_seconds_and_no_more(self) -> None:
        hub = await self.hub()
        alice = await self.user(hub)
        for _ in range(2):
            await alice.call(JoinChannel("room"))
            await alice.call(LeaveChannel("room"))
        await self.refused(
            "JOIN_CHANNEL_ERR_JOIN_SAME_CHANNEL_TOO_OFTEN", alice.call(JoinChannel("room"))
        )
        await alice.call(JoinChannel("other"))
        await self.skip(5.0)
        await alice.call(JoinChannel("room"))

    async def test_channel_and_peer_messages_share_one_budget_that_comes_back(self) -> None:
        hub = await self.hub(limits=Limits.web())
        alice = await self.user(hub)
        await alice.call(JoinChannel("room"))
        for number in range(90):
            await alice.call(channel(f"c{number}"))
            await alice.call(peer(f"p{number}"))
        await self.refused("CHANNEL_MESSAGE_ERR_TOO_OFTEN", alice.call(channel("more")))
        await self.refused("PEER_MESSAGE_ERR_TOO_OFTEN", alice.call(peer("more")))
        await self.skip(3.0)
        await alice.call(channel("more"))

    async def test_a_new_login_or_a_request_over_http_brings_no_new_budget(self) -> None:
        hub = await self.hub(limits=Limits(sends=Rate(3, 3.0)))
        alice = await self.user(hub)
        for number in range(3):
            await alice.call(peer(f"{number}"))
        again = await self.user(hub)
        await self.refused("PEER_MESSAGE_ERR_TOO_OFTEN", again.call(peer("more")))
        service = hub.administration.service_session("app", "alice")
        await self.refused("PEER_MESSAGE_ERR_TOO_OFTEN", hub.perform(service, peer("more")))
        bob = await self.user(hub, "bob")
        await bob.call(peer("bob's"))
        await self.skip(3.0)
        await again.call(peer("more"))

    async def test_logins_are_two_a_second_for_each_user(self) -> None:
        hub = await self.hub()
        for _ in range(2):
            await self.user(hub)
        await self.refused("LOGIN_ERR_TOO_OFTEN", User(hub).login())
        await self.user(hub, "bob")
        await self.skip(1.0)
        await self.user(hub)


class RecoveryTest(HubCase):
    """A member whose session was lost gets the missed messages after its new join, in order."""

    async def join_again(
        self, hub: Hub, name: str, since: ChannelPosition, **options: bool
    ) -> tuple[User, JoinResult]:
        user = User(hub, **options)
        await user.login(name)
        result = await user.call(JoinChannel("room", since))
        return user, result

    async def test_missed_messages_follow_the_answer_before_new_ones(self) -> None:
        hub = await self.hub()
        alice, bob = await self.user(hub, "alice"), await self.user(hub, "bob")
        await alice.call(JoinChannel("room"))
        place = (await bob.call(JoinChannel("room"))).position
        await bob.call(channel("bob's own"))
        hub.end(bob.session)
        for number in range(3):
            await alice.call(channel(f"missed {number}"))
        bob, result = await self.join_again(hub, "bob", place)
        await alice.call(channel("new"))
        await eventually(lambda: len(bob.texts()) == 4)
        self.assertEqual(bob.texts(), ["missed 0", "missed 1", "missed 2", "new"])
        self.assertTrue(result.recovered)
        places = [item.position.sequence for item in bob.received if hasattr(item, "message")]
        self.assertEqual(places, [2, 3, 4, 5])

    async def test_a_gap_that_cannot_be_filled_is_said(self) -> None:
        hub = await self.hub(engine=LocalEngine(replay=ReplayLimits(messages=2)))
        alice, bob = await self.user(hub, "alice"), await self.user(hub, "bob")
        await alice.call(JoinChannel("room"))
        place = (await bob.call(JoinChannel("room"))).position
        hub.end(bob.session)
        for number in range(3):
            await alice.call(channel(f"missed {number}"))
        bob, result = await self.join_again(hub, "bob", place)
        self.assertFalse(result.recovered)
        await eventually(lambda: len(bob.texts()) == 2)
        self.assertEqual(bob.texts(), ["missed 1", "missed 2"])
        _, result = await self.join_again(hub, "carol", ChannelPosition("restarted", 9))
        self.assertFalse(result.recovered)

    async def test_a_long_gap_keeps_pace_with_the_client_and_new_messages_wait(self) -> None:
        hub = await self.hub(limits=Limits(outbox_frames=16))
        alice, bob = await self.user(hub, "alice"), await self.user(hub, "bob")
        await alice.call(JoinChannel("room"))
        place = (await bob.call(JoinChannel("room"))).position
        hub.end(bob.session)
        for number in range(100):
            await alice.call(channel(f"{number}"))
        bob, result = await self.join_again(hub, "bob", place, acknowledges=False)
        await alice.call(channel("100"))
        self.assertTrue(result.recovered)
        self.assertLessEqual(len(bob.session.outbox), 16)
        self.assertNotIn("100", bob.texts())
        bob.acknowledges = True
        bob.tell(Acknowledge(bob.counted))
        await eventually(lambda: len(bob.texts()) == 101)
        self.assertEqual(bob.texts(), [str(number) for number in range(101)])

    async def test_leaving_ends_the_catching_up(self) -> None:
        hub = await self.hub(limits=Limits(outbox_frames=16))
        alice, bob = await self.user(hub, "alice"), await self.user(hub, "bob")
        await alice.call(JoinChannel("room"))
        place = (await bob.call(JoinChannel("room"))).position
        hub.end(bob.session)
        for number in range(100):
            await alice.call(channel(f"{number}"))
        bob, _ = await self.join_again(hub, "bob", place, acknowledges=False)
        await bob.call(LeaveChannel("room"))
        so_far = len(bob.texts())
        bob.acknowledges = True
        bob.tell(Acknowledge(bob.counted))
        await bob.call(JoinChannel("room"))
        await alice.call(channel("after"))
        await eventually(lambda: "after" in bob.texts())
        self.assertLess(so_far, 20)
        self.assertEqual(len(bob.texts()), so_far + 1)


class HistoryTest(HubCase):
    async def test_a_conversation_is_read_by_those_who_are_in_it(self) -> None:
        hub = await self.hub()
        alice, bob = await self.user(hub, "alice"), await self.user(hub, "bob")
        for user in (alice, bob):
            await user.call(JoinChannel("room"))
        await alice.call(peer("to bob", enable_historical_messaging=True))
        await bob.call(peer("to alice", "alice", enable_historical_messaging=True))
        await alice.call(peer("not kept"))
        kept = SendChannelMessage("room", RtmTextMessage("to all"), "c1", True)
        await alice.call(kept)
        page = await bob.call(GetHistory(peer_id="alice"))
        self.assertEqual([item.message.text for item in page.messages], ["to bob", "to alice"])
        self.assertIsNone(page.after)
        self.assertTrue(page.messages[0].message_props.is_historical_message)
        page = await bob.call(GetHistory(channel_id="room"))
        self.assertEqual([item.source for item in page.messages], ["alice"])
        carol = await self.user(hub, "carol")
        self.assertEqual((await carol.call(GetHistory(peer_id="alice"))).messages, ())
        await self.refused("HISTORY_ERR_NOT_IN_CHANNEL", carol.call(GetHistory(channel_id="room")))

    async def test_bad_questions_are_refused(self) -> None:
        hub = await self.hub(limits=Limits(history_reads=Rate(3, 5.0)))
        alice = await self.user(hub, "alice")
        for request in (
            GetHistory(),
            GetHistory(peer_id="bob", channel_id="room"),
            GetHistory(peer_id="a/b"),
            GetHistory(peer_id="bob", limit=0),
            GetHistory(peer_id="bob", limit=101),
        ):
            await self.refused("HISTORY_ERR_INVALID_ARGUMENT", alice.call(request))
        for _ in range(3):
            await alice.call(GetHistory(peer_id="bob"))
        await self.refused("HISTORY_ERR_TOO_OFTEN", alice.call(GetHistory(peer_id="bob")))

    async def test_a_page_is_no_larger_than_a_frame(self) -> None:
        hub = await self.hub()
        alice = await self.user(hub, "alice")
        for number in range(20):
            # Six bytes a character in a frame, and three: a page counts bytes, not characters.
            text = "\x01" * (32 * 1024 - 2) if number < 10 else "€" * 10_000
            await alice.call(peer(f"{number:02}" + text, enable_historical_messaging=True))
        seen: list[str] = []
        after = None
        while True:
            page = await alice.call(GetHistory(peer_id="bob", after=after))
            self.assertLessEqual(len(encode_reply(2**53 - 1, page).encode()), FRAME_LIMIT)
            seen += [item.message.text[:2] for item in page.messages]
            after = page.after
            if after is None:
                break
        self.assertEqual(seen, [f"{number:02}" for number in range(20)])


class SlowConsumerTest(HubCase):
    async def test_one_who_does_not_acknowledge_ends_alone(self) -> None:
        hub = await self.hub(limits=Limits(outbox_frames=10))
        alice, bob = await self.user(hub), await self.user(hub, "bob")
        slow = await self.user(hub, "slow", acknowledges=False)
        for user in (alice, bob, slow):
            await user.call(JoinChannel("room"))
        for number in range(12):
            await alice.call(channel(str(number)))
        await eventually(lambda: slow.closed)
        self.assertEqual(slow.closed and slow.closed[0], 4008)
        self.assertLessEqual(len(slow.session.outbox), 10)
        self.assertFalse((await alice.call(peer("hi", "slow"))).has_peer_received)
        slow.lose_connection()
        await eventually(lambda: MemberLeft("room", "slow") in bob.received)
        self.assertEqual(len(bob.texts()), 12)
        self.assertIsNone(bob.closed)

    async def test_an_overflowed_session_is_not_resumed(self) -> None:
        hub = await self.hub(limits=Limits(outbox_frames=5))
        alice, away = await self.user(hub), await self.user(hub, "away")
        for user in (alice, away):
            await user.call(JoinChannel("room"))
        away.lose_connection()
        for number in range(10):
            await alice.call(channel(str(number)))
        result = await User(hub).login("away", session=away.session.id, received=away.counted)
        self.assertFalse(result.resumed)

    async def test_bytes_count_as_well_as_frames(self) -> None:
        hub = await self.hub(limits=Limits(outbox_bytes=100_000))
        alice, slow = await self.user(hub), await self.user(hub, "slow", acknowledges=False)
        for user in (alice, slow):
            await user.call(JoinChannel("room"))
        for number in range(4):
            await alice.call(channel(str(number) * 30_000))
        await eventually(lambda: slow.closed)
        self.assertEqual(len(slow.texts()), 3)

    async def test_acknowledging_what_was_never_sent_is_an_error(self) -> None:
        alice = await self.user(await self.hub())
        with self.assertRaises(ProtocolError):
            alice.tell(Acknowledge(1))


class OfflineTest(HubCase):
    async def test_two_hundred_large_messages_reach_one_who_acknowledges(self) -> None:
        """The messages exceed the outbox, so they must not all be sent at once."""
        hub = await self.hub()
        alice = await self.user(hub)
        for number in range(200):
            text = f"{number:03}" + "\x01" * (32 * 1024 - 3)  # six bytes each, in a frame
            await alice.call(peer(text, enable_offline_messaging=True))
        bob = await self.user(hub, "bob")
        await eventually(lambda: len(bob.texts()) == 200 or bob.closed)
        self.assertIsNone(bob.closed)
        self.assertEqual([text[:3] for text in bob.texts()], [f"{n:03}" for n in range(200)])

    async def test_they_come_before_what_is_sent_after_the_login(self) -> None:
        hub = await self.hub()
        alice = await self.user(hub)
        for number in range(40):
            await alice.call(peer(f"old {number}", enable_offline_messaging=True))
        bob = await self.user(hub, "bob")
        await alice.call(peer("new"))
        self.assertEqual(bob.texts(), [*(f"old {number}" for number in range(40)), "new"])

    async def test_what_was_confirmed_does_not_come_again(self) -> None:
        hub = await self.hub()
        alice = await self.user(hub)
        await alice.call(peer("once", enable_offline_messaging=True))
        bob = await self.user(hub, "bob")
        await eventually(lambda: bob.texts() == ["once"])
        await bob.call(Logout())
        later = await self.user(hub, "bob")
        await alice.call(peer("next"))
        self.assertEqual(later.texts(), ["next"])

    async def test_they_wait_seven_days(self) -> None:
        hub = await self.hub()
        alice = await self.user(hub)
        for text in ("old", "new"):
            await alice.call(peer(text, enable_offline_messaging=True))
            self.wall += 4 * DAY
        bob = await self.user(hub, "bob")
        await alice.call(peer("now"))
        self.assertEqual(bob.texts(), ["new", "now"])


class TroubledEngine(LocalEngine):
    """An engine that reads offline messages only when allowed, and can fail to join."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = asyncio.Event()
        self.is_away = False

    async def waiting(self, app_id: str, uid: str, after: int, limit: int) -> StoredMessages:
        await self.reads.wait()
        return await super().waiting(app_id, uid, after, limit)

    async def join(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
        if self.is_away:
            raise OSError("the cluster is away")
        await super().join(app_id, channel_id, uid, session_id)


class TroubledEngineTest(HubCase):
    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.engine = TroubledEngine()
        self.made = await self.hub(engine=self.engine, limits=Limits(outbox_frames=80))
        self.engine.reads.set()
        self.alice = await self.user(self.made)
        await self.alice.call(JoinChannel("first"))  # her offline messages have been read

    async def test_what_is_held_back_is_answered_when_the_session_ends(self) -> None:
        self.engine.reads.clear()
        bob = await self.user(self.made, "bob")
        send = asyncio.ensure_future(self.alice.call(peer("hi")))
        kept = await self.alice.call(peer("kept", enable_offline_messaging=True))
        self.assertEqual(kept, PeerMessageSendResult(False, cached_by_server=True))
        self.assertFalse(send.done())
        self.made.end(bob.session)
        self.assertEqual(await send, PeerMessageSendResult(False))
        self.engine.reads.set()

    async def test_what_is_held_back_is_bounded(self) -> None:
        self.engine.reads.clear()
        bob = await self.user(self.made, "bob")
        sends = [asyncio.ensure_future(self.alice.call(peer(str(n)))) for n in range(10)]
        waiting = self.made._messages._deliveries[bob.session]
        await eventually(lambda: len(waiting._others) == 10)
        refused = await self.alice.call(peer("one too many"))
        self.assertEqual(refused, PeerMessageSendResult(False))
        self.engine.reads.set()
        for result in await asyncio.gather(*sends):
            self.assertEqual(result, PeerMessageSendResult(True))
        self.assertEqual(bob.texts(), [str(number) for number in range(10)])

    async def test_what_waits_too_long_is_withdrawn_and_makes_room(self) -> None:
        self.engine.reads.clear()
        bob = await self.user(self.made, "bob")
        sends = [asyncio.ensure_future(self.alice.call(peer(str(n)))) for n in range(10)]
        waiting = self.made._messages._deliveries[bob.session]
        await eventually(lambda: len(waiting._others) == 10)
        await self.skip(self.made.limits.receipt_timeout + 1)
        for result in await asyncio.gather(*sends):  # not TIMEOUT: it was certainly not sent
            self.assertEqual(result, PeerMessageSendResult(False))
        late = asyncio.ensure_future(self.alice.call(peer("late")))
        await eventually(lambda: len(waiting._others) == 1)  # the others have made room
        self.engine.reads.set()
        self.assertEqual(await late, PeerMessageSendResult(True))
        self.assertEqual(bob.texts(), ["late"])

    async def test_a_join_that_failed_can_be_tried_again(self) -> None:
        self.engine.is_away = True
        await self.refused("JOIN_CHANNEL_ERR_FAILURE", self.alice.call(JoinChannel("room")))
        await self.refused("CHANNEL_MESSAGE_ERR_NOT_IN_CHANNEL", self.alice.call(channel("x")))
        self.engine.is_away = False
        await self.alice.call(JoinChannel("room"))
