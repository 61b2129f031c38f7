"""The channel log: positions, kept messages, and gaps that must be reported."""

from __future__ import annotations

import unittest
from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st

from rtm_sync.hub.local.replay import ChannelLogs, KeptMessage, ReplayLimits
from rtm_sync.messages import RtmTextMessage
from rtm_sync.protocol.codec import encode_json
from rtm_sync.protocol.events import ChannelMessage
from rtm_sync.protocol.values import ChannelPosition, ReceivedMessageProperties

APP = "app"
SECRET = bytes(16)


def message(text: str, channel: str = "room") -> ChannelMessage:
    props = ReceivedMessageProperties(1)
    return ChannelMessage(channel, RtmTextMessage(text), "alice", f"m{text[:20]}", props)


def texts(messages: tuple[ChannelMessage, ...]) -> list[str]:
    return [item.message.text for item in messages]  # type: ignore[union-attr]


def append(logs: ChannelLogs, item: ChannelMessage, at: float = 1.0) -> ChannelMessage:
    """Number a message and keep it. Returns it with its position."""
    (numbered,) = logs.number([(APP, item)], at)
    logs.keep(numbered)
    assert isinstance(numbered.message, ChannelMessage)
    return numbered.message


class ChannelLogsTest(unittest.TestCase):
    def logs(self, **limits: int) -> ChannelLogs:
        return ChannelLogs(ReplayLimits(**limits), SECRET)

    def test_a_newcomer_misses_nothing(self) -> None:
        logs = self.logs()
        before = append(logs, message("before"))
        missed = logs.since(APP, "room", None)
        self.assertEqual(missed.position, before.position)
        self.assertEqual((missed.messages, missed.complete), ((), True))

    def test_what_came_after_a_place_is_given_with_places(self) -> None:
        logs = self.logs()
        placed = [append(logs, message(str(number))) for number in range(5)]
        missed = logs.since(APP, "room", placed[1].position)
        self.assertEqual(missed.messages, tuple(placed[2:]))
        self.assertTrue(missed.complete)
        self.assertEqual(logs.since(APP, "room", placed[4].position).messages, ())

    def test_what_is_numbered_and_not_kept_is_given_to_nobody(self) -> None:
        logs = self.logs()
        start = append(logs, message("1")).position
        logs.number([(APP, message("not stored")), (APP, message("nor this"))], 1.0)
        self.assertEqual(logs.since(APP, "room", None).position, start)
        kept = append(logs, message("2"))
        missed = logs.since(APP, "room", start)
        self.assertEqual((missed.messages, missed.complete), ((kept,), True))

    @given(kept=st.integers(1, 8), sent=st.integers(0, 20), seen=st.integers(0, 20))
    def test_a_gap_is_complete_only_when_all_of_it_is_kept(
        self, kept: int, sent: int, seen: int
    ) -> None:
        logs = self.logs(messages=kept)
        for number in range(sent):
            append(logs, message(str(number)))
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
            append(logs, message(f"{number:03}" + "x" * 1000))
        missed = logs.since(APP, "room", start)
        self.assertFalse(missed.complete)
        self.assertEqual([text[:3] for text in texts(missed.messages)][-1], "019")
        self.assertLess(len(missed.messages), 10)

    def test_the_quietest_channel_makes_room_and_its_members_are_told(self) -> None:
        logs = self.logs(total_size=5000)
        start = logs.since(APP, "b", None).position
        places = {name: append(logs, message("x" * 1000, name)).position for name in ("a", "b")}
        append(logs, message("y" * 1000, "a"))  # b is quiet for longer now
        append(logs, message("z" * 1000, "c"))
        self.assertTrue(logs.since(APP, "a", places["a"]).complete)
        self.assertFalse(logs.since(APP, "b", start).complete)
        # One that had its last message has missed nothing, forgotten or not.
        self.assertTrue(logs.since(APP, "b", places["b"]).complete)
        append(logs, message("new", "b"))
        self.assertFalse(logs.since(APP, "b", start).complete)
        self.assertEqual(texts(logs.since(APP, "b", places["b"]).messages), ["new"])

    def test_an_app_with_much_pushes_out_its_own_and_nothing_of_another(self) -> None:
        for limits in ({"total_size": 20_000}, {"channels": 10}):
            with self.subTest(**limits):
                logs = self.logs(**limits)
                silent = logs.since("other", "silent", None).position
                before = logs.since("other", "room", None).position
                (kept,) = logs.number([("other", message("missed"))], 1.0)
                logs.keep(kept)
                own = logs.since(APP, "0", None).position
                for number in range(200):
                    append(logs, message("x" * 1000, f"{number}"))
                missed = logs.since("other", "room", before)
                self.assertEqual((texts(missed.messages), missed.complete), (["missed"], True))
                self.assertTrue(logs.since("other", "silent", silent).complete)
                self.assertFalse(logs.since(APP, "0", own).complete)

    def test_no_more_channels_are_known_than_may_be(self) -> None:
        logs = self.logs(channels=2)
        starts = {name: logs.since(APP, name, None).position for name in ("a", "b", "c")}
        for name in ("a", "b", "c"):
            append(logs, message("1", name))
        complete = [logs.since(APP, name, starts[name]).complete for name in ("a", "b", "c")]
        self.assertEqual(complete, [False, True, True])

    def test_another_epoch_and_a_place_to_come_are_not_believed(self) -> None:
        logs = self.logs()
        newest = append(logs, message("1")).position
        assert newest is not None
        for place in (
            ChannelPosition("another", 1),
            ChannelPosition(newest.epoch, 2),
            ChannelPosition(newest.epoch, -1),
            logs.since(APP, "hall", None).position,
            logs.since("other", "room", None).position,
        ):
            self.assertFalse(logs.since(APP, "room", place).complete)

    def test_the_same_channel_of_another_app_is_another(self) -> None:
        logs = self.logs()
        start = logs.since("other", "room", None).position
        append(logs, message("1"))
        missed = logs.since("other", "room", start)
        self.assertEqual((missed.messages, missed.complete), ((), True))

    def test_what_is_too_old_is_removed_and_those_who_had_it_miss_nothing(self) -> None:
        logs = self.logs(age=600)
        start = logs.since(APP, "room", None).position
        old = append(logs, message("old"), at=1000.0).position
        append(logs, message("young", "hall"), at=1500.0)
        logs.expire(1601.0)
        missed = logs.since(APP, "room", start)
        self.assertEqual((missed.messages, missed.complete), ((), False))
        self.assertTrue(logs.since(APP, "room", old).complete)
        new = append(logs, message("new"), at=1602.0)
        missed = logs.since(APP, "room", old)
        self.assertEqual((missed.messages, missed.complete), ((new,), True))


