"""State changes are told in order, by any thread, and none is lost to an interruption."""

from __future__ import annotations

import unittest

from rtm_sync.errors import LoginError
from rtm_sync.protocol.values import ConnectionChangeReason, ConnectionState
from rtm_sync.rules.lifecycle import Lifecycle
from rtm_sync.transports.states import StateReports


class Heard:
    """A listener that keeps what it is told, and raises where it is told to."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.error: BaseException | None = None

    def on_state(self, state: ConnectionState, reason: ConnectionChangeReason) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error
        self.reasons.append(reason.name)


class StateReportsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.heard = Heard()
        self.states = StateReports(Lifecycle(4.0), self.heard)

    def test_what_changes_nothing_is_not_told(self) -> None:
        self.states.report(Lifecycle.connected)
        self.states.report(Lifecycle.login_started)
        self.states.report(Lifecycle.login_started)
        self.assertEqual(self.heard.reasons, ["LOGIN"])

    def test_a_change_whose_telling_was_interrupted_is_told_with_the_next(self) -> None:
        self.states.report(Lifecycle.login_started)
        self.heard.error = KeyboardInterrupt()
        with self.assertRaises(KeyboardInterrupt):
            self.states.report(Lifecycle.connected)
        self.states.report(Lifecycle.logged_out)
        self.assertEqual(self.heard.reasons, ["LOGIN", "LOGIN_SUCCESS", "LOGOUT"])

    def test_a_login_that_fails_after_the_hub_accepted_it_ends_disconnected(self) -> None:
        self.states.report(Lifecycle.login_started)
        self.states.report(Lifecycle.connected)
        self.states.report(lambda lifecycle: lifecycle.login_failed(timed_out=False))
        self.assertEqual(self.heard.reasons, ["LOGIN", "LOGIN_SUCCESS", "LOGIN_FAILURE"])

    def test_how_a_login_ended_follows_from_its_error(self) -> None:
        for error, reason in (
            (LoginError.named("ABORTED_BY_LOGOUT", "x"), "LOGOUT"),
            (LoginError.named("TIMEOUT", "x"), "LOGIN_TIMEOUT"),
            (LoginError.named("INVALID_TOKEN", "x"), "LOGIN_FAILURE"),
            (KeyboardInterrupt(), "LOGIN_FAILURE"),
        ):
            self.states.report(Lifecycle.login_started)
            self.states.login_ended(error)
            self.states.login_ended(error)
            self.assertEqual(self.heard.reasons, ["LOGIN", reason])
            self.heard.reasons.clear()


class PauseTest(unittest.TestCase):
    """A pause between two attempts, on a clock that only waiting moves."""

    def setUp(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []
        self.heard = Heard()
        self.states = StateReports(Lifecycle(4.0), self.heard, lambda: self.now)
        self.states.report(Lifecycle.login_started)
        self.states.report(Lifecycle.connected)
        self.heard.reasons.clear()

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False

    def test_reconnecting_is_reported_in_time(self) -> None:
        self.states.lost(self.now)
        self.states.pause(3.0, self.wait)
        self.assertEqual((self.waits, self.heard.reasons), ([3.0], []))
        self.states.pause(3.0, self.wait)
        self.assertEqual((self.waits, self.heard.reasons), ([3.0, 1.0, 2.0], ["INTERRUPTED"]))
        self.states.pause(3.0, self.wait)
        self.assertEqual((self.waits[3:], self.heard.reasons), ([3.0], ["INTERRUPTED"]))

    def test_a_wait_that_is_woken_ends_the_pause(self) -> None:
        self.states.lost(self.now)

        def woken(seconds: float) -> bool:
            self.waits.append(seconds)
            return True

        self.states.pause(10.0, woken)
        self.assertEqual((self.waits, self.heard.reasons), ([4.0], []))
