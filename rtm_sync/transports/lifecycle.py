"""The states of a connection and the reasons between them. Pure: time comes as an argument."""

from __future__ import annotations

from typing import NamedTuple

from ..protocol import ConnectionChangeReason, ConnectionState

_ALIVE = (ConnectionState.CONNECTED, ConnectionState.RECONNECTING)


class StateChange(NamedTuple):
    """A new state and why."""

    state: ConnectionState
    reason: ConnectionChangeReason


class Lifecycle:
    """Decides which state change, if any, follows from what happened to a connection.

    Reference 1.3: a connection that does not recover within 4 s is RECONNECTING (INTERRUPTED) and
    stays so until it succeeds, `logout`, or ABORTED. What comes too late for the state (a login
    that succeeds after `logout`, an end after the end) changes nothing. Not thread-safe; its owner
    guards it.
    """

    def __init__(self, reconnecting_after: float) -> None:
        self._reconnecting_after = reconnecting_after
        self._lost_at: float | None = None
        self.state = ConnectionState.DISCONNECTED

    def login_started(self) -> StateChange | None:
        if self.state is not ConnectionState.DISCONNECTED:
            return None
        return self._to(ConnectionState.CONNECTING, ConnectionChangeReason.LOGIN)

    def login_failed(self, *, timed_out: bool) -> StateChange | None:
        if self.state is not ConnectionState.CONNECTING:
            return None
        reason = ConnectionChangeReason.LOGIN_FAILURE
        if timed_out:
            reason = ConnectionChangeReason.LOGIN_TIMEOUT
        return self._to(ConnectionState.DISCONNECTED, reason)

    def connected(self) -> StateChange | None:
        """A login or a restored connection; a drop that was never mentioned stays unmentioned."""
        self._lost_at = None
        if self.state not in (ConnectionState.CONNECTING, ConnectionState.RECONNECTING):
            return None
        return self._to(ConnectionState.CONNECTED, ConnectionChangeReason.LOGIN_SUCCESS)

    def lost(self, now: float) -> None:
        """The socket is gone; the session may still be saved."""
        if self.state in _ALIVE and self._lost_at is None:
            self._lost_at = now

    def tick(self, now: float) -> StateChange | None:
        """Say RECONNECTING once the drop has lasted long enough."""
        if self.state is not ConnectionState.CONNECTED or self.quiet_time_left(now) > 0:
            return None
        return self._to(ConnectionState.RECONNECTING, ConnectionChangeReason.INTERRUPTED)

    def quiet_time_left(self, now: float) -> float:
        """Seconds until a lost connection must be called RECONNECTING; infinite when not lost."""
        if self._lost_at is None:
            return float("inf")
        return max(0.0, self._lost_at + self._reconnecting_after - now)

    def aborted(self, reason: ConnectionChangeReason) -> StateChange | None:
        """The hub ended the session: no reconnecting, only `logout` leads out."""
        if self.state not in _ALIVE:
            return None
        return self._to(ConnectionState.ABORTED, reason)

    def logged_out(self) -> StateChange | None:
        self._lost_at = None
        if self.state is ConnectionState.DISCONNECTED:
            return None
        return self._to(ConnectionState.DISCONNECTED, ConnectionChangeReason.LOGOUT)

    def _to(self, state: ConnectionState, reason: ConnectionChangeReason) -> StateChange:
        self.state = state
        return StateChange(state, reason)
