"""The transport contract: messages from peer to peer."""

from __future__ import annotations

from ...messages import (
    RtmFileMessage,
    RtmImageMessage,
    RtmMessage,
    RtmRawMessage,
    RtmTextMessage,
)
from .kit import TransportKit


class MessageTests(TransportKit):
    """Peer messages: kinds, order, receipts, offline messages, ids."""

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