class StoredLogsTest(unittest.TestCase):
    """A store that does as it is told has the same log as the memory, whatever happens."""

    APPS: ClassVar[dict[str, str]] = {"a": APP, "b": APP, "c": "other"}

    @given(
        steps=st.lists(
            st.one_of(
                st.tuples(st.just("message"), st.sampled_from("abc"), st.integers(0, 60)),
                st.tuples(st.just("expire"), st.just(""), st.integers(0, 60)),
                st.tuples(st.just("restart"), st.just(""), st.booleans()),
            ),
            max_size=40,
        )
    )
    def test_a_restart_changes_no_answer(self, steps: list[tuple[str, str, int]]) -> None:
        limits = ReplayLimits(messages=3, size=3000, total_size=6000, channels=2, age=100)
        logs = ChannelLogs(limits, SECRET)
        rows: dict[int, KeptMessage] = {}
        forgotten: dict[str, int] = {}
        now = 1000.0
        published: dict[str, list[int]] = {name: [] for name in "abc"}
        for kind, channel, number in steps:
            if kind == "message":
                now += number
                (item,) = logs.number([(self.APPS[channel], message("x", channel))], now)
                assert isinstance(item.message, ChannelMessage)
                rows[item.sequence] = KeptMessage(
                    self.APPS[channel],
                    channel,
                    item.sequence,
                    item.previous,
                    now,
                    item.id,
                    encode_json(item.message),
                )
                logs.keep(item)
                published[channel].append(item.sequence)
            elif kind == "expire":
                now += number
                logs.expire(now)
            else:
                if number:  # an orderly one; a kill loses what was not removed yet
                    forgotten |= self.remove(rows, logs)
                last = max([*rows, *forgotten.values()], default=0)
                logs = ChannelLogs(limits, SECRET, last, forgotten)
                for _, row in sorted(rows.items()):
                    logs.keep(row)
            self.check(logs, published)

    @staticmethod
    def remove(rows: dict[int, KeptMessage], logs: ChannelLogs) -> dict[str, int]:
        removals = logs.take_removals()
        for sequence in removals.emptied:
            row = rows[sequence]
            rows[sequence] = KeptMessage(
                row.app_id, row.channel_id, sequence, row.previous, row.at, row.id, None
            )
        for sequence in removals.deleted:
            del rows[sequence]
        return removals.forgotten

    def check(self, logs: ChannelLogs, published: dict[str, list[int]]) -> None:
        """An answer that says it is complete has all messages after the position."""
        for channel, sequences in published.items():
            app_id = self.APPS[channel]
            newest = logs.since(app_id, channel, None).position
            for since in range(newest.sequence + 1):
                missed = logs.since(app_id, channel, ChannelPosition(newest.epoch, since))
                got = [item.position.sequence for item in missed.messages if item.position]
                self.assertEqual(got, sorted(got))
                if missed.complete:
                    self.assertEqual(got, [number for number in sequences if number > since])
            if sequences:  # one that has the newest message has missed nothing
                place = ChannelPosition(newest.epoch, sequences[-1])
                self.assertTrue(logs.since(app_id, channel, place).complete)
