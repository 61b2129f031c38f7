"""Stored messages stay until they are handled: the hub's half, with clients that speak frames."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Any

from rtm_sync.errors import PeerMessageError
from rtm_sync.hub.local.engine import LocalEngine
from rtm_sync.hub.node import Hub
from rtm_sync.messages import RtmTextMessage
from rtm_sync.protocol.errors import ProtocolError
from rtm_sync.protocol.events import Acknowledge, ListeningChanged, MessagesHandled
from rtm_sync.protocol.frames import encode_failure, encode_notice
from rtm_sync.protocol.requests import Logout, MessageFromPeer, SendMessageToPeer
from rtm_sync.protocol.values import PeerMessageSendResult
from rtm_sync.rules.limits import Limits

from .support import APP, HubCase, User, eventually

RECEIVED = PeerMessageSendResult(has_peer_received=True)
CACHED = PeerMessageSendResult(has_peer_received=False, cached_by_server=True)
_ids = itertools.count()


def to_bob(text: str, **options: Any) -> SendMessageToPeer:
    options.setdefault("enable_offline_messaging", True)
    return SendMessageToPeer("bob", RtmTextMessage(text), f"m{next(_ids)}", **options)


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last)]


def messages_of(user: User) -> list[MessageFromPeer]:
    return [item for item in user.received if isinstance(item, MessageFromPeer)]


def seen(user: User) -> list[tuple[str, bool, bool]]:
    """Text, `is_offline_message` and `is_redelivered` of each message."""
    return [
        (
            getattr(item.message, "text", ""),
            item.message_props.is_offline_message,
            item.message_props.is_redelivered,
        )
        for item in messages_of(user)
    ]


class DeliveriesCase(HubCase):
    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.path = self.folder() / "rtm.sqlite3"
        self.engine = LocalEngine(self.path, now=lambda: self.wall)

    async def start(self, **limits: Any) -> None:
        self.made: Hub = await self.hub(engine=self.engine, limits=Limits(**limits))
        self.alice = await self.user(self.made)

    async def stored(self) -> list[str]:
        page = await self.engine.waiting(APP, "bob", 0, 100_000)
        return [getattr(item.message.message, "text", "") for item in page.messages]

    async def empties(self) -> None:
        """Wait until bob's mailbox is empty."""
        while await self.stored():
            await asyncio.sleep(0.001)

    async def send(self, *texts: str, **options: Any) -> list[PeerMessageSendResult]:
        return [await self.alice.call(to_bob(text, **options)) for text in texts]


