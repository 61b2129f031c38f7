"""The retry policy by itself: time and chance are the test's."""

from __future__ import annotations

import unittest
from collections.abc import Callable

from rtm_sync.errors import DownloadMediaError, UploadMediaError
from rtm_sync.transfers.control import TransferKind
from rtm_sync.transports.retry import RetryPolicy, StartOver, Transient


class RetryPolicyTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        self.size = 0
        self.tries = 0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def run_policy(
        self,
        attempt: Callable[[], str],
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008  it is frozen
        chance: float = 1.0,
        kind: TransferKind = TransferKind.UPLOAD,
    ) -> str:
        def counted() -> str:
            self.tries += 1
            return attempt()

        return policy.run(
            kind,
            counted,
            lambda: self.size,
            self.sleep,
            lambda: self.now,
            lambda low, high: low + chance * (high - low),
        )

    def failing(self, *errors: BaseException) -> Callable[[], str]:
        """An attempt that fails with each of the errors, then succeeds."""
        left = list(errors)

        def attempt() -> str:
            if left:
                raise left.pop(0)
            return "done"

        return attempt

    def always(self, error: Exception) -> Callable[[], str]:
        def attempt() -> str:
            raise error

        return attempt

    def test_what_works_is_tried_once(self) -> None:
        self.assertEqual(self.run_policy(lambda: "done"), "done")
        self.assertEqual((self.tries, self.waits), (1, []))

    def test_a_gateway_that_is_away_for_25_seconds_is_waited_for(self) -> None:
        def attempt() -> str:
            if self.now < 1025.0:
                raise Transient("connection refused")
            return "done"

        for chance in (0.1, 0.5, 1.0):
            with self.subTest(chance=chance):
                self.now = 1000.0
                self.assertEqual(self.run_policy(attempt, chance=chance), "done")

    def test_after_30_seconds_without_progress_it_fails_and_says_so(self) -> None:
        with self.assertRaises(UploadMediaError) as caught:
            self.run_policy(self.always(Transient("connection refused")))
        self.assertEqual(caught.exception.reason, "FAILURE")
        self.assertIn(f"failed, {self.tries} attempts in ", caught.exception.message)
        self.assertIn("last: connection refused", caught.exception.message)
        self.assertGreaterEqual(self.now, 1030.0)
        self.assertLess(self.now, 1035.0)

    def silent_until(self, healed: float, back: float) -> Callable[[], str]:
        """Attempts hang until the network has healed, and are refused until the login is back."""

        def attempt() -> str:
            if self.now < healed:
                self.now = healed
                raise Transient("connection reset")
            if self.now < back:
                raise Transient("log in", reason="NOT_LOGGED_IN", is_answer=True)
            return "done"

        return attempt

    def test_an_attempt_that_hung_in_a_silent_network_is_not_the_last(self) -> None:
        """The first attempt hangs for the whole hole, or the second one does."""
        for first in ([], [Transient("connection reset")]):
            with self.subTest(first=first):
                self.now = 1000.0
                silent = self.silent_until(1045.0, 1046.0)
                errors = list(first)

                def attempt(
                    silent: Callable[[], str] = silent, errors: list[Transient] = errors
                ) -> str:
                    if errors:
                        raise errors.pop()
                    return silent()

                self.assertEqual(self.run_policy(attempt), "done")

    def test_after_a_silence_the_login_has_its_own_time_to_come_back(self) -> None:
        def attempt() -> str:
            if self.now < 1045.0:
                self.now += 10.0  # a connection attempt times out
                raise Transient("connection timed out")
            if self.now < 1070.0:
                raise Transient("log in", reason="NOT_LOGGED_IN", is_answer=True)
            return "done"

        for chance in (0.1, 0.5):
            with self.subTest(chance=chance):
                self.now = 1000.0
                self.assertEqual(self.run_policy(attempt, chance=chance), "done")

    def test_a_machine_that_slept_between_two_attempts_goes_on(self) -> None:
        def sleep(seconds: float) -> None:
            self.now += seconds + 3600.0

        done = RetryPolicy().run(
            TransferKind.UPLOAD,
            self.failing(Transient("reset"), Transient("reset")),
            lambda: 0,
            sleep,
            lambda: self.now,
        )
        self.assertEqual(done, "done")

    def test_neither_silence_nor_refusals_are_waited_for_without_end(self) -> None:
        """Attempts hang for 120 seconds, or are refused at once, in turns."""

        def attempt() -> str:
            if self.tries % 2:
                self.now += 120.0
                raise Transient("reset")
            raise Transient("busy", is_answer=True)

        with self.assertRaises(UploadMediaError):
            self.run_policy(attempt)
        self.assertLess(self.tries, 20)

    def test_waits_double_up_to_a_few_seconds_and_chance_takes_any_part_of_them(self) -> None:
        errors = [Transient("refused")] * 7
        self.run_policy(self.failing(*errors))
        self.assertEqual(self.waits, [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0])
        self.waits.clear()
        self.run_policy(self.failing(*errors), chance=0.5)
        self.assertEqual(self.waits, [0.125, 0.25, 0.5, 1.0, 2.0, 2.0, 2.0])

    def test_who_gets_further_each_time_may_go_on_for_ever_and_waits_little(self) -> None:
        def attempt() -> str:
            self.now += 20.0
            self.size += 1000
            if self.size < 50_000:
                raise Transient("dropped")
            return "done"

        self.assertEqual(self.run_policy(attempt), "done")
        self.assertEqual(self.tries, 50)
        self.assertEqual(set(self.waits), {0.25})

    def test_bytes_that_were_there_before_are_no_progress(self) -> None:
        self.size = 5000
        with self.assertRaises(UploadMediaError):
            self.run_policy(self.always(Transient("dropped")))
        self.assertLess(self.now, 1035.0)

    def test_what_the_gateway_asks_for_is_waited_up_to_a_bound(self) -> None:
        self.run_policy(self.failing(Transient("busy", 7.0), Transient("busy", 0.1)))
        self.assertEqual(self.waits, [7.0, 0.5])
        self.waits.clear()
        self.run_policy(self.failing(Transient("busy", 3600.0)))
        self.assertEqual(self.waits, [30.0])

    def test_damaged_bytes_are_sent_again_twice(self) -> None:
        damaged = StartOver("not the digest")
        self.assertEqual(self.run_policy(self.failing(damaged, damaged)), "done")
        self.tries = 0
        with self.assertRaisesRegex(UploadMediaError, "failed, 3 attempts .* not the digest"):
            self.run_policy(self.failing(damaged, damaged, damaged))
        self.assertEqual(self.tries, 3)

    def test_after_damage_progress_is_counted_from_nothing(self) -> None:
        sizes = iter([9000, 0, 10, 20, 30, 40])

        def attempt() -> str:
            self.now += 20.0
            self.size = next(sizes)
            if self.size == 0:
                raise StartOver("not the digest")
            if self.size < 40:
                raise Transient("dropped")
            return "done"

        self.assertEqual(self.run_policy(attempt), "done")

    def test_any_other_error_ends_it_at_once(self) -> None:
        for error in (UploadMediaError.named("NOT_LOGGED_IN", "no"), ValueError("a bug")):
            self.tries = 0
            with self.subTest(error=error), self.assertRaises(type(error)) as caught:
                self.run_policy(self.always(error))
            self.assertIs(caught.exception, error)
            self.assertEqual((self.tries, self.waits), (1, []))

    def test_a_sleep_that_raises_ends_it_at_once(self) -> None:
        cancelled = UploadMediaError.named("INTERRUPTED", "cancelled")

        def sleep(seconds: float) -> None:
            raise cancelled

        with self.assertRaises(UploadMediaError) as caught:
            RetryPolicy().run(TransferKind.UPLOAD, self.always(Transient("busy")), lambda: 0, sleep)
        self.assertIs(caught.exception, cancelled)

    def test_without_patience_there_is_one_attempt(self) -> None:
        with self.assertRaisesRegex(DownloadMediaError, "download failed, 1 attempt in"):
            self.run_policy(
                self.always(Transient("refused")),
                RetryPolicy(patience=0.0),
                kind=TransferKind.DOWNLOAD,
            )

    def test_the_error_has_the_code_of_what_never_went_away(self) -> None:
        with self.assertRaises(UploadMediaError) as caught:
            self.run_policy(self.always(Transient("nine run", reason="CONCURRENCY_LIMIT_EXCEEDED")))
        self.assertEqual(caught.exception.code.name, "UPLOAD_MEDIA_ERR_CONCURRENCY_LIMIT_EXCEEDED")
