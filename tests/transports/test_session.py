"""The client's end of a session, fed frame by frame: nothing lost, doubled or out of order."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from rtm_sync.errors import (
    AttributeOperationError,
    JoinChannelError,
    PeerMessageError,
    RtmError,
)
from rtm_sync.messages import RtmTextMessage
from rtm_sync.protocol.errors import ProtocolError
from rtm_sync.protocol.events import (
    Acknowledge,
    CancelUpload,
    ChannelMessage,
    ListeningChanged,
    MessagesHandled,
)
from rtm_sync.protocol.frames import (
    Call,
    Failure,
    Frame,
    Notice,
    Reply,
    decode,
    encode_call,
    encode_failure,
    encode_notice,
    encode_reply,
)
from rtm_sync.protocol.ids import FRAME_LIMIT
from rtm_sync.protocol.requests import (
    GetUserAttributes,
    JoinChannel,
    MessageFromPeer,
    SendMessageToPeer,
)
from rtm_sync.protocol.values import (
    ChannelPosition,
    JoinResult,
    LoginResult,
    PeerMessageSendResult,
    ReceivedMessageProperties,
    UserAttributes,
)
from rtm_sync.rules.timing import Deadline
from rtm_sync.transports.session import ClientSession
from tests.support import PATIENCE, RtmTestCase, wait_until


class App:
    """The application's side: takes events, or is too busy to."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.backlog = 0
        self.full = False

    def on_event(self, event: Any) -> bool:
        if not self.full:
            self.events.append(event)
        return not self.full

    def on_state(self, state: object, reason: object) -> None:
        raise AssertionError("a client session reports no states")

    def on_reconnected(self, channel_id: str | None, *, recovered: bool) -> None:
        self.events.append((channel_id, recovered))


def login(*, resumed: bool, received: int = 0) -> LoginResult:
    return LoginResult("secret", resumed, received, 2048)


def send(number: int = 1) -> SendMessageToPeer:
    return SendMessageToPeer("bob", RtmTextMessage(f"text {number}"), f"m{number}")


def from_peer(number: int, sender: str = "bob") -> MessageFromPeer:
    return MessageFromPeer(
        RtmTextMessage(f"text {number}"), sender, f"m{number}", ReceivedMessageProperties(1)
    )


def in_channel(sequence: int) -> ChannelMessage:
    return ChannelMessage(
        "room",
        RtmTextMessage("hi"),
        "bob",
        f"c{sequence}",
        ReceivedMessageProperties(1),
        ChannelPosition("e", sequence),
    )


class SessionTest(RtmTestCase):
    def setUp(self) -> None:
        self.app = App()
        self.session = ClientSession(self.app)
        self.wire: list[Frame] = []

    def attach(self, *, resumed: bool = False, received: int = 0) -> None:
        self.wire = []
        self.session.attach(
            lambda frame: self.wire.append(decode(frame)), login(resumed=resumed, received=received)
        )

    def calling(self, request: Any, timeout: float = PATIENCE) -> list[Any]:
        """Make a call on a thread; returns where its outcome will be."""
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append(self.session.call(request, timeout))
            except RtmError as error:
                outcome.append(error)

        thread = threading.Thread(target=run)
        self.addCleanup(thread.join, PATIENCE)
        thread.start()
        return outcome

    def calls(self) -> list[Call]:
        return [frame for frame in self.wire if isinstance(frame, Call)]

    def answer(self, call: Call, result: Any) -> None:
        self.session.receive(encode_reply(call.id, result))