class HandledTest(DeliveriesCase):
    async def test_a_message_stays_until_it_is_handled_not_until_it_is_received(self) -> None:
        await self.start()
        bob = await self.user(self.made, "bob", handles=False)
        self.assertEqual(await self.send("1", "2"), [RECEIVED, RECEIVED])
        self.assertEqual(await self.stored(), ["1", "2"])
        first, second = (item.key for item in messages_of(bob))
        assert first is not None and second is not None
        self.assertLess(first, second)
        bob.tell(MessagesHandled((first, first + 1000)))
        await eventually(lambda: not self.made._messages._reported)
        while await self.stored() != ["2"]:
            await asyncio.sleep(0.001)

    async def test_each_end_of_a_session_leaves_what_is_not_handled(self) -> None:
        async def log_out(bob: User) -> None:
            await bob.call(Logout())

        async def lose(bob: User) -> None:
            bob.lose_connection()
            await self.skip(self.made.limits.session_grace + 1)

        async def evict(bob: User) -> None:
            pass  # the next login does it

        await self.start()
        for end in (log_out, lose, evict):
            with self.subTest(end.__name__):
                bob = await self.user(self.made, "bob", handles=False)
                await self.send("1", "2")
                await end(bob)
                again = await self.user(self.made, "bob")
                await self.send("new", enable_offline_messaging=False)
                self.assertEqual(
                    seen(again),
                    [("1", True, True), ("2", True, True), ("new", False, False)],
                )
                await self.empties()
                await again.call(Logout())
                await self.skip(2)

    async def test_what_was_stored_for_an_offline_user_is_not_marked_as_redelivered(self) -> None:
        await self.start()
        self.assertEqual(await self.send("1"), [CACHED])
        bob = await self.user(self.made, "bob", handles=False)
        await eventually(lambda: seen(bob) == [("1", True, False)])
        await bob.call(Logout())
        await self.skip(2)
        bob = await self.user(self.made, "bob")
        await eventually(lambda: seen(bob) == [("1", True, True)])

    async def test_the_mark_outlives_the_hub(self) -> None:
        await self.start()
        self.assertEqual(await self.send("offline"), [CACHED])
        bob = await self.user(self.made, "bob", handles=False)
        await self.send("online")
        await eventually(lambda: len(seen(bob)) == 2)
        await self.made.stop()
        self.engine = LocalEngine(self.path, now=lambda: self.wall)
        await self.start()
        bob = await self.user(self.made, "bob")
        await eventually(lambda: len(seen(bob)) == 2)
        self.assertEqual(seen(bob), [("offline", True, True), ("online", True, True)])

    async def test_a_report_for_an_earlier_session_counts(self) -> None:
        await self.start()
        bob = await self.user(self.made, "bob", handles=False)
        await self.send("1")
        (message,) = messages_of(bob)
        assert message.key is not None
        again = await self.user(self.made, "bob", handles=False)
        again.tell(MessagesHandled((message.key,)))
        await self.empties()

    async def test_only_the_users_own_messages_are_deleted(self) -> None:
        await self.start()
        bob = await self.user(self.made, "bob", handles=False)
        await self.send("1")
        (message,) = messages_of(bob)
        assert message.key is not None
        self.alice.tell(MessagesHandled((message.key,)))
        await eventually(lambda: not self.made._messages._is_deleting)
        self.assertEqual(await self.stored(), ["1"])

    async def test_a_report_with_too_many_keys_is_an_error(self) -> None:
        await self.start()
        with self.assertRaisesRegex(ProtocolError, "1,001 keys are reported; the limit is 1,000"):
            self.alice.tell(MessagesHandled(tuple(range(1001))))

    async def test_a_deletion_that_failed_is_made_again(self) -> None:
        await self.start()
        bob = await self.user(self.made, "bob", handles=False)
        await self.send("1")
        (message,) = messages_of(bob)
        assert message.key is not None
        discard, failures = self.engine.discard, iter([OSError("the disk is full")])

        async def fail_once(*args: Any, remember: float) -> None:
            for failure in failures:
                raise failure
            await discard(*args, remember=remember)

        self.engine.discard = fail_once  # type: ignore[method-assign]
        with self.assertLogs("rtm_sync.hub", "WARNING") as logs:
            bob.tell(MessagesHandled((message.key,)))
            await eventually(lambda: logs.output)
        await self.skip(2)
        await self.empties()

    async def test_what_was_reported_is_not_offered_while_it_is_deleted(self) -> None:
        await self.start()
        bob = await self.user(self.made, "bob", handles=False)
        await self.send("1", "2")
        keys = tuple(item.key for item in messages_of(bob) if item.key is not None)
        discard, may_delete = self.engine.discard, asyncio.Event()

        async def discard_later(*args: Any, remember: float) -> None:
            await may_delete.wait()
            await discard(*args, remember=remember)

        self.engine.discard = discard_later  # type: ignore[method-assign]
        bob.tell(MessagesHandled(keys[:1]))
        await bob.call(Logout())
        await self.skip(2)
        bob = await self.user(self.made, "bob")
        await eventually(lambda: bob.texts() == ["2"])
        may_delete.set()
        await self.empties()
        self.assertEqual(bob.texts(), ["2"])

    async def test_a_handled_message_that_is_sent_again_to_a_restarted_hub_comes_once(self) -> None:
        await self.start()
        await self.user(self.made, "bob")
        request = to_bob("once")
        self.assertEqual(await self.alice.call(request), RECEIVED)
        await self.empties()
        await self.made.stop()
        self.engine = LocalEngine(self.path, now=lambda: self.wall)
        await self.start()
        bob = await self.user(self.made, "bob")
        self.assertEqual(await self.alice.call(request), RECEIVED)
        await self.send("next")
        self.assertEqual(bob.texts(), ["next"])

    async def test_a_message_sent_again_under_its_id_is_stored_and_offered_once(self) -> None:
        await self.start()
        bob = await self.user(self.made, "bob", handles=False)
        request = to_bob("once")
        results = await asyncio.gather(*(self.alice.call(request) for _ in range(3)))
        self.assertEqual(results, [RECEIVED] * 3)
        self.assertEqual(await self.stored(), ["once"])
        await self.made.stop()
        self.engine = LocalEngine(self.path, now=lambda: self.wall)
        await self.start()
        bob = await self.user(self.made, "bob", handles=False)
        await eventually(lambda: len(seen(bob)) == 1)
        self.assertEqual(await self.alice.call(request), CACHED)  # it waits for the same client
        self.assertEqual(len(seen(bob)), 1)


