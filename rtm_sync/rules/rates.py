"""Rates and sliding windows. Pure: time is an argument."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` events in any `seconds`."""

    count: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.count:,} in {self.seconds:g} s"

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Parse `COUNT/SECONDS`. Raises ValueError."""
        count, _, seconds = text.partition("/")
        return cls(positive(int, count), positive(float, seconds))


def positive(kind: Callable[[str], N], text: str) -> N:
    """Parse a finite number above 0. Raises ValueError."""
    number = kind(text)
    if not 0 < number < math.inf:
        raise ValueError
    return number


class SlidingWindow:
    """Counts the events of the last seconds, up to a rate. Not thread-safe."""

    __slots__ = ("_rate", "_times")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._times: deque[float] = deque()

    def allow(self, now: float) -> bool:
        """Count one more event, or return False. Refused events do not count."""
        if not self.room(now):
            return False
        self._times.append(now)
        return True

    def room(self, now: float) -> int:
        """How many more events would be allowed."""
        times = self._times
        oldest = now - self._rate.seconds
        while times and times[0] <= oldest:
            times.popleft()
        return self._rate.count - len(times)

    def is_idle(self, now: float) -> bool:
        """Whether the window has no events."""
        return not self._times or self._times[-1] <= now - self._rate.seconds


class KeyedWindows:
    """One sliding window for each key. Not thread-safe.

    Args:
        rate: the rate of each key.
        max_keys: the most remembered keys; idle keys are forgotten first.
    """

    def __init__(self, rate: Rate, max_keys: int = 10_000) -> None:
        self._rate = rate
        self._max_keys = max_keys
        self._windows: dict[object, SlidingWindow] = {}

    def allow(self, key: object, now: float) -> bool:
        """Count an event of this key, or return False."""
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= self._max_keys:
                self._forget(now)
            window = self._windows[key] = SlidingWindow(self._rate)
        return window.allow(now)

    def room(self, key: object, now: float) -> int:
        """How many more events of this key would be allowed."""
        window = self._windows.get(key)
        return self._rate.count if window is None else window.room(now)

    def _forget(self, now: float) -> None:
        self._windows = {
            key: window for key, window in self._windows.items() if not window.is_idle(now)
        }
        if len(self._windows) >= self._max_keys:  # no key is idle: a flood of keys; start over
            self._windows.clear()
