"""How often a channel's member count is sent to its members. Pure: time is an argument."""

from __future__ import annotations

import asyncio

_LARGE_CHANNEL = 512
"""A channel with more members than this gets its count less often (reference 1.3)."""


class MemberCountThrottle:
    """Decides when one channel's member count is sent to its members.

    The count is sent at most once a second, and at most once in three seconds to a channel of more
    than 512 members (reference 1.3). The newest count is always sent in the end.

    Attributes:
        count: the newest member count.
        timer: the caller's timer for the next sending, or None.
    """

    __slots__ = ("_sent", "_sent_at", "count", "timer")

    def __init__(self) -> None:
        self.count = 0
        self.timer: asyncio.TimerHandle | None = None
        self._sent: int | None = None
        self._sent_at = float("-inf")

    def wait(self, now: float) -> float | None:
        """Seconds until the present count may be sent; None when it has been sent already."""
        if self.count == self._sent:
            return None
        interval = 3.0 if self.count > _LARGE_CHANNEL else 1.0
        return max(0.0, self._sent_at + interval - now)

    def sent(self, now: float) -> None:
        """Record that the present count is sent now."""
        self._sent, self._sent_at = self.count, now
