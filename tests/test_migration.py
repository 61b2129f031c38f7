"""The migration documents: their code runs; their tables are complete, in both languages."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import shutil
import unittest
from enum import Enum
from pathlib import Path
from typing import Any

import rtm_sync
from rtm_sync import LocalInvitation, RemoteInvitation, RtmChannel, RtmClient, Transfer
from rtm_sync.errors import ERROR_FAMILIES, HistoryError, SenderError
from tests.support import PATIENCE, RtmTestCase, local_gateway, wait_until
from tests.test_documents import CAT, DOCS, blocks, run_block
from tests.test_reference_api import (
    CHANNEL,
    CLIENT,
    EVENTS,
    LOCAL_INVITATION,
    NAMED,
    NUMBERED,
    PROPERTIES,
    REMOTE_INVITATION,
    snake,
)

ENGLISH = DOCS / "migration.md"
CHINESE = DOCS / "migration_zh.md"
_CODE = re.compile(r"`([^`]+)`")

VALUES = (
    rtm_sync.RtmTextMessage,
    rtm_sync.RtmRawMessage,
    rtm_sync.RtmFileMessage,
    rtm_sync.RtmImageMessage,
    rtm_sync.PeerMessageSendResult,
    rtm_sync.ReceivedMessageProperties,
    rtm_sync.MediaOperationProgress,
    rtm_sync.ChannelAttribute,
)

Row = list[list[str]]
"""The names in the cells of a row: of the Web SDK, the native SDKs, rtm_sync and the remark."""


def tables(document: Path) -> list[list[Row]]:
    """The side-by-side tables: client, channel, invitations, values, events, enums, errors."""
    text = re.split(r"^## ", document.read_text(), flags=re.MULTILINE)[4]
    return [
        [[_CODE.findall(cell) for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    ]


def named(table: list[Row], column: int) -> set[str]:
    return {name for row in table for name in row[column]}


class TableTest(unittest.TestCase):
    def setUp(self) -> None:
        tables_of = tables(ENGLISH)
        self.client, self.channel, self.invitations, self.values = tables_of[:4]
        self.events, self.enums, self.errors = tables_of[4:]

    def test_every_method_of_the_reference_has_its_row_and_ours_is_its_name(self) -> None:
        for table, methods in (
            (self.client, CLIENT),
            (self.channel, CHANNEL),
            (self.invitations, LOCAL_INVITATION | REMOTE_INVITATION),
        ):
            for name in methods:
                with self.subTest(name):
                    [row] = [row for row in table if name in row[0]]
                    self.assertIn(snake(name), row[2])

    def test_every_property_and_every_value_of_the_reference_has_its_row(self) -> None:
        self.assertLessEqual(PROPERTIES[RtmChannel], named(self.channel, 0))
        for kind in (LocalInvitation, RemoteInvitation):
            self.assertLessEqual(PROPERTIES[kind], named(self.invitations, 0))
        for kind in VALUES:
            fields = set(kind.__dataclass_fields__) - {"expires_at", "value"}
            with self.subTest(kind.__name__):
                self.assertLessEqual(fields, named(self.values, 2))

    def test_every_event_of_the_reference_has_its_row(self) -> None:
        events = frozenset().union(*EVENTS.values())
        self.assertEqual(named(self.events, 0), events)
        for row in self.events:
            self.assertIn(row[0], (row[2], []))
        self.assertEqual(named(self.events, 2) - events, {"Reconnected"})

    def test_every_enum_has_its_row_with_all_its_members(self) -> None:
        members: dict[type[Enum], list[str]] = {
            **{kind: names.split() for kind, names in NAMED.items()},
            **{kind: list(numbers) for kind, numbers in NUMBERED.items()},
        }
        rows = {row[2][0]: row for row in self.enums}
        self.assertEqual(set(rows), {kind.__name__ for kind in members})
        for kind, names in members.items():
            with self.subTest(kind.__name__):
                row = rows[kind.__name__]
                self.assertEqual(row[0], [kind.__name__])
                self.assertEqual(sorted(row[3]), sorted(names))
        numbered = re.search(r"`ConnectionChangeReason` \| (.+) \|", ENGLISH.read_text())
        assert numbered is not None
        shown = {name: int(number) for name, number in re.findall(r"`(\w+)` (\d)", numbered[1])}
        self.assertEqual(shown, NUMBERED[rtm_sync.ConnectionChangeReason])

    def test_every_family_of_errors_has_its_row_and_its_names_begin_so(self) -> None:
        ours = {HistoryError.__name__, SenderError.__name__}
        self.assertEqual(named(self.errors, 2), set(ERROR_FAMILIES) - ours)
        for [prefix], _, [family] in self.errors:
            codes = [code.name for code in ERROR_FAMILIES[family].Code]
            with self.subTest(family):
                self.assertTrue(codes[0].startswith(prefix))

    def test_whatever_is_called_ours_is_here(self) -> None:
        client = RtmClient("app")
        places: list[tuple[list[Row], tuple[object, ...]]] = [
            (self.client, (rtm_sync, client)),
            (self.channel, (client.create_channel("room"),)),
            (self.invitations, (rtm_sync, LocalInvitation, RemoteInvitation)),
            (self.values, (rtm_sync, *VALUES)),
            (self.enums, (rtm_sync,)),
        ]
        keywords = {
            name
            for method in (client.set_channel_attributes, client.send_message_to_peer)
            for name in inspect.signature(method).parameters
        } | set(inspect.signature(client.download_media).parameters)
        for table, owners in places:
            for name in named(table, 2) - keywords - {"Transfer.cancel"}:
                with self.subTest(name):
                    self.assertTrue(any(hasattr(owner, name) for owner in owners))
        self.assertTrue(callable(Transfer.cancel))


class BothLanguagesTest(unittest.TestCase):
    def test_both_have_the_same_tables_name_by_name(self) -> None:
        english, chinese = tables(ENGLISH), tables(CHINESE)
        self.assertEqual([len(table) for table in english], [len(table) for table in chinese])
        self.assertEqual(english, chinese)
        self.assertEqual(len(english), 7)

    def test_both_have_the_same_code_and_the_same_headings(self) -> None:
        for language in ("python", "sh"):
            shown = [
                [block.text for block in blocks(path, language)] for path in (ENGLISH, CHINESE)
            ]
            self.assertEqual(*shown)
        headings = [
            re.findall(r"^#+ ", path.read_text(), re.MULTILINE) for path in (ENGLISH, CHINESE)
        ]
        self.assertEqual(*headings)


class StoryTest(RtmTestCase):
    def test_the_code_runs_from_the_photo_to_the_back_end(self) -> None:
        folder = self.folder()
        shutil.copy(CAT, folder / "cat.jpg")
        names: dict[str, Any] = {"url": self.entered(local_gateway()), "folder": folder}
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            for block in blocks(ENGLISH, "python"):
                run_block(ENGLISH, block, names)
                for client in ("alice", "bob"):
                    if client in names:
                        self.addCleanup(names[client].close)
            wait_until(lambda: "alice sent from-alice.jpg" in printed.getvalue(), PATIENCE)
        self.assertEqual((folder / "from-alice.jpg").read_bytes(), CAT.read_bytes())
        self.assertIn(f"{CAT.stat().st_size} of {CAT.stat().st_size}", printed.getvalue())
