"""The database: operations run in order, share transactions, and are durable when they return."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import threading
import unittest
from collections.abc import Callable

from rtm_sync.hub.local.database import Database
from rtm_sync.hub.local.migrations import Migration
from tests.support import PATIENCE, RtmTestCase

SCHEMA = "CREATE TABLE IF NOT EXISTS kept (number INTEGER PRIMARY KEY)"


def insert(connection: sqlite3.Connection, number: int) -> int:
    connection.execute("INSERT INTO kept VALUES (?)", (number,))
    return number


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [number for (number,) in connection.execute("SELECT number FROM kept ORDER BY number")]


class DatabaseTest(RtmTestCase, unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.path = self.folder() / "test.sqlite3"
        self.database = self.opened()

    async def asyncSetUp(self) -> None:
        asyncio.get_running_loop().set_debug(False)  # debug mode is slow with ten thousand tasks

    def opened(self) -> Database:
        database = Database(str(self.path), SCHEMA)
        self.addCleanup(database.close)
        return database

    async def held_up(self) -> threading.Event:
        """Keep the database's thread busy until the event is set."""
        go, at_it = threading.Event(), threading.Event()
        self.addCleanup(go.set)

        def wait(connection: sqlite3.Connection) -> None:
            at_it.set()
            go.wait(PATIENCE)

        self._busy = asyncio.ensure_future(self.database.run(wait))
        await asyncio.to_thread(at_it.wait, PATIENCE)
        return go

    async def burst(self, *operations: Callable[[sqlite3.Connection], object]) -> list[object]:
        """The outcomes of operations that share a transaction."""
        go = await self.held_up()
        waiting = [asyncio.ensure_future(self.database.run(run)) for run in operations]
        await asyncio.sleep(0)
        go.set()
        outcomes: list[object] = await asyncio.gather(*waiting, return_exceptions=True)
        return outcomes

    async def test_what_waits_together_becomes_one_transaction_in_order(self) -> None:
        statements: list[str] = []
        await self.database.run(lambda connection: connection.set_trace_callback(statements.append))
        results = await self.burst(*(lambda c, n=n: insert(c, n) for n in range(100)))
        await self.database.run(lambda connection: connection.set_trace_callback(None))
        self.assertEqual(results, list(range(100)))
        inserted = [n for n, text in enumerate(statements) if text.startswith("INSERT")]
        within = statements[inserted[0] : inserted[-1]]
        self.assertEqual(len(inserted), 100)
        self.assertNotIn("COMMIT", within)
        self.assertEqual(within[0], "INSERT INTO kept VALUES (0)")

    async def test_one_that_fails_spoils_nothing_but_itself(self) -> None:
        def half(connection: sqlite3.Connection) -> None:
            insert(connection, 50)
            raise ValueError("changed its mind")

        results = await self.burst(
            lambda c: insert(c, 1), half, lambda c: insert(c, 1), lambda c: insert(c, 2)
        )
        self.assertEqual((results[0], results[3]), (1, 2))
        self.assertIsInstance(results[1], ValueError)
        self.assertIsInstance(results[2], OSError)
        self.assertEqual(await self.database.run(numbers), [1, 2])

    async def test_one_thread_writes_whoever_asks(self) -> None:
        def thread(connection: sqlite3.Connection) -> str:
            return threading.current_thread().name

        names = await asyncio.gather(*(self.database.run(thread) for _ in range(20)))
        self.assertEqual(set(names), {"rtm-sync-database"})

    async def test_who_gives_up_waiting_harms_nobody(self) -> None:
        go = await self.held_up()
        impatient = asyncio.ensure_future(self.database.run(lambda c: insert(c, 1)))
        patient = asyncio.ensure_future(self.database.run(lambda c: insert(c, 2)))
        await asyncio.sleep(0)
        impatient.cancel()
        go.set()
        self.assertEqual(await patient, 2)
        self.assertTrue(impatient.cancelled())

    async def test_too_many_that_wait_are_refused(self) -> None:
        go = await self.held_up()
        waiting = [asyncio.ensure_future(self.database.run(lambda c: None)) for _ in range(10_000)]
        await asyncio.sleep(0)
        with self.assertRaisesRegex(OSError, "10,000 database operations are waiting"):
            await self.database.run(lambda c: None)
        go.set()
        await asyncio.gather(*waiting)

    async def test_closing_commits_what_waits_and_may_be_repeated(self) -> None:
        go = await self.held_up()
        waiting = asyncio.ensure_future(self.database.run(lambda c: insert(c, 7)))
        await asyncio.sleep(0)
        go.set()
        self.database.close()
        self.database.close()
        self.assertEqual(await waiting, 7)
        self.assertEqual(await self.opened().run(numbers), [7])

    async def test_what_was_answered_outlives_a_kill(self) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(self.path)],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            answered = []
            for line in process.stdout:
                answered.append(int(line))
                if len(answered) == 200:
                    process.kill()
                    break
            answered += [int(line) for line in process.stdout if line.endswith("\n")]
        self.assertEqual(process.returncode, -9)
        there = await self.database.run(numbers)
        self.assertLessEqual(set(answered), set(there))
        self.assertGreaterEqual(len(answered), 200)

    async def test_commits_reach_the_disk(self) -> None:
        def settings(connection: sqlite3.Connection) -> tuple[str, int]:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
            return mode, synchronous

        self.assertEqual(await self.database.run(settings), ("wal", 2))

    def test_a_file_that_is_no_database_is_refused_and_leaves_no_thread(self) -> None:
        wrong = self.folder() / "wrong"
        wrong.write_bytes(b"not a database" * 100)
        with self.assertRaisesRegex(OSError, f"database {wrong} cannot be used: file is not a"):
            Database(str(wrong), SCHEMA)


