"""Deadlines and back-off."""

from __future__ import annotations

import unittest

from rtm_sync.rules.timing import Backoff, Deadline


class DeadlineTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 100.0

    def test_it_counts_down_and_stops_at_zero(self) -> None:
        deadline = Deadline(5.0, lambda: self.now)
        self.now = 103.0
        self.assertEqual((deadline.left, deadline.timeout, deadline.has_passed), (2.0, 2.0, False))
        self.now = 106.0
        self.assertEqual((deadline.left, deadline.timeout, deadline.has_passed), (0.0, 0.0, True))

    def test_none_is_no_deadline(self) -> None:
        deadline = Deadline(None, lambda: self.now)
        self.assertEqual((deadline.left, deadline.timeout), (float("inf"), None))
        self.assertFalse(deadline.has_passed)

    def test_no_time_has_passed_at_once(self) -> None:
        self.assertTrue(Deadline(0.0, lambda: self.now).has_passed)


class BackoffTest(unittest.TestCase):
    def test_the_longest_wait_doubles_up_to_its_bound(self) -> None:
        backoff = Backoff(first=0.5, longest=5.0)
        most = [
            backoff.wait(failures, lambda low, high: high) for failures in (1, 2, 3, 4, 5, 2000)
        ]
        self.assertEqual(most, [0.5, 1.0, 2.0, 4.0, 5.0, 5.0])

    def test_the_jitter_is_full(self) -> None:
        backoff = Backoff(first=0.5, longest=5.0)
        self.assertEqual(backoff.wait(3, lambda low, high: low), 0.0)
