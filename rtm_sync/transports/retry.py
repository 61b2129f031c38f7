"""The retry policy of uploads and downloads.

The policy only decides. Sleeping, time and randomness are arguments.
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
    """An attempt failed, but the next one may succeed.

    Args:
        after: seconds that the gateway asked to wait.
        reason: the reason of the transfer's error after the last attempt; a code's name without
            its prefix.
        is_answer: whether the gateway answered. It can be reached then.
    """

    def __init__(
        self,
        message: str,
        after: float = 0.0,
        reason: str = "FAILURE",
        *,
        is_answer: bool = False,
    ) -> None:
        super().__init__(message)
        self.after = after
        self.reason = reason
        self.is_answer = is_answer


class StartOver(Transient):
    """The next attempt starts from zero, because the bytes of this one cannot be used.

    Their digest is wrong, or the upload is no longer this client's alone.
    """


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a transfer is retried, and how long it waits between attempts, in seconds.

    A transfer that makes progress may be retried for ever; the patience limits a transfer that does
    not. It is the time that failing attempts and the waits between them took. An attempt that hung
    in a silent network uses up a sixth of it at most, because the network may have healed since.
    Attempts that were answered have a patience of their own: an answer shows that the gateway is
    back, and it refuses a transfer until the client has logged in again, too. Waits are exponential
    with full jitter, so that the clients of a restarted gateway do not all reconnect at once.

    Attributes:
        patience: the time without progress after which there are no more attempts.
        first_wait, longest_wait: bounds of the wait after the first failure, and after any.
        longest_asked_wait: the upper bound for a gateway's `Retry-After`.
        fresh_starts: how many times a transfer starts from zero again.
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
            progress: returns the number of bytes transferred so far; an increase is progress.
            sleep: waits for that many seconds, or raises.

        Raises:
            RtmError: an error of the transfer's kind, when no attempt is left.
        """
        import tenacity  # loaded only for transfers over HTTP

        tries = _Tries(self, progress, clock, uniform)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Transient),
            before=tries.begins,
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
    """The attempts of one transfer so far."""

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
        self._began = self._attempt_began = clock()
        self._furthest = progress()
        self._in_vain = 0  # failures since the last progress
        self._starts_over = 0
        self._asked = 0.0
        self._waited = 0.0  # before the present attempt
        # Seconds without progress: of attempts without an answer, and of those with one.
        self._spent = {False: 0.0, True: 0.0}
        self._is_answer = False

    def begins(self, _: tenacity.RetryCallState) -> None:
        """Record the beginning of an attempt."""
        self._attempt_began = self._clock()

    def failed(self, state: tenacity.RetryCallState) -> None:
        """Record a failure; tenacity calls this before `wait` and `is_over`."""
        error = state.outcome.exception() if state.outcome is not None else None
        assert isinstance(error, Transient)
        self.count += 1
        self._in_vain += 1
        self._asked = error.after
        self._is_answer = error.is_answer
        if isinstance(error, StartOver):
            self._starts_over += 1
            self._furthest = 0
        if self._progress() > self._furthest:
            self._furthest = self._progress()
            self._spent = {False: 0.0, True: 0.0}
            self._in_vain = 1
        else:
            took = self._clock() - self._attempt_began
            self._spent[error.is_answer] += self._waited + min(took, self._policy.patience / 6)

    def wait(self, _: tenacity.RetryCallState) -> float:
        policy = self._policy
        backoff = Backoff(policy.first_wait, policy.longest_wait)
        asked = min(self._asked, policy.longest_asked_wait)
        self._waited = max(asked, backoff.wait(self._in_vain, self._uniform))
        return self._waited

    def is_over(self, _: tenacity.RetryCallState) -> bool:
        return (
            self._starts_over > self._policy.fresh_starts
            or self._spent[self._is_answer] >= self._policy.patience
        )

    def seconds(self) -> float:
        """Seconds since the first attempt began."""
        return self._clock() - self._began
