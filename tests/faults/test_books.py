"""The books themselves: each kind of fault is caught, and what is right passes."""

from __future__ import annotations

import unittest

from tests.faults.books import Books, End, Life, message_id

CRASHED, CUT_OFF, CLOSED = End.CRASHED, End.CUT_OFF, End.CLOSED


class BooksCase(unittest.TestCase):
    def setUp(self) -> None:
        self.books = Books()
        self.now = 0.0

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    def life(self, end: End = CLOSED, uid: str = "bob") -> Life:
        number = sum(life.uid == uid for life in self.books.lives)
        life = Life(uid, number, end)
        self.books.lives.append(life)
        return life

    def sent(
        self,
        number: int,
        how: str | None = "received",
        *,
        to: str | None = "bob",
        kept: bool = True,
    ) -> None:
        entry = {"to": to, "number": number, "kept": kept}
        self.books.enter_sent("alice", {"what": "tried", "at": self.tick(), **entry})
        if how is not None:
            answered = {"what": "answered", "how": how, "at": self.tick(), **entry}
            self.books.enter_sent("alice", answered)

    def given(
        self, life: Life, *numbers: int, redelivered: bool = False, returns: bool = True
    ) -> None:
        for number in numbers:
            entry = {"from": "alice", "number": number, "redelivered": redelivered}
            entry["id"] = message_id("alice", life.uid, number)
            self.books.enter_given(life, {"what": "given", "at": self.tick(), **entry})
            if returns:
                self.books.enter_given(life, {"what": "handled", "at": self.tick(), **entry})

    def assert_problems(self, *expected: str) -> None:
        problems, _ = self.books.balance()
        self.assertEqual(problems, list(expected))

    def assert_count(self, what: str, count: int) -> None:
        _, counts = self.books.balance()
        self.assertEqual(counts[what], count, counts)


class PeerTest(BooksCase):
    def test_what_was_acknowledged_and_handled_in_order_is_right(self) -> None:
        for number, how in enumerate(["received", "cached", "received"]):
            self.sent(number, how)
        self.given(self.life(), 0, 1, 2)
        self.assert_problems()
        self.assert_count("messages acknowledged and kept", 3)
        self.assert_count("answered with cached", 1)

    def test_a_kept_message_that_nobody_handled_is_lost(self) -> None:
        for how in ("received", "cached"):
            with self.subTest(how):
                self.setUp()
                for number in range(3):
                    self.sent(number, how)
                self.given(self.life(CRASHED), 0, 2)
                self.assert_problems("alice to bob: kept and lost [1] of 3")
                self.assert_count("acknowledged, kept and lost", 1)

    def test_a_kept_message_whose_handler_never_returned_is_lost(self) -> None:
        self.sent(0)
        self.given(self.life(CRASHED), 0, returns=False)
        self.assert_problems("alice to bob: kept and lost [0] of 1")

    def test_what_was_not_acknowledged_or_was_refused_may_come_or_not(self) -> None:
        self.sent(0, "refused", kept=False)
        self.sent(1, None)
        self.sent(2, None)
        self.given(self.life(), 2)
        self.assert_problems()

    def test_a_plain_message_may_be_lost_only_with_the_end_of_a_receiver(self) -> None:
        self.sent(0, kept=False)
        self.sent(1, kept=False)
        life = self.life(CRASHED)
        self.given(life, 0)
        self.assert_problems()
        self.assert_count("plain messages lost with the end of a receiver", 1)
        life.end = CLOSED
        self.assert_problems()
        life.saw_the_end = True
        self.assert_problems("alice to bob: plain and lost [1], and no receiver ended")

    def test_first_handlings_out_of_order_are_named_across_processes_as_well(self) -> None:
        for number in range(4):
            self.sent(number)
        self.given(self.life(CRASHED), 0, 2)
        self.given(self.life(), 1, 3)
        self.assert_problems("alice to bob: out of order [(2, 1)]")
        self.assert_count("reordered", 1)

    def test_a_message_that_comes_again_does_not_count_for_the_order(self) -> None:
        for number in range(3):
            self.sent(number)
        self.given(self.life(CRASHED), 0, 1)
        self.given(second := self.life(), 0, 1, redelivered=True)
        self.given(second, 2)
        self.assert_problems()
        self.assert_count("given again and marked, client crashed", 2)

    def test_a_copy_in_one_process_is_never_right(self) -> None:
        self.sent(0)
        self.given(life := self.life(CRASHED), 0)
        self.given(life, 0, redelivered=True)
        self.assert_problems("alice to bob: 0 twice in one process (bob, life 0)")

    def test_a_copy_after_an_orderly_close_is_a_fault_though_it_is_marked(self) -> None:
        self.sent(0)
        self.given(first := self.life(CLOSED), 0)
        self.given(self.life(), 0, redelivered=True)
        self.assert_problems("alice to bob: 0 twice without a crash (bob, life 0)")
        first.end = CUT_OFF
        self.assert_problems()

    def test_a_copy_that_is_not_marked_is_a_fault(self) -> None:
        self.sent(0)
        self.given(self.life(CRASHED), 0)
        self.given(self.life(), 0)
        self.assert_problems("alice to bob: 0 twice and not marked (bob, life 1)")

    def test_a_copy_of_a_message_whose_handler_did_not_return_is_marked_too(self) -> None:
        self.sent(0)
        self.given(self.life(CRASHED), 0, returns=False)
        self.given(self.life(), 0)
        self.assert_problems("alice to bob: 0 twice and not marked (bob, life 1)")

    def test_a_gateway_that_ended_between_two_sends_of_a_plain_message_knows_no_copy(self) -> None:
        self.sent(0, None, kept=False)
        ended = self.tick()
        self.sent(0, kept=False)
        self.given(self.life(CRASHED), 0)
        self.given(self.life(), 0)
        self.assert_problems("alice to bob: 0 twice, and not kept")
        self.books.gateway_ended.append(ended)
        self.assert_problems()
        self.assert_count("plain copies, sent again after the gateway's end", 1)
        self.books.gateway_ended[:] = [ended + 10]
        self.assert_problems("alice to bob: 0 twice, and not kept")

    def test_a_gateway_that_ended_between_two_sends_of_a_kept_message_knows_it(self) -> None:
        self.sent(0, None)
        self.books.gateway_ended.append(self.tick())
        self.sent(0)
        self.given(self.life(CRASHED), 0)
        self.given(self.life(), 0)
        self.assert_problems("alice to bob: 0 twice and not marked (bob, life 1)")

    def test_a_copy_that_is_marked_needs_no_other_reason(self) -> None:
        self.sent(0, None)
        self.books.gateway_ended.append(self.tick())
        self.sent(0)
        self.given(self.life(CRASHED), 0)
        self.given(self.life(), 0, redelivered=True)
        self.assert_problems()
        self.assert_count("given again and marked, client crashed", 1)

    def test_a_plain_message_is_not_given_again(self) -> None:
        self.sent(0, kept=False)
        self.given(self.life(CRASHED), 0)
        self.given(self.life(), 0, redelivered=True)
        self.assert_problems("alice to bob: 0 twice, and not kept")

    def test_messages_that_were_never_sent_or_have_another_id_are_named(self) -> None:
        life = self.life()
        entry = {"what": "given", "from": "alice", "number": 7, "redelivered": False, "at": 0.0}
        self.books.enter_given(life, {**entry, "id": "other"})
        self.assert_problems(
            "alice to bob: never sent [7]", "alice to bob: with another message id [7]"
        )


