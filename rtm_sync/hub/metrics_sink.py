"""What a hub tells of its work, for whoever counts it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import RtmError


class MetricsSink:
    """Is told, and forgets; a gateway puts one here that counts. Called on the hub's loop."""

    def message(self, kind: str, outcome: str, seconds: float) -> None:
        """A message was sent.

        Args:
            kind: "peer", "channel" or "invitation".
            outcome: "received", "cached", "offline", "sent", or the error's reason.
            seconds: from the hub having it to the answer; for peers, the receipt included.
        """

    def login(self, outcome: str) -> None:
        """Somebody logged in: "new", "resumed", or the error's reason."""

    def session_ended(self, reason: str) -> None:
        """A session is over: "logout", "lost", "stopping", "slow_consumer", or what its client was
        told."""

    def uploaded(self, size: int) -> None:
        """A medium of so many bytes was stored."""

    def downloaded(self, size: int) -> None:
        """So many bytes of a medium were sent."""


@dataclass(slots=True)
class Timing:
    """How a message went; its sender sets the outcome."""

    outcome: str = "received"


@contextlib.contextmanager
def timed(metrics_sink: MetricsSink, kind: str) -> Iterator[Timing]:
    """Tell of a message when the block ends: its outcome, and how long it took.

    An `RtmError` is its own outcome, and any other exception is "failed". Used on an event loop.
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
