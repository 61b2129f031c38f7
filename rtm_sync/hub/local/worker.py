"""Threads that take operations on a database from bounded queues."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ...rules.shares import FairQueue, Owner
from ...supervision import start_thread

T = TypeVar("T")
Item = TypeVar("Item")

_MAX_WAITING = 10_000  # operations in a queue
_MOST_OF_USER, _MOST_OF_APP = 100, 1000  # of these, in a fair queue

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Joint(Generic[Item, T]):
    """One statement for all items that wait together.

    Attributes:
        run: takes the items and returns their results, in the same order.
        item: one item.
    """

    run: Callable[[sqlite3.Connection, Sequence[Item]], Sequence[T]]
    item: Item

    def __call__(self, connection: sqlite3.Connection) -> T:
        (result,) = self.run(connection, [self.item])
        return result


@dataclass(frozen=True, slots=True)
class Operation:
    """A function to run, and the future of its result with the loop that waits for it.

    `is_one_statement`: it executes one statement, which SQLite makes a transaction by itself.
    """

    run: Callable[[sqlite3.Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    is_one_statement: bool = False

    def answer(self, result: Any, failure: Exception | None) -> None:
        """Set the result or the failure, from any thread."""
        with contextlib.suppress(RuntimeError):  # the caller's loop is closed
            self.loop.call_soon_threadsafe(_set, self.future, result, failure)


def answer_all(answers: Sequence[tuple[Operation, Any, Exception | None]]) -> None:
    """Answer operations as `Operation.answer` does, and wake their loop once.

    Args:
        answers: each operation with its result or failure; all are of one loop.
    """
    if answers:
        with contextlib.suppress(RuntimeError):  # the callers' loop is closed
            answers[0][0].loop.call_soon_threadsafe(_set_all, answers)


def _set_all(answers: Sequence[tuple[Operation, Any, Exception | None]]) -> None:
    for operation, result, failure in answers:
        _set(operation.future, result, failure)


def _set(future: asyncio.Future[Any], result: Any, failure: Exception | None) -> None:
    if future.done():
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)


class Worker:
    """A thread that takes operations from a bounded queue, as many at once as wait.

    Args:
        name: the thread's name.
        perform: runs a batch of operations and answers each.
        batch: the most operations of a batch.
    """

    def __init__(self, name: str, perform: Callable[[list[Operation]], None], batch: int) -> None:
        self._queue: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._perform = perform
        self._batch = batch
        self._is_closed = False
        self._thread = start_thread(name, self._work)

    def submit(
        self, function: Callable[[sqlite3.Connection], T], *, is_one_statement: bool = False
    ) -> asyncio.Future[T]:
        """Queue an operation of the running loop.

        Raises:
            OSError: the queue is full, or closed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if self._is_closed:
            raise OSError("The database is closed.")
        if self._queue.qsize() >= _MAX_WAITING:
            raise OSError(
                f"{_MAX_WAITING:,} database operations are waiting, which is the limit; "
                "try again later."
            )
        self._queue.put(Operation(function, loop, future, is_one_statement))
        return future

    def close(self) -> None:
        """Perform the waiting operations and end the thread. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < self._batch and batch[-1] is not None and not self._queue.empty():
                batch.append(self._queue.get())
            operations = [operation for operation in batch if operation is not None]
            if operations:
                _guarded(self._perform, operations)
            if batch[-1] is None:
                return


def _guarded(perform: Callable[[list[Operation]], None], operations: list[Operation]) -> None:
    """Perform operations. Whatever happens, each is answered and the thread goes on."""
    try:
        perform(operations)
    except Exception as error:
        logger.exception("the database's thread failed")
        for operation in operations:
            operation.answer(None, OSError(f"The database failed: {error!r}."))


class FairWorker:
    """A thread that runs the operations of apps and users by turns, see `FairQueue`.

    Args:
        name: the thread's name.
        perform: runs a list of one operation and answers it.
    """

    def __init__(self, name: str, perform: Callable[[list[Operation]], None]) -> None:
        self._perform = perform
        self._changed = threading.Condition()  # guards the two below; not held in operations
        self._queue: FairQueue[Operation] = FairQueue(_MOST_OF_USER, _MOST_OF_APP, _MAX_WAITING)
        self._is_closed = False
        self._thread = start_thread(name, self._work)

    def submit(
        self, owner: Owner, function: Callable[[sqlite3.Connection], T]
    ) -> asyncio.Future[T]:
        """Queue an operation of the running loop.

        Raises:
            OSError: too many wait, or the queue is closed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._changed:
            if self._is_closed:
                raise OSError("The database is closed.")
            problem = self._queue.put(owner, Operation(function, loop, future))
            self._changed.notify()
        if problem is not None:
            raise OSError(problem)
        return future

    def close(self) -> None:
        """Perform the waiting operations and end the thread. Idempotent."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._is_closed)
                if not self._queue:
                    return
                owner, operation = self._queue.take()
            begun = time.monotonic()
            _guarded(self._perform, [operation])
            with self._changed:
                now = time.monotonic()
                self._queue.charge(owner, now - begun, now)
