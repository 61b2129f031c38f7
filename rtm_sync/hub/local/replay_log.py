"""The channels' log: written to a file before a message is accepted, and read at the start."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...portable import boot_id
from ...protocol.codec import encode_json
from ...protocol.events import ChannelMessage
from ...protocol.values import ChannelPosition
from ..engine.bus import Recovered
from ..tasks import BackgroundTasks
from .database import Database
from .replay import (
    ID_SIZE,
    SECRET_SIZE,
    ChannelLogs,
    KeptMessage,
    Removals,
    ReplayLimits,
    digest_of,
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
    secret BLOB NOT NULL, forgotten INTEGER NOT NULL, boot TEXT NOT NULL, is_closed INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS messages (
    sequence INTEGER PRIMARY KEY, previous INTEGER NOT NULL, app_id TEXT NOT NULL,
    channel_id TEXT NOT NULL, at REAL NOT NULL, id BLOB NOT NULL, message TEXT
);
CREATE TABLE IF NOT EXISTS forgotten (app_id TEXT PRIMARY KEY, sequence INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS removed (at REAL NOT NULL, ids BLOB NOT NULL);
"""

_MAX_WAITING = 10_000  # messages that wait to be written
_MAX_WAITING_OF_APP = 5000
_MOST_VALUES = 900  # values of one statement; older versions of SQLite allow 999
_ROW = "(?, ?, ?, ?, ?, ?, ?)"
_BATCH = _MOST_VALUES // _ROW.count("?")  # messages of one statement
_BURST = 16  # messages that are delivered before others have a turn
_REMOVE_AFTER = 100  # messages
_EXPIRY_INTERVAL = 60.0  # seconds
_STOP_TIMEOUT = 5.0  # seconds

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Publication:
    """A message that waits to be written, and the future of its acceptance."""

    app_id: str
    message: ChannelMessage
    accepted: asyncio.Future[None]


