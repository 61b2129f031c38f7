"""SQLite on three threads: one writes, with group commit, and two read beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ...portable import close_to_others, open_private
from ...rules.shares import Owner
from ...rules.timing import Deadline
from ..open_paths import OpenPaths
from .migrations import MIGRATIONS, Migration, prepare
from .worker import FairWorker, Joint, Operation, Worker, answer_all

T = TypeVar("T")
Item = TypeVar("Item")
Answer = tuple[Operation, Any, Exception | None]

_MAX_BATCH = 256  # operations in one transaction
_MAX_TOGETHER = 64  # items in one statement
_READ_TIME = 5.0  # seconds for one `read`
_CHECK_TIME = 5.0  # seconds for the check of the file at the start
_CHECK_EVERY = 10_000  # instructions of SQLite between two looks at a deadline
_SUFFIXES = ("", "-wal", "-shm")  # the files of a database
_HEADER = b"SQLite format 3\0"
_ERRORS = (sqlite3.Error, UnicodeDecodeError)

logger = logging.getLogger(__name__)


class Database:
    """Runs functions on SQLite connections, and returns their results when they are durable.

    `run` runs functions in order on one thread, which commits all waiting operations in one
    transaction (group commit): under load many operations share one `fsync`. `read` runs short
    functions on a second thread, and `search` longer ones on a third, which gives apps and users
    their turns. Each thread has a connection of its own, so that a long query delays nothing else.
    A database in memory has one connection and one thread for all.

    The constructor starts the threads, and `close()` ends them. When the disk is full or the file
    is damaged, every operation that fails is answered at once, and the next one tries again.

    Args:
        path: the file, or ":memory:".
        schema: SQL that creates the missing tables and indexes.
        migrations: the changes of tables that an older version created.
        synced: results are returned after an `fsync`. Without it, a killed process loses nothing,
            but a power cut may lose the last moments; it never damages the file.

    Raises:
        OSError: the file cannot be used: it is damaged, or no database.
    """

    def __init__(
        self,
        path: str,
        schema: str,
        migrations: Sequence[Migration] = MIGRATIONS,
        *,
        synced: bool = True,
    ) -> None:
        self._path = path
        self._damage = ""  # the log's sentence
        self._files = OpenPaths("The database's file", ())
        with contextlib.ExitStack() as opened:
            try:
                _close_files(path)
                self._connection = self._connect(opened)
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                _check(self._connection)
                prepare(self._connection, schema, migrations)
                if not synced:
                    self._connection.execute("PRAGMA synchronous = NORMAL")
                if path != ":memory:":
                    files = [Path(path + suffix) for suffix in _SUFFIXES]
                    self._files = OpenPaths("The database's file", files)
                    reading, searching = self._connect(opened), self._connect(opened)
                    for connection in (reading, searching):
                        connection.execute("PRAGMA query_only = ON")
            except (OSError, *_ERRORS) as error:
                if _is_damage(error):
                    raise OSError(_damaged(path, error)) from error
                raise OSError(f"The database {path} cannot be used: {error}.") from error
            writer = Worker("rtm-sync-database", self._commit, _MAX_BATCH)
            opened.callback(writer.close)
            self._writer = self._reader = writer
            self._searcher: FairWorker | None = None
            if path != ":memory:":
                self._reader = Worker(
                    "rtm-sync-database-reader", lambda batch: self._query(reading, batch[0]), 1
                )
                opened.callback(self._reader.close)
                self._searcher = FairWorker(
                    "rtm-sync-database-searcher",
                    lambda batch: self._query(searching, batch[0]),
                )
                opened.callback(self._searcher.close)
            self._opened = opened.pop_all()

    async def run(
        self, function: Callable[[sqlite3.Connection], T], *, is_one_statement: bool = False
    ) -> T:
        """Run `function(connection)` in a transaction, and return its result after the commit.

        When the transaction fails, the function may run again in another one.

        Args:
            function: uses the connection on the database's thread.
            is_one_statement: the function executes one statement, which takes half the time.

        Raises:
            OSError: the database failed, its file was removed, or 10,000 operations wait.
        """
        return await self._result(self._writer.submit(function, is_one_statement=is_one_statement))

    async def run_together(
        self, function: Callable[[sqlite3.Connection, Sequence[Item]], Sequence[T]], item: Item
    ) -> T:
        """As `run`, for a function that takes the items which wait together.

        When one of the items cannot be dealt with, the function runs again for each alone.

        Args:
            function: executes one statement for up to 64 items on the database's thread, and
                returns their results in the same order.
            item: the item of this call.
        """
        joint = Joint(function, item)
        return await self._result(self._writer.submit(joint, is_one_statement=True))

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run `function(connection)`, which only reads, beside the writes, within 5 seconds.

        It sees all that `run` has returned for. It ends early when its caller is cancelled.

        Raises:
            OSError: the database failed, the time is over, or 10,000 operations wait.
        """
        return await self._result(self._reader.submit(function))

    async def search(self, owner: Owner, function: Callable[[sqlite3.Connection], T]) -> T:
        """As `read`, for functions that may take long. Apps and users get their turns by cost.

        Args:
            owner: who asks.
            function: reads.

        Raises:
            OSError: the database failed, the time is over, or too many operations wait: 100 of a
                user, 1,000 of an app, or 10,000.
        """
        if self._searcher is None:
            return await self.read(function)
        return await self._result(self._searcher.submit(owner, function))

    def problem(self) -> str | None:
        """The sentence that says why nothing can be stored for now, or None.

        It looks at the files and their first bytes, and remembers damage that an operation met: it
        stays until the start checks the file. A full disk is no such problem: what needs no room
        goes on.
        """
        problem = self._files.problem()
        if problem is None and not self._damage and self._path != ":memory:":
            self._look_at_header()
        return "The database is damaged; the gateway's log says more." if self._damage else problem

    def close(self) -> None:
        """Commit the waiting operations and end the threads. Idempotent."""
        self._opened.close()

    async def _result(self, future: asyncio.Future[T]) -> T:
        try:
            return await future
        except _ERRORS as error:  # not the whole sentence: clients need not know the path
            raise OSError(f"The database failed: {error}.") from error

    def _connect(self, opened: contextlib.ExitStack) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        opened.callback(connection.close)
        # A text that is not UTF-8 must not fail the query that finds it beside others.
        connection.text_factory = _decoded
        connection.execute("PRAGMA busy_timeout = 5000")
        return connection

    def _commit(self, batch: list[Operation]) -> None:
        """Run the operations in one transaction, and answer them."""
        answers: list[Answer] = []
        try:
            groups = _grouped(batch)
            if len(groups) == 1 and batch[0].is_one_statement:
                self._files.require()
                answers = _run(groups[0], self._connection)
            else:
                answers = self._transaction(groups)
        except Exception as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            self._note_damage(error)
            if len(batch) > 1 and not _is_locked(error):
                for operation in batch:  # those that only read need no room on the disk
                    self._commit([operation])
                return
            answers = [(operation, None, error) for operation in batch]
        for loop in {operation.loop for operation, _, _ in answers}:
            answer_all([answer for answer in answers if answer[0].loop is loop])

    def _transaction(self, groups: list[list[Operation]]) -> list[Answer]:
        """Run groups of operations in one transaction, and return the answers after its commit."""
        connection = self._connection
        answers: list[Answer] = []
        changes = connection.total_changes
        connection.execute("BEGIN IMMEDIATE")
        for group in groups:
            is_one_statement = group[0].is_one_statement  # which fails as a whole
            if not is_one_statement:
                connection.execute("SAVEPOINT operation")
            try:
                answers += _run(group, connection)
            except Exception as error:  # one failed operation does not undo the others
                if len(group) > 1:
                    raise  # which of them failed is not known
                if not connection.in_transaction or _is_damage(error):
                    raise  # SQLite has undone them all, or may not be trusted with any
                if not is_one_statement:
                    connection.execute("ROLLBACK TO operation")
                answers.append((group[0], None, error))
            if not is_one_statement:
                connection.execute("RELEASE operation")
        if connection.total_changes != changes:
            self._files.require()
        connection.execute("COMMIT")
        return answers

    def _query(self, connection: sqlite3.Connection, operation: Operation) -> None:
        """Run one operation that reads, and interrupt it when its time is over."""
        deadline = Deadline(_READ_TIME)
        connection.set_progress_handler(
            lambda: operation.future.cancelled() or not deadline.left, _CHECK_EVERY
        )
        try:
            result = operation.run(connection)
        except Exception as error:
            self._note_damage(error)
            if not deadline.left:
                error = OSError(
                    f"The database needs more than {_READ_TIME:g} seconds for this query; ask for "
                    "less, such as a shorter period."
                )
            operation.answer(None, error)
        else:
            operation.answer(result, None)

    def _look_at_header(self) -> None:
        """Notice a file that was overwritten, though SQLite has its pages in memory."""
        with contextlib.suppress(OSError), Path(self._path).open("rb") as file:
            if file.read(len(_HEADER)) != _HEADER:
                self._note_damage(sqlite3.DatabaseError("it does not begin as a database does"))

    def _note_damage(self, error: Exception) -> None:
        if _is_damage(error):
            sentence = _damaged(self._path, error)
            if sentence != self._damage:
                self._damage = sentence
                logger.error("%s", sentence)


