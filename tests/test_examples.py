"""The scripts of docs/examples work as documented when they are run as programs."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import sys
import unittest
from pathlib import Path

from rtm_sync import RtmClient, RtmImageMessage, RtmTextMessage
from rtm_sync.testing import FaultProxy
from tests.cli.support import REPOSITORY, child_environment
from tests.support import PATIENCE, RtmTestCase, local_gateway, wait_until

EXAMPLES = REPOSITORY / "docs" / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
CAT = REPOSITORY / "tests" / "data" / "cat.jpg"


class Script:
    """A running script and its output."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process = process
        self._out = out
        self._err = err

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def says(self, text: str) -> None:
        """Wait until the script has printed a text."""
        wait_until(lambda: text in self.out or self.process.poll() is not None, PATIENCE)
        assert text in self.out, (self.out, self.err)

    def ended(self) -> int:
        return self.process.wait(PATIENCE)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.ended()


class ExamplesTest(RtmTestCase):
    def setUp(self) -> None:
        self.data = self.folder()
        self.url = self.entered(local_gateway(self.data))

    def client(self, uid: str = "bob") -> RtmClient:
        client = self.entered(RtmClient("my-app", url=self.url))
        client.login(uid)
        return client

    def start(self, name: str, *arguments: object, url: str = "") -> Script:
        folder = self.folder()
        out, err = folder / "out", folder / "err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
                env=child_environment(RTM_SYNC_URL=url or self.url, WATCH_SECONDS="0.1"),
                stdout=stdout,
                stderr=stderr,
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return Script(process, out, err)

    def test_send_photo(self) -> None:
        bob = self.client()
        with bob.events("MessageFromPeer") as arriving:
            script = self.start("send_photo.py", "alice", "bob", CAT)
            message, sender, _ = next(arriving.until(PATIENCE)).args
        self.assertEqual((script.ended(), script.err), (0, ""))
        self.assertIsInstance(message, RtmImageMessage)
        self.assertEqual((sender, message.file_name, message.width), ("alice", "cat.jpg", 451))
        self.assertEqual(script.out, "bob has 451 × 300, 30,985 bytes\n")

    def test_watch_folder_sends_a_new_file_once_it_is_whole(self) -> None:
        folder = self.folder()
        (folder / "old.txt").write_text("was there before")
        room = self.client().create_channel("photos")
        room.join()
        with room.events("ChannelMessage") as arriving:
            script = self.start("watch_folder.py", "watcher", "photos", folder)
            script.says("watching")
            with (folder / "growing.txt").open("w") as growing:
                for number in range(3000):
                    growing.write(f"line {number}\n")
                    growing.flush()
            message, sender, _ = next(arriving.until(PATIENCE)).args
            script.says("sent growing.txt")
        self.assertEqual((sender, message.file_name), ("watcher", "growing.txt"))
        self.assertEqual(message.size, (folder / "growing.txt").stat().st_size)
        self.assertEqual((script.interrupt(), script.err), (0, ""))
        self.assertEqual(script.out.count("sent "), 1)

    def test_backup_channel_keeps_media_and_messages(self) -> None:
        bob = self.client()
        room = bob.create_channel("cats")
        room.join()
        folder = self.folder() / "backup"
        script = self.start("backup_channel.py", "keeper", "cats", folder)
        script.says("backing up cats")
        room.send_message("look")
        room.send_message(bob.create_media_message_by_uploading(CAT).result(PATIENCE))
        script.says("saved cat.jpg")
        self.assertEqual((script.interrupt(), script.err), (0, ""))
        self.assertEqual((folder / "cat.jpg").read_bytes(), CAT.read_bytes())
        records = [
            json.loads(line) for line in (folder / "messages.jsonl").read_text().splitlines()
        ]
        self.assertEqual([record["from"] for record in records], ["bob", "bob"])
        self.assertEqual((records[0]["text"], records[1]["file_name"]), ("look", "cat.jpg"))

    def test_the_bot_answers_texts_and_photos(self) -> None:
        bob = self.client()
        script = self.start("answering_bot.py", "bot")
        script.says("bot answers")
        photo = bob.create_media_message_by_uploading(CAT, message_type="IMAGE").result(PATIENCE)
        with bob.events("MessageFromPeer") as arriving:
            bob.send_message_to_peer("hello", "bot")
            bob.send_message_to_peer(photo, "bot")
            answers = arriving.until(PATIENCE)
            messages = [next(answers).args[0] for _ in range(3)]
        self.assertEqual(messages, [RtmTextMessage("HELLO"), RtmTextMessage("451 × 300"), photo])
        self.assertEqual((script.interrupt(), script.err), (0, ""))

    def test_many_uploads_are_all_there_and_fill_one_bar(self) -> None:
        folder = self.folder()
        files = [folder / f"{number}.bin" for number in range(20)]
        for number, file in enumerate(files):
            file.write_bytes(bytes([number]) * 10_000)
        script = self.start("many_uploads.py", "alice", *files)
        self.assertEqual(script.ended(), 0, script.err)
        self.assertIn("100%", script.err)
        self.assertIn("200k/200k", script.err)
        bob = self.client()
        lines = [line.split() for line in script.out.splitlines()]
        self.assertEqual({name for _, name in lines}, {str(file) for file in files})
        for media_id, name in lines[::7]:
            copy = bob.download_media(media_id).result(PATIENCE)
            self.assertEqual(copy.to_bytes(), Path(name).read_bytes())

    def test_ctrl_c_cancels_and_nothing_stays(self) -> None:
        large = self.folder() / "large"
        large.write_bytes(bytes(20_000_000))
        proxy = self.entered(FaultProxy(self.url))
        proxy.slow_down(2_000_000)
        script = self.start("cancel_on_ctrl_c.py", "alice", large, url=proxy.url)
        script.says("of 20,000,000 bytes")
        self.assertEqual((script.interrupt(), script.err), (130, ""))
        self.assertTrue(script.out.endswith("cancelled\n"))
        wait_until(lambda: not [path for path in self.data.glob("media/*/*") if path.is_file()])

    def test_what_was_migrated_works_step_by_step(self) -> None:
        bob = self.client()
        with bob.events("MessageFromPeer") as arriving:
            script = self.start("migrate.py", "alice", "bob", CAT)
            message = next(arriving.until(PATIENCE)).args[0]
        self.assertEqual((script.ended(), script.err), (0, ""))
        self.assertEqual(message.description, "my cat")
        self.assertEqual(
            script.out.splitlines()[-3:],
            ["30985 of 30985", "received: True", "30985 bytes of image/jpeg"],
        )


class DocumentedTest(unittest.TestCase):
    def test_every_script_is_named_in_the_docs_and_has_a_test(self) -> None:
        listed = re.findall(
            r"\((?:examples/)(\w+\.py)\)", (REPOSITORY / "docs/examples.md").read_text()
        )
        self.assertEqual(sorted(listed), [script.name for script in SCRIPTS])
        source = Path(__file__).read_text()
        for script in SCRIPTS:
            self.assertIn(f'"{script.name}"', source)

    @unittest.skipUnless(importlib.util.find_spec("mypy"), "mypy is not installed")
    def test_every_script_is_typed(self) -> None:
        done = subprocess.run(
            # tqdm's types are in another package, which may not be installed.
            [
                *(sys.executable, "-m", "mypy", "--strict"),
                "--disable-error-code=import-untyped",
                *map(str, SCRIPTS),
            ],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout)
