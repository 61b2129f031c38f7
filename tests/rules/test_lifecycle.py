"""The states of a connection: every happening in every state, and only changes that are allowed."""

from __future__ import annotations

import math
import unittest

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rtm_sync.protocol.values import ConnectionChangeReason as Reason
from rtm_sync.protocol.values import ConnectionState as State
from rtm_sync.rules.lifecycle import Lifecycle, ProofOfLife, StateChange

QUIET = 4.0
ALLOWED = {
    (State.DISCONNECTED, State.CONNECTING, Reason.LOGIN),
    (State.CONNECTING, State.CONNECTED, Reason.LOGIN_SUCCESS),
    (State.CONNECTING, State.DISCONNECTED, Reason.LOGIN_FAILURE),
    (State.CONNECTING, State.DISCONNECTED, Reason.LOGIN_TIMEOUT),
    (State.CONNECTING, State.DISCONNECTED, Reason.LOGOUT),
    (State.CONNECTED, State.RECONNECTING, Reason.INTERRUPTED),
    (State.CONNECTED, State.ABORTED, Reason.REMOTE_LOGIN),
    (State.CONNECTED, State.DISCONNECTED, Reason.LOGOUT),
    (State.RECONNECTING, State.CONNECTED, Reason.LOGIN_SUCCESS),
    (State.RECONNECTING, State.ABORTED, Reason.REMOTE_LOGIN),
    (State.RECONNECTING, State.DISCONNECTED, Reason.LOGOUT),
    (State.ABORTED, State.DISCONNECTED, Reason.LOGOUT),
}


class ConnectionMachine(RuleBasedStateMachine):
    """Whatever a network does to a connection, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.lifecycle = Lifecycle(QUIET)
        self.now = 100.0
        self.lost_at: float | None = None

    def took(self, before: State, change: StateChange | None) -> None:
        if change is None:
            assert self.lifecycle.state is before, "a change that nobody was told of"
        else:
            assert (before, *change) in ALLOWED, (before, change)
            assert self.lifecycle.state is change.state

    @property
    def alive(self) -> bool:
        return self.lifecycle.state in (State.CONNECTED, State.RECONNECTING)

    @precondition(lambda self: self.lifecycle.state is State.DISCONNECTED)
    @rule()
    def log_in(self) -> None:
        self.took(State.DISCONNECTED, self.lifecycle.login_started())

    @precondition(lambda self: self.lifecycle.state is State.CONNECTING)
    @rule(timed_out=st.booleans())
    def fail(self, timed_out: bool) -> None:
        self.took(State.CONNECTING, self.lifecycle.login_failed(timed_out=timed_out))

    @precondition(lambda self: self.alive or self.lifecycle.state is State.CONNECTING)
    @rule()
    def connect(self) -> None:
        self.took(self.lifecycle.state, self.lifecycle.connected())
        self.lost_at = None

    @precondition(lambda self: self.alive)
    @rule()
    def lose(self) -> None:
        self.lifecycle.lost(self.now)
        self.lost_at = self.now if self.lost_at is None else self.lost_at

    @precondition(lambda self: self.alive)
    @rule(seconds=st.integers(0, 6))  # whole, so that sums are exact
    def wait(self, seconds: int) -> None:
        self.now += seconds
        before = self.lifecycle.state
        self.took(before, self.lifecycle.tick(self.now))
        if self.lost_at is not None and self.now - self.lost_at >= QUIET:
            assert self.lifecycle.state is State.RECONNECTING
        elif self.lost_at is None:
            assert self.lifecycle.state is before

    @precondition(lambda self: self.alive)
    @rule()
    def abort(self) -> None:
        self.took(self.lifecycle.state, self.lifecycle.aborted(Reason.REMOTE_LOGIN))

    @rule()
    def log_out(self) -> None:
        self.took(self.lifecycle.state, self.lifecycle.logged_out())
        assert self.lifecycle.state is State.DISCONNECTED, "a way out of every state"
        self.lost_at = None

    @invariant()
    def the_quiet_time_is_told_right(self) -> None:
        left = self.lifecycle.quiet_time_left(self.now)
        if self.lost_at is None:
            assert math.isinf(left) or self.lifecycle.state is State.ABORTED
        else:
            assert 0 <= left <= QUIET


ConnectionMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None
)
AnyOrderTest = ConnectionMachine.TestCase


class DropTest(unittest.TestCase):
    def setUp(self) -> None:
        self.lifecycle = Lifecycle(QUIET)
        self.lifecycle.login_started()
        self.lifecycle.connected()

    def test_a_short_drop_stays_unmentioned(self) -> None:
        self.lifecycle.lost(10.0)
        self.assertIsNone(self.lifecycle.tick(13.9))
        self.assertIsNone(self.lifecycle.connected())
        self.assertIsNone(self.lifecycle.tick(99.0))

    def test_a_long_one_is_told_once_and_so_is_its_end(self) -> None:
        self.lifecycle.lost(10.0)
        self.lifecycle.lost(12.0)  # counts from the first moment
        self.assertEqual(self.lifecycle.tick(14.0), (State.RECONNECTING, Reason.INTERRUPTED))
        self.assertIsNone(self.lifecycle.tick(15.0))
        self.assertEqual(self.lifecycle.connected(), (State.CONNECTED, Reason.LOGIN_SUCCESS))
        self.assertIsNone(self.lifecycle.connected())

    def test_the_numbers_are_the_references(self) -> None:
        names = [
            "LOGIN",
            "LOGIN_SUCCESS",
            "LOGIN_FAILURE",
            "LOGIN_TIMEOUT",
            "INTERRUPTED",
            "LOGOUT",
        ]
        names += ["BANNED_BY_SERVER", "REMOTE_LOGIN"]
        self.assertEqual([Reason[name].value for name in names], list(range(1, 9)))


class ProofOfLifeTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now, self.wall = 50.0, 1_700_000_000.0
        self.life = ProofOfLife(2.0, 10.0, self.now, self.wall)

    def after(
        self, seconds: float, *, wall: float | None = None, heard: bool = False
    ) -> str | None:
        self.now += seconds
        self.wall += seconds if wall is None else wall
        return self.life.doubt(self.now, self.wall, heard=heard)

    def test_silence_is_believed_for_as_long_as_was_said(self) -> None:
        self.assertIsNone(self.after(6))
        self.assertIsNone(self.after(2, heard=True))
        self.assertIsNone(self.after(10))
        self.assertIn("10 seconds", self.after(0.1) or "")

    def test_a_machine_that_slept_has_lost_its_connection(self) -> None:
        self.assertIsNone(self.after(2, wall=11.9))
        self.assertIn("jumped by 3600 seconds", self.after(2, wall=3602, heard=True) or "")
        self.assertIsNone(self.after(2, heard=True))

    def test_a_clock_that_is_set_back_changes_nothing(self) -> None:
        self.assertIsNone(self.after(2, wall=-3600, heard=True))
        self.assertIsNone(self.after(2, heard=True))

    def test_small_corrections_do_not_add_up_to_a_sleep(self) -> None:
        for _ in range(100):
            self.assertIsNone(self.after(2, wall=3, heard=True))

    def test_pings_keep_their_interval(self) -> None:
        asked = [self.life.wants_ping(self.now + tenth / 10) for tenth in range(61)]
        self.assertEqual([tenth for tenth, ping in enumerate(asked) if ping], [20, 40, 60])
