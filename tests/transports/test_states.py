"""State changes are told in order, by any thread, and none is lost to an interruption."""

from __future__ import annotations

import unittest

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
