"""A wall clock that tests move, so that seven days pass at once."""

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
        """Advance the clock by that many seconds; a negative number sets it back."""
        with self._lock:
            self._now += seconds
