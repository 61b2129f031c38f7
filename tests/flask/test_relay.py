"""Server-Sent Events: their numbers, and recovery after a lost connection or its refusal."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from rtm_sync import RtmClient, RtmImageMessage
from rtm_sync.flask.relay import EventRelay
from tests.support import PATIENCE, RtmTestCase, wait_until


class Sent(NamedTuple):
    """One event as a browser parses it."""

    id: str
    event: str
    data: Any


def parsed(body: Iterator[bytes]) -> Iterator[Sent]:
    """The events of a stream, parsed by the rules of the HTML standard."""
    for chunk in body:
        for block in chunk.decode().split("\n\n"):
            fields = dict(
                line.split(": ", 1) for line in block.split("\n") if line[:1] != ":" and line
            )
            if "data" in fields:
                yield Sent(fields["id"], fields["event"], json.loads(fields["data"]))


class RelayTest(RtmTestCase):
    def setUp(self) -> None:
        self.relay = EventRelay()
        self.addCleanup(self.relay.close)

    def take(
        self, count: int, last: str | None = None, relay: EventRelay | None = None
    ) -> list[Sent]:
        """The next events of a new stream, `ready` included."""
        events = parsed((relay or self.relay).stream(last, seconds=PATIENCE))
        return [next(events) for _ in range(count)]

    def test_a_stream_begins_now_and_says_so(self) -> None:
        self.relay.publish("news", {"n": 1})
        stream = parsed(self.relay.stream(seconds=PATIENCE))
        ready = next(stream)
        self.assertEqual((ready.event, ready.data), ("ready", {"recovered": True}))
        self.assertEqual(ready.id, self.relay.last_event_id)
        self.relay.publish("news", {"n": 2})
        self.assertEqual(next(stream)[1:], ("news", {"n": 2}))

    def test_who_comes_back_gets_what_it_missed(self) -> None:
        for number in range(10):
            self.relay.publish("news", {"n": number})
        first = self.take(1)[0].id
        for number in range(10, 15):
            self.relay.publish("news", {"n": number})
        seen = self.take(3, first)
        self.assertEqual(
            [event.data for event in seen], [{"recovered": True}, {"n": 10}, {"n": 11}]
        )
        again = self.take(4, seen[-1].id)
        self.assertEqual([one.data.get("n") for one in again], [None, 12, 13, 14])

    def test_who_missed_too_much_is_told(self) -> None:
        relay = EventRelay(capacity=3)
        first = relay.last_event_id
        for number in range(4):
            relay.publish("news", {"n": number})
        self.assertEqual(self.take(1, first, relay)[0].data, {"recovered": False})
        relay.publish("news", {"n": 4})
        kept = self.take(4, f"{first.rpartition('.')[0]}.2", relay)
        self.assertEqual([one.data.get("n") for one in kept], [None, 2, 3, 4])

    def test_bytes_are_bounded_too(self) -> None:
        relay = EventRelay(max_bytes=10_000)
        first = relay.last_event_id
        for _ in range(20):
            relay.publish("news", {"text": "x" * 1000})
        self.assertEqual(self.take(1, first, relay)[0].data, {"recovered": False})

    def test_ids_of_another_process_or_of_nobody_are_not_recovered(self) -> None:
        self.relay.publish("news", {"n": 1})
        other = EventRelay().last_event_id
        present = self.relay.last_event_id
        for last in (
            other,
            "",
            "x",
            "1",
            "x.",
            f"{present}9",
            f"{present[:-1]}-1",
            "é.1",
            "." * 99,
        ):
            with self.subTest(last):
                ready = self.take(1, last)[0]
                self.assertEqual((ready.data, ready.id), ({"recovered": False}, present))

    def test_a_slow_reader_is_told_what_it_lost_and_goes_on(self) -> None:
        relay = EventRelay(capacity=2)
        self.addCleanup(relay.close)
        stream = parsed(relay.stream(seconds=PATIENCE))
        self.assertEqual(next(stream).data, {"recovered": True})
        for number in range(5):
            relay.publish("news", {"n": number})
        rest = [next(stream) for _ in range(3)]
        self.assertEqual([one.data for one in rest], [{"recovered": False}, {"n": 3}, {"n": 4}])

    def test_silence_is_broken_by_a_comment_and_a_stream_ends_in_time(self) -> None:
        chunks = list(self.relay.stream(seconds=0.1, heartbeat=0.03))
        self.assertGreaterEqual(len(chunks), 3)
        self.assertEqual(set(chunks[1:]), {b": still here\n\n"})

    def test_closing_ends_every_stream(self) -> None:
        ended = []

        def read() -> None:
            ended.extend(self.relay.stream(seconds=PATIENCE))
            ended.append(b"end")

        reader = threading.Thread(target=read)
        reader.start()
        wait_until(lambda: ended)
        self.relay.close()
        self.relay.close()
        reader.join(PATIENCE)
        self.assertEqual(ended[-1], b"end")
        self.relay.publish("news", {})  # the relay is closed

    def test_every_reader_hears_every_event_in_order(self) -> None:
        streams = [parsed(self.relay.stream(seconds=PATIENCE)) for _ in range(5)]
        for stream in streams:
            next(stream)

        def publish(name: str) -> None:
            for number in range(100):
                self.relay.publish(name, {"n": number})

        writers = [threading.Thread(target=publish, args=(name,)) for name in "ab"]
        for writer in writers:
            writer.start()
        for stream in streams:
            got = [next(stream) for _ in range(200)]
            for name in "ab":
                numbers = [one.data["n"] for one in got if one.event == name]
                self.assertEqual(numbers, list(range(100)))
        for writer in writers:
            writer.join()

    def test_a_name_or_data_that_would_break_the_form_is_refused(self) -> None:
        for name in ("", "a\nb", "a\rdata: x"):
            with self.assertRaises(ValueError):
                self.relay.publish(name, {})
        with self.assertRaises(TypeError):
            self.relay.publish("news", {"x": object()})
        stream = parsed(self.relay.stream(seconds=PATIENCE))
        next(stream)
        self.relay.publish("news", {"text": "two\nlines\r\n\u2028 and é"})
        self.assertEqual(next(stream).data, {"text": "two\nlines\r\n\u2028 and é"})


class WatchTest(RtmTestCase):
    """The events of a client and of its channels."""

    def test_events_carry_their_arguments_by_name(self) -> None:
        relay = EventRelay()
        self.addCleanup(relay.close)
        alice, bob = (self.entered(RtmClient("relay")) for _ in range(2))
        relay.watch(alice)
        stream = parsed(relay.stream(seconds=PATIENCE))
        self.assertEqual(next(stream).event, "ready")
        alice.login("alice")
        bob.login("bob")
        states = [next(stream).data for _ in range(2)]
        self.assertEqual([one["new_state"] for one in states], ["CONNECTING", "CONNECTED"])
        room = alice.create_channel("room")
        relay.watch(room)
        room.join()
        picture = RtmImageMessage("A" * 32, "cat.png", "", 5, b"thumb", 0.0, 4, 3, 2, 1)
        bob.send_message_to_peer(picture, "alice")
        told = next(event for event in stream if event.event == "MessageFromPeer")
        self.assertEqual(told.data["peer_id"], "bob")
        self.assertEqual(told.data["message"]["media_id"], "A" * 32)
        self.assertEqual(told.data["message"]["type"], "IMAGE")
        self.assertGreater(told.data["message_props"]["server_received_ts"], 0)
        there = bob.create_channel("room")
        there.join()
        there.send_message("hello")
        bob.set_channel_attributes(
            "room", {"topic": "cats"}, enable_notification_to_channel_members=True
        )
        seen: dict[str, Any] = {}
        while {"MemberJoined", "ChannelMessage", "AttributesUpdated"} - seen.keys():
            event = next(stream)
            seen[event.event] = event.data
        self.assertEqual({one["channel_id"] for one in seen.values()}, {"room"})
        self.assertEqual(seen["MemberJoined"]["member_id"], "bob")
        self.assertEqual(seen["ChannelMessage"]["message"]["text"], "hello")
        self.assertEqual(seen["AttributesUpdated"]["attributes"]["topic"]["value"], "cats")

    def test_every_event_of_clients_and_channels_can_be_told(self) -> None:
        from rtm_sync import RtmChannel
        from rtm_sync.flask.relay import _ARGUMENTS

        self.assertEqual(set(_ARGUMENTS), RtmClient.EVENTS | RtmChannel.EVENTS)

    def test_closing_lets_go_of_what_was_watched(self) -> None:
        client = self.entered(RtmClient("relay"))
        relay = EventRelay()
        relay.watch(client)
        self.assertEqual(client.listener_count("MessageFromPeer"), 1)
        relay.close()
        self.assertEqual(client.listener_count("MessageFromPeer"), 0)