class CallTest(SessionTest):
    def test_a_call_gets_its_own_answer_whatever_the_order(self) -> None:
        self.attach()
        outcomes = [self.calling(send(number)) for number in range(5)]
        wait_until(lambda: len(self.calls()) == 5)
        for call in reversed(self.calls()):
            first = call.request.message.text == "text 0"
            self.answer(call, PeerMessageSendResult(has_peer_received=first))
        wait_until(lambda: all(outcomes))
        self.assertEqual(
            [outcome[0].has_peer_received for outcome in outcomes], [True] + [False] * 4
        )

    def test_the_hubs_error_is_raised_as_it_is(self) -> None:
        self.attach()
        outcome = self.calling(send())
        wait_until(self.calls)
        error = PeerMessageError.named("TOO_OFTEN", "slow down")
        self.session.receive(encode_failure(self.calls()[0].id, error))
        wait_until(lambda: outcome)
        self.assertEqual((outcome[0].reason, outcome[0].message), ("TOO_OFTEN", "slow down"))

    def test_a_call_that_is_too_large_for_a_frame_is_refused_and_never_sent(self) -> None:
        self.attach()
        for character in ("k", "é", "\U0001f600"):
            with self.subTest(character):
                keys = (character * (FRAME_LIMIT // len(character.encode())),)
                with self.assertRaises(AttributeOperationError) as refused:
                    self.session.call(GetUserAttributes("alice", keys), PATIENCE)
                self.assertEqual(refused.exception.reason, "INVALID_ARGUMENT")
                self.assertIn("the limit is 262,144", refused.exception.message)
        room = FRAME_LIMIT - len(encode_call(2**53 - 1, GetUserAttributes("alice", ("",))))
        outcome = self.calling(GetUserAttributes("alice", ("k" * room,)))
        wait_until(self.calls)
        self.assertEqual(self.calls()[0].id, 1, "a refused call has no number")
        self.answer(self.calls()[0], UserAttributes({}))
        wait_until(lambda: outcome)
        with self.assertRaises(AttributeOperationError):
            self.session.call(GetUserAttributes("alice", ("k" * (room + 1),)), PATIENCE)

    def test_a_call_that_is_never_answered_times_out_and_its_late_answer_is_ignored(self) -> None:
        self.attach()
        with self.assertRaises(PeerMessageError) as caught:
            self.session.call(send(), 0.02)
        self.assertEqual(caught.exception.reason, "TIMEOUT")
        self.answer(self.calls()[0], PeerMessageSendResult(has_peer_received=True))
        self.assertEqual(self.session._calls, {})

    def test_a_damaged_answer_is_a_failure_of_that_call_only(self) -> None:
        self.attach()
        outcome = self.calling(send())
        wait_until(self.calls)
        call_id = self.calls()[0].id
        self.session.receive(f'{{"jsonrpc":"2.0","id":{call_id},"result":[7]}}')
        wait_until(lambda: outcome)
        self.assertEqual(outcome[0].reason, "FAILURE")

    def test_the_end_fails_every_waiting_call_and_every_later_one(self) -> None:
        self.attach()
        outcomes = [self.calling(send(number)) for number in range(3)]
        wait_until(lambda: len(self.calls()) == 3)
        self.session.end("the session was ended")
        wait_until(lambda: all(outcomes))
        self.assertEqual({outcome[0].message for outcome in outcomes}, {"the session was ended"})
        with self.assertRaises(PeerMessageError) as caught:
            self.session.call(send(), PATIENCE)
        self.assertEqual(caught.exception.reason, "USER_NOT_LOGGED_IN")

    def test_frames_of_many_threads_leave_in_the_order_of_their_ids(self) -> None:
        self.attach()
        threads = [
            threading.Thread(
                target=lambda: [self.session.notify(CancelUpload(f"k{n}")) for n in range(50)]
            )
            for _ in range(8)
        ]
        outcomes = [self.calling(send(number)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        wait_until(lambda: len(self.wire) == 8 * 50 + 20)
        ids = [call.id for call in self.calls()]
        self.assertEqual(ids, sorted(ids))
        self.session.end("done")
        wait_until(lambda: all(outcomes))


class ReconnectTest(SessionTest):
    def test_a_resumed_session_sends_exactly_what_the_hub_lacks(self) -> None:
        self.attach()
        for number in range(5):
            self.session.notify(CancelUpload(f"k{number}"))
        self.session.detach()
        self.session.notify(CancelUpload("k5"))
        self.attach(resumed=True, received=3)
        keys = [frame.event.key for frame in self.wire if isinstance(frame, Notice)]  # type: ignore[attr-defined]
        self.assertEqual(keys, ["k3", "k4", "k5"])

    def test_a_new_session_joins_again_first_and_repeats_what_was_not_answered(self) -> None:
        self.attach()
        joined = self.calling(JoinChannel("room"))
        wait_until(self.calls)
        self.answer(self.calls()[0], JoinResult(ChannelPosition("e", 3), recovered=True))
        wait_until(lambda: joined)
        self.session.receive(encode_notice(in_channel(4)))
        outcome = self.calling(send())
        self.session.notify(CancelUpload("given-up"))
        wait_until(lambda: len(self.calls()) == 2)
        self.session.detach()
        self.attach(resumed=False)
        requests = [call.request for call in self.calls()]
        self.assertEqual(requests, [JoinChannel("room", ChannelPosition("e", 4)), send()])
        told = [frame.event for frame in self.wire if isinstance(frame, Notice)]
        self.assertEqual(told, [CancelUpload("given-up")])
        self.answer(self.calls()[1], PeerMessageSendResult(has_peer_received=True))
        wait_until(lambda: outcome)
        self.assertTrue(outcome[0].has_peer_received)

    def test_a_rejoined_channel_says_what_it_recovered_before_the_missed_messages(self) -> None:
        self.attach()
        joined = self.calling(JoinChannel("room"))
        wait_until(self.calls)
        self.answer(self.calls()[0], JoinResult(ChannelPosition("e", 1), recovered=True))
        wait_until(lambda: joined)
        self.attach(resumed=False)
        self.answer(self.calls()[0], JoinResult(ChannelPosition("e", 3), recovered=True))
        self.session.receive(encode_notice(in_channel(2)))
        # Lost again before the third came: it must be asked for, though the hub had told of it.
        self.attach(resumed=False)
        again = self.calls()[0]
        self.assertEqual(again.request, JoinChannel("room", ChannelPosition("e", 2)))
        self.answer(again, JoinResult(ChannelPosition("new", 7), recovered=False))
        self.attach(resumed=False)
        self.assertEqual(self.calls()[0].request, JoinChannel("room", ChannelPosition("new", 7)))
        self.assertEqual(self.app.events, [("room", True), in_channel(2), ("room", False)])

    def test_a_channel_that_cannot_be_rejoined_is_told_and_not_tried_again(self) -> None:
        self.attach()
        joined = self.calling(JoinChannel("room"))
        wait_until(self.calls)
        self.answer(self.calls()[0], JoinResult(ChannelPosition("e", 1), recovered=True))
        wait_until(lambda: joined)
        self.attach(resumed=False)
        refused = JoinChannelError.named("REJECTED", "not any more")
        self.session.receive(encode_failure(self.calls()[0].id, refused))
        self.assertEqual(self.app.events, [("room", False)])
        self.attach(resumed=False)
        self.assertEqual(self.calls(), [])

    def test_a_connection_that_fails_while_sending_keeps_the_frame(self) -> None:
        def broken(frame: str) -> None:
            raise OSError("the cable is out")

        self.session.attach(broken, login(resumed=False))
        outcome = self.calling(send())
        wait_until(lambda: self.session._send is None)
        self.attach(resumed=True, received=0)
        self.answer(self.calls()[0], PeerMessageSendResult(has_peer_received=True))
        wait_until(lambda: outcome)
        self.assertTrue(outcome[0].has_peer_received)


class ReportTest(SessionTest):
    """What the hub is told about stored messages, across connections."""

    def told(self) -> list[Any]:
        return [frame.event for frame in self.wire if isinstance(frame, Notice)]

    def test_a_report_is_sent_until_the_hub_has_it(self) -> None:
        self.attach()
        self.session.messages_handled([1, 2])
        self.session.messages_handled([3])
        self.assertEqual(self.told(), [MessagesHandled((1, 2)), MessagesHandled((3,))])
        self.session.detach()
        self.session.messages_handled([4])
        self.session.messages_handled([5])
        self.attach(resumed=True, received=1)
        self.assertEqual(self.told(), [MessagesHandled((3,)), MessagesHandled((4, 5))])
        self.session.detach()
        self.attach(resumed=False)  # the hub had lost the session: messages concern the user
        self.assertEqual(self.told(), [MessagesHandled((3,)), MessagesHandled((4, 5))])
        self.session.end("over")
        self.session.messages_handled([6])
        self.assertEqual(len(self.told()), 2)

    def test_a_frame_has_a_thousand_keys_at_the_most(self) -> None:
        self.session.messages_handled(range(2500))
        self.attach()
        self.assertEqual([len(event.keys) for event in self.told()], [1000, 1000, 500])
        self.assertEqual([key for event in self.told() for key in event.keys], list(range(2500)))

    def test_a_full_outbox_delays_a_report_and_loses_none(self) -> None:
        self.attach()
        for number in range(10_000):
            self.session.notify(CancelUpload(str(number)))
        for key in range(1500):
            self.session.messages_handled([key])
        self.session.set_listening(False)
        self.assertEqual(len(self.told()), 10_000)
        self.session.receive(encode_notice(Acknowledge(2)))
        self.assertEqual(self.told()[10_000], ListeningChanged(False))
        self.assertEqual(self.told()[10_001], MessagesHandled(tuple(range(1000))))
        self.session.receive(encode_notice(Acknowledge(3)))
        self.assertEqual(self.told()[10_002:], [MessagesHandled(tuple(range(1000, 1500)))])

    def test_the_login_has_the_state_and_changes_follow(self) -> None:
        self.session.set_listening(False)
        self.assertFalse(self.session.listens_at_login())
        self.attach()
        self.session.set_listening(False)
        self.assertEqual(self.told(), [])
        self.session.set_listening(True)
        self.session.set_listening(False)
        self.assertEqual(self.told(), [ListeningChanged(True), ListeningChanged(False)])

    def test_a_change_without_a_connection_is_in_the_next_login(self) -> None:
        self.assertTrue(self.session.listens_at_login())
        self.attach()
        self.session.detach()
        for listens in (False, True, False):
            self.session.set_listening(listens)
        self.assertFalse(self.session.listens_at_login())
        self.session.set_listening(True)  # while the hub answers the login
        self.attach(resumed=True, received=0)
        self.assertEqual(self.told(), [ListeningChanged(True)])

    def test_the_hub_ends_with_the_latest_state_whatever_is_sent_again(self) -> None:
        for resumed in (True, False):
            with self.subTest(resumed=resumed):
                self.setUp()
                self.session.listens_at_login()
                self.attach()
                self.session.set_listening(False)  # which the hub does not acknowledge
                self.session.detach()
                self.session.set_listening(True)
                state = self.session.listens_at_login()
                self.attach(resumed=resumed, received=0)
                for event in self.told():
                    state = event.listens
                self.assertTrue(state)

    def test_stored_messages_are_told_from_copies_by_the_client_and_not_here(self) -> None:
        self.attach()
        for number in (1, 1):
            stored = replace(from_peer(number), key=5)
            self.session.receive(encode_call(number, stored))
            self.session.receive(encode_call(number, from_peer(2)))
        texts = [event.message.text for event in self.app.events]
        self.assertEqual(texts, ["text 1", "text 2", "text 1"])
        self.app.full = True
        self.session.receive(encode_call(9, replace(from_peer(3), key=6)))
        self.assertIsInstance(self.wire[-1], Failure)
        self.app.full = False
        self.session.receive(encode_call(9, replace(from_peer(3), key=6)))
        self.assertIsInstance(self.wire[-1], Reply)


class FullConnectionTest(SessionTest):
    """A connection that takes no more, for a moment."""

    def setUp(self) -> None:
        super().setUp()
        self.is_full = False
        self.taken_over = threading.Event()

        def send(frame: str) -> bool:
            self.wire.append(decode(frame))
            return self.is_full

        self.session.attach(send, login(resumed=False), lambda: None, self.taken_over.set)

    def test_nothing_is_sent_until_there_is_room_and_nobody_waits_for_it(self) -> None:
        self.is_full = True
        outcomes = []
        for number in range(3):
            outcomes.append(self.calling(send(number)))
            wait_until(lambda number=number: len(self.session._calls) == number + 1)
        self.session.receive(encode_call(1, from_peer(7)))
        self.session.acknowledge()
        with self.assertRaises(PeerMessageError):
            self.session.call(send(3), 0.01)
        self.assertEqual(len(self.wire), 1)
        self.is_full = False
        self.session.resume_sending()
        self.assertIn(Notice(Acknowledge(1)), self.wire)
        self.assertEqual(len(self.calls()), 4)
        for call in self.calls()[:3]:
            self.answer(call, PeerMessageSendResult(has_peer_received=True))
        wait_until(lambda: all(outcomes))

    def test_room_that_is_there_before_the_sender_returns_is_noticed(self) -> None:
        def send_and_drain(frame: str) -> bool:
            self.wire.append(decode(frame))
            self.session.resume_sending()  # as the connection's thread may do at once
            return True

        self.session.attach(send_and_drain, login(resumed=True))
        for number in range(3):
            self.session.notify(CancelUpload(f"key{number}"))
        self.assertEqual(len(self.wire), 3)

    def test_after_an_interruption_the_next_caller_sends_everything(self) -> None:
        broken = [True]

        def interrupted(frame: str) -> bool:
            if broken:
                broken.clear()
                raise KeyboardInterrupt
            return bool(self.wire.append(decode(frame)))

        self.session.attach(interrupted, login(resumed=True))
        with self.assertRaises(KeyboardInterrupt):
            self.session.notify(CancelUpload("key1"))
        self.attach(resumed=True)
        self.session.notify(CancelUpload("key2"))
        self.assertEqual(self.wire, [Notice(CancelUpload("key1")), Notice(CancelUpload("key2"))])

    def test_a_caller_sends_frames_of_others_until_its_deadline_only(self) -> None:
        def send_slowly(frame: str) -> bool:
            if not self.wire:  # the frames of others arrive meanwhile
                for number in range(1, 4):
                    self.session.notify(CancelUpload(f"key{number}"))
            self.wire.append(decode(frame))
            caller = Deadline(0.001)  # it ends after the caller's own
            wait_until(lambda: caller.has_passed)
            return False

        self.session.attach(send_slowly, login(resumed=True), lambda: None, self.taken_over.set)
        with self.assertRaises(PeerMessageError):
            self.session.call(send(0), 0.001)
        self.assertTrue(self.taken_over.is_set())
        self.assertEqual(len(self.wire), 1)
        self.session.resume_sending()
        self.assertEqual(len(self.wire), 4)


class ReceiveTest(SessionTest):
    def setUp(self) -> None:
        super().setUp()
        self.attach()

    def test_a_peer_message_is_answered_once_it_is_queued_and_its_copy_is_dropped(self) -> None:
        for call_id in (1, 2):
            self.session.receive(encode_call(call_id, from_peer(7)))
        self.session.receive(encode_call(3, from_peer(7, sender="carol")))
        self.assertEqual([frame.id for frame in self.wire if isinstance(frame, Reply)], [1, 2, 3])
        self.assertEqual([event.peer_id for event in self.app.events], ["bob", "carol"])

    def test_a_message_the_application_has_no_room_for_is_refused_and_may_come_again(self) -> None:
        self.app.full = True
        self.session.receive(encode_call(1, from_peer(7)))
        self.assertIsInstance(self.wire[-1], Failure)
        self.app.full = False
        self.session.receive(encode_call(2, from_peer(7)))
        self.assertIsInstance(self.wire[-1], Reply)
        self.assertEqual(len(self.app.events), 1)

    def test_a_channel_message_that_comes_again_is_dropped(self) -> None:
        event = ChannelMessage(
            "room", RtmTextMessage("x"), "bob", "m1", ReceivedMessageProperties(1)
        )
        for _ in range(2):
            self.session.receive(encode_notice(event))
        self.assertEqual(self.app.events, [event])

    def test_the_hub_is_acknowledged_at_the_handlers_pace(self) -> None:
        self.app.backlog = 1000  # the handlers have not run yet
        for number in range(100):
            self.session.receive(encode_call(number + 1, from_peer(number)))
        self.assertEqual(self.acknowledged(), [])
        self.app.backlog = 20
        self.session.acknowledge()
        self.assertEqual(self.acknowledged(), [80])

    def acknowledged(self) -> list[int]:
        return [
            frame.event.received
            for frame in self.wire
            if isinstance(frame, Notice) and isinstance(frame.event, Acknowledge)
        ]

    def test_what_a_client_cannot_do_is_answered_so(self) -> None:
        self.session.receive(encode_call(1, JoinChannel("room")))
        failure = self.wire[-1]
        assert isinstance(failure, Failure)
        self.assertIn("A client has no join_channel", failure.error.message)

    def test_nonsense_is_a_protocol_error(self) -> None:
        for text in ("", "[]", "7", "{", '{"jsonrpc":"2.0"}', b"\xff\xfe", "[" * 100_000):
            with self.assertRaises(ProtocolError):
                self.session.receive(text)

    def test_an_impossible_acknowledgement_is_logged_and_changes_nothing(self) -> None:
        with self.assertLogs("rtm_sync.transports.session", "WARNING"):
            self.session.receive(encode_notice(Acknowledge(99)))
        self.session.notify(CancelUpload("k"))
        self.assertEqual(len(self.wire), 1)