class ReplayLog:
    """Publishes channel messages in order, and keeps the last ones, in a file if there is one.

    A message is in the file, and so in the hands of the operating system, before it is delivered
    and accepted: a killed process loses nothing that a member or a sender knows of. All messages
    that wait are written by one statement, without an `fsync`. After a power cut, which may lose
    the last moments, the channels' epochs are other ones, so that members are told.

    The file is not the database of the other parts, because one SQLite file has one writer at a
    time: a channel message would wait for the `fsync` of every offline message.

    Create it on a running loop; `close` ends it.

    Args:
        path: the SQLite file; its folder is created. None keeps the messages in memory.
        limits: the limits of kept messages.
        now: the wall clock, seconds since the epoch.
        deliver: called with the app id and each message, in order.

    Raises:
        OSError: the file cannot be used.
    """

    def __init__(
        self,
        path: Path | None,
        limits: ReplayLimits | None,
        now: Callable[[], float],
        deliver: Callable[[str, ChannelMessage], object],
    ) -> None:
        self._limits = limits or ReplayLimits()
        self._now = now
        self._deliver = deliver
        self._database: Database | None = None
        self._logs = ChannelLogs(self._limits)
        self._former_ids: dict[bytes, float] = {}  # of the last two minutes before the start
        self._waiting: deque[_Publication] = deque()
        self._writer: asyncio.Task[None] | None = None  # while messages wait
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._database = Database(str(path), SCHEMA, (), synced=False)
            try:
                self._load(path)
            except BaseException as error:
                self._database.close()
                if isinstance(error, sqlite3.Error):
                    raise OSError(f"The database {path} cannot be read: {error}.") from error
                raise
        self._tasks = BackgroundTasks()
        self._tasks.run_loop("expiry of channel messages", self._expire_repeatedly)

    async def publish(self, app_id: str, message: ChannelMessage) -> None:
        """Give a message its position, keep it and deliver it.

        A message whose id was accepted in the last two minutes before the start is not published
        again.

        Raises:
            OSError: the message cannot be written, or 10,000 messages wait, or 5,000 of the app.
        """
        if self._database is None:
            for numbered in self._logs.number([(app_id, message)], self._now()):
                self._keep(numbered)
            self._logs.take_removals()
            return
        if self._was_accepted(app_id, message):
            return
        if len(self._waiting) >= _MAX_WAITING or (
            len(self._waiting) >= _MAX_WAITING_OF_APP
            and sum(item.app_id == app_id for item in self._waiting) >= _MAX_WAITING_OF_APP
        ):
            raise OSError(
                f"{_MAX_WAITING:,} channel messages wait to be written, or "
                f"{_MAX_WAITING_OF_APP:,} of the app, which is the limit; try again later."
            )
        loop = asyncio.get_running_loop()
        accepted: asyncio.Future[None] = loop.create_future()
        self._waiting.append(_Publication(app_id, message, accepted))
        if self._writer is None:
            self._writer = loop.create_task(self._write_waiting())
        await accepted

    def since(self, app_id: str, channel_id: str, since: ChannelPosition | None) -> Recovered:
        """The messages after a position; none without a position."""
        return self._logs.since(app_id, channel_id, since)

    async def problem(self) -> str | None:
        """The sentence that says why nothing can be written for now, or None."""
        database = self._database
        return None if database is None else await asyncio.to_thread(database.problem)

    async def close(self) -> None:
        """Finish the writing, and release the file."""
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=_STOP_TIMEOUT)
        if self._writer is not None:
            self._writer.cancel()
        await self._tasks.close(_STOP_TIMEOUT)
        if self._database is not None:
            with contextlib.suppress(OSError):  # then the next start has to assume the worst
                await self._remove()
                await self._database.run(
                    lambda connection: connection.execute("UPDATE log SET is_closed = 1")
                )
            self._database.close()

    # -- writing --

    async def _write_waiting(self) -> None:
        """Write and deliver what waits, until nothing does."""
        batch: list[_Publication] = []
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]
                await self._publish(batch)
                if len(self._logs.removals.deleted) >= _REMOVE_AFTER:
                    self._tasks.spawn(self._remove())
        except Exception:
            logger.exception("channel messages were not written")
        finally:
            self._writer = None
            # Nothing is left here, unless the log is closed or an error was unexpected.
            _refuse([*batch, *self._waiting], "The message was not written.")
            self._waiting.clear()

    async def _publish(self, batch: Sequence[_Publication]) -> None:
        assert self._database is not None
        messages = self._logs.number(((item.app_id, item.message) for item in batch), self._now())
        try:
            await self._database.run(
                lambda connection: _insert(connection, messages), is_one_statement=True
            )
        except OSError as error:
            _refuse(batch, str(error))
            return
        for count, (item, message) in enumerate(zip(batch, messages, strict=True), 1):
            self._keep(message)
            if not item.accepted.done():
                item.accepted.set_result(None)
            if count % _BURST == 0:
                await asyncio.sleep(0)

    def _keep(self, message: KeptMessage) -> None:
        self._logs.keep(message)
        assert isinstance(message.message, ChannelMessage)
        try:
            self._deliver(message.app_id, message.message)
        except Exception:  # it is accepted, and members get it when they join again
            logger.exception("a channel message was not delivered")

    async def _remove(self) -> None:
        """Remove from the file what the log in memory has removed."""
        assert self._database is not None
        now, removals = self._now(), self._logs.take_removals()
        oldest = now - self._limits.duplicate_window
        ids = b"".join(digest for at, digest in removals.ids if at >= oldest)
        try:
            await self._database.run(lambda connection: _remove(connection, removals, ids, now))
        except OSError as error:
            logger.warning("old channel messages cannot be removed: %s", error)
            self._logs.put_back(removals)

    # -- time --

    async def _expire_repeatedly(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRY_INTERVAL)
            await self.expire()

    async def expire(self) -> None:
        """Remove what is too old. It is called once a minute.

        Raises:
            OSError: the file failed; the next call tries again.
        """
        now = self._now()
        self._logs.expire(now)
        if self._database is None:
            self._logs.take_removals()
            return
        oldest = now - self._limits.duplicate_window
        if all(at < oldest for at in self._former_ids.values()):
            self._former_ids.clear()
        await self._remove()
        await self._database.run(
            lambda connection: connection.execute("DELETE FROM removed WHERE at < ?", (oldest,)),
            is_one_statement=True,
        )

    def _was_accepted(self, app_id: str, message: ChannelMessage) -> bool:
        """Whether the message was accepted shortly before the start."""
        if not self._former_ids:
            return False
        at = self._former_ids.get(digest_of(app_id, message))
        return at is not None and at >= self._now() - self._limits.duplicate_window

    # -- the start --

    def _load(self, path: Path) -> None:
        """Read the log, and note in the file, durably, that it is in use."""
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.text_factory = _decoded_text
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            self._logs = self._begun(connection)
            for row in connection.execute(
                "SELECT app_id, channel_id, sequence, previous, at, id, message FROM messages "
                "ORDER BY sequence"
            ):
                message = KeptMessage(*row)
                self._former_ids[message.id] = message.at
                self._logs.keep(message)
            for ids, at in connection.execute("SELECT ids, at FROM removed"):
                for start in range(0, len(ids), ID_SIZE):
                    self._former_ids[ids[start : start + ID_SIZE]] = at
            connection.execute("COMMIT")
        self._logs.expire(self._now())

    def _begun(self, connection: sqlite3.Connection) -> ChannelLogs:
        """The logs without messages, which go on with the former count if nothing can be missing.

        After a power cut something can be missing: the members then get other epochs, and with
        them what is left, but not the answer that it is all.
        """
        here = boot_id()
        secret, of_all, boot, is_closed = connection.execute(
            "SELECT secret, forgotten, boot, is_closed FROM log"
        ).fetchone() or (secrets.token_bytes(SECRET_SIZE), 0, "", True)
        if not is_closed and (not here or here != boot):
            secret = secrets.token_bytes(SECRET_SIZE)
            logger.warning(
                "the machine was switched off: the last channel messages may be lost, and members "
                "that missed some are told so"
            )
        connection.execute("DELETE FROM log")
        connection.execute("INSERT INTO log VALUES (?, ?, ?, 0)", (secret, of_all, here))
        (newest,) = connection.execute("SELECT max(sequence) FROM messages").fetchone()
        forgotten = dict(connection.execute("SELECT app_id, sequence FROM forgotten"))
        last = max(newest or 0, of_all, *forgotten.values())
        return ChannelLogs(self._limits, secret, last, forgotten, of_all)


