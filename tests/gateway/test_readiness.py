"""`/readyz` says why nothing can be stored, and a folder serves one gateway at a time."""

from __future__ import annotations

import asyncio
import os
import shutil
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import requests

from rtm_sync import PeerMessageError, RtmClient, RtmError, UploadMediaError
from rtm_sync.gateway import data_folder, readiness
from rtm_sync.gateway.config import ConfigError, GatewayConfig
from rtm_sync.gateway.data_folder import held_folders
from rtm_sync.gateway.readiness import Readiness
from rtm_sync.portable import lock_file
from rtm_sync.testing import local_gateway
from tests.support import PATIENCE, RtmTestCase


class ReplacedTest(RtmTestCase):
    """Whatever is removed or replaced under a running gateway, `/readyz` says it at once."""

    def setUp(self) -> None:
        self.data = self.folder() / "data"
        self.url = self.entered(local_gateway(self.data))
        self.assertEqual(self.readyz(), (200, "ready\n"))

    def readyz(self) -> tuple[int, str]:
        answer = requests.get(self.url.replace("ws:", "http:") + "/readyz", timeout=PATIENCE)
        return answer.status_code, answer.text

    def check_change(self, path: Path, pattern: str, *, replaced: bool) -> None:
        """Remove or replace a file or folder, look, and put it back."""
        aside = self.data.with_name("aside")
        with self.assertLogs("rtm_sync", "ERROR") as logs:
            path.rename(aside)
            if replaced:
                copy = shutil.copytree if aside.is_dir() else shutil.copy
                copy(aside, path)
            for _ in range(2):
                status, text = self.readyz()
                self.assertEqual(status, 503)
                self.assertRegex(text, pattern)
                self.assertNotIn(str(self.data), text)  # everybody may read it
        self.assertEqual(len(logs.output), 1)  # and not one for each request
        self.assertIn(str(path), logs.output[0])
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        aside.rename(path)
        self.assertEqual(self.readyz(), (200, "ready\n"))

    def test_each_file_and_folder(self) -> None:
        for name, pattern in (
            ("", "^The data folder was removed"),
            ("rtm.sqlite3", "^The database's file was removed"),
            ("rtm.sqlite3-wal", "^The database's file was removed"),
            ("rtm-channels.sqlite3", "^The database's file was removed"),
            ("rtm-channels.sqlite3-shm", "^The database's file was removed"),
            ("media", "^The media folder was removed"),
        ):
            for replaced in (False, True):
                with self.subTest(name, replaced=replaced):
                    self.check_change(self.data / name, pattern, replaced=replaced)

    def test_a_media_folder_made_anew_is_another_one(self) -> None:
        (self.data / "media").rmdir()
        (self.data / "media").mkdir()  # without a descriptor it may get the removed one's inode
        with self.assertLogs("rtm_sync", "ERROR"):
            self.assertEqual(self.readyz()[0], 503)

    def test_a_database_that_was_overwritten(self) -> None:
        for name in ("rtm.sqlite3", "rtm-channels.sqlite3"):
            with self.subTest(name), self.assertLogs("rtm_sync", "ERROR") as logs:
                data = self.folder() / "data"
                self.url = self.entered(local_gateway(data))
                with (data / name).open("r+b") as file:
                    file.write(bytes(range(256)) * 64)
                self.assertEqual(
                    self.readyz(), (503, "The database is damaged; the gateway's log says more.\n")
                )
                self.assertIn(name, logs.output[0])

    def test_writes_are_refused_at_once_and_come_again_when_all_is_put_back(self) -> None:
        with RtmClient("app", url=self.url) as alice, RtmClient("app", url=self.url) as bob:
            alice.login("alice")
            bob.login("bob")
            room = alice.create_channel("room")
            room.join()
            stored = alice.create_media_message_by_uploading(b"before").result(PATIENCE).media_id
            aside = self.data.with_name("aside")
            self.data.rename(aside)
            self.data.mkdir()
            (self.data / "media").mkdir()
            with self.assertLogs("rtm_sync", "ERROR"):
                self.check_refusals(alice, stored)
                self.assertTrue(alice.send_message_to_peer("hi", "bob").has_peer_received)
            shutil.rmtree(self.data)
            aside.rename(self.data)
            self.assertEqual(self.readyz(), (200, "ready\n"))
            sent = alice.send_message_to_peer("later", "carol", enable_offline_messaging=True)
            self.assertTrue(sent.cached_by_server)
            room.send_message("again")
            alice.create_media_message_by_uploading(b"after").result(PATIENCE)
            self.assertEqual(bob.download_media(stored).result(PATIENCE).to_bytes(), b"before")

    def check_refusals(self, alice: RtmClient, stored: str) -> None:
        with self.assertRaisesRegex(PeerMessageError, "removed or replaced"):
            alice.send_message_to_peer("later", "carol", enable_offline_messaging=True)
        with self.assertRaisesRegex(RtmError, "removed or replaced"):
            alice.create_channel("room").send_message("hi")
        with self.assertRaisesRegex(UploadMediaError, "The media store failed"):  # the log says why
            alice.create_media_message_by_uploading(b"new").result(PATIENCE)
        with self.assertRaisesRegex(RtmError, "The media store failed"):  # not NOT_EXIST
            alice.download_media(stored).result(PATIENCE)
        self.assertEqual(list((self.data / "media").iterdir()), [])


