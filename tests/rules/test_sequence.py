"""The outbox against a model: two plain lists and three numbers."""

from __future__ import annotations

import unittest

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rtm_sync.rules.sequence import Outbox, OutboxFull

MAX_FRAMES, MAX_BYTES = 6, 40


class PutBackTest(unittest.TestCase):
    def test_a_frame_that_was_put_back_is_taken_again(self) -> None:
        outbox = Outbox(10, 1000)
        for frame in ("one", "two"):
            outbox.push(frame)
        self.assertEqual(outbox.take(), "one")
        outbox.put_back()
        self.assertEqual([outbox.take(), outbox.take(), outbox.take()], ["one", "two", None])


class BytesTest(unittest.TestCase):
    def test_the_limit_counts_bytes_as_they_are_sent_not_characters(self) -> None:
        outbox = Outbox(10, 12)
        outbox.push("猫猫猫")  # nine bytes in UTF-8
        self.assertEqual(outbox.fullness, 9 / 12)
        with self.assertRaisesRegex(OutboxFull, r"\(9 bytes\)"):
            outbox.push("é…")  # five
        outbox.push("abc")
        self.assertEqual([outbox.take(), outbox.take()], ["猫猫猫", "abc"])
        outbox.acknowledge(1)
        self.assertEqual(outbox.fullness, 3 / 12)
        outbox.acknowledge(2)
        self.assertEqual(outbox.fullness, 0)


class OutboxMachine(RuleBasedStateMachine):
    """A model that keeps all pushed frames; the outbox must have the same unacknowledged ones."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(MAX_FRAMES, MAX_BYTES)
        self.pushed: list[str] = []
        self.acknowledged = 0  # the other end has pushed[:acknowledged]
        self.cursor = 0  # this connection was given pushed[acknowledged:cursor]
        self.sent = 0  # some connection was given pushed[:sent]

    def waiting(self) -> list[str]:
        return self.pushed[self.acknowledged :]

    @rule(size=st.integers(1, 20))
    def push(self, size: int) -> None:
        frame = f"{len(self.pushed)}".ljust(size, ".")
        waiting = self.waiting()
        fits = len(waiting) < MAX_FRAMES and sum(map(len, waiting)) + len(frame) <= MAX_BYTES
        try:
            self.outbox.push(frame)
        except OutboxFull:
            assert not fits, "refused a frame that fits"
        else:
            assert fits, "took a frame that does not fit"
            self.pushed.append(frame)

    @rule()
    def take(self) -> None:
        frame = self.outbox.take()
        if self.cursor == len(self.pushed):
            assert frame is None
        else:
            assert frame == self.pushed[self.cursor]
            self.cursor += 1
            self.sent = max(self.sent, self.cursor)

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        received = data.draw(st.integers(self.acknowledged, self.sent))
        self.outbox.acknowledge(received)
        self.acknowledged = received
        self.cursor = max(self.cursor, received)

    @rule(data=st.data())
    def reconnect(self, data: st.DataObject) -> None:
        received = data.draw(st.integers(self.acknowledged, self.sent))
        self.outbox.rewind(received)
        self.acknowledged = self.cursor = received

    @rule(by=st.integers(1, 5), too_many=st.booleans(), rewind=st.booleans())
    def claim_the_impossible(self, by: int, too_many: bool, rewind: bool) -> None:
        received = self.sent + by if too_many else self.acknowledged - by
        try:
            (self.outbox.rewind if rewind else self.outbox.acknowledge)(received)
        except ValueError:
            return
        raise AssertionError(f"{received} was accepted")

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.outbox) == len(self.waiting())
        assert self.outbox.unsent == len(self.pushed) - self.cursor


class OutboxModelTest(OutboxMachine.TestCase):  # type: ignore[misc,name-defined]
    settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


class OutboxTest(unittest.TestCase):
    def test_a_new_connection_gets_exactly_what_the_other_end_lacks(self) -> None:
        outbox = Outbox(10, 1000)
        for frame in ("a", "b", "c", "d"):
            outbox.push(frame)
        self.assertEqual([outbox.take() for _ in range(3)], ["a", "b", "c"])
        outbox.rewind(2)  # "c" was sent and lost, "d" never sent
        self.assertEqual([outbox.take() for _ in range(3)], ["c", "d", None])

    def test_an_acknowledgement_makes_room(self) -> None:
        outbox = Outbox(2, 1000)
        outbox.push("a")
        outbox.push("b")
        with self.assertRaises(OutboxFull):
            outbox.push("c")
        outbox.take()
        outbox.acknowledge(1)
        outbox.push("c")
        self.assertEqual([outbox.take(), outbox.take(), outbox.take()], ["b", "c", None])

    def test_a_full_outbox_says_how_full_and_keeps_what_it_has(self) -> None:
        outbox = Outbox(100, 10)
        outbox.push("12345678")
        with self.assertRaisesRegex(OutboxFull, r"1 frames \(8 bytes\).*10 bytes"):
            outbox.push("123")
        outbox.push("12")
        self.assertEqual([outbox.take(), outbox.take()], ["12345678", "12"])

    def test_a_late_acknowledgement_of_the_last_connection_skips_what_need_not_be_resent(
        self,
    ) -> None:
        outbox = Outbox(10, 1000)
        for frame in ("a", "b", "c"):
            outbox.push(frame)
            outbox.take()
        outbox.rewind(0)
        outbox.acknowledge(2)
        self.assertEqual(outbox.take(), "c")

    def test_a_frame_never_sent_cannot_be_acknowledged_away(self) -> None:
        outbox = Outbox(10, 1000)
        outbox.push("a")
        with self.assertRaisesRegex(ValueError, "1 frames are acknowledged; possible are 0 to 0"):
            outbox.acknowledge(1)
        self.assertEqual(outbox.take(), "a")