def _grouped(batch: list[Operation]) -> list[list[Operation]]:
    """The operations in their order; joint ones that follow each other are in one group."""
    groups = [batch[:1]]
    for operation in batch[1:]:
        group = groups[-1]
        first, run = group[0].run, operation.run
        is_joint = isinstance(first, Joint) and isinstance(run, Joint) and first.run is run.run
        if is_joint and len(group) < _MAX_TOGETHER:
            group.append(operation)
        else:
            groups.append([operation])
    return groups


def _run(group: list[Operation], connection: sqlite3.Connection) -> list[Answer]:
    """Run one operation, or several joint ones at once."""
    run = group[0].run
    if not isinstance(run, Joint):
        return [(group[0], run(connection), None)]
    items = [operation.run.item for operation in group if isinstance(operation.run, Joint)]
    results = run.run(connection, items)
    return [(operation, result, None) for operation, result in zip(group, results, strict=True)]


def _close_files(path: str) -> None:
    """Let no other user open the files of a database, which is created when it is missing.

    SQLite creates the files beside it with its mode.
    """
    if path != ":memory:":
        os.close(open_private(path, os.O_RDWR | os.O_CREAT))
        for suffix in _SUFFIXES:
            close_to_others(Path(path + suffix))


def _decoded(text: bytes) -> str:
    return text.decode(errors="replace")


