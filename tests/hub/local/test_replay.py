"""The channel log: positions, kept messages, and gaps that must be reported."""

from __future__ import annotations

import itertools
import unittest

from hypothesis import given
from hypothesis import strategies as st

from rtm_sync.hub.local.replay import ChannelLogs, ReplayLimits
from rtm_sync.messages import RtmTextMessage
from rtm_sync.protocol.events import ChannelMessage
from rtm_sync.protocol.values import ChannelPosition, ReceivedMessageProperties

APP = "app"


def message(text: str, channel: str = "room") -> ChannelMessage:
    props = ReceivedMessageProperties(1)
    return ChannelMessage(channel, RtmTextMessage(text), "alice", f"m{text[:20]}", props)


def texts(messages: tuple[ChannelMessage, ...]) -> list[str]:
    return [item.message.text for item in messages]  # type: ignore[union-attr]


class ChannelLogsTest(unittest.TestCase):
    def logs(self, **limits: int) -> ChannelLogs:
        names = itertools.count()
        return ChannelLogs(ReplayLimits(**limits), lambda: f"epoch-{next(names)}")

    def test_a_newcomer_misses_nothing(self) -> None:
        logs = self.logs()
        logs.append(APP, message("before"))
        missed = logs.since(APP, "room", None)
        self.assertEqual(missed.position, ChannelPosition("epoch-0", 1))
        self.assertEqual((missed.messages, missed.complete), ((), True))

    def test_what_came_after_a_place_is_given_with_places(self) -> None:
        logs = self.logs()
        placed = [logs.append(APP, message(str(number))) for number in range(5)]
        missed = logs.since(APP, "room", placed[1].position)
        self.assertEqual(missed.messages, tuple(placed[2:]))
        self.assertTrue(missed.complete)
        self.assertEqual(logs.since(APP, "room", placed[4].position).messages, ())

    @given(kept=st.integers(1, 8), sent=st.integers(0, 20), seen=st.integers(0, 20))
    def test_a_gap_is_complete_only_when_all_of_it_is_kept(
        self, kept: int, sent: int, seen: int
    ) -> None:
        logs = self.logs(messages=kept)
        for number in range(sent):
            logs.append(APP, message(str(number)))
        epoch = logs.since(APP, "room", None).position.epoch
        missed = logs.since(APP, "room", ChannelPosition(epoch, seen))
        self.assertEqual(missed.complete, seen <= sent <= seen + kept)
        if missed.complete:
            self.assertEqual(texts(missed.messages), [str(n) for n in range(seen, sent)])
        else:
            self.assertLessEqual(len(missed.messages), kept)

    def test_bytes_bound_a_channel_as_well_as_messages(self) -> None:
        logs = self.logs(size=10_000)
        start = logs.since(APP, "room", None).position
        for number in range(20):
            logs.append(APP, message(f"{number:03}" + "x" * 1000))
        missed = logs.since(APP, "room", start)
        self.assertFalse(missed.complete)
        self.assertEqual([text[:3] for text in texts(missed.messages)][-1], "019")
        self.assertLess(len(missed.messages), 10)

    def test_the_quietest_channel_makes_room_and_its_members_are_told(self) -> None:
        logs = self.logs(total_size=5000)
        places = {name: logs.append(APP, message("x" * 1000, name)).position for name in ("a", "b")}
        logs.append(APP, message("y" * 1000, "a"))  # b is the least recently used now
        logs.append(APP, message("z" * 1000, "c"))
        self.assertTrue(logs.since(APP, "a", places["a"]).complete)
        self.assertFalse(logs.since(APP, "b", places["b"]).complete)

    def test_no_more_channels_are_known_than_may_be(self) -> None:
        logs = self.logs(channels=2)
        first = logs.since(APP, "a", None).position
        for name in ("b", "c"):
            logs.since(APP, name, None)
        self.assertFalse(logs.since(APP, "a", first).complete)

    def test_another_epoch_and_a_place_to_come_are_not_believed(self) -> None:
        logs = self.logs()
        logs.append(APP, message("1"))
        for place in (
            ChannelPosition("another", 1),
            ChannelPosition("epoch-0", 2),
            ChannelPosition("epoch-0", -1),
        ):
            self.assertFalse(logs.since(APP, "room", place).complete)

    def test_the_same_channel_of_another_app_is_another(self) -> None:
        logs = self.logs()
        logs.append(APP, message("1"))
        self.assertEqual(logs.since("other", "room", None).position.sequence, 0)
