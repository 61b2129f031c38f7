"""What the parts of the local engine share: one node, one clock, one database."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from ..engine.node import Node
from ..engine.part import EnginePart
from .database import Database

_CLEAN_UP_INTERVAL = 3600.0


class LocalPart(EnginePart):
    """A part of the engine of one machine. Parts that are one object share its database.

    Args:
        path: the SQLite file, whose folder is made; None keeps everything in memory.
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
        self._cleaned_up: dict[str, float] = {}

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
    def _there(self) -> Node:
        if self._node is None:
            raise _not_running()
        return self._node

    @property
    def _disk(self) -> Database:
        if self._database is None:
            raise _not_running()
        return self._database

    def _should_clean_up(self, table: str) -> bool:
        """Whether to remove a table's expired rows beside the present write: once an hour.

        Rows expire one by one and are not shown then; removing them needs no timer of its own,
        because a table grows only when it is written.
        """
        now = self._now()
        due = abs(now - self._cleaned_up.get(table, float("-inf"))) >= _CLEAN_UP_INTERVAL
        if due:
            self._cleaned_up[table] = now
        return due


def _not_running() -> OSError:
    return OSError("The engine is not running: it has not been started, or was stopped.")
