"""The transport contract: channels."""

from __future__ import annotations

from ...errors import (
    ChannelMessageError,
    JoinChannelError,
    LeaveChannelError,
)
from ...messages import (
    RtmImageMessage,
)
from .kit import SECONDS, TransportKit


class ChannelTests(TransportKit):
    """Channel messages, members and limits."""

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
        told = [next(news.until(SECONDS)) for _ in range(4)]
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
