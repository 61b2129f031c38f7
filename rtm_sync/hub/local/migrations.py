"""The changes that turn the tables of an older data folder into those of this version."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Migration:
    """One change of a table that exists already.

    Attributes:
        table: the table that changes. A database without this table skips the migration.
        sql: the statements, which keep the table's rows.
    """

    table: str
    sql: str


MESSAGE_USE = """
CREATE TABLE IF NOT EXISTS message_use (
    app_id TEXT NOT NULL, uid TEXT NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (app_id, uid)
) WITHOUT ROWID"""
"""The bytes that each sender, and each app ('' as its uid), has in mailboxes and the history."""

MIGRATIONS: tuple[Migration, ...] = (
    Migration(  # replaced by indexes that find a period
        "history",
        "DROP INDEX IF EXISTS history_by_destination; DROP INDEX IF EXISTS history_by_source",
    ),
    Migration(  # stored messages stay until they are handled, and are counted
        "offline",
        """
ALTER TABLE offline ADD COLUMN was_offered INTEGER NOT NULL DEFAULT 0;
CREATE TABLE offline_use (
    app_id TEXT NOT NULL, uid TEXT NOT NULL, messages INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (app_id, uid)
) WITHOUT ROWID;
INSERT INTO offline_use
    SELECT app_id, uid, COUNT(*), SUM(LENGTH(CAST(message AS BLOB)))
    FROM offline GROUP BY app_id, uid
""",
    ),
    *(  # stored messages count for their senders and apps
        Migration(
            table,
            f"""
{MESSAGE_USE};
INSERT INTO message_use
    SELECT app_id, {sender}, SUM(LENGTH(CAST(message AS BLOB)))
    FROM {table} WHERE true GROUP BY app_id, {sender} UNION ALL
    SELECT app_id, '', SUM(LENGTH(CAST(message AS BLOB)))
    FROM {table} WHERE true GROUP BY app_id
    ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes
""",  # noqa: S608  only our words
        )
        for table, sender in (("offline", "sender"), ("history", "source"))
    ),
)
"""In the order in which they run. How many have run is the database's `PRAGMA user_version`:
append entries, and never change one.

A new table or index needs no migration: the schema creates it where it is missing. A new column
needs both: the schema is for new data folders, the migration for the others.
"""


def prepare(
    connection: sqlite3.Connection, schema: str, migrations: Sequence[Migration] = MIGRATIONS
) -> None:
    """Give the database the tables of this version in one transaction, and keep its rows.

    Args:
        connection: a connection in autocommit mode.
        schema: SQL that creates missing tables and indexes.
        migrations: the changes of older tables.

    Raises:
        OSError: a newer version of rtm_sync wrote the database.
        sqlite3.Error: the database failed, and is unchanged.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise OSError(
            f"its layout has the number {version}, and this version of rtm_sync knows the numbers "
            f"up to {len(migrations)}. Use the version that wrote it, or a newer one"
        )
    tables = {
        name
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    statements = [change.sql for change in migrations[version:] if change.table in tables]
    if version < len(migrations):
        statements.append(f"PRAGMA user_version = {len(migrations)}")
    try:
        connection.executescript(";\n".join(["BEGIN IMMEDIATE", *statements, schema, "COMMIT"]))
    except sqlite3.Error:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
