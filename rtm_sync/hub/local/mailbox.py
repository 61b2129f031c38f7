"""Stored messages, in SQLite."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...protocol.codec import encode_json
from ...protocol.requests import MessageFromPeer
from ..engine.mailbox import Mailbox, MailboxFull, MailboxLimits, StoredMessage, StoredMessages
from .message_use import counted, require_quotas, room
from .part import LocalPart

logger = logging.getLogger(__name__)


_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_STORE = """
INSERT INTO offline (app_id, uid, sender, message_id, expires_at, message, was_offered)
SELECT column1, column2, column3, column4, column5, column6, 1 FROM (VALUES {rows}) AS row
WHERE column8 >= 0 AND column9 >= 0 AND NOT EXISTS (
    SELECT 1 FROM offline_handled AS handled
    WHERE handled.app_id = column1 AND handled.uid = column2 AND handled.sender = column3
    AND handled.message_id = column4 AND handled.expires_at > column7
) AND NOT EXISTS (
    SELECT 1 FROM offline_use AS used
    WHERE used.app_id = column1 AND used.uid = column2
    AND (used.messages > column8 OR used.bytes > column9)
) AND NOT EXISTS (
    SELECT 1 FROM message_use AS sent WHERE sent.app_id = column1 AND sent.uid IN (column3, '')
    AND sent.bytes > CASE sent.uid WHEN '' THEN column11 ELSE column10 END
) ON CONFLICT DO NOTHING
"""

_DROP_ONE = """
DELETE FROM offline WHERE key = (
    SELECT min(key) FROM offline WHERE app_id = ? AND uid = ? AND NOT was_offered
    GROUP BY sender ORDER BY count(*) DESC, min(key) LIMIT 1
)
"""
"""Drop the oldest of the sender with most messages that were not offered yet: so nobody's messages
push out those of a user who has sent fewer."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A message to store that is offered at once."""

    user: tuple[str, str]
    message: MessageFromPeer
    body: str
    size: int
    now: float
    limits: MailboxLimits


class LocalMailbox(LocalPart, Mailbox):
    """The mailbox of one machine. Triggers count what each user has, so that stores need not."""

    SCHEMA: ClassVar[str] = """
CREATE TABLE IF NOT EXISTS offline (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    app_id TEXT NOT NULL, uid TEXT NOT NULL, expires_at REAL NOT NULL,
    sender TEXT NOT NULL, message_id TEXT NOT NULL, message TEXT NOT NULL,
    was_offered INTEGER NOT NULL DEFAULT 0,
    UNIQUE (app_id, uid, sender, message_id)
);
CREATE INDEX IF NOT EXISTS offline_by_user ON offline (app_id, uid, key);
CREATE INDEX IF NOT EXISTS offline_not_offered ON offline (app_id, uid, key) WHERE NOT was_offered;
CREATE INDEX IF NOT EXISTS offline_by_end ON offline (expires_at);
CREATE TABLE IF NOT EXISTS offline_use (
    app_id TEXT NOT NULL, uid TEXT NOT NULL, messages INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (app_id, uid)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS offline_handled (
    key INTEGER PRIMARY KEY,
    app_id TEXT NOT NULL, uid TEXT NOT NULL, sender TEXT NOT NULL, message_id TEXT NOT NULL,
    expires_at REAL NOT NULL,
    UNIQUE (app_id, uid, sender, message_id)
);
CREATE TRIGGER IF NOT EXISTS offline_stored AFTER INSERT ON offline BEGIN
    INSERT INTO offline_use VALUES (
        NEW.app_id, NEW.uid, 1, LENGTH(CAST(NEW.message AS BLOB))
    ) ON CONFLICT DO UPDATE SET messages = messages + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER IF NOT EXISTS offline_discarded AFTER DELETE ON offline BEGIN
    UPDATE offline_use SET messages = messages - 1,
        bytes = bytes - LENGTH(CAST(OLD.message AS BLOB))
    WHERE app_id = OLD.app_id AND uid = OLD.uid;
    DELETE FROM offline_use WHERE app_id = OLD.app_id AND uid = OLD.uid AND messages <= 0;
END;
""" + counted("offline", "sender")  # noqa: S608  only our words

    async def store(
        self,
        app_id: str,
        uid: str,
        message: MessageFromPeer,
        limits: MailboxLimits,
        *,
        is_offered: bool,
    ) -> int | None:
        body = encode_json(message)
        size = len(body.encode())
        now = self._now()
        user = (app_id, uid)
        if is_offered:  # in nearly all cases one statement does it for all that wait
            row = _Row(user, message, body, size, now, limits)
            key = await self._running_database.run_together(_store_rows, row)
            if key is not None:
                return key

        def store(connection: sqlite3.Connection) -> int | None:
            self._clean_up(connection, "offline", now)
            copy = (*user, message.peer_id, message.message_id)
            known = connection.execute(
                "SELECT key, was_offered FROM offline "
                "WHERE app_id = ? AND uid = ? AND sender = ? AND message_id = ?",
                copy,
            ).fetchone()
            if known is not None:
                key, was_offered = known
                if is_offered and not was_offered:
                    connection.execute("UPDATE offline SET was_offered = 1 WHERE key = ?", (key,))
                return int(key)
            if connection.execute(
                "SELECT 1 FROM offline_handled WHERE app_id = ? AND uid = ? AND sender = ? "
                "AND message_id = ? AND expires_at > ?",
                (*copy, now),
            ).fetchone():
                return None
            if _lack_of_room(connection, user, message.peer_id, size, limits):
                connection.execute(
                    "DELETE FROM offline WHERE app_id = ? AND uid = ? AND expires_at <= ?",
                    (*user, now),
                )
                lack = _lack_of_room(connection, user, message.peer_id, size, limits)
                if lack:
                    raise MailboxFull(f"{lack} Send it again when the user has handled some.")
            stored = connection.execute(
                "INSERT INTO offline "
                "(app_id, uid, sender, message_id, expires_at, message, was_offered) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*copy, now + limits.retention, body, is_offered),
            ).lastrowid
            require_quotas(connection, app_id, message.peer_id, limits.quotas)
            if not is_offered:
                (waiting,) = connection.execute(
                    "SELECT count(*) FROM offline WHERE app_id = ? AND uid = ? AND NOT was_offered",
                    user,
                ).fetchone()
                for _ in range(waiting - limits.offline):
                    connection.execute(_DROP_ONE, user)
            assert stored is not None
            return stored

        return await self._running_database.run(store)

    async def waiting(self, app_id: str, uid: str, after: int, limit: int) -> StoredMessages:
        now = self._now()
        # As bytes: the connection replaces what is not UTF-8, and another text would arrive.
        rows = await self._running_database.read(
            lambda connection: connection.execute(
                "SELECT key, CAST(message AS BLOB), was_offered FROM offline "
                "WHERE app_id = ? AND uid = ? AND key > ? AND expires_at > ? ORDER BY key LIMIT ?",
                (app_id, uid, after, now, limit),
            ).fetchall()
        )
        found = []
        for key, body, was_offered in rows:
            message = self._decoded(MessageFromPeer, body, f"stored message {key} of {uid!r}")
            if message is not None:
                found.append(StoredMessage(key, message, bool(was_offered)))
        return StoredMessages(tuple(found), rows[-1][0] if rows else None)

    async def mark_offered(self, app_id: str, uid: str, keys: Sequence[int]) -> None:
        await self._running_database.run(
            lambda connection: connection.executemany(
                "UPDATE offline SET was_offered = 1 WHERE key = ? AND app_id = ? AND uid = ?",
                [(key, app_id, uid) for key in keys],
            )
        )

    async def discard(self, app_id: str, uid: str, keys: Sequence[int], *, remember: float) -> None:
        now = self._now()
        listed = encode_json(list(keys))

        def discard(connection: sqlite3.Connection) -> None:
            # Twice as many as are added, so that the table never has more than its window.
            connection.execute(
                "DELETE FROM offline_handled WHERE expires_at <= ? AND key IN "
                "(SELECT key FROM offline_handled ORDER BY key LIMIT ?)",
                (now, 2 * len(keys)),
            )
            connection.execute(
                "INSERT OR REPLACE INTO offline_handled "
                "SELECT key, app_id, uid, sender, message_id, ? FROM offline "
                "WHERE key IN (SELECT value FROM json_each(?)) AND app_id = ? AND uid = ?",
                (now + remember, listed, app_id, uid),
            )
            connection.execute(
                "DELETE FROM offline "
                "WHERE key IN (SELECT value FROM json_each(?)) AND app_id = ? AND uid = ?",
                (listed, app_id, uid),
            )
            self._clean_up(connection, "offline", now)

        await self._running_database.run(discard)