class MigrationTest(RtmTestCase):
    """Data folders of older versions are opened, changed once, and keep their rows."""

    NEW_SCHEMA = """
CREATE TABLE IF NOT EXISTS kept (number INTEGER PRIMARY KEY, colour TEXT NOT NULL DEFAULT 'red');
CREATE INDEX IF NOT EXISTS kept_by_colour ON kept (colour);
"""
    MIGRATIONS = (
        Migration("kept", "ALTER TABLE kept ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'"),
        Migration("elsewhere", "ALTER TABLE elsewhere ADD COLUMN size INTEGER"),
        Migration("kept", "UPDATE kept SET colour = 'blue' WHERE number > 1"),
    )

    def setUp(self) -> None:
        self.path = self.folder() / "test.sqlite3"

    def written_by_an_older_version(self) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(SCHEMA + "; INSERT INTO kept VALUES (1), (2)")

    def open(self, schema: str, migrations: tuple[Migration, ...]) -> None:
        Database(str(self.path), schema, migrations).close()

    def rows(self) -> list[tuple[int, str]]:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return connection.execute("SELECT number, colour FROM kept ORDER BY number").fetchall()

    def test_an_older_table_is_changed_once_and_keeps_its_rows(self) -> None:
        self.written_by_an_older_version()
        self.open(self.NEW_SCHEMA, self.MIGRATIONS)
        self.assertEqual(self.rows(), [(1, "red"), (2, "blue")])
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.execute("UPDATE kept SET colour = 'green'")
            connection.commit()
        self.open(self.NEW_SCHEMA, self.MIGRATIONS)
        self.assertEqual(self.rows(), [(1, "green"), (2, "green")])

    def test_later_migrations_run_where_the_earlier_ones_have_run(self) -> None:
        self.written_by_an_older_version()
        self.open(self.NEW_SCHEMA, self.MIGRATIONS[:2])
        self.assertEqual(self.rows(), [(1, "red"), (2, "red")])
        self.open(self.NEW_SCHEMA, self.MIGRATIONS)
        self.assertEqual(self.rows(), [(1, "red"), (2, "blue")])

    def test_a_new_file_has_the_new_tables_and_runs_no_migration(self) -> None:
        self.open(self.NEW_SCHEMA, self.MIGRATIONS)
        self.open(self.NEW_SCHEMA, self.MIGRATIONS)
        self.assertEqual(self.rows(), [])

    def test_a_migration_that_fails_changes_nothing(self) -> None:
        self.written_by_an_older_version()
        with self.assertRaisesRegex(OSError, "cannot be used: no such table: missing"):
            self.open(self.NEW_SCHEMA, (*self.MIGRATIONS, Migration("kept", "DELETE FROM missing")))
        self.open(self.NEW_SCHEMA, self.MIGRATIONS)
        self.assertEqual(self.rows(), [(1, "red"), (2, "blue")])

    def test_the_database_of_a_newer_version_is_refused_in_words(self) -> None:
        self.open(self.NEW_SCHEMA, self.MIGRATIONS)
        with self.assertRaisesRegex(OSError, "number 3, and this .* knows the numbers up to 2"):
            self.open(self.NEW_SCHEMA, self.MIGRATIONS[:2])


_WRITER = """
import asyncio, sys
from tests.hub.local.test_database import SCHEMA, insert
from rtm_sync.hub.local.database import Database

async def write(database, first):
    for number in range(first, 1_000_000_000, 8):
        print(await database.run(lambda c: insert(c, number)), flush=True)

async def main():
    database = Database(sys.argv[1], SCHEMA)
    await asyncio.gather(*(write(database, first) for first in range(8)))

asyncio.run(main())
"""
