"""The outcomes of recent work by key, so that a request which is sent twice happens once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
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

    def __iter__(self) -> Iterator[tuple[Hashable, float, O]]:
        """Every key with the time and the outcome that it was put with, the oldest first."""
        return iter([(key, at, outcome) for key, (at, outcome) in self._outcomes.items()])

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