class ListeningTest(DeliveriesCase):
    async def test_one_who_does_not_listen_is_offered_no_stored_message(self) -> None:
        await self.start()
        await self.send("before")
        bob = User(self.made)
        await bob.login("bob", listens=False)
        self.assertEqual(await self.send("during"), [CACHED])
        self.assertEqual(await self.send("plain", enable_offline_messaging=False), [RECEIVED])
        self.assertEqual(bob.texts(), ["plain"])
        bob.tell(ListeningChanged(listens=True))
        await eventually(lambda: len(bob.texts()) == 3)
        self.assertEqual(seen(bob)[1:], [("before", True, False), ("during", True, False)])
        self.assertEqual(await self.send("after"), [RECEIVED])
        bob.tell(ListeningChanged(listens=False))
        self.assertEqual(await self.send("later"), [CACHED])
        await bob.call(Logout())
        await self.skip(2)
        bob = await self.user(self.made, "bob")
        await eventually(lambda: bob.texts() == ["later"])

    async def test_one_who_stops_in_the_middle_gets_the_rest_when_it_listens_again(self) -> None:
        await self.start(outbox_frames=80)
        await self.send(*numbers(0, 150))
        bob = User(self.made, acknowledges=False)
        await bob.login("bob")
        await eventually(lambda: len(bob.texts()) >= 50)
        bob.tell(ListeningChanged(listens=False))
        bob.acknowledges = True
        bob.tell(Acknowledge(bob.counted))
        await self.send("plain", enable_offline_messaging=False)
        stopped_at = len(bob.texts()) - 1
        self.assertLess(stopped_at, 100)
        bob.tell(ListeningChanged(listens=True))
        await eventually(lambda: len(bob.texts()) == 151)
        self.assertEqual([text for text in bob.texts() if text != "plain"], numbers(0, 150))

    async def test_a_login_that_resumes_says_whether_it_listens(self) -> None:
        await self.start()
        bob = await self.user(self.made, "bob")
        bob.lose_connection()
        again = User(self.made)
        await again.login("bob", session=bob.session.id, received=bob.counted, listens=False)
        self.assertEqual(await self.send("kept"), [CACHED])


