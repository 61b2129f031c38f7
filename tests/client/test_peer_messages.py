"""Messages wait for a listener, are given out once and in order, and are reported when handled."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Sequence
from typing import Any

from rtm_sync import ConnectionState, PeerMessageError, RtmClient, hookimpl
from rtm_sync.client.inbox import Arrival, Entry, Inbox
from rtm_sync.client.listeners import ReceivedEvent, StreamQueue
from rtm_sync.messages import RtmTextMessage
from rtm_sync.protocol.events import TokenExpired
from rtm_sync.protocol.requests import Logout, MessageFromPeer, Request
from rtm_sync.protocol.values import ConnectionChangeReason, Done, ReceivedMessageProperties
from rtm_sync.transports.base import Credentials, Listener, Transport, TransportOptions
from tests.support import PATIENCE, RtmTestCase, local_gateway, wait_until


class Line(Transport):
    """A transport plugin that a test plays the hub through.

    Attributes:
        log: what the hub was told, in order: whether the client listens, keys, and "logout".
    """

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.listener: Listener | None = None

    @hookimpl
    def transport(self, url: str, options: TransportOptions) -> Transport | None:
        return self if url == "line://" else None

    @property
    def reported(self) -> list[int]:
        return [key for entry in self.log if isinstance(entry, tuple) for key in entry]

    def open(self, credentials: Credentials, listener: Listener) -> None:
        self.listener = listener
        listener.on_state(ConnectionState.CONNECTED, ConnectionChangeReason.LOGIN_SUCCESS)

    def call(self, request: Request[Any], timeout: float) -> Any:
        assert isinstance(request, Logout)
        self.log.append("logout")
        return Done()

    def upload(self, *_: object) -> Any:
        raise NotImplementedError

    def download(self, *_: object) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.on_state(ConnectionState.DISCONNECTED, ConnectionChangeReason.LOGOUT)

    def set_listening(self, listens: bool) -> None:
        self.log.append(listens)

    def messages_handled(self, keys: Sequence[int]) -> None:
        self.log.append(tuple(keys))

    def offer(self, number: int, *, key: int | None = -1, sender: str = "bob") -> bool:
        """Offer message number `number`, stored under this key unless another is given."""
        assert self.listener is not None
        return self.listener.on_event(from_peer(number, key=key, sender=sender))


def from_peer(number: int, *, key: int | None = -1, sender: str = "bob") -> MessageFromPeer:
    text = RtmTextMessage(f"m{number}")
    props = ReceivedMessageProperties(1)
    return MessageFromPeer(text, sender, f"id{number}", props, number if key == -1 else key)


class BlockedTest(RtmTestCase):
    def test_a_blocked_user_reaches_nobody_and_holds_up_nobody(self) -> None:
        with local_gateway() as url, RtmClient("app", url=url) as alice:
            heard: queue.SimpleQueue[str] = queue.SimpleQueue()
            invited: queue.SimpleQueue[str] = queue.SimpleQueue()
            alice.on(
                "MessageFromPeer", lambda message, peer, _: heard.put(f"{peer} {message.text}")
            )
            alice.on("RemoteInvitationReceived", lambda one: invited.put(one.caller_id))
            alice.login("alice")
            bob, mallory = [self.entered(RtmClient("app", url=url)) for _ in range(2)]
            bob.login("bob")
            mallory.login("mallory")
            alice.block_peer("mallory")
            self.assertEqual(alice.blocked_peers, {"mallory"})
            self.assertFalse(mallory.send_message_to_peer("1", "alice").has_peer_received)
            mallory.send_message_to_peer("2", "alice", enable_offline_messaging=True)
            mallory.create_local_invitation("alice").send()
            self.assertTrue(bob.send_message_to_peer("3", "alice").has_peer_received)
            bob.create_local_invitation("alice").send()
            self.assertEqual(heard.get(timeout=PATIENCE), "bob 3")
            self.assertEqual(invited.get(timeout=PATIENCE), "bob")
            alice.logout()
            mallory.send_message_to_peer("4", "alice", enable_offline_messaging=True)
            bob.send_message_to_peer("5", "alice", enable_offline_messaging=True)
            alice.login("alice")  # the block goes on, and what was kept is discarded
            self.assertEqual(heard.get(timeout=PATIENCE), "bob 5")
            alice.unblock_peer("mallory")
            alice.unblock_peer("nobody")
            self.assertTrue(mallory.send_message_to_peer("6", "alice").has_peer_received)
            self.assertEqual(heard.get(timeout=PATIENCE), "mallory 6")
            with self.assertRaises(PeerMessageError) as caught:
                alice.block_peer("no/id")
            self.assertEqual(caught.exception.reason, "INVALID_USERID")
            alice.logout()
            moment = time.monotonic() + 1.1
            wait_until(lambda: time.monotonic() > moment)  # logins have a rate
            alice.login("alice")  # nothing of it waits
            self.assertTrue(bob.send_message_to_peer("7", "alice").has_peer_received)
            self.assertEqual(heard.get(timeout=PATIENCE), "bob 7")


class LineTest(RtmTestCase):
    def setUp(self) -> None:
        self.line = Line()
        self.heard: list[str] = []
        self.errors: list[BaseException] = []
        self.client = self.new_client()
        self.client.login("alice")

    def new_client(self) -> RtmClient:
        client = RtmClient(
            "app", url="line://", plugins=[self.line], on_handler_error=self.errors.append
        )
        return self.entered(client)

    def hear(self, message: RtmTextMessage, *_: object) -> None:
        self.heard.append(message.text)

    def offer(self, *numbers: int) -> None:
        for number in numbers:
            self.assertTrue(self.line.offer(number))

    def hold(self, *numbers: int) -> threading.Event:
        """Offer messages, and wait until a handler has the first. It returns at the event."""
        gate, begun = threading.Event(), threading.Event()
        self.addCleanup(gate.set)

        @self.client.on("MessageFromPeer")
        def handle(message: RtmTextMessage, *_: object) -> None:
            self.hear(message)
            begun.set()
            gate.wait(PATIENCE)

        self.offer(*numbers)
        self.assertTrue(begun.wait(PATIENCE))
        return gate

    def wait_for_reports(self, *keys: int) -> None:
        wait_until(lambda: self.line.reported == list(keys))

    def idle(self) -> None:
        """Wait until the dispatcher has nothing to do."""
        self.client._dispatcher.drain(PATIENCE)


class ListeningTest(LineTest):
    def test_the_hub_hears_who_listens_from_before_the_login(self) -> None:
        self.assertEqual(self.line.log, [False])
        self.client.on("ConnectionStateChanged", lambda *_: None)
        self.client.on("MessageFromPeer", self.hear)
        self.client.on("MessageFromPeer", self.hear)
        self.assertEqual(self.line.log, [False, True])
        self.client.off("MessageFromPeer", self.hear)
        self.client.off("MessageFromPeer", self.hear)
        self.assertEqual(self.line.log, [False, True, False])
        with self.client.events("ConnectionStateChanged"), self.client.events():
            self.assertIs(self.line.log[-1], True)
        self.assertIs(self.line.log[-1], False)
        with self.assertRaises(TimeoutError):
            self.client.wait_for("MessageFromPeer", 0.01)
        self.assertEqual(self.line.log[-2:], [True, False])
        self.client.remove_all_listeners()
        self.assertEqual(self.line.log.count(True), 3)

    def test_a_handler_of_once_listens_until_it_has_run(self) -> None:
        self.client.once("MessageFromPeer", self.hear)
        self.offer(1, 2)
        wait_until(lambda: self.line.log[-1] is False or self.line.log[-2:] == [False, (1,)])
        self.assertEqual(self.heard, ["m1"])
        self.client.on("MessageFromPeer", self.hear)
        self.wait_for_reports(1, 2)
        self.assertEqual(self.heard, ["m1", "m2"])

    def test_threads_that_come_and_go_at_once_leave_the_right_state(self) -> None:
        def come_and_go() -> None:
            for _ in range(50):
                self.client.on("MessageFromPeer", self.hear)
                self.client.off("MessageFromPeer", self.hear)

        threads = [threading.Thread(target=come_and_go) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertIs(self.line.log[-1], False)


class WaitingTest(LineTest):
    def test_stored_messages_wait_for_a_handler_and_others_do_not(self) -> None:
        self.offer(1)
        self.line.offer(2, key=None)
        self.offer(3)
        self.idle()
        self.client.on("MessageFromPeer", self.hear)
        self.offer(4)
        self.wait_for_reports(1, 3, 4)
        self.assertEqual(self.heard, ["m1", "m3", "m4"])

    def test_a_message_that_came_when_nobody_listened_overtakes_none_that_the_hub_keeps(
        self,
    ) -> None:
        gate = threading.Event()
        self.addCleanup(gate.set)
        self.client.on("TokenExpired", lambda: gate.wait(PATIENCE))
        assert self.line.listener is not None
        self.line.listener.on_event(TokenExpired())
        self.line.offer(2, key=None)  # its turn comes when the gate opens
        self.client.on("MessageFromPeer", self.hear)
        self.offer(1)  # which the hub kept until now
        gate.set()
        self.wait_for_reports(1)
        self.assertEqual(self.heard, ["m1"])

    def test_a_message_that_is_not_stored_is_dropped_when_nobody_listens(self) -> None:
        self.line.offer(1, key=None)
        self.idle()
        self.client.on("MessageFromPeer", self.hear)
        self.offer(2)
        self.wait_for_reports(2)
        self.assertEqual(self.heard, ["m2"])

    def test_every_handler_must_end_and_raising_is_an_end(self) -> None:
        gate = threading.Event()
        self.addCleanup(gate.set)

        @self.client.on("MessageFromPeer")
        def broken(*_: object) -> None:
            raise KeyError("broken")

        self.client.on("MessageFromPeer", lambda *_: gate.wait(PATIENCE))
        self.offer(1)
        wait_until(lambda: self.errors)
        self.assertEqual(self.line.reported, [])
        gate.set()
        self.wait_for_reports(1)

    def test_a_stream_handles_what_it_returns_and_leaves_the_rest(self) -> None:
        self.offer(*range(1, 6))
        with self.client.events("MessageFromPeer") as arriving:
            first = next(iter(arriving))
        self.assertEqual(first.args[0].text, "m1")
        self.assertEqual(first.args[2].message_id, "id1")
        self.wait_for_reports(1)
        self.offer(6)
        args = self.client.wait_for("MessageFromPeer", PATIENCE)
        self.assertEqual(args[0].text, "m2")
        self.client.on("MessageFromPeer", self.hear)
        self.wait_for_reports(1, 2, 3, 4, 5, 6)
        self.assertEqual(self.heard, ["m3", "m4", "m5", "m6"])

    def test_a_full_stream_beside_another_one_misses_nothing(self) -> None:
        with (
            self.client.events("MessageFromPeer", max_waiting=2) as small,
            self.client.events("MessageFromPeer") as large,
        ):
            self.offer(*range(1, 6))
            self.idle()
            for stream in (large, small):  # the first one gets two, until the other is read
                seen = [
                    event.args[0].text
                    for event in itertools.islice(stream, 2 if stream is large else 5)
                ]
                self.assertEqual(seen, [f"m{n}" for n in range(1, len(seen) + 1)])
            rest = [event.args[0].text for event in itertools.islice(large, 3)]
            self.assertEqual(rest, ["m3", "m4", "m5"])
        self.wait_for_reports(1, 2, 3, 4, 5)

    def test_the_timeout_says_what_the_predicate_refused(self) -> None:
        self.offer(1, 2, 3)
        self.line.offer(4, key=None)
        refusing = lambda *_: False  # noqa: E731
        with self.assertRaisesRegex(
            TimeoutError, r"seconds\. 3 messages that the predicate refused"
        ):
            self.client.wait_for("MessageFromPeer", 0.2, refusing)
        self.client.on("MessageFromPeer", self.hear)
        self.wait_for_reports(1, 2, 3)
        self.client.off("MessageFromPeer", self.hear)
        with self.assertRaisesRegex(TimeoutError, r"seconds\.$"):
            self.client.wait_for("MessageFromPeer", 0.01, refusing)

    def test_a_logout_waits_for_the_handlers_of_one_message(self) -> None:
        for end in ("logout", "close"):
            with self.subTest(end):
                self.heard.clear()
                self.line.log.clear()
                gate = self.hold(1, 2)
                ending = threading.Thread(target=getattr(self.client, end))
                ending.start()
                ending.join(1.2)  # longer than `close` lets waiting messages begin
                self.assertTrue(ending.is_alive())
                gate.set()
                ending.join(PATIENCE)
                self.assertEqual(self.line.log, [True, (1,), "logout"])
                self.assertEqual(self.heard, ["m1"])
                self.client.remove_all_listeners()
                if end == "logout":
                    self.client = self.new_client()
                    self.client.login("alice")

    def test_a_logout_waits_for_no_handler_longer_than_five_seconds(self) -> None:
        self.hold(1)
        start = time.monotonic()
        self.client.close()
        self.assertLess(time.monotonic() - start, 8.0)
        self.assertEqual(self.line.log[-1], "logout")
        self.assertEqual(self.line.reported, [])

    def test_a_closed_stream_gives_back_what_nobody_else_has(self) -> None:
        self.client.on("ConnectionStateChanged", lambda *_: None)
        first, second = (self.client.events("MessageFromPeer") for _ in range(2))
        self.offer(1, 2, 3)
        self.idle()
        self.assertEqual(next(iter(first)).args[0].text, "m1")
        first.close()
        self.assertEqual([e.args[0].text for e in first.until(0)], [])
        self.assertEqual(next(iter(second)).args[0].text, "m1")  # each stream has all of them
        self.assertEqual(next(iter(second)).args[0].text, "m2")
        self.wait_for_reports(1, 2)
        second.close()
        with self.client.events("MessageFromPeer") as third:
            self.assertEqual(next(iter(third)).args[0].text, "m3")
        self.wait_for_reports(1, 2, 3)

    def test_with_handlers_a_streams_copy_does_not_count(self) -> None:
        self.client.on("MessageFromPeer", self.hear)
        with self.client.events("MessageFromPeer") as arriving:
            self.offer(1, 2)
            self.wait_for_reports(1, 2)
            self.assertEqual(next(iter(arriving)).args[0].text, "m1")
        self.idle()
        self.assertEqual(self.heard, ["m1", "m2"])
        self.wait_for_reports(1, 2)

    def test_what_a_predicate_refuses_is_not_handled(self) -> None:
        self.offer(*range(1, 6))
        args = self.client.wait_for(
            "MessageFromPeer", PATIENCE, lambda message, *_: message.text == "m3"
        )
        self.assertEqual(args[0].text, "m3")
        self.wait_for_reports(3)
        with self.assertRaises(ZeroDivisionError):
            self.client.wait_for("MessageFromPeer", PATIENCE, lambda *_: bool(1 / 0))
        self.client.on("MessageFromPeer", self.hear)
        wait_until(lambda: len(self.heard) == 4)
        self.assertEqual(self.heard, ["m1", "m2", "m4", "m5"])

    def test_a_full_stream_lets_stored_messages_wait_and_drops_the_others(self) -> None:
        with self.client.events("MessageFromPeer", max_waiting=2) as arriving:
            self.line.offer(1, key=None)
            self.offer(2, 3, 4, 5)
            self.idle()
            texts = [event.args[0].text for event in arriving.until(0)]
            while len(texts) < 4:
                texts += [event.args[0].text for event in arriving.until(0.05)]
        self.assertEqual(texts, ["m2", "m3", "m4", "m5"])
        self.wait_for_reports(2, 3, 4, 5)

    def test_a_long_queue_is_read_one_by_one_in_order(self) -> None:
        self.offer(*range(1000))
        texts = [self.client.wait_for("MessageFromPeer", PATIENCE)[0].text for _ in range(1000)]
        self.assertEqual(texts, [f"m{number}" for number in range(1000)])

    def test_streams_that_come_and_go_lose_and_double_nothing(self) -> None:
        total, taken, lock = 400, [], threading.Lock()

        def take() -> None:
            while len(taken) < total:
                with self.client.events("MessageFromPeer") as arriving:
                    for event in arriving.until(0.01):
                        with lock:
                            taken.append(event.args[0].text)
                        break

        thread = threading.Thread(target=take)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)
        self.offer(*range(total))
        thread.join(PATIENCE)
        self.assertEqual(taken, [f"m{number}" for number in range(total)])
        self.assertEqual(self.line.reported, list(range(total)))


class DuplicateTest(LineTest):
    def test_a_waiting_message_that_comes_again_has_one_copy_and_both_keys(self) -> None:
        self.offer(1)
        self.assertTrue(self.line.offer(1, key=7))
        self.assertTrue(self.line.offer(1, key=8, sender="carol"))
        self.client.on("MessageFromPeer", self.hear)
        wait_until(lambda: sorted(self.line.reported) == [1, 7, 8])
        self.assertEqual(self.heard, ["m1", "m1"])

    def test_a_handled_message_that_comes_again_is_reported_at_once(self) -> None:
        self.client.on("MessageFromPeer", self.hear)
        self.offer(1)
        self.wait_for_reports(1)
        self.offer(1)
        self.assertTrue(self.line.offer(1, key=9))
        self.wait_for_reports(1, 1, 9)
        self.assertEqual(self.heard, ["m1"])

    def test_a_thousand_handled_messages_are_known_and_memory_is_bounded(self) -> None:
        inbox = Inbox(10)
        inbox.begin_session("alice")
        for number in range(5000):
            _, entry = inbox.arrived(from_peer(number))
            assert entry is not None
            inbox.turn_came()
            inbox.handled(inbox.take_first())
        self.assertIs(inbox.arrived(from_peer(4000))[0], Arrival.KNOWN)
        self.assertLess(len(inbox._handled), 2001)
        self.assertEqual(len(inbox._known), 0)


class FullTest(RtmTestCase):
    def test_a_stream_has_a_bound_for_stored_messages_too(self) -> None:
        queue = StreamQueue(frozenset({"MessageFromPeer"}), 2, prefetch=1)
        first, second, third = (Entry(n, from_peer(n)) for n in (1, 2, 3))
        event = ReceivedEvent("MessageFromPeer", ())
        self.assertTrue(queue.put(event, first))
        self.assertFalse(queue.has_room(is_alone=True))  # one at a time
        self.assertTrue(queue.has_room(is_alone=False))  # another stream takes it as well
        self.assertTrue(queue.put(event, second))
        self.assertFalse(queue.has_room(is_alone=False))
        self.assertFalse(queue.put(event, third))
        self.assertFalse(queue.put(event))
        self.assertEqual(queue.give_up_stored(), [first, second])

    def test_nothing_overtakes_a_refused_message(self) -> None:
        inbox = Inbox(2)
        inbox.begin_session("alice")

        def arrive(number: int, key: int | None = -1) -> Arrival:
            return inbox.arrived(from_peer(number, key=key))[0]

        new, refused = Arrival.NEW, Arrival.REFUSED
        self.assertEqual([arrive(n) for n in range(1, 4)], [new, new, refused])
        inbox.turn_came()
        inbox.handled(inbox.take_first())
        self.assertEqual([arrive(4), arrive(5, None)], [refused, refused])
        self.assertEqual(arrive(3), new)
        inbox.turn_came()
        inbox.handled(inbox.take_first())
        self.assertEqual([arrive(4), arrive(5)], [new, refused])
        inbox.session_was_renewed()
        inbox.turn_came()
        inbox.take_first()
        self.assertEqual(arrive(6), new)

    def test_a_refused_message_that_has_gone_does_not_keep_back_the_others_for_ever(self) -> None:
        inbox = Inbox(1)
        inbox.begin_session("alice")
        for number in (1, 2, 3):
            inbox.arrived(from_peer(number))
        inbox.turn_came()
        inbox.take_first()
        self.assertIs(inbox.arrived(from_peer(3))[0], Arrival.NEW)  # 2 has expired


class ReportTest(LineTest):
    def test_reports_come_in_batches_while_messages_wait(self) -> None:
        self.offer(*range(200))
        self.client.on("MessageFromPeer", self.hear)
        self.wait_for_reports(*range(200))
        reports = [entry for entry in self.line.log if isinstance(entry, tuple)]
        self.assertLess(len(reports), 100)

    def test_a_slow_handler_does_not_delay_the_report_of_an_earlier_message(self) -> None:
        gate = threading.Event()
        self.addCleanup(gate.set)

        @self.client.on("MessageFromPeer")
        def slow(message: RtmTextMessage, *_: object) -> None:
            if message.text == "m2":
                gate.wait(PATIENCE)
            else:
                threading.Event().wait(0.03)  # longer than a report waits

        self.offer(1, 2)
        self.wait_for_reports(1)


class LogoutTest(LineTest):
    def test_what_waits_at_the_logout_comes_from_the_hub_again(self) -> None:
        stream = self.client.events("MessageFromPeer")
        self.offer(1, 2, 3)
        self.idle()
        self.assertEqual(next(iter(stream)).args[0].text, "m1")
        self.client.logout()
        self.assertEqual(list(stream.until(0)), [])
        stream.close()
        self.client.login("alice")
        self.offer(2, 3)
        self.client.on("MessageFromPeer", self.hear)
        self.wait_for_reports(1, 2, 3)
        self.assertEqual(self.heard, ["m2", "m3"])

    def test_a_running_handler_gets_its_message_once_across_logins(self) -> None:
        gate = self.hold(1, 2)
        self.client.logout()
        self.client.login("alice")
        for number in (1, 2):
            self.assertTrue(self.line.offer(number, key=10 + number))
        gate.set()
        self.wait_for_reports(11, 12)  # the keys of this session
        self.assertEqual(self.heard, ["m1", "m2"])

    def test_what_comes_during_the_close_overtakes_no_stored_message(self) -> None:
        gate = self.hold(1)
        closing = threading.Thread(target=self.client.close)
        closing.start()
        numbers = itertools.count(2)
        wait_until(lambda: not self.line.offer(next(numbers)))  # that comes at the next login
        self.assertFalse(self.line.offer(0, key=None))
        gate.set()
        closing.join(PATIENCE)
        self.assertNotIn("m0", self.heard)

    def test_what_waits_behind_a_stored_message_at_the_end_does_not_overtake_it(self) -> None:
        gate = self.hold(1)
        self.assertTrue(self.line.offer(2, key=None))
        self.offer(3)
        self.assertTrue(self.line.offer(4, key=None))  # behind 3, which comes at the next login
        self.assertTrue(self.line.offer(5, key=None, sender="carol"))
        self.client.logout()
        gate.set()
        self.idle()
        self.assertEqual(self.heard, ["m1", "m2", "m5"])

    def test_another_user_begins_with_nothing(self) -> None:
        gate = self.hold(1, 2)
        self.client.logout()
        self.client.login("carol")
        self.assertTrue(self.line.offer(1, key=5))
        gate.set()
        self.wait_for_reports(5)  # and not 1, which is alice's
        self.assertEqual(self.heard, ["m1", "m1"])

    def test_an_evicted_client_gives_out_nothing_more(self) -> None:
        gate = self.hold(1, 2)
        assert self.line.listener is not None
        self.line.listener.on_state(ConnectionState.ABORTED, ConnectionChangeReason.REMOTE_LOGIN)
        gate.set()
        self.idle()
        self.assertEqual(self.heard, ["m1"])
        self.assertFalse(self.line.offer(3))

    def test_close_gives_the_handlers_a_second_and_reports_before_the_logout(self) -> None:
        self.client.on("MessageFromPeer", self.hear)
        self.client.on("MessageFromPeer", lambda *_: threading.Event().wait(0.1))
        self.offer(*range(40))
        self.client.close()
        self.assertEqual(self.line.log.count("logout"), 1)
        self.assertEqual(self.line.log[-1], "logout")
        done = self.line.reported
        self.assertGreater(len(done), 1)
        self.assertLess(len(done), 40)
        self.assertEqual(done, list(range(len(done))))
        self.assertEqual(len(self.heard), len(done))  # none of them was cut off

    def test_the_message_whose_handler_ends_the_client_is_handled(self) -> None:
        for number, end in enumerate((self.client.logout, self.client.close)):
            with self.subTest(end.__name__):
                if self.client.uid is None:
                    self.client.login("alice")
                self.line.log.clear()
                self.client.once("MessageFromPeer", lambda *_: end())  # noqa: B023
                self.offer(number)
                wait_until(lambda: "logout" in self.line.log)
                reported = self.line.log.index((number,))
                self.assertLess(reported, self.line.log.index("logout"))
                wait_until(lambda: self.client.uid is None)
