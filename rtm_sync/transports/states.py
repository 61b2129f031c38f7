"""Thread-safe, ordered reports of a connection's states to a client."""

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
    """Receives each change of the state; a `Listener` is one."""

    def on_state(self, state: ConnectionState, reason: ConnectionChangeReason) -> None: ...


class StateReports:
    """Guards a `Lifecycle` and reports its changes to a listener. Thread-safe.

    When `report` returns, the listener has received the change. An exception in the middle (Ctrl-C)
    loses no change: the next report begins with it. A listener may thus get a change twice, but it
    never misses one.

    Args:
        lifecycle: decides what is reported.
        listener: receives the changes.
        clock: the time, for `tick` and `pause`.
    """

    def __init__(
        self, lifecycle: Lifecycle, listener: StateListener, clock: Clock = time.monotonic
    ) -> None:
        self._clock = clock
        self._lifecycle = lifecycle
        self._listener = listener
        self._unreported: deque[StateChange] = deque()
        # Guards all attributes. It is held while the listener is called, so that changes arrive in
        # order; a listener does not block. Reentrant: a listener may call `report`.
        self._lock = threading.RLock()

    def report(self, decide: Callable[[Lifecycle], StateChange | None]) -> None:
        """Apply an event to the lifecycle, and report the change that follows."""
        with self._lock:
            change = decide(self._lifecycle)
            if change is not None:
                self._unreported.append(change)
            while self._unreported:
                self._listener.on_state(*self._unreported[0])
                self._unreported.popleft()

    def login_ended(self, error: BaseException) -> None:
        """Report the end of a login that was refused, timed out or was interrupted.

        Args:
            error: the exception of the login.
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
        """Wait between two attempts to connect; RECONNECTING is reported in time.

        Args:
            wait: waits for that many seconds; returns True when it was woken.
        """
        quiet = self.quiet_time_left(self._clock())
        if 0 < quiet < seconds:
            if wait(quiet):
                return
            self.tick()
            seconds -= quiet
        wait(seconds)

    def lost(self, now: float) -> None:
        """Note that the connection was lost; the session may still be resumed."""
        with self._lock:
            self._lifecycle.lost(now)

    def quiet_time_left(self, now: float) -> float:
        """Seconds until a lost connection is reported as RECONNECTING; infinite when not lost."""
        with self._lock:
            return self._lifecycle.quiet_time_left(now)
