"""Offline messages, in SQLite."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from typing import ClassVar

from ...protocol.codec import decode_json, encode_json
from ...protocol.errors import ProtocolError
from ...protocol.requests import MessageFromPeer
from ..engine.mailbox import Mailbox, OfflineMessage
from .part import LocalPart

logger = logging.getLogger(__name__)
_MAX_REPORTED = 10_000  # keys of damaged messages that the log has named


class LocalMailbox(LocalPart, Mailbox):
    """The mailbox of one machine."""

    SCHEMA: ClassVar[str] = """
CREATE TABLE IF NOT EXISTS offline (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    app_id TEXT NOT NULL, uid TEXT NOT NULL, expires_at REAL NOT NULL,
    sender TEXT NOT NULL, message_id TEXT NOT NULL, message TEXT NOT NULL,
    UNIQUE (app_id, uid, sender, message_id)
);
CREATE INDEX IF NOT EXISTS offline_by_user ON offline (app_id, uid, key);
CREATE INDEX IF NOT EXISTS offline_by_end ON offline (expires_at);
"""

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(path, now)
        self._reported_damaged: set[int] = set()

    async def store_offline(
        self, app_id: str, uid: str, message: MessageFromPeer, keep: int, retention: float
    ) -> None:
        body = encode_json(message)
        now = self._now()
        expires_at = now + retention
        clean_up = self._should_clean_up("offline")

        def store(connection: sqlite3.Connection) -> None:
            if clean_up:
                connection.execute("DELETE FROM offline WHERE expires_at <= ?", (now,))
            connection.execute(  # OR IGNORE: the message may be sent twice
                "INSERT OR IGNORE INTO offline "
                "(app_id, uid, expires_at, sender, message_id, message) VALUES (?, ?, ?, ?, ?, ?)",
                (app_id, uid, expires_at, message.peer_id, message.message_id, body),
            )
            connection.execute(
                "DELETE FROM offline WHERE app_id = ? AND uid = ? AND key <= ("
                "SELECT key FROM offline WHERE app_id = ? AND uid = ? "
                "ORDER BY key DESC LIMIT 1 OFFSET ?)",
                (app_id, uid, app_id, uid, keep),
            )

        await self._running_database.run(store)

    async def offline(self, app_id: str, uid: str, now: float) -> list[OfflineMessage]:
        def load(connection: sqlite3.Connection) -> list[tuple[int, bytes]]:
            connection.execute(
                "DELETE FROM offline WHERE app_id = ? AND uid = ? AND expires_at <= ?",
                (app_id, uid, now),
            )
            # As bytes: the connection replaces what is not UTF-8, and another text would arrive.
            return connection.execute(
                "SELECT key, CAST(message AS BLOB) FROM offline "
                "WHERE app_id = ? AND uid = ? ORDER BY key",
                (app_id, uid),
            ).fetchall()

        rows = await self._running_database.run(load)
        found = []
        for key, body in rows:
            try:
                found.append(OfflineMessage(key, decode_json(MessageFromPeer, body)))
            except ProtocolError as error:
                self._report_damaged(key, uid, error)
        return found

    def _report_damaged(self, key: int, uid: str, error: ProtocolError) -> None:
        """Log a message that cannot be decoded, once. It stays stored until it expires."""
        if key in self._reported_damaged:
            return
        if len(self._reported_damaged) >= _MAX_REPORTED:
            self._reported_damaged.clear()
        self._reported_damaged.add(key)
        logger.error(
            "offline message %d of %r cannot be decoded and is skipped; it stays in the table "
            "'offline' until it expires: %s",
            key,
            uid,
            error,
        )

    async def discard_offline(self, app_id: str, uid: str, keys: list[int]) -> None:
        def discard(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM offline WHERE key = ? AND app_id = ? AND uid = ?",
                [(key, app_id, uid) for key in keys],
            )

        await self._running_database.run(discard)
