"""The states of a connection, and the reasons of their changes. Pure: time is an argument."""

from __future__ import annotations

from typing import NamedTuple

from ..protocol.values import ConnectionChangeReason, ConnectionState

_ALIVE = (ConnectionState.CONNECTED, ConnectionState.RECONNECTING)


class StateChange(NamedTuple):
    """A new state, and the reason of the change."""

    state: ConnectionState
    reason: ConnectionChangeReason


class Lifecycle:
    """Decides which state change, if any, follows from an event of a connection.

    Reference 1.3: a connection that does not recover within 4 s is RECONNECTING (INTERRUPTED). It
    stays so until a reconnect succeeds, until `logout`, or until ABORTED. An event that comes too
    late for the state (a login that succeeds after `logout`, a second end) changes nothing. Not
    thread-safe.

    Args:
        reconnecting_after: seconds from the loss of the connection to RECONNECTING.
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
        """A login was refused, timed out, or was interrupted. The hub may have accepted it."""
        if self.state is ConnectionState.DISCONNECTED:
            return None
        self._lost_at = None
        reason = ConnectionChangeReason.LOGIN_FAILURE
        if timed_out:
            reason = ConnectionChangeReason.LOGIN_TIMEOUT
        return self._to(ConnectionState.DISCONNECTED, reason)

    def connected(self) -> StateChange | None:
        """A login or a reconnect succeeded. No change when the loss was not reported before."""
        self._lost_at = None
        if self.state not in (ConnectionState.CONNECTING, ConnectionState.RECONNECTING):
            return None
        return self._to(ConnectionState.CONNECTED, ConnectionChangeReason.LOGIN_SUCCESS)

    def lost(self, now: float) -> None:
        """The connection is lost; the session may still be resumed."""
        if self.state in _ALIVE and self._lost_at is None:
            self._lost_at = now

    def tick(self, now: float) -> StateChange | None:
        """Change to RECONNECTING when the connection has been lost for long enough."""
        if self.state is not ConnectionState.CONNECTED or self.quiet_time_left(now) > 0:
            return None
        return self._to(ConnectionState.RECONNECTING, ConnectionChangeReason.INTERRUPTED)

    def quiet_time_left(self, now: float) -> float:
        """Seconds until a lost connection becomes RECONNECTING; infinite when it is not lost."""
        if self._lost_at is None:
            return float("inf")
        return max(0.0, self._lost_at + self._reconnecting_after - now)

    def aborted(self, reason: ConnectionChangeReason) -> StateChange | None:
        """The hub ended the session: no reconnect follows, and only `logout` leaves ABORTED."""
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
        self.state = state  # last, so that Ctrl-C before it loses no change that was made
        return change


class ProofOfLife:
    """Decides when a connection needs a ping, and when it is considered dead.

    After a machine's sleep, connections look intact but are dead. The monotonic clock stops during
    sleep and the wall clock does not: the difference of their steps is the length of the sleep. A
    change of the wall clock looks the same; the connection is then replaced, which is harmless,
    because the session goes on.

    Args:
        interval: seconds between pings.
        timeout: seconds of silence, or of sleep, after which the connection is considered dead.
        now, wall: the monotonic and the wall clock, seconds.
    """

    def __init__(self, interval: float, timeout: float, now: float, wall: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self._last_seen = self._pinged_at = self._checked_at = now
        self._wall = wall

    def doubt(self, now: float, wall: float, *, heard: bool) -> str | None:
        """The reason why the connection is considered dead, or None. Call it every interval.

        Args:
            now, wall: the monotonic and the wall clock, seconds.
            heard: whether a frame has just arrived.
        """
        slept = (wall - self._wall) - (now - self._checked_at)
        self._checked_at, self._wall = now, wall
        if slept > self._timeout:
            return f"the clock jumped by {slept:.0f} seconds, so the machine may have slept"
        if heard:
            self._last_seen = now
        elif now - self._last_seen > self._timeout:
            return f"no frame arrived for {self._timeout:g} seconds"
        return None

    def wants_ping(self, now: float) -> bool:
        """Whether a ping is due. The ping counts as sent."""
        if now - self._pinged_at < self._interval:
            return False
        self._pinged_at = now
        return True
