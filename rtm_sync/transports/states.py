"""Telling a client the states of its connection, from any thread and in order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ..errors import LoginError
from ..protocol.values import ConnectionChangeReason, ConnectionState
from ..rules.lifecycle import Lifecycle, StateChange
from ..rules.timing import Clock


class StateListener(Protocol):
    """Takes each change of the state; a `Listener` is one."""

    def on_state(self, state: ConnectionState, reason: ConnectionChangeReason) -> None: ...


class StateReports:
    """Makes a `Lifecycle` thread-safe and tells a listener its changes. Thread-safe.

    When `report` returns, the listener has taken the change. An exception in the middle (Ctrl-C)
    loses no change: the next report begins with it. A listener may thus get a change twice, but it
    never misses one.

    Args:
        lifecycle: decides what is reported.
        listener: takes the changes.
        clock: the time, for `tick` and `pause`.
    """

    def __init__(
        self, lifecycle: Lifecycle, listener: StateListener, clock: Clock = time.monotonic
    ) -> None:
        self._clock = clock
        self._lifecycle = lifecycle
        self._listener = listener
        self._untold: deque[StateChange] = deque()
        # Guards all here. It is held while the listener is called, so that changes arrive in the
        # order of the decisions; a listener does not block. A listener may report from within.
        self._turn = threading.RLock()

    def report(self, decide: Callable[[Lifecycle], StateChange | None]) -> None:
        """Have the lifecycle decide about what happened, and tell what follows from it."""
        with self._turn:
            change = decide(self._lifecycle)
            if change is not None:
                self._untold.append(change)
            while self._untold:
                self._listener.on_state(*self._untold[0])
                self._untold.popleft()

    def login_ended(self, error: BaseException) -> None:
        """Report the end of a login that was refused, came too late or was interrupted.

        Args:
            error: what the login raises.
        """
        reason = error.reason if isinstance(error, LoginError) else ""
        if reason == "ABORTED_BY_LOGOUT":
            self.report(Lifecycle.logged_out)
        else:
            timed_out = reason == "TIMEOUT"
            self.report(lambda lifecycle: lifecycle.login_failed(timed_out=timed_out))

    def tick(self) -> None:
        """Report RECONNECTING once the connection has been lost for long enough."""
        now = self._clock()
        self.report(lambda lifecycle: lifecycle.tick(now))

    def pause(self, seconds: float, wait: Callable[[float], bool]) -> None:
        """Wait between two attempts to connect; RECONNECTING is reported in time meanwhile.

        Args:
            wait: waits so many seconds; True when it was woken.
        """
        quiet = self.quiet_time_left(self._clock())
        if 0 < quiet < seconds:
            if wait(quiet):
                return
            self.tick()
            seconds -= quiet
        wait(seconds)

    def lost(self, now: float) -> None:
        """The connection is gone; the session may still be saved."""
        with self._turn:
            self._lifecycle.lost(now)

    def quiet_time_left(self, now: float) -> float:
        """Seconds until a lost connection must be called RECONNECTING; infinite when not lost."""
        with self._turn:
            return self._lifecycle.quiet_time_left(now)
