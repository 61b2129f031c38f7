"""Requests and messages that are sent twice and must happen once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class IdempotencyCache:
    """Remembers the outcomes of recent work by key. Lives on one event loop.

    Args:
        window: seconds for which an outcome is remembered.
        max_keys: the most outcomes that are remembered; the oldest are forgotten first.
    """

    def __init__(self, window: float, max_keys: int) -> None:
        self._window = window
        self._max_keys = max_keys
        self._outcomes: OrderedDict[object, tuple[float, asyncio.Future[Any]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._outcomes)

    async def do(
        self,
        key: object,
        work: Callable[[], Awaitable[T]],
        is_final: Callable[[T], bool] = lambda outcome: True,
    ) -> T:
        """Do the work, or return the outcome of earlier work under the same key.

        Work that failed, or whose outcome is not final, is forgotten and may be done again.
        """
        loop = asyncio.get_running_loop()
        known = self._outcomes.get(key)
        if known is not None and loop.time() - known[0] < self._window:
            outcome: T = await asyncio.shield(known[1])
            return outcome
        future: asyncio.Future[T] = loop.create_future()
        self._remember(key, loop.time(), future)
        try:
            outcome = await work()
        except BaseException as error:
            self._forget(key, future)
            future.set_exception(error)
            future.exception()  # retrieved, so that asyncio does not log it
            raise
        if not is_final(outcome):
            self._forget(key, future)
        future.set_result(outcome)
        return outcome

    def _remember(self, key: object, now: float, future: asyncio.Future[Any]) -> None:
        outcomes = self._outcomes
        outcomes.pop(key, None)  # an old one would keep its old place
        outcomes[key] = (now, future)
        while outcomes:
            oldest, (at, _) = next(iter(outcomes.items()))
            if now - at < self._window and len(outcomes) <= self._max_keys:
                return
            del outcomes[oldest]

    def _forget(self, key: object, future: asyncio.Future[Any]) -> None:
        known = self._outcomes.get(key)
        if known is not None and known[1] is future:
            del self._outcomes[key]


class RecentIds:
    """Remembers the ids of messages, so that one that comes again is known. Not thread-safe.

    Args:
        most: how many ids are remembered; the oldest is forgotten first.
        window: seconds for which an id is remembered.
    """

    def __init__(self, most: int, window: float = float("inf")) -> None:
        self._most = most
        self._window = window
        self._times: OrderedDict[Hashable, float] = OrderedDict()

    def add(self, key: Hashable, now: float = 0.0) -> bool:
        """Remember an id; False when it is known.

        Args:
            now: seconds of a clock; needed with a `window`.
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
        """Forget an id: its message was not taken, and may come again."""
        self._times.pop(key, None)

    def items(self) -> list[tuple[Hashable, float]]:
        """The ids, the oldest first, each with the time when it came."""
        return list(self._times.copy().items())

    def restore(self, key: Hashable, at: float) -> None:
        """Remember an id that came at an earlier time, unless it is known."""
        self._times.setdefault(key, at)
