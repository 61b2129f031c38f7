"""How often the members of a channel get its member count. Pure: time comes as an argument."""

from __future__ import annotations

import asyncio

LARGE = 512
"""Members of a channel beyond which its count is sent less often (reference 1.3)."""


class MemberCountThrottle:
    """Decides when one channel's count is sent: at most once a second, and in a channel with more
    than `LARGE` members at most once in three (reference 1.3). The last count is always sent."""

    __slots__ = ("_told", "_told_at", "count", "timer")

    def __init__(self) -> None:
        self.count = 0
        self.timer: asyncio.TimerHandle | None = None  # set by the owner, for the next sending
        self._told: int | None = None
        self._told_at = float("-inf")

    def wait(self, now: float) -> float | None:
        """Seconds until the present count may be sent; None when it was sent already."""
        if self.count == self._told:
            return None
        interval = 3.0 if self.count > LARGE else 1.0
        return max(0.0, self._told_at + interval - now)

    def told(self, now: float) -> None:
        """The present count is being sent."""
        self._told, self._told_at = self.count, now
