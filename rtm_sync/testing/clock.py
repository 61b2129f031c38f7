"""Time of day that moves when it is told to: seven days pass in a moment."""

from __future__ import annotations

import threading

_START = 1_700_000_000.0  # an ordinary day


class VirtualClock:
    """A wall clock that stands still until it is moved; call it for the time::

        clock = VirtualClock()
        with local_gateway(now=clock) as url:
            …
            clock.advance(7 * 24 * 3600)

    A hub, an engine and `local_gateway` take it as `now`. Thread-safe.

    Args:
        start: seconds since the epoch.
    """

    def __init__(self, start: float = _START) -> None:
        self._lock = threading.Lock()  # guards _now
        self._now = start

    def __call__(self) -> float:
        """Seconds since the epoch."""
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass at once; fewer than 0 set the clock back."""
        with self._lock:
            self._now += seconds
