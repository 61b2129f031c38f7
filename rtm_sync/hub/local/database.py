"""SQLite on a thread of its own, with group commit."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ...supervision import start_thread
from .migrations import MIGRATIONS, Migration, prepare

T = TypeVar("T")

_MAX_BATCH = 256  # operations in one transaction
_MAX_WAITING = 10_000  # operations in the queue


@dataclass(frozen=True, slots=True)
class _Operation:
    run: Callable[[sqlite3.Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class Database:
    """Runs functions on a SQLite connection, in order, and returns when they are durable.

    Owns one thread, started by the constructor and ended by `close()`. The thread commits all
    waiting operations in one transaction (group commit): under load many operations share one
    `fsync`.

    Args:
        path: the file, or ":memory:".
        schema: SQL that creates the missing tables and indexes.
        migrations: the changes of tables that an older version created.

    Raises:
        OSError: the file cannot be used.
    """

    def __init__(
        self, path: str, schema: str, migrations: Sequence[Migration] = MIGRATIONS
    ) -> None:
        self._queue: queue.Queue[_Operation | None] = queue.Queue(_MAX_WAITING)
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA busy_timeout = 5000")
            prepare(self._connection, schema, migrations)
            self._thread = start_thread("rtm-sync-database", self._work)
        except BaseException as error:
            self._connection.close()
            if isinstance(error, (OSError, sqlite3.Error)):
                raise OSError(f"The database {path} cannot be used: {error}.") from error
            raise

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run `function(connection)` on the thread, and return its result after the commit.

        Raises:
            OSError: the database failed (disk full, damaged file), or 10,000 operations wait.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        try:
            self._queue.put_nowait(_Operation(function, loop, future))
        except queue.Full:
            raise OSError(
                f"{_MAX_WAITING:,} database operations are waiting, which is the limit; "
                "try again later."
            ) from None
        try:
            return await future
        except sqlite3.Error as error:
            raise OSError(f"The database failed: {error}.") from error

    def close(self) -> None:
        """Commit the waiting operations and end the thread. Idempotent."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._connection.close()

    def _work(self) -> None:
        while True:
            batch = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < _MAX_BATCH and batch[-1] is not None:
                    batch.append(self._queue.get_nowait())
            self._commit([operation for operation in batch if operation is not None])
            if batch[-1] is None:
                return

    def _commit(self, batch: list[_Operation]) -> None:
        answers: list[tuple[_Operation, Any, Exception | None]] = []
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for operation in batch:
                connection.execute("SAVEPOINT operation")
                try:
                    answers.append((operation, operation.run(connection), None))
                except Exception as error:  # one failed operation does not undo the others
                    connection.execute("ROLLBACK TO operation")
                    answers.append((operation, None, error))
                connection.execute("RELEASE operation")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            answers = [(operation, None, error) for operation in batch]
        for operation, result, failure in answers:
            with contextlib.suppress(RuntimeError):  # the caller's loop is closed
                operation.loop.call_soon_threadsafe(_answer, operation.future, result, failure)


def _answer(future: asyncio.Future[Any], result: Any, failure: Exception | None) -> None:
    if future.done():
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
