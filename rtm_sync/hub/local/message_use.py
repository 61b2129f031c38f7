"""The bytes of stored messages, counted for each sender and app by triggers, and their quotas."""

from __future__ import annotations

import sqlite3

from ..engine.part import QuotaExceeded, Quotas
from .migrations import MESSAGE_USE

_NO_QUOTA = 2**62


def counted(table: str, sender: str) -> str:
    """SQL that creates the count, and the triggers by which a table of messages is counted.

    Args:
        table: a table with the columns `app_id` and `message`.
        sender: its column with the sender.
    """
    size = "LENGTH(CAST({row}.message AS BLOB))"
    stored, removed = size.format(row="NEW"), size.format(row="OLD")
    return f"""
{MESSAGE_USE};
CREATE TRIGGER IF NOT EXISTS {table}_counted AFTER INSERT ON {table} BEGIN
    INSERT INTO message_use VALUES (NEW.app_id, NEW.{sender}, {stored}), (NEW.app_id, '', {stored})
    ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER IF NOT EXISTS {table}_uncounted AFTER DELETE ON {table} BEGIN
    UPDATE message_use SET bytes = bytes - {removed}
    WHERE app_id = OLD.app_id AND uid IN (OLD.{sender}, '');
    DELETE FROM message_use
    WHERE app_id = OLD.app_id AND uid IN (OLD.{sender}, '') AND bytes <= 0;
END;
"""  # noqa: S608  only our words


def room(quotas: Quotas, size: int) -> tuple[int, int]:
    """The bytes that a sender and an app may have at most, to store `size` bytes more."""
    sender, app = (_NO_QUOTA if one is None else one for one in (quotas.sender, quotas.app))
    return sender - size, app - size


def require_quotas(
    connection: sqlite3.Connection, app_id: str, sender: str, quotas: Quotas
) -> None:
    """Raise QuotaExceeded when a sender or an app has more bytes than its quota.

    Called after a message was stored: the exception undoes it.
    """
    for uid, quota, owner in (
        (sender, quotas.sender, f"messages that {sender!r} has sent"),
        ("", quotas.app, "messages of the app"),
    ):
        if quota is None:
            continue
        (used,) = connection.execute(
            "SELECT bytes FROM message_use WHERE app_id = ? AND uid = ?", (app_id, uid)
        ).fetchone() or (0,)
        if used > quota:
            raise QuotaExceeded(
                f"The stored {owner} would have {used:,} bytes; the quota is {quota:,}. Send it "
                "again without storing it, or when some are handled or expired."
            )
