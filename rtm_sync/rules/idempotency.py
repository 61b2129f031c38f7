"""Requests and messages that are sent twice and must happen once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

O = TypeVar("O")  # noqa: E741  an outcome


class IdempotencyCache(Generic[O]):
    """Remembers the outcome of each key for a while. Pure: time is an argument. Not thread-safe.

    Args:
        window: seconds for which an outcome is remembered.
        max_keys: the most outcomes that are remembered; the oldest are forgotten first.
    """

    def __init__(self, window: float, max_keys: int) -> None:
        self._window = window
        self._max_keys = max_keys
        self._outcomes: OrderedDict[Hashable, tuple[float, O]] = OrderedDict()  # by age

    def __len__(self) -> int:
        return len(self._outcomes)

    def get(self, key: Hashable, now: float) -> O | None:
        """The key's outcome, or None when there is none or it is too old."""
        known = self._outcomes.get(key)
        return None if known is None or now - known[0] >= self._window else known[1]

    def put(self, key: Hashable, outcome: O, now: float) -> None:
        """Remember an outcome, and forget those that are too old or too many."""
        outcomes = self._outcomes
        outcomes.pop(key, None)  # an outdated one would keep its place
        outcomes[key] = (now, outcome)
        while outcomes:
            oldest, (at, _) = next(iter(outcomes.items()))
            if now - at < self._window and len(outcomes) <= self._max_keys:
                return
            del outcomes[oldest]

    def forget(self, key: Hashable, outcome: O) -> None:
        """Forget the key, unless it has another outcome by now."""
        known = self._outcomes.get(key)
        if known is not None and known[1] is outcome:
            del self._outcomes[key]


class RecentIds:
    """Remembers message ids to detect duplicates. Not thread-safe.

    Args:
        most: the most ids that are remembered; the oldest is forgotten first.
        window: seconds for which an id is remembered.
    """

    def __init__(self, most: int, window: float = float("inf")) -> None:
        self._most = most
        self._window = window
        self._times: OrderedDict[Hashable, float] = OrderedDict()

    def add(self, key: Hashable, now: float = 0.0) -> bool:
        """Remember an id. Returns False when the id is known already.

        Args:
            now: the time in seconds; required with a `window`.
        """
        times = self._times
        while times and next(iter(times.values())) < now - self._window:
            times.popitem(last=False)
        if key in times:
            return False
        times[key] = now
        if len(times) > self._most:
            times.popitem(last=False)
        return True

    def remove(self, key: Hashable) -> None:
        """Forget an id, because its message was not accepted and may be sent again."""
        self._times.pop(key, None)

    def items(self) -> list[tuple[Hashable, float]]:
        """The ids, oldest first, each with the time at which it was added."""
        return list(self._times.copy().items())

    def restore(self, key: Hashable, at: float) -> None:
        """Remember an id that was added at an earlier time, unless the id is known."""
        self._times.setdefault(key, at)