def _insert(connection: sqlite3.Connection, messages: Sequence[KeptMessage]) -> None:
    """Store messages by one statement: each statement costs a wait for the interpreter's lock."""
    rows = ", ".join([_ROW] * len(messages))
    values = itertools.chain.from_iterable(
        (
            item.sequence,
            item.previous,
            item.app_id,
            item.channel_id,
            item.at,
            item.id,
            encode_json(item.message),
        )
        for item in messages
    )
    connection.execute(f"INSERT INTO messages VALUES {rows}", tuple(values))  # noqa: S608


def _remove(connection: sqlite3.Connection, removals: Removals, ids: bytes, now: float) -> None:
    """Remove what the log in memory has removed, and keep ids that are still needed."""
    for statement, numbers in (
        ("UPDATE messages SET message = NULL", removals.emptied),
        ("DELETE FROM messages", removals.deleted),
    ):
        for start in range(0, len(numbers), _MOST_VALUES):
            some = numbers[start : start + _MOST_VALUES]
            marks = ", ".join("?" * len(some))
            connection.execute(f"{statement} WHERE sequence IN ({marks})", some)
    if ids:
        connection.execute("INSERT INTO removed VALUES (?, ?)", (now, ids))
    connection.executemany(
        "INSERT OR REPLACE INTO forgotten VALUES (?, ?)", list(removals.forgotten.items())
    )


def _refuse(publications: Iterable[_Publication], sentence: str) -> None:
    for publication in publications:
        if not publication.accepted.done():
            publication.accepted.set_exception(OSError(sentence))


def _decoded_text(text: bytes) -> str:
    return text.decode(errors="replace")
