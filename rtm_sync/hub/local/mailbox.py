"""Offline messages, in SQLite."""

from __future__ import annotations

import sqlite3
from typing import ClassVar

from ...protocol.codec import decode_json, encode_json
from ...protocol.requests import MessageFromPeer
from ..engine.mailbox import Mailbox, OfflineMessage
from .part import LocalPart


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
        def load(connection: sqlite3.Connection) -> list[tuple[int, str]]:
            connection.execute(
                "DELETE FROM offline WHERE app_id = ? AND uid = ? AND expires_at <= ?",
                (app_id, uid, now),
            )
            return connection.execute(
                "SELECT key, message FROM offline WHERE app_id = ? AND uid = ? ORDER BY key",
                (app_id, uid),
            ).fetchall()

        rows = await self._running_database.run(load)
        return [OfflineMessage(key, decode_json(MessageFromPeer, body)) for key, body in rows]

    async def discard_offline(self, app_id: str, uid: str, keys: list[int]) -> None:
        def discard(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM offline WHERE key = ? AND app_id = ? AND uid = ?",
                [(key, app_id, uid) for key in keys],
            )

        await self._running_database.run(discard)