class RoomTest(BooksCase):
    def member(self, end: End = CRASHED, *, saw_the_end: bool = False) -> Life:
        life = self.life(end, "carol")
        life.saw_the_end = saw_the_end
        self.books.enter_given(life, {"what": "joined", "at": self.tick()})
        return life

    def saw(self, life: Life, *numbers: int) -> None:
        for number in numbers:
            entry = {"what": "seen", "from": "alice", "number": number, "at": self.tick()}
            self.books.enter_given(life, entry)

    def test_a_member_sees_all_from_its_joining_on(self) -> None:
        self.sent(0, to=None)
        life = self.member(saw_the_end=True)
        self.sent(1, to=None)
        self.sent(2, None, to=None)
        self.sent(3, to=None)
        self.saw(life, 1, 3)
        self.assert_problems()
        self.assert_count("channel messages acknowledged", 3)

    def test_a_gap_is_lost(self) -> None:
        life = self.member()
        for number in range(4):
            self.sent(number, to=None)
        self.saw(life, 0, 2)
        self.assert_problems("alice in the room, to carol, life 0: lost [1]")
        self.assert_count("channel messages acknowledged and lost", 1)

    def test_a_member_that_lives_to_the_end_misses_no_end(self) -> None:
        life = self.member(CLOSED)
        for number in range(3):
            self.sent(number, to=None)
        self.saw(life, 0, 1)
        self.assert_problems()
        life.saw_the_end = True
        self.assert_problems("alice in the room, to carol, life 0: lost [2]")

    def test_copies_and_late_ones_are_named(self) -> None:
        for numbers in ((0, 0), (1, 0)):
            with self.subTest(numbers):
                self.setUp()
                life = self.member()
                self.sent(0, to=None)
                self.sent(1, to=None)
                self.saw(life, *numbers)
                self.assert_problems("alice in the room, to carol, life 0: twice or out of order")

    def test_what_a_process_reports_as_wrong_is_wrong(self) -> None:
        life = self.member()
        self.books.enter_given(life, {"what": "problem", "problem": "told", "at": 0.0})
        self.assert_problems("carol, life 0: told")
