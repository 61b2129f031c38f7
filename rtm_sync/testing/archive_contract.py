"""The contract of every `Archive`, as a test case to mix in."""

from __future__ import annotations

import asyncio

from ..hub.engine.archive import Archive, HistoryQuery
from ..hub.engine.part import QuotaExceeded, Quotas
from .engine_kit import APP, OTHER_APP, WEEK, EnginePartContract, historical, text_of


class ArchiveContract(EnginePartContract):
    """Mix into a `RtmTestCase` and an `IsolatedAsyncioTestCase` and make the archive:

        class MyArchiveTest(ArchiveContract, RtmTestCase, unittest.IsolatedAsyncioTestCase):
            def make_archive(self) -> Archive:
                return MyArchive(…)

    `EnginePartContract` has the attributes that a test may set or use.
    """

    def make_archive(self) -> Archive:
        """An archive of this test's world, not started.

        A second call, after the first archive was stopped, returns the archive after a restart.
        """
        raise NotImplementedError

    def make_part(self) -> Archive:
        return self.make_archive()

    @property
    def archive(self) -> Archive:
        """The archive under test, started."""
        assert isinstance(self.part, Archive), f"{self.part!r} is not an Archive."
        return self.part

    async def store_conversations(self) -> None:
        """Store four messages, m0 to m3: to and from bob, another's, and in a channel "bob"."""
        for number, (source, destination, is_channel) in enumerate(
            (
                ("alice", "bob", False),
                ("bob", "alice", False),
                ("carol", "bob", False),
                ("alice", "bob", True),
            )
        ):
            await self.archive.store_history(
                APP,
                historical(
                    f"{number}", source, destination, is_channel=is_channel, ms=100 + number
                ),
                WEEK,
            )

    async def texts(self, query: HistoryQuery) -> list[str]:
        """The texts of the messages that a query finds."""
        found = await self.archive.history(APP, query, self.wall)
        return [text_of(item) for _, item in found]

    async def test_each_kind_of_conversation_is_found(self) -> None:
        await self.store_conversations()
        for query, texts in (
            (HistoryQuery(source="alice"), ["0", "3"]),
            (HistoryQuery(destination="bob"), ["0", "2", "3"]),
            (HistoryQuery(destination="bob", is_channel=True), ["3"]),
            (HistoryQuery(source="alice", destination="bob", is_channel=False), ["0"]),
            (
                HistoryQuery(source="alice", destination="bob", is_channel=False, both_ways=True),
                ["0", "1"],
            ),
            (HistoryQuery(start=101, end=103), ["1", "2"]),
            (HistoryQuery(newest_first=True), ["3", "2", "1", "0"]),
            (HistoryQuery(source="nobody"), []),
        ):
            with self.subTest(query=query):
                self.assertEqual(await self.texts(query), texts)
                count = await self.archive.history_count(APP, query, self.wall)
                self.assertEqual(count, len(texts))
        self.assertEqual(await self.archive.history(OTHER_APP, HistoryQuery(), self.wall), [])

    async def test_a_message_of_the_history_is_what_was_stored(self) -> None:
        message = historical("héllo 🎉", "alice", "bob", ms=1_700_000_000_123)
        await self.archive.store_history(APP, message, WEEK)
        ((_, found),) = await self.archive.history(APP, HistoryQuery(), self.wall)
        self.assertEqual(found, message)

    async def test_pages_meet_without_gap_or_copy_in_both_orders(self) -> None:
        await self.store_conversations()
        for newest_first in (False, True):
            seen: list[str] = []
            after = None
            for _ in range(5):  # two have messages, and all others none
                query = HistoryQuery(newest_first=newest_first, after=after, limit=3)
                page = await self.archive.history(APP, query, self.wall)
                seen += [item.message_id for _, item in page]
                after = page[-1][0] if page else after
            self.assertEqual(seen, sorted(("m0", "m1", "m2", "m3"), reverse=newest_first))
        offset = HistoryQuery(offset=1, limit=2)
        self.assertEqual(await self.texts(offset), ["1", "2"])
        self.assertEqual(await self.archive.history_count(APP, offset, self.wall), 4)

    async def test_a_copy_is_kept_once_and_everything_seven_days(self) -> None:
        await self.store_conversations()
        await self.store_conversations()
        self.assertEqual(await self.texts(HistoryQuery()), ["0", "1", "2", "3"])
        self.wall += WEEK + 60
        self.assertEqual(await self.texts(HistoryQuery()), [])
        self.assertEqual(await self.archive.history_count(APP, HistoryQuery(), self.wall), 0)

    async def test_the_history_outlives_a_restart(self) -> None:
        await self.store_conversations()
        await self.restart()
        kept = ["0", "1", "2", "3"] if self.outlives_process else []
        self.assertEqual(await self.texts(HistoryQuery()), kept)

    async def test_an_id_in_another_conversation_is_another_message(self) -> None:
        for app_id, source, destination, is_channel in (
            (APP, "alice", "bob", False),
            (APP, "alice", "bob", True),
            (APP, "alice", "carol", False),
            (APP, "dora", "bob", False),
            (OTHER_APP, "alice", "bob", False),
        ):
            message = historical("1", source, destination, is_channel=is_channel, ms=1)
            await self.archive.store_history(app_id, message, WEEK)
        self.assertEqual(await self.texts(HistoryQuery()), ["1"] * 4)

    async def test_many_messages_are_stored_at_once_and_each_has_its_key(self) -> None:
        messages = [historical(f"{number}", "alice", "bob", ms=number) for number in range(100)]
        await asyncio.gather(
            *(self.archive.store_history(APP, message, WEEK) for message in messages)
        )
        found = await self.archive.history(APP, HistoryQuery(limit=1000), self.wall)
        keys = [key for key, _ in found]
        self.assertEqual(keys, sorted(set(keys)))
        self.assertEqual(
            {message.message_id for _, message in found}, {f"m{n}" for n in range(100)}
        )

    async def test_a_message_is_kept_as_long_as_the_caller_says(self) -> None:
        await self.archive.store_history(APP, historical("short", "alice", "bob", ms=1), 60.0)
        await self.archive.store_history(APP, historical("long", "alice", "bob", ms=2), WEEK)
        self.assertEqual(await self.texts(HistoryQuery()), ["short", "long"])
        self.wall += 90
        self.assertEqual(await self.texts(HistoryQuery()), ["long"])

    async def test_a_quota_of_source_or_app_refuses_and_others_go_on(self) -> None:
        for app_id, quotas in ((APP, Quotas(sender=1000)), (OTHER_APP, Quotas(app=1000))):
            with self.subTest(quotas=quotas):
                stored = 0
                with self.assertRaises(QuotaExceeded):
                    for stored in range(20):  # to users and channels of whom some may not exist
                        message = historical(f"{stored}", "alice", f"nobody-{stored}", ms=1)
                        await self.archive.store_history(app_id, message, WEEK, quotas)
                copy = historical("0", "alice", "nobody-0", ms=1)
                await self.archive.store_history(app_id, copy, WEEK, quotas)
                found = await self.archive.history(app_id, HistoryQuery(), self.wall)
                self.assertEqual(len(found), stored)
                other = historical("x" * 100, "carol", "bob", ms=1)
                if quotas.app is None:
                    await self.archive.store_history(app_id, other, WEEK, quotas)
                else:
                    with self.assertRaises(QuotaExceeded):
                        await self.archive.store_history(app_id, other, WEEK, quotas)

    async def test_an_archive_that_is_not_running_refuses(self) -> None:
        message = historical("1", "alice", "bob", ms=1)
        await self.assert_needs_running(
            lambda: self.archive.store_history(APP, message, WEEK),
            lambda: self.archive.history(APP, HistoryQuery(), self.wall),
            lambda: self.archive.history_count(APP, HistoryQuery(), self.wall),
        )
