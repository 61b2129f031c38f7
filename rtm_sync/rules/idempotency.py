"""Idempotency: a request that is sent twice is performed once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


class IdempotencyCache:
    """Remembers the outcomes of recent work by key. Used on one event loop.

    Args:
        window: seconds for which an outcome is remembered.
        max_keys: the most remembered outcomes; the oldest are forgotten first.
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
        """Do the work, or return the outcome of earlier or running work with the same key.

        Failed work, and work whose outcome is not final, is forgotten and done again next time.

        Args:
            key: names the work.
            work: does it.
            is_final: whether to remember an outcome.

        Raises:
            Exception: what `work` raises, to every caller that waits for it.
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
            future.exception()  # retrieved here: asyncio warns when nobody else waits for it
            raise
        if not is_final(outcome):
            self._forget(key, future)
        future.set_result(outcome)
        return outcome

    def _remember(self, key: object, now: float, future: asyncio.Future[Any]) -> None:
        outcomes = self._outcomes
        outcomes.pop(key, None)  # so that the new outcome goes to the end of the order
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
