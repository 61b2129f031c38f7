"""Short chaos, from a few seeds: what was acknowledged has arrived, once and in order."""

from __future__ import annotations

import unittest
from collections.abc import Callable

from tests.faults import killed_clients
from tests.faults.chaos import MODES, Plan, Report, Stream, run
from tests.support import RtmTestCase

SECONDS = 3.0
KINDS = ("peer messages", "channel messages", "offline messages", "media")


class ChaosTest(RtmTestCase):
    def assert_survives(self, plan: Plan, run: Callable[[Plan], Report] = run) -> Report:
        report = run(plan)
        self.assertEqual(
            report.problems,
            [],
            f"\n{report}\nAgain: python -m tests.faults --seed {plan.seed} --mode {plan.mode} "
            f"--minutes {plan.seconds / 60:g}",
        )
        return report

    def test_nothing_is_lost_doubled_or_reordered_by_a_failing_network(self) -> None:
        for seed in (1, 2):
            counts = self.assert_survives(Plan(seed, SECONDS)).counts
            for kind in KINDS:
                self.assertGreater(counts[f"{kind} acknowledged"], 0, counts)
            self.assertGreater(counts["reconnects"], 0, counts)

    def test_nothing_is_lost_untold_by_a_gateway_that_is_killed(self) -> None:
        report = self.assert_survives(Plan(3, SECONDS, "gateway"))
        for kind in KINDS:
            self.assertGreater(report.counts[f"{kind} acknowledged"], 0, report)
        self.assertGreater(report.faults["SIGKILL"], 0, report)

    def test_the_books_balance_when_clients_are_killed_as_well(self) -> None:
        report = self.assert_survives(Plan(4, 2 * SECONDS, "clients"), killed_clients.run)
        self.assertGreater(report.counts["messages acknowledged and kept"], 0, report)
        self.assertGreater(report.counts["channel messages acknowledged"], 0, report)
        self.assertGreater(report.faults["SIGKILL"] + report.faults["SIGTERM"], 0, report)
        self.assertGreater(report.faults["gateway SIGKILL"], 0, report)


class AccountsTest(unittest.TestCase):
    """The accounts themselves: what goes wrong does not pass them."""

    def problems(self, acknowledged: list[int], received: list[int]) -> list[str]:
        stream = Stream("a to b")
        stream.sent.acknowledged += acknowledged
        stream.received += received
        return list(stream.problems())

    def test_all_that_was_acknowledged_and_more_in_order_is_right(self) -> None:
        self.assertEqual(self.problems([0, 1, 3], [0, 1, 2, 3]), [])

    def test_what_is_lost_doubled_or_late_is_named(self) -> None:
        self.assertEqual(self.problems([0, 1, 2], [0, 2]), ["a to b: lost [1] of 3 acknowledged"])
        self.assertEqual(self.problems([0, 1], [0, 1, 1]), ["a to b: twice [1]"])
        self.assertEqual(self.problems([0, 1, 2], [0, 2, 1]), ["a to b: too late [1]"])

    def test_what_a_receiver_was_told_to_have_missed_is_excused_and_no_more(self) -> None:
        stream = Stream("a to b")
        stream.sent.acknowledged += [0, 1]
        stream.sent.begun = 2
        stream.excuse()
        stream.sent.acknowledged += [2, 3]
        self.assertEqual(list(stream.problems()), ["a to b: lost [3] of 4 acknowledged"])
        self.assertEqual(stream.excused(), 3)

    def test_a_report_says_how_to_have_it_again(self) -> None:
        report = Report(Plan(7, 4.0, MODES[1]), problems=["a to b: lost [1]"])
        self.assertIn("mode gateway, seed 7, 4 clients, 4 s", str(report))
        self.assertIn("PROBLEM a to b: lost [1]", str(report))
