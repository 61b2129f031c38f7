"""The metrics sink: the interface through which a hub reports its work."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import RtmError


class MetricsSink:
    """A metrics sink that does nothing; the gateway installs the Prometheus one.

    Methods are called on the hub's loop and must not block.
    """

    def message(self, kind: str, outcome: str, seconds: float) -> None:
        """Record one sent message.

        Args:
            kind: "peer", "channel" or "invitation".
            outcome: "received", "cached", "offline", "sent", "failed", or the error's reason.
            seconds: from the request's arrival to its answer. For a peer message this includes the
                wait for the receipt.
        """

    def login(self, outcome: str) -> None:
        """Record one login. The outcome is "new", "resumed", or the error's reason."""

    def session_ended(self, reason: str) -> None:
        """Record the end of a session. The reason is the value of its `SessionEnd`."""

    def uploaded(self, size: int) -> None:
        """Record a stored medium of `size` bytes."""

    def downloaded(self, size: int) -> None:
        """Record `size` bytes of a medium that were sent to a client."""


@dataclass(slots=True)
class Timing:
    """The outcome of one message; the code inside `timed` sets it."""

    outcome: str = "received"


@contextlib.contextmanager
def timed(metrics_sink: MetricsSink, kind: str) -> Iterator[Timing]:
    """Record a message when the block ends: its outcome, and the seconds that it took.

    When the block raises an `RtmError`, the outcome is the error's reason. For any other exception
    it is "failed". Used on an event loop.
    """
    timing = Timing()
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        yield timing
    except RtmError as error:
        timing.outcome = error.reason.lower()
        raise
    except BaseException:
        timing.outcome = "failed"
        raise
    finally:
        metrics_sink.message(kind, timing.outcome, clock() - began)
