"""The base class of the parts of a client: its requests to the hub, and their time-outs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, TypeVar

from ..protocol.requests import Request
from ..transfers.control import ProgressCallback, TransferControl, TransferKind
from ..transfers.sink import MediaCarrier
from ..transfers.transfer import Transfer

SEND_TIMEOUT = 10.0
"""Seconds for a peer or channel message (reference 1.3: 10 s)."""

CALL_TIMEOUT = 10.0
"""Seconds for the other calls (reference 1.3, web: 10 s)."""

R = TypeVar("R")


class Caller(Protocol):
    """Makes a request and waits for its answer."""

    def __call__(self, request: Request[R], timeout: float) -> R: ...


class ClientCalls(ABC):
    """Base of the parts of `RtmClient`. A part has the methods of one concern.

    `RtmClient` inherits from each part, so that it has all their methods. A part uses only those
    members of the client that are declared here.
    """

    @abstractmethod
    def _call(self, request: Request[R], timeout: float) -> R:
        """Make a request and wait for its answer.

        Raises:
            RtmError: of the request's family: not logged in, refused, or timed out.
        """

    @abstractmethod
    def _start_transfer(
        self,
        kind: TransferKind,
        work: Callable[[MediaCarrier, TransferControl], R],
        *,
        cancel_signal: threading.Event | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> Transfer[R]:
        """Run `work` on a thread of the client's transfer pool.

        Raises:
            UploadMediaError, DownloadMediaError: not logged in, or as `TransferPool.submit`.
        """
