"""Deadlines and back-off. Pure: the clock and the random source are arguments."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]
"""A monotonic clock: seconds since an arbitrary moment."""


class Deadline:
    """The end of an operation's time. Created once, and used by all waits of the operation.

    Args:
        timeout: seconds from now; None is no deadline.
        clock: a monotonic clock.
    """

    __slots__ = ("_at", "_clock")

    def __init__(self, timeout: float | None, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._at = float("inf") if timeout is None else clock() + timeout

    @property
    def left(self) -> float:
        """Seconds until the deadline, 0 when it has passed, `inf` without one."""
        return max(0.0, self._at - self._clock())

    @property
    def timeout(self) -> float | None:
        """`left`, as the `timeout` of a wait: None without a deadline."""
        return None if self._at == float("inf") else self.left

    @property
    def has_passed(self) -> bool:
        """Whether the deadline has passed."""
        return self._clock() >= self._at


@dataclass(frozen=True, slots=True)
class Backoff:
    """The waits between failing attempts: exponential, with full jitter.

    With full jitter, clients that lost the same server do not all reconnect at the same time.

    Attributes:
        first: the longest wait after the first failure, in seconds. It doubles with each failure.
        longest: the longest wait after any number of failures, in seconds.
    """

    first: float
    longest: float

    def wait(
        self, failures: int, uniform: Callable[[float, float], float] = random.uniform
    ) -> float:
        """Seconds to wait after this many failures in a row (1 or more)."""
        doublings = min(max(failures, 1) - 1, 30)
        return uniform(0.0, min(self.longest, self.first * 2.0**doublings))
