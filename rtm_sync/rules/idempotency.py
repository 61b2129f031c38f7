"""Requests and messages that are sent twice and must happen once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

O = TypeVar("O")  # noqa: E741  an outcome

_GENERATIONS = 8  # of one window
_DIGEST_SIZE = 16  # bytes


class ShareFull(Exception):
    """A sender has as many ids in the window as it may have; the message says so."""


class _Generation(Generic[O]):
    """The outcomes of an eighth of a window, which are forgotten together.

    Attributes:
        began: the time of the first outcome.
        outcomes: the outcomes by their keys.
    """

    __slots__ = ("began", "outcomes")

    def __init__(self, began: float) -> None:
        self.began = began
        self.outcomes: dict[Hashable, O] = {}


class IdempotencyCache(Generic[O]):
    """Remembers the outcome of each key for a while. Pure: time is an argument. Not thread-safe.

    Each sender has a share of its own, so that none can push out the ids of another one. With
    `key_digest` a key takes about 200 bytes, however long it is.

    Args:
        window: seconds for which an outcome is remembered, and at most an eighth longer.
        max_keys: the most outcomes of one sender.
    """

    def __init__(self, window: float, max_keys: int) -> None:
        self._window = window
        self._max_keys = max_keys
        # The sender that has been quiet for the longest time is first.
        self._shares: OrderedDict[Hashable, deque[_Generation[O]]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(part.outcomes) for share in self._shares.values() for part in share)

    def get(self, sender: Hashable, key: Hashable, now: float) -> O | None:
        """The outcome of a sender's key, or None when there is none or it is too old."""
        for part in reversed(self._shares.get(sender, ())):
            if self._is_over(part, now):
                return None
            if key in part.outcomes:
                return part.outcomes[key]
        return None

    def put(self, sender: Hashable, key: Hashable, outcome: O, now: float) -> None:
        """Remember an outcome, and forget those that are too old.

        Raises:
            ShareFull: the sender has the most outcomes that it may have.
        """
        share = self._shares.setdefault(sender, deque())
        self._shares.move_to_end(sender)
        self._forget_old(now)
        count = 0
        for part in share:
            part.outcomes.pop(key, None)  # an outdated one
            count += len(part.outcomes)
        if count >= self._max_keys:
            raise ShareFull(
                f"{count:,} messages were sent within {self._window:g} seconds, and the ids of no "
                "more are remembered; try again later."
            )
        if not share or now - share[-1].began >= self._window / _GENERATIONS:
            share.append(_Generation(now))
        share[-1].outcomes[key] = outcome

    def replace(self, sender: Hashable, key: Hashable, before: O, outcome: O) -> None:
        """Give a key that has the outcome `before` another one, at the same age."""
        part = self._find(sender, key, before)
        if part is not None:
            part.outcomes[key] = outcome

    def forget(self, sender: Hashable, key: Hashable, outcome: O) -> None:
        """Forget the key, unless it has another outcome by now."""
        part = self._find(sender, key, outcome)
        if part is not None:
            del part.outcomes[key]

    def _find(self, sender: Hashable, key: Hashable, outcome: O) -> _Generation[O] | None:
        for part in self._shares.get(sender, ()):
            if part.outcomes.get(key) is outcome:
                return part
        return None

    def _forget_old(self, now: float) -> None:
        """Forget the old outcomes of the sender that puts one, and the senders that are quiet."""
        newest = next(reversed(self._shares))
        share = self._shares[newest]
        while share and self._is_over(share[0], now):
            share.popleft()
        while True:
            quietest, share = next(iter(self._shares.items()))
            if quietest == newest or (share and not self._is_over(share[-1], now)):
                return
            del self._shares[quietest]

    def _is_over(self, part: _Generation[O], now: float) -> bool:
        return now - part.began >= self._window * (1 + 1 / _GENERATIONS)


class RecentIds:
    """Remembers message ids to detect duplicates. Not thread-safe.

    Each sender has a share of its own, so that none can push out the ids of another one. An id
    takes about 300 bytes.

    Args:
        most: the most ids of one sender that are remembered; its oldest is forgotten first.
        window: seconds for which an id is remembered.
        keep: as many ids are remembered longer than the window, the newest of all.
    """

    def __init__(self, most: int, window: float = float("inf"), keep: int = 0) -> None:
        self._most = most
        self._window = window
        self._keep = keep
        self._count = 0
        # The ids with their times; the sender that has been quiet for the longest time is first.
        self._shares: OrderedDict[Hashable, OrderedDict[Hashable, float]] = OrderedDict()

    def add(self, key: Hashable, now: float = 0.0, sender: Hashable = None) -> bool:
        """Remember an id. Returns False when the id is known already.

        Args:
            key: names the message among those of its sender.
            now: the time in seconds; required with a `window`.
            sender: whose share the id takes. All ids without a sender have one share.
        """
        self._forget_old(now, self._shares.get(sender))
        if key in self._shares.get(sender, ()):
            return False
        self._remember(key, now, sender)
        return True

    def remove(self, key: Hashable, sender: Hashable = None) -> None:
        """Forget an id, because its message was not accepted and may be sent again."""
        share = self._shares.get(sender)
        if share is not None and share.pop(key, None) is not None:
            self._count -= 1

    def items(self) -> list[tuple[Hashable, float]]:
        """The ids, oldest first, each with the time at which it was added."""
        found = [item for share in self._shares.copy().values() for item in share.copy().items()]
        return sorted(found, key=lambda item: item[1])

    def restore(self, key: Hashable, at: float, sender: Hashable = None) -> None:
        """Remember an id that was added at an earlier time, unless the id is known."""
        if key not in self._shares.get(sender, ()):
            self._remember(key, at, sender)

    def _remember(self, key: Hashable, at: float, sender: Hashable) -> None:
        share = self._shares.setdefault(sender, OrderedDict())
        self._shares.move_to_end(sender)
        share[key] = at
        self._count += 1
        if len(share) > self._most:
            self._pop(share)

    def _forget_old(self, now: float, adding: OrderedDict[Hashable, float] | None) -> None:
        """Forget the old ids of the sender that adds one, and of those that are quiet."""
        oldest = now - self._window
        while self._shares:
            sender, share = next(iter(self._shares.items()))
            if share and (self._count <= self._keep or next(iter(share.values())) >= oldest):
                break
            if share:
                self._pop(share)
            else:
                del self._shares[sender]
        while adding and self._count > self._keep and next(iter(adding.values())) < oldest:
            self._pop(adding)

    def _pop(self, share: OrderedDict[Hashable, float]) -> None:
        share.popitem(last=False)
        self._count -= 1


def key_digest(key: str) -> bytes:
    """The digest of a key, which has a constant size."""
    return hashlib.blake2b(key.encode(), digest_size=_DIGEST_SIZE).digest()
