"""The future of an upload or download, which the application holds."""

from __future__ import annotations

from concurrent.futures import Future
from types import TracebackType
from typing import Generic, TypeVar

from ..errors import TransferCancelled
from .control import MediaOperationProgress, TransferControl, TransferKind

T = TypeVar("T")


class Transfer(Future[T], Generic[T]):
    """One upload or download: a `concurrent.futures.Future` that can be cancelled at any time.

    `result(timeout)`, `exception`, `add_done_callback`, `as_completed` and `wait` work as for any
    future. `cancel()` also ends a running transfer. The `result()` of a cancelled transfer raises
    `TransferCancelled`, which is a `CancelledError` and the INTERRUPTED error of the transfer's
    kind. Used as a context manager, a transfer is cancelled if it still runs when the block ends,
    for example by an error or Ctrl-C. In a coroutine, await `asyncio.wrap_future(transfer)`.
    """

    def __init__(self, control: TransferControl) -> None:
        super().__init__()
        self._control = control

    @property
    def kind(self) -> TransferKind:
        """Upload or download."""
        return self._control.kind

    @property
    def progress(self) -> MediaOperationProgress:
        """The progress so far, in bytes; (0, 0) before the transfer starts."""
        return self._control.progress

    def cancel(self) -> bool:
        """Cancel a waiting or running transfer. It ends within 100 ms.

        Returns:
            False when the transfer is done, or its last byte is confirmed and it is about to end.
        """
        if self.done():
            return False
        return self._control.cancel() or self._control.ended is not None

    def cancelled(self) -> bool:
        """Whether the transfer ended by cancellation."""
        return self.done() and isinstance(super().exception(), TransferCancelled)

    def __enter__(self) -> Transfer[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()