def _check(connection: sqlite3.Connection) -> None:
    """Look for damage in the whole file, for 5 seconds at the most.

    Raises:
        sqlite3.DatabaseError: the file is damaged.
    """
    deadline = Deadline(_CHECK_TIME)
    connection.set_progress_handler(lambda: not deadline.left, _CHECK_EVERY)
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:
        if deadline.left:
            raise
        logger.info("the database is large: it was checked in part, for %g seconds", _CHECK_TIME)
        return
    finally:
        connection.set_progress_handler(None, 0)
    if found != "ok":
        raise sqlite3.DatabaseError(" ".join(found.split()))


def _is_damage(error: Exception) -> bool:
    """Whether an error says that the file is damaged, or no database."""
    # `sqlite_errorcode` is new in Python 3.11. Damage has the base class itself; a message with
    # bytes of the damaged file in it cannot be decoded.
    return type(error) is sqlite3.DatabaseError or isinstance(error, UnicodeDecodeError)


def _is_locked(error: Exception) -> bool:
    """Whether another process has the database locked, for longer than `busy_timeout`."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _damaged(path: str, error: Exception) -> str:
    return (
        f"The database {path} is damaged: {error}. Stop the gateway and restore a backup, or save "
        f"what is readable with `sqlite3 {path} .recover`; or move the file away and begin with an "
        "empty one."
    )
