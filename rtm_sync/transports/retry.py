"""When a transfer is tried again: one policy for uploads and downloads.

It decides; what sleeps, what time it is and what chance says are given to it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ..rules.timing import Backoff
from ..transfers.control import TransferKind

if TYPE_CHECKING:
    import tenacity

T = TypeVar("T")


class Transient(Exception):
    """An attempt failed, and the next one may not.

    Args:
        after: seconds that the gateway asked to wait.
        reason: of the transfer's error if this was the last attempt; a code's name without prefix.
    """

    def __init__(self, message: str, after: float = 0.0, reason: str = "FAILURE") -> None:
        super().__init__(message)
        self.after = after
        self.reason = reason


class Damaged(Transient):
    """All bytes came, but not the right ones; the next attempt begins with none."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a transfer is tried, and how long it waits in between. Times are seconds.

    A transfer that gets further with each attempt may go on for ever; the patience is for those
    that do not. Waits are exponential with full jitter, so that the clients of a gateway that
    comes back do not all come at once.

    Attributes:
        patience: after so long without an attempt that got further, no other is made.
        first_wait, longest_wait: bounds of the wait after the first failure, and after any.
        longest_asked_wait: how much of a gateway's `Retry-After` is heeded.
        fresh_starts: how often damaged bytes are sent again.
    """

    patience: float = 30.0
    first_wait: float = 0.25
    longest_wait: float = 4.0
    longest_asked_wait: float = 30.0
    fresh_starts: int = 2

    def run(
        self,
        kind: TransferKind,
        attempt: Callable[[], T],
        progress: Callable[[], int],
        sleep: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> T:
        """Call `attempt` until it returns, or fails with anything but `Transient`.

        Args:
            progress: how many bytes are safe; more than before means that an attempt got further.
            sleep: waits so many seconds, or raises.

        Raises:
            RtmError: of the transfer's kind, when the patience is at its end.
        """
        import tenacity  # which a client without transfers over HTTP need not load

        tries = _Tries(self, progress, clock, uniform)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Transient),
            after=tries.failed,
            wait=tries.wait,
            stop=tries.is_over,
            sleep=sleep,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except Transient as error:
            attempts = "1 attempt" if tries.count == 1 else f"{tries.count} attempts"
            raise kind.error(
                error.reason,
                f"The {kind.value} failed, {attempts} in {tries.seconds():.1f} seconds; "
                f"last: {error}",
                error,
            ) from error


class _Tries:
    """What has become of one transfer's attempts so far."""

    def __init__(
        self,
        policy: RetryPolicy,
        progress: Callable[[], int],
        clock: Callable[[], float],
        uniform: Callable[[float, float], float],
    ) -> None:
        self.count = 0
        self._policy = policy
        self._progress = progress
        self._clock = clock
        self._uniform = uniform
        self._began = self._advanced_at = clock()
        self._furthest = progress()
        self._in_vain = 0  # failures since the last one that got further
        self._damaged = 0
        self._asked = 0.0

    def failed(self, state: tenacity.RetryCallState) -> None:
        """Take note of a failure; tenacity calls this before the two below."""
        error = state.outcome.exception() if state.outcome is not None else None
        assert isinstance(error, Transient)
        self.count += 1
        self._in_vain += 1
        self._asked = error.after
        if isinstance(error, Damaged):
            self._damaged += 1
            self._furthest = 0
        if self._progress() > self._furthest:
            self._furthest = self._progress()
            self._advanced_at = self._clock()
            self._in_vain = 1

    def wait(self, _: tenacity.RetryCallState) -> float:
        policy = self._policy
        backoff = Backoff(policy.first_wait, policy.longest_wait)
        asked = min(self._asked, policy.longest_asked_wait)
        return max(asked, backoff.wait(self._in_vain, self._uniform))

    def is_over(self, _: tenacity.RetryCallState) -> bool:
        return (
            self._damaged > self._policy.fresh_starts
            or self._clock() - self._advanced_at >= self._policy.patience
        )

    def seconds(self) -> float:
        """Since the first attempt began."""
        return self._clock() - self._began
