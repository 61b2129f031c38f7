"""The base of the local engine's parts: the node, the clock and the database."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, TypeVar

from ...protocol.codec import decode_json
from ...protocol.errors import ProtocolError
from ..engine.node import Node
from ..engine.part import EnginePart
from .database import Database

R = TypeVar("R")

_CLEAN_UP_INTERVAL = 3600.0  # seconds
_CLEAN_UP_BATCH = 500  # rows
_MAX_UNREADABLE = 1000  # names of rows that are logged

logger = logging.getLogger(__name__)


class LocalPart(EnginePart):
    """A part of the local engine. An object that has several parts opens one database for them.

    Args:
        path: the SQLite file; its folder is created. None keeps all data in memory.
        now: the wall clock, seconds since the epoch.
    """

    SCHEMA: ClassVar[str] = ""
    """SQL that creates the part's tables. A part without tables opens no database."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = None if path is None else Path(path)
        self._now = now
        self._database: Database | None = None
        self._node: Node | None = None
        self._last_clean_up: dict[str, float] = {}
        self._unreadable: set[str] = set()

    async def start(self, node: Node) -> None:
        if self.SCHEMA and self._path is None:
            self._database = Database(":memory:", self.SCHEMA)
        elif self.SCHEMA:
            assert self._path is not None
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._database = Database(str(self._path), self.SCHEMA)
        self._node = node

    async def stop(self) -> None:
        self._node = None
        database, self._database = self._database, None
        if database is not None:
            database.close()

    async def problem(self) -> str | None:
        self._require_running()
        if self._database is None:
            return None
        return await asyncio.to_thread(self._database.problem)  # the disk may hang

    def _require_running(self) -> None:
        if self._node is None:
            raise _not_running()

    @property
    def _running_node(self) -> Node:
        if self._node is None:
            raise _not_running()
        return self._node

    @property
    def _running_database(self) -> Database:
        if self._database is None:
            raise _not_running()
        return self._database

    def _should_clean_up(self, table: str) -> bool:
        """Whether the current write should also remove the table's expired rows: once an hour.

        Queries skip expired rows. Removing them needs no timer, because a table grows only when it
        is written.
        """
        now = self._now()
        due = abs(now - self._last_clean_up.get(table, float("-inf"))) >= _CLEAN_UP_INTERVAL
        if due:
            self._last_clean_up[table] = now
        return due

    def _clean_up(self, connection: sqlite3.Connection, table: str, now: float) -> None:
        """Remove expired rows, beside a write on the database's thread.

        At most 500 rows at once, because others wait for that thread; the next write goes on.

        Args:
            connection: the database's connection.
            table: a table with the columns `key` and `expires_at`.
            now: the wall clock, seconds since the epoch.
        """
        if not self._should_clean_up(table):
            return
        removed = connection.execute(
            f"DELETE FROM {table} WHERE key IN "  # noqa: S608  only our words
            f"(SELECT key FROM {table} WHERE expires_at <= ? LIMIT {_CLEAN_UP_BATCH})",
            (now,),
        ).rowcount
        if removed == _CLEAN_UP_BATCH:
            del self._last_clean_up[table]

    def _decoded(self, kind: type[R], text: str | bytes, name: str) -> R | None:
        """A stored object, or None where it cannot be read: that must not keep back others.

        Args:
            kind: the dataclass.
            text: its JSON.
            name: names the row in the log, for example "history 17". A row is logged once.
        """
        try:
            return decode_json(kind, text)
        except (ProtocolError, TypeError) as error:
            if name not in self._unreadable and len(self._unreadable) < _MAX_UNREADABLE:
                self._unreadable.add(name)
                logger.error("%s cannot be read and is left out: %s", name, error)  # noqa: TRY400
            return None


def _not_running() -> OSError:
    return OSError("The engine is not running: it was not started, or it was stopped.")