class OrderTest(DeliveriesCase):
    async def test_what_a_slow_client_has_no_room_for_waits_and_comes_in_order(self) -> None:
        await self.start(outbox_frames=80)
        bob = await self.user(self.made, "bob", acknowledges=False)
        results = await self.send(*numbers(0, 200))
        self.assertEqual(results[:50], [RECEIVED] * 50)
        self.assertEqual(results[-1], CACHED)
        self.assertIsNone(bob.closed)
        plain = asyncio.ensure_future(self.send("plain", enable_offline_messaging=False))
        bob.acknowledges = True
        bob.tell(Acknowledge(bob.counted))
        await self.send("200")
        self.assertEqual(await plain, [RECEIVED])
        await self.empties()
        self.assertEqual([text for text in bob.texts() if text != "plain"], numbers(0, 201))
        self.assertGreater(bob.texts().index("plain"), bob.texts().index("199"))
        self.assertEqual({(offline, again) for _, offline, again in seen(bob)}, {(False, False)})

    async def test_nobodys_flood_ends_a_slow_client_and_the_senders_take_turns(self) -> None:
        await self.start(outbox_frames=40)  # three quarters are for messages of peers
        bob = await self.user(self.made, "bob", acknowledges=False)
        carol, mallory = [await self.user(self.made, uid) for uid in ("carol", "mallory")]
        flood = [
            asyncio.ensure_future(mallory.call(to_bob("flood", enable_offline_messaging=False)))
            for _ in range(60)
        ]
        await eventually(lambda: sum(send.done() for send in flood) == 55)
        own = [
            asyncio.ensure_future(carol.call(to_bob(text, enable_offline_messaging=False)))
            for text in ("1", "2", "3")
        ]
        await asyncio.sleep(0)
        self.assertIsNone(bob.closed)
        answered = len(bob.texts())
        bob.acknowledges = True
        bob.tell(Acknowledge(bob.counted))
        self.assertEqual(await asyncio.gather(*own), [RECEIVED] * 3)
        self.assertLess(bob.texts()[answered:].index("3"), 10)
        results = await asyncio.gather(*flood)
        # In the outbox, and an eighth of those that may wait; the rest were refused.
        self.assertEqual(results.count(RECEIVED), 35)

    async def test_a_client_that_handles_nothing_is_offered_a_bounded_number(self) -> None:
        await self.start(unhandled_messages=10)
        bob = await self.user(self.made, "bob", handles=False)
        await self.send(*numbers(0, 30))
        self.assertEqual(bob.texts(), numbers(0, 10))
        for _ in range(3):
            keys = tuple(item.key for item in messages_of(bob) if item.key is not None)
            bob.tell(MessagesHandled(keys))
            expected = min(30, len(keys) + 10)
            await eventually(lambda wanted=expected: len(bob.texts()) == wanted)
        self.assertEqual(bob.texts(), numbers(0, 30))

    async def test_what_a_client_refuses_is_offered_again_and_nothing_overtakes_it(self) -> None:
        await self.start()
        bob = await self.user(self.made, "bob")
        await self.send("1")
        bob.answers = bob.handles = False
        sends = asyncio.ensure_future(self.send("2"))
        await eventually(lambda: len(bob.texts()) == 2)
        full = PeerMessageError.named("FAILURE", "The receiver's event queue is full.")
        self.made.receive(bob.session, bob, encode_failure(2, full))
        self.assertEqual(await sends, [CACHED])
        bob.answers = bob.handles = True
        await self.skip(2)
        await self.send("3")
        await self.empties()
        self.assertEqual(bob.texts(), ["1", "2", "2", "3"])
        self.assertFalse(any(again for _, _, again in seen(bob)))

    async def test_a_silent_client_leads_to_kept_not_to_a_timeout(self) -> None:
        await self.start()
        bob = await self.user(self.made, "bob", answers=False, handles=False)
        sends = [asyncio.ensure_future(self.send(text)) for text in numbers(0, 5)]
        await eventually(lambda: len(bob.texts()) == 5)
        await self.skip(self.made.limits.receipt_timeout + 1)
        for result in await asyncio.gather(*sends):
            self.assertEqual(result, [CACHED])
        again = User(self.made)
        await again.login("bob", session=bob.session.id, received=0)  # it wakes up
        await eventually(lambda: again.texts() == numbers(0, 5))
        await self.empties()
        self.assertEqual(again.texts(), numbers(0, 5))

    async def test_messages_of_an_unreadable_mailbox_come_when_it_is_readable(self) -> None:
        await self.start()
        await self.send("1")
        waiting, away = self.engine.waiting, True

        async def fail(*args: Any) -> Any:
            if away:
                raise OSError("the disk is gone")
            return await waiting(*args)

        self.engine.waiting = fail  # type: ignore[method-assign]
        with self.assertLogs("rtm_sync.hub", "WARNING"):
            bob = await self.user(self.made, "bob")
            await self.send("plain", enable_offline_messaging=False)
        self.assertEqual(bob.texts(), ["plain"])
        away = False
        await self.skip(2)
        await eventually(lambda: bob.texts() == ["plain", "1"])