class CheckTest(RtmTestCase, unittest.IsolatedAsyncioTestCase):
    """The checks are asked in order, for a bounded time, by one task at once."""

    async def asyncSetUp(self) -> None:
        self.answers: list[str | None] = []
        self.hangs = False
        self.asked = 0
        self.readiness = Readiness([self.first, self.second])
        self.addAsyncCleanup(self.readiness.close)

    async def first(self) -> str | None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        return self.answers.pop(0)

    async def second(self) -> str | None:
        answer = self.answers.pop(0)
        if answer == "fails":
            raise OSError("no route to 10.0.0.1")
        return answer

    async def test_the_first_problem_counts(self) -> None:
        self.answers = [None, None, None, "two", "one", "fails"]
        found = [await self.readiness.problem() for _ in range(3)]
        self.assertEqual(found, [None, "two", "one"])

    async def test_a_check_that_fails_is_a_problem_and_the_log_says_more(self) -> None:
        self.answers = [None, "fails"]
        with self.assertLogs("rtm_sync.gateway.readiness", "ERROR") as logs:
            problem = await self.readiness.problem()
        self.assertIn("log says more", str(problem))
        self.assertNotIn("10.0.0.1", str(problem))
        self.assertIn("10.0.0.1", logs.output[0])

    async def test_a_disk_that_hangs_is_a_problem_and_is_asked_once(self) -> None:
        self.hangs = True
        with mock.patch.object(readiness, "_PATIENCE", 0.05):
            for _ in range(3):
                self.assertIn("has not answered", str(await self.readiness.problem()))
        self.assertEqual(self.asked, 1)


class HeldTest(RtmTestCase):
    """A folder is one gateway's, whatever becomes of its file `lock`."""

    def setUp(self) -> None:
        self.data = self.folder() / "data"
        self.config = GatewayConfig(port=0, data=str(self.data))

    def assert_refused(self, config: GatewayConfig | None = None) -> None:
        with (
            self.assertRaisesRegex(ConfigError, "is used by another gateway"),
            held_folders(config or self.config),
        ):
            self.fail("a second gateway has the folder")

    def test_a_removed_or_replaced_lock_admits_nobody(self) -> None:
        with held_folders(self.config) as folders:
            self.assert_refused()
            (self.data / "lock").unlink()
            self.assert_refused()  # it makes another file
            (self.data / "lock").unlink(missing_ok=True)
            (self.data / "lock").touch()
            self.assert_refused()
            self.assertEqual([folder.problem() for folder in folders], [None])
        with held_folders(self.config):
            pass

    def test_where_folders_have_no_locks_a_removed_lock_is_a_problem(self) -> None:
        def lock_no_folder(fd: int) -> bool:
            if os.path.isdir(f"/proc/self/fd/{fd}"):
                raise OSError(9, "Bad file descriptor")  # as NFS answers
            return lock_file(fd)

        with mock.patch.object(data_folder, "lock_file", lock_no_folder):
            with held_folders(self.config) as folders, self.assertLogs("rtm_sync", "ERROR"):
                self.assert_refused()
                self.assertIsNone(folders[0].problem())
                (self.data / "lock").unlink()
                self.assertIn("removed or replaced", str(folders[0].problem()))
            with held_folders(self.config):
                pass

    def test_an_older_gateway_that_locks_the_file_alone_is_noticed(self) -> None:
        self.data.mkdir()
        with (self.data / "lock").open("w") as file:
            self.assertTrue(lock_file(file.fileno()))
            self.assert_refused()
        with held_folders(self.config):
            pass

    def test_the_folders_of_local_urls_are_held_too(self) -> None:
        elsewhere = self.folder()
        own, others = GatewayConfig(data=str(self.folder())), GatewayConfig(data=str(self.folder()))
        for engine, media in ((f"local://{elsewhere}", ""), ("", f"disk://{elsewhere}")):
            with self.subTest(engine=engine, media=media):
                shared = replace(others, engine=engine, media=media)
                with held_folders(replace(own, engine=engine, media=media)):
                    self.assert_refused(shared)
                with held_folders(shared):
                    pass

    def test_one_folder_for_everything_is_held_once(self) -> None:
        same = GatewayConfig(port=0, data=str(self.data), engine=f"local://{self.data}/../data")
        with held_folders(same) as folders:
            self.assertEqual(len(folders), 1)

    def test_urls_of_other_plugins_name_no_folders(self) -> None:
        for engine, media in (("local:", "s3://bucket"), ("nats://host/x", "disk://host/x")):
            config = GatewayConfig(port=0, data=str(self.data), engine=engine, media=media)
            with held_folders(config) as folders:
                self.assertEqual(len(folders), 1)
