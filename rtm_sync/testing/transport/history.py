"""The transport contract: history."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import (
    HistoryError,
    RtmError,
)
from ...messages import (
    RtmTextMessage,
)
from .kit import TransportKit


class HistoryTests(TransportKit):
    """Messages read back; refused where the transport keeps none."""

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
