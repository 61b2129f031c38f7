"""The future that an application holds of an upload or download."""

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
    future. `cancel()` also ends a running transfer; a cancelled one raises `TransferCancelled`
    (which is a `CancelledError` and the family's INTERRUPTED error) from `result()`. As a context
    manager it cancels itself when the block ends before it did: an error or Ctrl-C in the block
    leaves nothing running. In a coroutine, await `asyncio.wrap_future(transfer)`.
    """

    def __init__(self, control: TransferControl) -> None:
        super().__init__()
        self._control = control

    @property
    def kind(self) -> TransferKind:
        return self._control.kind

    @property
    def progress(self) -> MediaOperationProgress:
        """How far it is now; (0, 0) before it starts."""
        return self._control.progress

    def cancel(self) -> bool:
        """End the transfer, in whatever state it is, within 100 ms.

        False when it is done, or its last byte is confirmed and only the result is missing.
        """
        if self.done():
            return False
        return self._control.cancel() or self._control.ended is not None

    def cancelled(self) -> bool:
        """Whether it ended by cancellation."""
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