class LateAnswerTest(DeliveriesCase):
    async def test_a_refusal_that_comes_late_is_a_refusal(self) -> None:
        await self.start()
        bob = await self.user(self.made, "bob", answers=False, handles=False)
        sending = asyncio.ensure_future(self.send("1", "2"))
        await eventually(lambda: bob.texts() == ["1"])
        await self.skip(3)
        await eventually(lambda: bob.texts() == ["1", "2"])
        await self.skip(3)
        self.assertEqual(await sending, [CACHED, CACHED])
        full = PeerMessageError.named("FAILURE", "The receiver's event queue is full.")
        for call_id in (1, 2):
            self.made.receive(bob.session, bob, encode_failure(call_id, full))
        await self.skip(2)
        await eventually(lambda: bob.texts() == ["1", "2", "1", "2"])

    async def test_what_waits_while_listening_stops_was_not_offered(self) -> None:
        await self.start(unhandled_messages=1)
        bob = await self.user(self.made, "bob", handles=False)
        self.assertEqual(await self.send("1", "2"), [RECEIVED, CACHED])
        bob.tell(ListeningChanged(listens=False))
        self.assertEqual(await self.send("3"), [CACHED])
        bob.tell(ListeningChanged(listens=True))
        (message,) = messages_of(bob)
        bob.handles = True
        assert message.key is not None
        bob.tell(MessagesHandled((message.key,)))
        await self.empties()
        self.assertEqual(seen(bob), [("1", False, False), ("2", False, False), ("3", True, False)])

    async def test_what_is_reported_needs_no_answer(self) -> None:
        await self.start()
        bob = await self.user(self.made, "bob", answers=False)
        self.assertEqual(await self.send("1"), [RECEIVED])
        await self.empties()
        self.assertEqual(bob.session._calls, {})


class BoundsTest(DeliveriesCase):
    async def test_the_two_hundred_are_those_of_an_offline_user(self) -> None:
        await self.start(offline_messages=3, unhandled_messages=5)
        bob = await self.user(self.made, "bob", handles=False)
        await self.send(*numbers(0, 10))
        await bob.call(Logout())
        await self.skip(2)
        await self.send(*numbers(10, 15))
        self.assertEqual(await self.stored(), [*numbers(0, 10), "12", "13", "14"])

    async def test_a_full_mailbox_refuses_the_send(self) -> None:
        await self.start(mailbox_messages=5)
        bob = await self.user(self.made, "bob", handles=False)
        await self.send(*numbers(0, 5))
        error = await self.refused("PEER_MESSAGE_ERR_FAILURE", self.send("6"))
        self.assertIn("The mailbox of 'bob' is full; the limits are 5 messages", str(error))
        bob.tell(MessagesHandled(tuple(item.key or 0 for item in messages_of(bob))))
        await self.empties()
        self.assertEqual(await self.send("7"), [RECEIVED])

    async def test_nobody_fills_the_disk_with_messages_to_users_who_never_come(self) -> None:
        await self.start(user_message_bytes=2000)

        async def fill(**options: bool) -> None:
            for number in range(20):
                message = replace(to_bob(f"{number}", **options), peer_id=f"nobody-{number}")
                await self.alice.call(message)

        for options in (
            {"enable_offline_messaging": True},
            {"enable_offline_messaging": False, "enable_historical_messaging": True},
        ):
            with self.subTest(**options):
                error = await self.refused("PEER_MESSAGE_ERR_FAILURE", fill(**options))
                self.assertIn("the quota is 2,000", str(error))
        bob = await self.user(self.made, "bob")
        self.assertEqual(await self.send("1", enable_offline_messaging=False), [RECEIVED])
        self.assertEqual(bob.texts(), ["1"])

    async def test_a_disk_that_stores_nothing_refuses_the_send(self) -> None:
        await self.start()
        bob = await self.user(self.made, "bob")

        async def fail(*args: Any, **more: Any) -> int:
            raise OSError("the disk is full")

        self.engine.store = fail  # type: ignore[method-assign]
        await self.refused("PEER_MESSAGE_ERR_FAILURE", self.send("1"))
        self.assertEqual(bob.texts(), [])
        self.assertEqual(await self.send("2", enable_offline_messaging=False), [RECEIVED])

    async def test_an_ended_session_is_told_nothing_and_holds_nothing(self) -> None:
        await self.start()
        bob = await self.user(self.made, "bob", handles=False)
        await self.send("1")
        await bob.call(Logout())
        self.made.receive(bob.session, bob, encode_notice(ListeningChanged(listens=True)))
        await eventually(lambda: self.made.session_count == 1)
        self.assertEqual(list(self.made._messages._deliveries), [self.alice.session])
