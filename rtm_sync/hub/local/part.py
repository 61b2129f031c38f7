"""The base of the local engine's parts: the node, the clock and the database."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from ..engine.node import Node
from ..engine.part import EnginePart
from .database import Database

_CLEAN_UP_INTERVAL = 3600.0  # seconds


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


def _not_running() -> OSError:
    return OSError("The engine is not running: it was not started, or it was stopped.")
