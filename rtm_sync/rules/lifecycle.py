"""The states of a connection and the reasons between them. Pure: time comes as an argument."""

from __future__ import annotations

from typing import NamedTuple

from ..protocol.values import ConnectionChangeReason, ConnectionState

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
        """It was refused, took too long, or was interrupted; the hub may have accepted it."""
        if self.state is ConnectionState.DISCONNECTED:
            return None
        self._lost_at = None
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
        change = StateChange(state, reason)
        self.state = state  # last: an interruption (Ctrl-C) leaves no change that is not returned
        return change


class ProofOfLife:
    """Decides when a connection must show that it lives, and when it is not believed any more.

    A machine that slept wakes with connections that look whole and are long dead. Its monotonic
    clock stood still meanwhile and the wall clock did not, which is how it is noticed: whatever
    the wall clock gained on the other in one step was sleep (or somebody set the clock, and a
    connection that was good is made anew: harmless, for the session goes on).

    Args:
        interval: seconds between pings.
        patience: seconds of silence, or of sleep, that end the belief.
        now, wall: the monotonic and the wall clock, seconds.
    """

    def __init__(self, interval: float, patience: float, now: float, wall: float) -> None:
        self._interval = interval
        self._patience = patience
        self._heard_at = self._pinged_at = self._looked_at = now
        self._wall = wall

    def doubt(self, now: float, wall: float, *, heard: bool) -> str | None:
        """Say why the connection is not to be believed, or None. Call it at least every interval.

        Args:
            heard: something has just arrived.
        """
        slept = (wall - self._wall) - (now - self._looked_at)
        self._looked_at, self._wall = now, wall
        if slept > self._patience:
            return f"the clock jumped by {slept:.0f} seconds, so the machine may have slept"
        if heard:
            self._heard_at = now
        elif now - self._heard_at > self._patience:
            return f"nothing was heard for {self._patience:g} seconds"
        return None

    def wants_ping(self, now: float) -> bool:
        """Whether it is time for a ping; counts it as sent."""
        if now - self._pinged_at < self._interval:
            return False
        self._pinged_at = now
        return True
