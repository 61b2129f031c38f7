"""What every transport must do, as a test case to mix in."""

from __future__ import annotations

import hashlib
import io
import sys
import threading
from collections.abc import Callable
from concurrent.futures import wait
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..client.client import RtmClient
from ..client.events import EventStream
from ..errors import (
    ChannelMessageError,
    DownloadMediaError,
    HistoryError,
    JoinChannelError,
    LeaveChannelError,
    LoginError,
    PeerMessageError,
    RtmError,
    TransferCancelled,
    UploadMediaError,
)
from ..messages import (
    RtmFileMessage,
    RtmImageMessage,
    RtmMessage,
    RtmRawMessage,
    RtmTextMessage,
)
from ..protocol.values import ConnectionChangeReason, ConnectionState
from ..supervision import start_thread
from ..transfers.control import MediaOperationProgress
from .case import RtmTestCase, wait_until

_SECONDS = 10.0
_RACES = 5  # each of them ends one way or the other

if TYPE_CHECKING:
    _Base = RtmTestCase
else:
    _Base = object


class TransportContract(_Base):
    """Mix into a `RtmTestCase` and say where the hub is:

        class MyTransportTest(TransportContract, RtmTestCase):
            def url(self) -> str:
                return "mine://…"

    All clients of one test must meet at one hub, and no other test's clients there. What a
    transport cannot have, whatever it does, is switched off by a class attribute.

    Attributes:
        keeps_history: messages sent with `enable_historical_messaging` can be read back. Without,
            sending and reading must be refused instead.
    """

    keeps_history = True

    def url(self) -> str:
        """The URL for this test's clients; called once for each client."""
        raise NotImplementedError

    # -- factories --

    def client(self, uid: str | None = None, **options: Any) -> RtmClient:
        """A client of this test, logged in when a uid is given; closed after the test."""
        client = RtmClient("contract", url=self.url(), **options)
        self.addCleanup(client.close)
        if uid is not None:
            client.login(uid)
        return client

    def listen(self, emitter: Any, *names: str) -> EventStream:
        """Collect events from now on."""
        stream: EventStream = emitter.events(*names)
        self.addCleanup(stream.close)
        return stream

    def next_of(self, stream: EventStream) -> tuple[Any, ...]:
        """The next collected event's arguments."""
        for event in stream.until(_SECONDS):
            return event.args
        raise AssertionError(f"no event within {_SECONDS:g} seconds")

    def refused(self, name: str, call: Callable[..., object], *args: Any, **options: Any) -> None:
        """Assert that the call raises the error with that code name."""
        with self.assertRaises(RtmError) as caught:
            call(*args, **options)
        self.assertEqual(caught.exception.code.name, name)

    # -- login --

    def test_login_and_logout_tell_their_states(self) -> None:
        client = self.client()
        states = self.listen(client, "ConnectionStateChanged")
        client.login("alice")
        self.assertEqual(client.connection_state, ConnectionState.CONNECTED)
        client.logout()
        told = [self.next_of(states) for _ in range(3)]
        self.assertEqual(
            told,
            [
                (ConnectionState.CONNECTING, ConnectionChangeReason.LOGIN),
                (ConnectionState.CONNECTED, ConnectionChangeReason.LOGIN_SUCCESS),
                (ConnectionState.DISCONNECTED, ConnectionChangeReason.LOGOUT),
            ],
        )

    def test_a_client_can_log_in_again_after_logout(self) -> None:
        client = self.client("alice")
        client.logout()
        client.login("alice2")
        bob = self.client("bob")
        self.assertTrue(bob.send_message_to_peer("hi", "alice2").has_peer_received)
        self.assertFalse(bob.send_message_to_peer("hi", "alice").has_peer_received)

    def test_logging_in_twice_is_refused(self) -> None:
        client = self.client("alice")
        self.refused("LOGIN_ERR_ALREADY_LOGIN", client.login, "alice")

    def test_bad_uids_are_refused_with_the_reason(self) -> None:
        client = self.client()
        for uid in ("", "x" * 65, "naïve", "a/b", "null", 7):
            with self.subTest(uid=uid), self.assertRaises(LoginError) as caught:
                client.login(uid)  # type: ignore[arg-type]
            self.assertEqual(caught.exception.code.name, "LOGIN_ERR_INVALID_ARGUMENT")

    def test_a_second_login_of_the_uid_aborts_the_first(self) -> None:
        first = self.client("alice")
        states = self.listen(first, "ConnectionStateChanged")
        second = self.client("alice")
        told = self.next_of(states)
        while told[0] is not ConnectionState.ABORTED:
            told = self.next_of(states)
        self.assertEqual(told[1], ConnectionChangeReason.REMOTE_LOGIN)
        with self.assertRaises(PeerMessageError):
            first.send_message_to_peer("hi", "bob")
        bob = self.client("bob")
        self.assertTrue(bob.send_message_to_peer("hi", "alice").has_peer_received)
        self.assertEqual(second.connection_state, ConnectionState.CONNECTED)
        first.logout()
        self.assertEqual(first.connection_state, ConnectionState.DISCONNECTED)

    def test_every_call_needs_a_login(self) -> None:
        client = self.client()
        channel = client.create_channel("room")
        self.refused(
            "PEER_MESSAGE_ERR_USER_NOT_LOGGED_IN", client.send_message_to_peer, "hi", "bob"
        )
        self.refused("JOIN_CHANNEL_ERR_USER_NOT_LOGGED_IN", channel.join)
        self.refused("LEAVE_CHANNEL_ERR_USER_NOT_LOGGED_IN", channel.leave)
        self.refused("CHANNEL_MESSAGE_ERR_USER_NOT_LOGGED_IN", channel.send_message, "hi")
        self.refused(
            "UPLOAD_MEDIA_ERR_NOT_LOGGED_IN", client.create_media_message_by_uploading, b"x"
        )
        self.refused("DOWNLOAD_MEDIA_ERR_NOT_LOGGED_IN", client.download_media, "A" * 32)
        self.refused("LOGOUT_ERR_USER_NOT_LOGGED_IN", client.logout)

    # -- races: several threads at once, and interruptions --

    def race(self, *calls: Callable[[], object]) -> list[BaseException]:
        """Make the calls at the same moment, each on a thread; returns what they raised.

        Only an RtmError may be raised, and each call must return in time.
        """
        together = threading.Barrier(len(calls))
        raised: list[BaseException] = []

        def make(call: Callable[[], object]) -> None:
            together.wait(_SECONDS)
            try:
                call()
            except BaseException as error:
                raised.append(error)

        threads = [start_thread("rtm-sync-race", partial(make, call)) for call in calls]
        for thread in threads:
            thread.join(2 * _SECONDS)
            self.assertFalse(thread.is_alive(), "a call does not return")
        for error in raised:
            if not isinstance(error, RtmError):
                raise error
        return raised

    def check_in_or_out(self, client: RtmClient, uid_after: str = "afterwards") -> None:
        """Assert that a client is logged in, or not, and that both it and the hub say so."""
        uid, state = client.uid, client.connection_state
        if uid is None:
            self.assertEqual(state, ConnectionState.DISCONNECTED)
        else:
            self.assertEqual(state, ConnectionState.CONNECTED)
            client.send_message_to_peer("hi", "nobody")  # the hub answers
            client.logout()
        client.login(uid_after)
        self.assertEqual(client.connection_state, ConnectionState.CONNECTED)

    def test_a_logout_ends_a_login_that_is_under_way(self) -> None:
        for number in range(_RACES):
            client, uid = self.client(), f"user{number}"
            names = {
                error.code.name
                for error in self.race(lambda c=client, u=uid: c.login(u), client.logout)  # type: ignore[misc]
                if isinstance(error, RtmError)
            }
            self.assertLessEqual(
                names, {"LOGIN_ERR_ABORTED_BY_LOGOUT", "LOGOUT_ERR_USER_NOT_LOGGED_IN"}
            )
            self.check_in_or_out(client, f"{uid} again")
            client.close()

    def test_a_close_ends_a_login_that_is_under_way(self) -> None:
        for number in range(_RACES):
            client, uid = self.client(), f"user{number}"
            names = {
                error.code.name
                for error in self.race(lambda c=client, u=uid: c.login(u), client.close)  # type: ignore[misc]
                if isinstance(error, RtmError)
            }
            self.assertLessEqual(names, {"LOGIN_ERR_ABORTED_BY_LOGOUT", "LOGIN_ERR_REJECTED"})
            self.assertIsNone(client.uid)
            self.assertEqual(client.connection_state, ConnectionState.DISCONNECTED)

    def test_one_of_two_logins_at_once_is_refused(self) -> None:
        client = self.client()
        raised = self.race(lambda: client.login("alice"), lambda: client.login("bob"))
        names = [error.code.name for error in raised if isinstance(error, RtmError)]
        self.assertEqual(names, ["LOGIN_ERR_ALREADY_LOGIN"])
        self.check_in_or_out(client)

    def test_logging_out_and_closing_twice_at_once(self) -> None:
        client = self.client("alice")
        self.race(client.logout, client.logout)
        self.assertIsNone(client.uid)
        self.check_in_or_out(client)
        self.race(client.close, client.close)
        self.assertIsNone(client.uid)
        self.assertEqual(client.connection_state, ConnectionState.DISCONNECTED)

    def test_calls_that_a_logout_or_a_close_overtakes_end_with_an_error_of_theirs(self) -> None:
        for end in (RtmClient.logout, RtmClient.close):
            client = self.client("alice")
            room = client.create_channel("room")
            raised = self.race(
                lambda c=client: c.send_message_to_peer("hi", "bob"),  # type: ignore[misc]
                room.join,
                partial(end, client),
            )
            for error in raised:
                self.assertIsInstance(error, (PeerMessageError, JoinChannelError))
            self.assertIsNone(client.uid)
            self.assertEqual(client.connection_state, ConnectionState.DISCONNECTED)
            client.close()

    def test_an_interrupted_login_ends_like_a_refused_one(self) -> None:
        watcher = self.client("watcher")
        # So many function calls of the login are let pass before the exception (Ctrl-C).
        for passed in (1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 66, 78, 91):
            client, uid = self.client(), f"user{passed}"
            states = self.listen(client, "ConnectionStateChanged")
            left = passed

            def interrupt(frame: FrameType, event: str, argument: object) -> None:
                nonlocal left
                if event == "call" and "rtm_sync" in frame.f_code.co_filename:
                    left -= 1
                    if left < 0:
                        sys.setprofile(None)
                        raise KeyboardInterrupt

            sys.setprofile(interrupt)
            try:
                client.login(uid)
            except KeyboardInterrupt:
                self.assertIsNone(client.uid)
                self.assertEqual(client.connection_state, ConnectionState.DISCONNECTED)
                result = watcher.send_message_to_peer("hi", uid)
                self.assertFalse(result.has_peer_received, "the hub keeps a session")
                client.login(uid)
                told = [self.next_of(states)]
                while told[-1][0] is not ConnectionState.CONNECTED or len(told) < 2:
                    told.append(self.next_of(states))
                reasons = [reason for _, reason in told]
                if len(reasons) > 2:  # it was interrupted after the first of them
                    self.assertIn(ConnectionChangeReason.LOGIN_FAILURE, reasons)
            finally:
                sys.setprofile(None)
            result = watcher.send_message_to_peer("hi", uid)
            self.assertTrue(result.has_peer_received)
            client.close()

    # -- peer messages --

    def test_every_kind_of_message_reaches_the_peer_unchanged(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        arriving = self.listen(bob, "MessageFromPeer")
        messages: list[RtmMessage] = [
            RtmTextMessage("héllo 你好 \u0000 🎉", "described"),
            RtmRawMessage(bytes(range(256)), "bytes"),
            RtmFileMessage("m" * 32, "report.pdf", "d", 123, b"\x00thumb", 1.5),
            RtmImageMessage("m" * 32, "cat.jpg", "d", 9, b"\xff", 2.5, 640, 480, 64, 48),
            RtmTextMessage("x" * 32768),
            RtmRawMessage(b"\x00" * 32768),
            RtmTextMessage("\x01" * 32768),
        ]
        for message in messages:
            result = alice.send_message_to_peer(message, "bob")
            self.assertTrue(result.has_peer_received)
            received, sender, props = self.next_of(arriving)
            self.assertEqual(received, message)
            self.assertIs(type(received), type(message))
            self.assertEqual(sender, "alice")
            self.assertFalse(props.is_offline_message)
            self.assertGreater(props.server_received_ts, 1_600_000_000_000)

    def test_messages_keep_their_order(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        arriving = self.listen(bob, "MessageFromPeer")
        for number in range(200):
            alice.send_message_to_peer(str(number), "bob")
        received = [self.next_of(arriving)[0].text for _ in range(200)]
        self.assertEqual(received, [str(number) for number in range(200)])

    def test_nobody_there_is_said_at_once(self) -> None:
        alice = self.client("alice")
        result = alice.send_message_to_peer("hi", "nobody")
        self.assertEqual((result.has_peer_received, result.cached_by_server), (False, False))

    def test_offline_messages_wait_for_the_login(self) -> None:
        alice = self.client("alice")
        for number in range(3):
            result = alice.send_message_to_peer(str(number), "bob", enable_offline_messaging=True)
            self.assertEqual((result.has_peer_received, result.cached_by_server), (False, True))
        bob = self.client()
        arriving = self.listen(bob, "MessageFromPeer")
        bob.login("bob")
        received = [self.next_of(arriving) for _ in range(3)]
        self.assertEqual([message.text for message, _, _ in received], ["0", "1", "2"])
        self.assertTrue(all(props.is_offline_message for _, _, props in received))

    def test_a_message_sent_again_under_its_id_arrives_once(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        arriving = self.listen(bob, "MessageFromPeer")
        for _ in range(3):
            alice.send_message_to_peer("one", "bob", message_id="order-7")
        alice.send_message_to_peer("two", "bob")
        self.assertEqual(self.next_of(arriving)[0].text, "one")
        self.assertEqual(self.next_of(arriving)[0].text, "two")

    def test_it_arrives_once_though_sender_and_receiver_have_restarted(self) -> None:
        first, before = self.client("alice"), self.client("bob")
        arrived = self.listen(before, "MessageFromPeer")
        self.client("keeper")  # an embedded hub lives as long as somebody is logged in
        first.send_message_to_peer("one", "bob", message_id="order-7")
        self.assertEqual(self.next_of(arrived)[0].text, "one")
        first.close()
        before.close()
        again, after = self.client("alice"), self.client("bob")
        arriving = self.listen(after, "MessageFromPeer")
        self.assertTrue(
            again.send_message_to_peer("one", "bob", message_id="order-7").has_peer_received
        )
        again.send_message_to_peer("two", "bob")
        self.assertEqual(self.next_of(arriving)[0].text, "two")

    def test_an_offline_message_sent_again_waits_once(self) -> None:
        self.client("keeper")
        for _ in range(2):
            alice = self.client("alice")
            result = alice.send_message_to_peer(
                "one", "bob", enable_offline_messaging=True, message_id="order-7"
            )
            self.assertTrue(result.cached_by_server)
            alice.close()
        bob = self.client()
        arriving = self.listen(bob, "MessageFromPeer")
        bob.login("bob")
        self.client("carol").send_message_to_peer("two", "bob")
        self.assertEqual([self.next_of(arriving)[0].text for _ in range(2)], ["one", "two"])

    def test_history_is_kept_or_refused_and_never_forgotten_in_silence(self) -> None:
        alice = self.client("alice")
        room = alice.create_channel("room")
        room.join()
        calls: list[Callable[[], object]] = [
            lambda: alice.send_message_to_peer("hi", "bob", enable_historical_messaging=True),
            lambda: room.send_message("hi", enable_historical_messaging=True),
            lambda: alice.get_peer_history("bob"),
            room.get_history,
        ]
        for call in calls:
            if self.keeps_history:
                call()
            else:
                with self.assertRaises(RtmError) as caught:
                    call()
                self.assertEqual(caught.exception.reason, "FAILURE")
        if self.keeps_history:
            self.assertEqual(len(alice.get_peer_history("bob")), 1)
            self.assertEqual(len(room.get_history()), 1)

    def test_history_is_read_back_by_peer_by_channel_and_by_time(self) -> None:
        if not self.keeps_history:
            return
        alice, bob = self.client("alice"), self.client("bob")
        rooms = [client.create_channel("room") for client in (alice, bob)]
        for room in rooms:
            room.join()
        alice.send_message_to_peer("to bob", "bob", enable_historical_messaging=True)
        alice.send_message_to_peer("not kept", "bob")
        bob.send_message_to_peer("to alice", "alice", enable_historical_messaging=True)
        rooms[0].send_message("to all", enable_historical_messaging=True)
        both = alice.get_peer_history("bob")
        self.assertEqual(
            [(item.source, item.message) for item in both],
            [("alice", RtmTextMessage("to bob")), ("bob", RtmTextMessage("to alice"))],
        )
        self.assertTrue(all(item.message_props.is_historical_message for item in both))
        newest = bob.get_peer_history("alice", limit=1, newest_first=True)
        self.assertEqual(newest, both[1:])
        sent_at = both[0].message_props.server_received_ts / 1000
        self.assertEqual(alice.get_peer_history("bob", end=sent_at), [])
        self.assertEqual(alice.get_peer_history("bob", start=sent_at), both)
        (to_all,) = rooms[1].get_history()
        self.assertEqual((to_all.destination, to_all.is_channel), ("room", True))
        rooms[1].leave()
        with self.assertRaises(HistoryError) as caught:
            rooms[1].get_history()
        self.assertEqual(caught.exception.reason, "NOT_IN_CHANNEL")

    def test_a_long_history_comes_whole_and_in_order(self) -> None:
        if not self.keeps_history:
            return
        alice = self.client("alice")
        for number in range(250):
            alice.send_message_to_peer(f"{number}", "bob", enable_historical_messaging=True)
        history = self.client("bob").get_peer_history("alice", limit=240)
        self.assertEqual(
            [item.message for item in history],
            [RtmTextMessage(str(number)) for number in range(240)],
        )

    def test_a_channel_message_sent_again_arrives_once(self) -> None:
        clients = [self.client("alice"), self.client("bob")]
        channels = [client.create_channel("room") for client in clients]
        for channel in channels:
            channel.join()
        arriving = self.listen(channels[1], "ChannelMessage")
        for _ in range(2):
            channels[0].send_message("one", message_id="order-7")
        channels[0].send_message("two")
        self.assertEqual([self.next_of(arriving)[0].text for _ in range(2)], ["one", "two"])

    def test_bad_peer_messages_are_refused(self) -> None:
        alice = self.client("alice")
        send = alice.send_message_to_peer
        self.refused("PEER_MESSAGE_ERR_INVALID_USERID", send, "hi", "a/b")
        self.refused("PEER_MESSAGE_ERR_INVALID_MESSAGE", send, "", "bob")
        self.refused("PEER_MESSAGE_ERR_INVALID_MESSAGE", send, "x" * 32769, "bob")
        self.refused("PEER_MESSAGE_ERR_INVALID_MESSAGE", send, b"x" * 32769, "bob")
        self.refused("PEER_MESSAGE_ERR_INVALID_MESSAGE", send, 7, "bob")
        self.refused("PEER_MESSAGE_ERR_INVALID_MESSAGE", send, "hi", "bob", message_id="a b")

    def test_a_handler_may_call_blocking_methods(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        answers = self.listen(alice, "MessageFromPeer")

        @bob.on("MessageFromPeer")
        def answer(message: RtmMessage, peer_id: str, props: object) -> None:
            assert isinstance(message, RtmTextMessage)
            bob.send_message_to_peer(message.text.upper(), peer_id)

        alice.send_message_to_peer("echo", "bob")
        self.assertEqual(self.next_of(answers)[0].text, "ECHO")

    # -- channels --

    def test_channel_messages_reach_all_but_the_sender(self) -> None:
        clients = [self.client(uid) for uid in ("alice", "bob", "carol")]
        channels = [client.create_channel("room") for client in clients]
        streams = [self.listen(channel, "ChannelMessage") for channel in channels]
        for channel in channels:
            channel.join()
        channels[0].send_message("from alice")
        channels[1].send_message(RtmImageMessage("m" * 32, "cat.jpg", thumbnail=b"\xff"))
        message, member_id, props = self.next_of(streams[2])
        self.assertEqual((message.text, member_id), ("from alice", "alice"))
        self.assertFalse(props.is_historical_message)
        self.assertEqual(self.next_of(streams[2])[1], "bob")
        self.assertEqual(self.next_of(streams[0])[1], "bob")
        self.assertEqual(self.next_of(streams[1])[1], "alice")

    def test_members_are_told_who_joins_and_leaves(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        room = alice.create_channel("room")
        room.join()
        news = self.listen(room, "MemberJoined", "MemberLeft")
        theirs = bob.create_channel("room")
        theirs.join()
        theirs.leave()
        theirs.join()
        bob.logout()
        told = [next(news.until(_SECONDS)) for _ in range(4)]
        self.assertEqual(
            [(event.name, event.args) for event in told],
            [
                ("MemberJoined", ("bob",)),
                ("MemberLeft", ("bob",)),
                ("MemberJoined", ("bob",)),
                ("MemberLeft", ("bob",)),
            ],
        )

    def test_channel_rules_are_enforced(self) -> None:
        alice = self.client("alice")
        room = alice.create_channel("room")
        self.assertIs(alice.create_channel("room"), room)
        self.refused("CREATE_CHANNEL_ERR_INVALID_ARGUMENT", alice.create_channel, "a/b")
        self.refused("CHANNEL_MESSAGE_ERR_NOT_IN_CHANNEL", room.send_message, "hi")
        self.refused("LEAVE_CHANNEL_ERR_NOT_IN_CHANNEL", room.leave)
        room.join()
        self.refused("JOIN_CHANNEL_ERR_ALREADY_JOINED", room.join)
        self.refused("CHANNEL_MESSAGE_ERR_INVALID_MESSAGE", room.send_message, "x" * 32769)
        for number in range(19):
            alice.create_channel(f"room {number}").join()
        extra = alice.create_channel("one more")
        self.refused("JOIN_CHANNEL_ERR_EXCEED_LIMIT", extra.join)
        room.leave()
        extra.join()
        with self.assertRaises(ChannelMessageError):
            room.send_message("hi")

    def test_joining_the_same_channel_too_often_is_refused(self) -> None:
        room = self.client("alice").create_channel("room")
        for _ in range(2):
            room.join()
            room.leave()
        with self.assertRaises(JoinChannelError) as caught:
            room.join()
        self.assertEqual(caught.exception.code.name, "JOIN_CHANNEL_ERR_JOIN_SAME_CHANNEL_TOO_OFTEN")
        with self.assertRaises(LeaveChannelError):
            room.leave()

    # -- media --

    def test_what_is_uploaded_is_what_is_downloaded(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        for size in (1, 1000, 262_144, 3_000_001):
            data = _pattern(size)
            upload = alice.create_media_message_by_uploading(data, file_name="a b/ü.bin")
            message = upload.result(_SECONDS)
            self.assertEqual(message.size, size)
            blob = bob.download_media(message.media_id).result(_SECONDS)
            self.assertEqual(blob.to_bytes(), data)

    def test_every_source_and_destination_works(self) -> None:
        alice = self.client("alice")
        folder = self.folder()
        data = _pattern(100_000)
        source = folder / "source.txt"
        source.write_bytes(data)
        with source.open("rb") as file:
            for payload in (source, str(source), data, bytearray(data), memoryview(data), file):
                upload = alice.create_media_message_by_uploading(payload)
                message = upload.result(_SECONDS)
                self.assertEqual(message.size, len(data))
        written = alice.download_media(message.media_id, to=folder / "copy").result(_SECONDS)
        self.assertEqual(written, folder / "copy")
        self.assertEqual(written.read_bytes(), data)
        again = alice.download_media(message.media_id, to=folder).result(_SECONDS)
        self.assertEqual(again, folder / "source (1).txt")
        memory = io.BytesIO()
        self.assertIs(alice.download_media(message.media_id, to=memory).result(_SECONDS), memory)
        self.assertEqual(memory.getvalue(), data)
        self.assertEqual(
            sorted(path.name for path in folder.iterdir()), ["copy", "source (1).txt", "source.txt"]
        )

    def test_progress_ends_with_exactly_one_full_call(self) -> None:
        alice = self.client("alice")
        calls: list[MediaOperationProgress] = []
        data = _pattern(2_000_000)
        upload = alice.create_media_message_by_uploading(data, on_operation_progress=calls.append)
        message = upload.result(_SECONDS)
        self._check_progress(calls, len(data))
        calls.clear()
        alice.download_media(message.media_id, on_operation_progress=calls.append).result(_SECONDS)
        self._check_progress(calls, len(data))

    def _check_progress(self, calls: list[MediaOperationProgress], total: int) -> None:
        sizes = [progress.current_size for progress in calls]
        self.assertEqual(sizes, sorted(set(sizes)))
        self.assertEqual(sizes[-1], total)
        self.assertEqual({progress.total_size for progress in calls}, {total})

    def test_unknown_and_malformed_media_are_refused(self) -> None:
        alice = self.client("alice")
        unknown = alice.download_media("A" * 32)
        self.refused("DOWNLOAD_MEDIA_ERR_NOT_EXIST", unknown.result, _SECONDS)
        malformed = alice.download_media("short")
        self.refused("DOWNLOAD_MEDIA_ERR_INVALID_ARGUMENT", malformed.result, _SECONDS)
        for media_id in ("", "../../etc/passwd", "a b", "x" * 129):
            self.refused("DOWNLOAD_MEDIA_ERR_INVALID_ARGUMENT", alice.download_media, media_id)
        with self.assertRaises(DownloadMediaError):
            alice.download_media("A" * 32, to=self.folder() / "missing" / "file")

    def test_a_failed_download_leaves_the_old_file(self) -> None:
        alice = self.client("alice")
        target = self.folder() / "kept"
        target.write_bytes(b"old")
        with self.assertRaises(DownloadMediaError):
            alice.download_media("A" * 32, to=target).result(_SECONDS)
        self.assertEqual(target.read_bytes(), b"old")
        self.assertEqual(list(target.parent.iterdir()), [target])

    def test_sources_that_cannot_be_are_refused_before_anything_is_sent(self) -> None:
        alice = self.client("alice")
        upload = alice.create_media_message_by_uploading
        folder = self.folder()
        big = folder / "big"
        with big.open("wb") as file:
            file.truncate(30 * 1024 * 1024 + 1)
        self.refused("UPLOAD_MEDIA_ERR_SIZE_OVERFLOW", upload, big)
        self.refused("UPLOAD_MEDIA_ERR_INVALID_ARGUMENT", upload, b"")
        self.refused("UPLOAD_MEDIA_ERR_INVALID_ARGUMENT", upload, 7)
        self.refused("UPLOAD_MEDIA_ERR_FAILURE", upload, folder / "missing")
        self.refused("UPLOAD_MEDIA_ERR_FAILURE", upload, folder)
        self.refused("UPLOAD_MEDIA_ERR_INVALID_ARGUMENT", upload, b"x", message_type="TEXT")
        self.refused("UPLOAD_MEDIA_ERR_INVALID_ARGUMENT", upload, b"x", thumbnail=b"x" * 32769)
        self.refused("UPLOAD_MEDIA_ERR_INVALID_ARGUMENT", upload, b"x", description="d" * 32769)
        self.refused("UPLOAD_MEDIA_ERR_INVALID_ARGUMENT", upload, b"x", thumbnail="no such")

    def test_the_largest_medium_is_accepted(self) -> None:
        alice = self.client("alice")
        path = self.folder() / "limit"
        with path.open("wb") as file:
            file.truncate(30 * 1024 * 1024)
        message = alice.create_media_message_by_uploading(path).result(3 * _SECONDS)
        copy = alice.download_media(message.media_id, to=path.with_name("copy"))
        digest = hashlib.sha256(copy.result(3 * _SECONDS).read_bytes()).digest()
        self.assertEqual(digest, hashlib.sha256(path.read_bytes()).digest())

    def test_many_transfers_at_once_all_succeed(self) -> None:
        alice = self.client("alice")
        payloads = [_pattern(50_000 + number) for number in range(30)]
        uploads = [alice.create_media_message_by_uploading(data) for data in payloads]
        done, pending = wait(uploads, 3 * _SECONDS)
        self.assertEqual((len(done), len(pending)), (30, 0))
        downloads = [alice.download_media(upload.result().media_id) for upload in uploads]
        for data, download in zip(payloads, downloads, strict=True):
            self.assertEqual(download.result(_SECONDS).to_bytes(), data)

    def test_a_cancelled_upload_ends_and_frees_its_slot(self) -> None:
        alice = self.client("alice")
        for number in range(15):
            cancel = threading.Event()
            upload = alice.create_media_message_by_uploading(
                _pattern(4_000_000),
                cancel_signal=cancel,
                on_operation_progress=_setter(cancel),
            )
            if number % 2:
                self.assertTrue(upload.cancel())
            with self.assertRaises(TransferCancelled) as caught:
                upload.result(_SECONDS)
            self.assertIsInstance(caught.exception, UploadMediaError)
            self.assertTrue(upload.cancelled())
        message = alice.create_media_message_by_uploading(b"still works").result(_SECONDS)
        self.assertEqual(
            alice.download_media(message.media_id).result(_SECONDS).to_bytes(), b"still works"
        )

    def test_a_cancelled_download_leaves_nothing(self) -> None:
        alice = self.client("alice")
        message = alice.create_media_message_by_uploading(_pattern(4_000_000)).result(_SECONDS)
        folder = self.folder()
        cancel = threading.Event()
        download = alice.download_media(
            message.media_id,
            to=folder / "file",
            cancel_signal=cancel,
            on_operation_progress=_setter(cancel),
        )
        with self.assertRaises(TransferCancelled):
            download.result(_SECONDS)
        wait_until(lambda: not list(folder.iterdir()), message="a part file stays")

    def test_logout_interrupts_transfers(self) -> None:
        alice = self.client("alice")
        started = threading.Event()
        hold = threading.Event()
        self.addCleanup(hold.set)

        def block(progress: MediaOperationProgress) -> None:
            started.set()
            hold.wait(_SECONDS)

        upload = alice.create_media_message_by_uploading(
            _pattern(4_000_000), on_operation_progress=block
        )
        self.assertTrue(started.wait(_SECONDS))
        alice.logout()
        with self.assertRaises(UploadMediaError) as caught:
            upload.result(_SECONDS)
        self.assertEqual(caught.exception.code.name, "UPLOAD_MEDIA_ERR_INTERRUPTED")

    def test_close_is_idempotent_and_works_from_a_handler(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        closed = threading.Event()

        @bob.on("MessageFromPeer")
        def close(*_: object) -> None:
            bob.close()
            closed.set()

        alice.send_message_to_peer("close", "bob")
        self.assertTrue(closed.wait(_SECONDS))
        bob.close()
        with self.assertRaises(LoginError):
            bob.login("bob")


def _setter(event: threading.Event) -> Callable[[MediaOperationProgress], None]:
    return lambda progress: event.set()


def _pattern(size: int) -> bytes:
    """Bytes that differ at every place a chunk could go astray."""
    block = hashlib.sha256(str(size).encode()).digest()
    return (block * (size // len(block) + 1))[:size]
