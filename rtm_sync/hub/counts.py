"""How often a channel's members are told how many they are. Pure: time comes as an argument."""

from __future__ import annotations

import asyncio

LARGE = 512
"""Members of a channel beyond which the news comes more seldom (reference 1.3)."""


class MemberCountThrottle:
    """Decides when one channel's count is told: at most once a second, or, where there are many
    members, once in three (reference 1.3). The newest count is always told in the end."""

    __slots__ = ("_told", "_told_at", "count", "timer")

    def __init__(self) -> None:
        self.count = 0
        self.timer: asyncio.TimerHandle | None = None  # its owner's, for the telling to come
        self._told: int | None = None
        self._told_at = float("-inf")

    def wait(self, now: float) -> float | None:
        """Seconds until the present count may be told; None when it was told already."""
        if self.count == self._told:
            return None
        interval = 3.0 if self.count > LARGE else 1.0
        return max(0.0, self._told_at + interval - now)

    def told(self, now: float) -> None:
        """The present count is being told."""
        self._told, self._told_at = self.count, now
