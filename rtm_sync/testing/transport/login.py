"""The transport contract: login, logout, and calls without a login."""

from __future__ import annotations

import threading

from ...errors import (
    LoginError,
    PeerMessageError,
)
from ...protocol.values import ConnectionChangeReason, ConnectionState
from .kit import SECONDS, TransportKit


class LoginTests(TransportKit):
    """Login, logout and close, one call at a time."""

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

    def test_close_is_idempotent_and_works_from_a_handler(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        closed = threading.Event()

        @bob.on("MessageFromPeer")
        def close(*_: object) -> None:
            bob.close()
            closed.set()

        alice.send_message_to_peer("close", "bob")
        self.assertTrue(closed.wait(SECONDS))
        bob.close()
        with self.assertRaises(LoginError):
            bob.login("bob")
