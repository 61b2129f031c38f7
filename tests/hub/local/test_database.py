"""The database: operations run in order, share transactions, and are durable when they return."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import unittest
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

from rtm_sync.hub.local import database as database_module
from rtm_sync.hub.local.database import Database
from rtm_sync.hub.local.migrations import Migration
from rtm_sync.hub.local.worker import Operation, Worker
from rtm_sync.rules.shares import Owner
from tests.support import PATIENCE, RtmTestCase

SCHEMA = "CREATE TABLE IF NOT EXISTS kept (number INTEGER PRIMARY KEY)"


def insert(connection: sqlite3.Connection, number: int) -> int:
    connection.execute("INSERT INTO kept VALUES (?)", (number,))
    return number


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [number for (number,) in connection.execute("SELECT number FROM kept ORDER BY number")]


def forget_pages(connection: sqlite3.Connection) -> None:
    """Have SQLite read the file again."""
    connection.execute("PRAGMA shrink_memory")


def endless(connection: sqlite3.Connection) -> None:
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    ).fetchone()


class DatabaseCase(RtmTestCase, unittest.IsolatedAsyncioTestCase):
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


class DatabaseTest(DatabaseCase):
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
        with self.assertRaisesRegex(OSError, f"{wrong} is damaged: file is not a database"):
            Database(str(wrong), SCHEMA)


def insert_all(connection: sqlite3.Connection, numbers: Sequence[int]) -> list[str]:
    values = ", ".join(f"({number})" for number in numbers)
    connection.execute(f"INSERT INTO kept VALUES {values}")
    return [f"{number} of {len(numbers)}" for number in numbers]


class TogetherTest(DatabaseCase):
    """Items that wait together are one call of their function."""

    async def together(self, *items: int) -> list[object]:
        """The outcomes of items that wait together, behind one that is under way."""
        go = await self.held_up()
        waiting = [asyncio.ensure_future(self.insert(item)) for item in items]
        await asyncio.sleep(0)
        go.set()
        outcomes: list[object] = await asyncio.gather(*waiting, return_exceptions=True)
        return outcomes

    async def insert(self, item: int) -> str:
        return await self.database.run_together(insert_all, item)

    async def test_up_to_sixty_four_share_one_call_and_each_gets_its_own_result(self) -> None:
        self.assertEqual(await self.insert(1000), "1000 of 1")
        self.assertEqual(await self.together(3, 1, 2), ["3 of 3", "1 of 3", "2 of 3"])
        outcomes = await self.together(*range(100, 170))
        expected = [f"{n} of 64" for n in range(100, 164)] + [f"{n} of 6" for n in range(164, 170)]
        self.assertEqual(outcomes, expected)
        self.assertEqual(await self.database.run(numbers), [1, 2, 3, *range(100, 170), 1000])

    async def test_other_operations_keep_their_place_between_them(self) -> None:
        go = await self.held_up()
        outcomes = asyncio.gather(
            self.insert(1),
            self.insert(2),
            self.database.run(numbers),
            self.insert(3),
            self.database.run_together(lambda _, items: [len(items)], 4),
        )
        await asyncio.sleep(0)
        go.set()
        self.assertEqual(await outcomes, ["1 of 2", "2 of 2", [1, 2], "3 of 1", 1])

    async def test_one_that_fails_spoils_nothing_but_itself(self) -> None:
        outcomes = await self.together(1, 2, 1, 3)
        self.assertEqual((outcomes[0], outcomes[1], outcomes[3]), ("1 of 1", "2 of 1", "3 of 1"))
        self.assertRegex(str(outcomes[2]), "database failed: UNIQUE constraint")
        go = await self.held_up()
        mixed = asyncio.gather(
            self.insert(4),
            self.insert(4),
            self.database.run(lambda c: insert(c, 5)),
            return_exceptions=True,
        )
        await asyncio.sleep(0)
        go.set()
        first, second, third = await mixed
        self.assertEqual((first, type(second), third), ("4 of 1", OSError, 5))
        self.assertEqual(await self.database.run(numbers), [1, 2, 3, 4, 5])


class BesideTest(DatabaseCase):
    """Reads and writes do not wait for each other."""

    async def test_a_read_goes_on_beside_a_write_that_takes_long(self) -> None:
        await self.database.run(lambda c: insert(c, 1))
        go = await self.held_up()
        self.assertEqual(await self.database.read(numbers), [1])
        self.assertFalse(self._busy.done())
        go.set()
        await self._busy

    async def test_a_write_goes_on_beside_a_read_that_takes_long(self) -> None:
        reading = asyncio.ensure_future(self.database.read(endless))
        for number in range(3):
            await self.database.run(lambda c, n=number: insert(c, n))
        self.assertFalse(reading.done())
        reading.cancel()
        self.assertEqual(await self.database.read(numbers), [0, 1, 2])  # the other one has ended

    async def test_a_read_that_takes_too_long_ends_with_advice(self) -> None:
        with (
            mock.patch.object(database_module, "_READ_TIME", 0.1),
            self.assertRaisesRegex(OSError, "more than 0.1 seconds .* shorter period"),
        ):
            await self.database.read(endless)
        self.assertEqual(await self.database.read(numbers), [])

    async def test_searches_of_one_app_keep_no_one_else_waiting(self) -> None:
        go = threading.Event()
        order: list[str] = []
        shop, game = Owner("shop", "mallory"), Owner("game", "bob")
        first = asyncio.ensure_future(self.database.search(shop, lambda _: go.wait(PATIENCE)))
        await asyncio.sleep(0)
        others = [
            asyncio.ensure_future(self.database.search(shop, lambda _: order.append("shop")))
            for _ in range(99)
        ]
        await asyncio.sleep(0)
        # Reads and writes are done beside them, and the other app's search after one of them.
        self.assertEqual(await self.database.run(lambda one: insert(one, 1)), 1)
        self.assertEqual(await self.database.read(numbers), [1])
        last = asyncio.ensure_future(self.database.search(game, lambda _: order.append("game")))
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, last, *others)
        self.assertEqual(order[0], "game")

    async def test_a_search_that_takes_too_long_ends_and_closing_ends_the_thread(self) -> None:
        with (
            mock.patch.object(database_module, "_READ_TIME", 0.05),
            self.assertRaisesRegex(OSError, "needs more than 0.05 seconds"),
        ):
            await self.database.search(Owner("shop"), endless)
        self.assertEqual(await self.database.search(Owner("shop"), numbers), [])
        self.database.close()
        with self.assertRaisesRegex(OSError, "closed"):
            await self.database.search(Owner("shop"), numbers)

    async def test_a_read_writes_nothing(self) -> None:
        with self.assertRaisesRegex(OSError, "readonly"):
            await self.database.read(lambda c: insert(c, 1))
        self.assertEqual(await self.database.run(numbers), [])

    async def test_a_database_in_memory_reads_what_it_wrote(self) -> None:
        database = Database(":memory:", SCHEMA)
        self.addCleanup(database.close)
        await database.run(lambda c: insert(c, 1))
        self.assertEqual(await database.read(numbers), [1])
        self.assertIsNone(database.problem())


class FailureTest(DatabaseCase):
    """Whatever fails, each operation is answered at once, and the next one is tried."""

    async def test_with_a_full_disk_those_who_need_no_room_go_on(self) -> None:
        def fill(connection: sqlite3.Connection) -> None:
            for number in range(100, 2_000):
                insert(connection, number)

        def set_room(connection: sqlite3.Connection, pages: int) -> None:
            connection.execute(f"PRAGMA max_page_count = {pages}")

        await self.database.run(lambda c: insert(c, 1))
        await self.database.run(lambda c: set_room(c, 3))
        outcomes = await self.burst(numbers, fill, lambda c: insert(c, 2), fill, numbers)
        self.assertEqual((outcomes[0], outcomes[2], outcomes[4]), ([1], 2, [1, 2]))
        for full in (outcomes[1], outcomes[3]):
            self.assertIsInstance(full, OSError)
            self.assertIn("database failed: database or disk is full", str(full))
        self.assertIsNone(self.database.problem())
        await self.database.run(lambda c: set_room(c, 1_000))
        await self.database.run(fill)
        self.assertEqual(len(await self.database.run(numbers)), 1_902)

    async def test_a_database_damaged_while_it_is_open_answers_all_at_once(self) -> None:
        await self.fill_pages()
        self.database.close()
        self.database = self.opened()
        await self.database.run(forget_pages)
        self.damage()
        with self.assertLogs("rtm_sync.hub.local.database", "ERROR") as logs:
            outcomes = await self.burst(*([numbers] * 300))
            with self.assertRaisesRegex(OSError, "database failed: .*malformed"):
                await self.database.read(numbers)
        self.assertEqual({type(outcome) for outcome in outcomes}, {OSError})
        for outcome in outcomes:
            self.assertNotIn(str(self.path), str(outcome))  # clients may read it
        self.assertIn(f"{self.path} is damaged", logs.output[0])
        self.assertEqual(len(logs.output), 1)  # not one for each operation
        self.assertIn("damaged", str(self.database.problem()))

    async def test_a_database_damaged_before_is_named_with_the_ways_out(self) -> None:
        await self.fill_pages()
        self.database.close()
        self.damage()
        with self.assertRaisesRegex(OSError, f"{self.path} is damaged.*backup.*recover.*move"):
            Database(str(self.path), SCHEMA)

    async def test_damage_is_looked_for_in_the_time_there_is(self) -> None:
        await self.fill_pages()
        self.database.close()
        with (
            mock.patch.object(database_module, "_CHECK_TIME", 0.0),
            mock.patch.object(database_module, "_CHECK_EVERY", 1),
            self.assertLogs("rtm_sync.hub.local.database", "INFO") as logs,
        ):
            self.database = self.opened()
        self.assertIn("checked in part", logs.output[0])
        self.assertEqual(len(await self.database.run(numbers)), 10_000)

    async def test_what_would_go_to_a_removed_file_is_refused(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            for replaced in (False, True):
                with self.subTest(suffix, replaced=replaced):
                    self.path = self.folder() / "test.sqlite3"
                    self.database = self.opened()
                    await self.database.run(lambda c: insert(c, 1))
                    self.assertIsNone(self.database.problem())
                    gone = Path(f"{self.path}{suffix}")
                    gone.unlink()
                    if replaced:
                        gone.touch()
                    with self.assertLogs("rtm_sync.hub.open_paths", "ERROR") as logs:
                        outcomes = await self.burst(
                            lambda c: insert(c, 2), numbers, lambda c: insert(c, 3)
                        )
                    for refused in (outcomes[0], outcomes[2]):
                        self.assertRegex(str(refused), "file was removed or replaced")
                    self.assertEqual(outcomes[1], [1])  # reading harms nobody
                    self.assertIn("removed or replaced", str(self.database.problem()))
                    self.assertIn(f"{gone} was removed", logs.output[0])
                    self.assertEqual(len(logs.output), 1)

    async def test_a_text_that_is_no_utf_8_does_not_keep_back_others(self) -> None:
        def store(connection: sqlite3.Connection) -> None:
            connection.execute("CREATE TABLE texts (text TEXT)")
            connection.execute("INSERT INTO texts VALUES ('a'), (CAST(x'ff' AS TEXT)), ('b')")

        def texts(connection: sqlite3.Connection) -> list[str]:
            return [text for (text,) in connection.execute("SELECT text FROM texts")]

        await self.database.run(store)
        self.assertEqual(await self.database.run(texts), ["a", "\N{REPLACEMENT CHARACTER}", "b"])
        self.assertEqual(await self.database.read(texts), ["a", "\N{REPLACEMENT CHARACTER}", "b"])

    async def test_nobody_waits_for_a_worker_that_failed(self) -> None:
        connection = self.database._connection

        def perform(batch: list[Operation]) -> None:
            for operation in batch:
                operation.answer(operation.run(connection), None)

        worker = Worker("rtm-sync-database", perform, 10)
        self.addCleanup(worker.close)
        with (
            self.assertLogs("rtm_sync.hub.local.worker", "ERROR"),
            self.assertRaisesRegex(OSError, "ZeroDivisionError"),
        ):
            await worker.submit(lambda c: 1 // 0)
        self.assertEqual(await worker.submit(lambda c: 1), 1)

    async def test_a_closed_database_refuses(self) -> None:
        self.database.close()
        for call in (self.database.run, self.database.read):
            with self.assertRaisesRegex(OSError, "is closed"):
                await call(numbers)

    async def fill_pages(self) -> None:
        def fill(connection: sqlite3.Connection) -> None:
            for number in range(10_000):
                insert(connection, number)

        await self.database.run(fill)

    def damage(self) -> None:
        """Overwrite all pages of the file but the first, where the schema is."""
        with self.path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            self.assertGreater(size, 80_000)
            file.seek(4096)
            file.write(b"\xa5" * (size - 4096))


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