def _lack_of_room(
    connection: sqlite3.Connection,
    user: tuple[str, str],
    sender: str,
    size: int,
    limits: MailboxLimits,
) -> str:
    """The sentence that says why a mailbox has no room for a message of `size` bytes, or ""."""
    used = connection.execute(
        "SELECT messages, bytes FROM offline_use WHERE app_id = ? AND uid = ?", user
    ).fetchone() or (0, 0)
    most = (limits.messages, limits.bytes)
    if _exceeds(used, size, most):
        return _full(f"The mailbox of {user[1]!r} is full", most)
    most = (
        _least(limits.messages, limits.sender_messages),
        _least(limits.bytes, limits.sender_bytes),
    )
    if not _exceeds(used, size, most):
        return ""  # so the sender's own are no more
    used = connection.execute(
        "SELECT count(*), coalesce(sum(LENGTH(CAST(message AS BLOB))), 0) FROM offline "
        "WHERE app_id = ? AND uid = ? AND sender = ?",
        (*user, sender),
    ).fetchone()
    if not _exceeds(used, size, most):
        return ""
    return _full(f"The share of {sender!r} in the mailbox of {user[1]!r} is full", most)


def _exceeds(used: tuple[int, int], size: int, most: tuple[int, int]) -> bool:
    return used[0] + 1 > most[0] or used[1] + size > most[1]


def _full(what: str, most: tuple[int, int]) -> str:
    return (
        f"{what}; the limits are {most[0]:,} messages that are not handled, and {most[1]:,} bytes."
    )


def _least(whole: int, share: int | None) -> int:
    return whole if share is None else min(whole, share)


def _store_rows(connection: sqlite3.Connection, rows: Sequence[_Row]) -> Sequence[int | None]:
    """Store messages, and return their keys.

    It returns None for all when it has not stored each of them: one is known, or there may be no
    room. Those that it has stored are found then, as copies are.
    """
    size = sum(row.size for row in rows)
    values: list[object] = []
    for row in rows:
        values += (
            *row.user, row.message.peer_id, row.message.message_id,
            row.now + row.limits.retention, row.body,
            row.now, _least(row.limits.messages, row.limits.sender_messages) - len(rows),
            _least(row.limits.bytes, row.limits.sender_bytes) - size,
            *room(row.limits.quotas, size),
        )  # fmt: skip
    stored = connection.execute(_STORE.format(rows=", ".join([_ROW] * len(rows))), values)
    if stored.rowcount < len(rows) or stored.lastrowid is None:
        return [None] * len(rows)
    return range(stored.lastrowid - len(rows) + 1, stored.lastrowid + 1)
