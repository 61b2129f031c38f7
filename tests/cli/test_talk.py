"""`send`, `listen`, `upload`, `download`: real processes against a real gateway."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rtm_sync import RtmClient, RtmFileMessage, RtmImageMessage, RtmRawMessage, RtmTextMessage
from rtm_sync.cli.listen import JOURNAL
from rtm_sync.hub.media import new_media_id
from rtm_sync.testing import FaultProxy
from tests.cli.support import REPOSITORY, CommandTestCase, child_environment
from tests.cli.test_docs import sections
from tests.support import PATIENCE, local_gateway, wait_until

CAT = REPOSITORY / "tests" / "data" / "cat.jpg"
UNKNOWN = "A" * 32


class TalkTestCase(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.data = self.folder()
        self.url = self.entered(local_gateway(self.data))
        self._uploader: RtmClient | None = None
        self.environment = {
            "RTM_SYNC_URL": self.url,
            "RTM_SYNC_APP_ID": "app",
            "RTM_SYNC_UID": "alice",
        }

    def client(self, uid: str = "bob") -> RtmClient:
        client = self.entered(RtmClient("app", url=self.url))
        client.login(uid)
        return client

    def run_with(
        self, *arguments: object, stdin: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            self._line(arguments),
            cwd=self.home,
            env=child_environment(**(self.environment | environment)),
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertNotIn(b"Traceback", done.stdout + done.stderr)
        return done

    def did(self, *arguments: object, stdin: bytes = b"", status: int = 0) -> str:
        """The standard output of a command that ends with this exit status."""
        done = self.run_with(*arguments, stdin=stdin)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout.decode()

    def records(self, *arguments: object) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.did(*arguments, "--json").splitlines()]

    def uploaded(self, data: bytes = b"bytes", name: str = "file.bin") -> RtmFileMessage:
        client = self._uploader = self._uploader or self.client("uploader")
        return client.create_media_message_by_uploading(data, file_name=name).result(PATIENCE)

    def started(self, *arguments: object) -> tuple[subprocess.Popen[bytes], Path, Path]:
        """A running command: its process, and the files of its output and its errors."""
        folder = self.folder()
        out, err = folder / "out", folder / "err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                self._line(arguments),
                cwd=self.home,
                env=child_environment(**self.environment),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process, out, err

    def listening(self, *arguments: object) -> tuple[subprocess.Popen[bytes], Path, Path]:
        process, out, err = self.started("listen", *arguments)
        wait_until(lambda: "Listening" in err.read_text() or process.poll() is not None, PATIENCE)
        self.assertIsNone(process.poll(), err.read_text())
        return process, out, err


class SendTest(TalkTestCase):
    def test_text_reaches_users_and_channels_and_each_is_told(self) -> None:
        bob = self.client()
        room = bob.create_channel("cats")
        room.join()
        with bob.events("MessageFromPeer") as peer, room.events("ChannelMessage") as channel:
            printed = self.did("send", "--to", "bob", "--channel", "cats", "hello")
            self.assertEqual(printed, "bob: received\ncats: sent\n")
            for stream in (peer, channel):
                message, sender, _ = next(stream.until(PATIENCE)).args
                self.assertEqual((message, sender), (RtmTextMessage("hello"), "alice"))

    def test_a_user_who_is_offline_is_status_6_unless_it_is_kept(self) -> None:
        self.assertEqual(self.did("send", "--to", "carol", "hi", status=6), "carol: is offline\n")
        [kept] = self.records("send", "--to", "carol", "--offline", "hi")
        self.assertEqual(
            kept, {"to": "carol", "has_peer_received": False, "cached_by_server": True}
        )

    def test_who_is_offline_does_not_keep_the_others_from_getting_it(self) -> None:
        self.client()
        printed = self.did("send", "--to", "carol", "--to", "bob", "hi", status=6)
        self.assertEqual(printed, "carol: is offline\nbob: received\n")

    def test_standard_input_is_one_message_or_one_for_each_line(self) -> None:
        bob = self.client()
        with bob.events("MessageFromPeer") as arriving:
            self.did("send", "--to", "bob", "-", stdin=b"one\ntwo\n")
            self.did("send", "--to", "bob", "--lines", "-", stdin=b"one\n\ntwo")
            self.did("send", "--to", "bob", "--raw", "-", stdin=b"\xff\x00")
            events = arriving.until(PATIENCE)
            messages = [next(events).args[0] for _ in range(4)]
        expected = [RtmTextMessage(text) for text in ("one\ntwo\n", "one", "two")]
        self.assertEqual(messages, [*expected, RtmRawMessage(b"\xff\x00")])

    def test_a_file_is_uploaded_and_sent_as_what_it_is(self) -> None:
        bob = self.client()
        with bob.events("MessageFromPeer") as arriving:
            self.did("send", "--to", "bob", "--file", CAT, "--description", "my cat")
            photo = next(arriving.until(PATIENCE)).args[0]
            self.did("send", "--to", "bob", "--file", "-", "--name", "a.txt", stdin=b"text")
            file = next(arriving.until(PATIENCE)).args[0]
            self.did("send", "--to", "bob", "--media-id", file.media_id, "--name", "again.txt")
            again = next(arriving.until(PATIENCE)).args[0]
        self.assertIsInstance(photo, RtmImageMessage)
        self.assertEqual((photo.file_name, photo.description), ("cat.jpg", "my cat"))
        self.assertEqual((photo.width, photo.height), (451, 300))
        self.assertEqual((type(file), file.file_name, file.size), (RtmFileMessage, "a.txt", 4))
        self.assertEqual((again.media_id, again.file_name), (file.media_id, "again.txt"))

    @unittest.skipUnless(hasattr(os, "mkfifo"), "Windows has no FIFOs among its files")
    def test_a_process_substitution_is_read_once(self) -> None:
        bob = self.client()
        path = self.folder() / "63"
        os.mkfifo(path)
        with bob.events("MessageFromPeer") as arriving, ThreadPoolExecutor(1) as pool:
            pool.submit(path.write_bytes, Path(CAT).read_bytes())
            self.did("send", "--to", "bob", "--file", str(path), "--name", "cat.jpg")
            photo = next(arriving.until(PATIENCE)).args[0]
        self.assertIsInstance(photo, RtmImageMessage)
        self.assertEqual((photo.width, photo.size), (451, Path(CAT).stat().st_size))

    def test_what_cannot_be_sent_is_refused_in_words(self) -> None:
        for arguments, status, complaint in (
            (("hi",), 2, "No receiver is given: pass --to UID or --channel ID."),
            (("--to", "bob"), 2, "Pass one of TEXT, --file and --media-id."),
            (("--to", "bob", "hi", "--file", "x"), 2, "Pass one of TEXT, --file and --media-id."),
            (
                ("--to", "bob", "--media-id", "x", "--thumbnail", "auto"),
                2,
                "with --media-id pass --thumbnail-file.",
            ),
            (("--to", "bob", "x" * 33_000), 1, "text is 33,000 bytes; the limit is 32,768"),
            (("--to", "bob", "--file", "missing.jpg"), 1, "missing.jpg"),
            (("--to", "bob", "--uid", "a/b", "hi"), 2, "contains '/'"),
        ):
            with self.subTest(arguments=str(arguments)[:60]):
                refusal = self.refused("send", *arguments, status=status, **self.environment)
                self.assertIn(complaint, refusal)


class HistoryTest(TalkTestCase):
    def test_what_was_kept_is_printed_the_oldest_first(self) -> None:
        self.did("send", "--to", "bob", "--offline", "--history", "--lines", "-", stdin=b"1\n2\n3")
        self.did("send", "--to", "bob", "--offline", "not kept")
        lines = self.did("history", "--with", "bob").splitlines()
        self.assertEqual([line[20:] for line in lines], ["alice: 1", "alice: 2", "alice: 3"])
        for line in lines:
            self.assertRegex(line, r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d alice: ")
        kept = self.records("history", "--with", "bob", "--limit", 2)
        self.assertEqual([record["text"] for record in kept], ["2", "3"])
        self.assertEqual((kept[0]["from"], kept[0]["to"]), ("alice", "bob"))
        self.assertEqual(self.did("history", "--with", "bob", "--hours", 0.0000001), "")

    def test_a_channel_has_one_too(self) -> None:
        self.did("send", "--channel", "cats", "--history", "meow")
        [kept] = self.records("history", "--channel", "cats")
        self.assertEqual((kept["to"], kept["is_channel"], kept["text"]), ("cats", True, "meow"))
        [example] = re.findall(r"```json\n(.+?)```", sections()["history"], re.DOTALL)
        self.assertEqual(set(json.loads(example)), set(kept))

    def test_one_conversation_is_asked_for(self) -> None:
        for arguments in ((), ("--with", "bob", "--channel", "cats")):
            done = self.run_with("history", *arguments)
            self.assertEqual(done.returncode, 2)
            self.assertIn(b"--with UID or --channel ID", done.stderr)


class TransferTest(TalkTestCase):
    def test_what_is_uploaded_comes_back_whole(self) -> None:
        [photo_id, stdin_id] = self.did("upload", CAT, "-", stdin=b"from a pipe").split()
        printed = self.did("download", photo_id).rstrip()
        self.assertEqual(printed, "cat.jpg")
        self.assertEqual((self.home / printed).read_bytes(), CAT.read_bytes())
        self.assertEqual(self.did("download", stdin_id, "--to", "-"), "from a pipe")
        [record] = self.records("download", photo_id, "--to", "copy.jpg")
        self.assertEqual(record, {"media_id": photo_id, "path": "copy.jpg", "size": 30_985})

    def test_no_medium_has_an_id_that_looks_like_an_option(self) -> None:
        self.assertFalse([media_id for _ in range(1000) if (media_id := new_media_id())[0] == "-"])

    def test_json_tells_all_of_an_upload(self) -> None:
        [record] = self.records("upload", CAT, "--description", "my cat", "--name", "c.jpg")
        for name, value in (
            ("type", "IMAGE"),
            ("file_name", "c.jpg"),
            ("description", "my cat"),
            ("size", 30_985),
            ("width", 451),
            ("source", str(CAT)),
        ):
            self.assertEqual(record[name], value)

    def test_one_that_fails_does_not_keep_the_others_from_being_uploaded(self) -> None:
        (self.home / "empty").touch()
        done = self.run_with("upload", "missing", CAT, "empty", "--json")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(json.loads(done.stdout)["source"], str(CAT))
        errors = [json.loads(line)["error"] for line in done.stderr.splitlines()]
        self.assertEqual([error["subject"] for error in errors], ["missing", "empty"])
        self.assertEqual(errors[0]["name"], "UPLOAD_MEDIA_ERR_FAILURE")

    def test_a_medium_that_does_not_exist_is_status_5_and_leaves_no_file(self) -> None:
        self.assertIn("NOT_EXIST", self.refused("download", UNKNOWN, status=5, **self.environment))
        self.assertEqual(list(self.home.iterdir()), [])

    def slow_line(self, bytes_per_second: float) -> FaultProxy:
        """A relay to the gateway with limited speed, which commands use."""
        proxy = self.entered(FaultProxy(self.url))
        proxy.slow_down(bytes_per_second)
        self.environment["RTM_SYNC_URL"] = proxy.url
        return proxy

    def test_a_terminal_shows_a_bar_with_rate_and_remaining_time(self) -> None:
        (self.home / "large").write_bytes(bytes(10_000_000))
        self.slow_line(10_000_000)
        main, terminal = pty.openpty()
        self.addCleanup(os.close, main)
        process = subprocess.Popen(
            self._line(("upload", "large")),
            cwd=self.home,
            env=child_environment(**self.environment, TERM="xterm", COLUMNS="120"),
            stdout=subprocess.DEVNULL,
            stderr=terminal,
        )
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # a terminal raises it when its other end is closed
            while chunk := os.read(main, 65_536):
                shown += chunk
        self.assertEqual(process.wait(PATIENCE), 0)
        text = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", shown.decode(errors="replace"))
        self.assertRegex(text, r"large ━+.* [\d.]+/10\.0 MB [\d.]+ MB/s 0:00:0\d")
        self.assertRegex(text, r"[\r\n]large: FILE of 10\.0 MB, kept until \d")

    def test_ctrl_c_cancels_an_upload_and_leaves_nothing_on_the_gateway(self) -> None:
        (self.home / "large").write_bytes(bytes(20_000_000))
        proxy = self.slow_line(1_000_000)
        process, out, err = self.started("upload", "large")
        wait_until(lambda: proxy.bytes_sent > 500_000, PATIENCE)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(PATIENCE), 130)
        self.assertEqual((out.read_text(), err.read_text()), ("", "Cancelled.\n"))
        wait_until(lambda: not [path for path in self.data.glob("media/*/*") if path.is_file()])

    def test_with_a_journal_the_same_command_goes_on_after_ctrl_c(self) -> None:
        size = 8_000_000
        (self.home / "large").write_bytes(os.urandom(size))
        upload = ("upload", "large", "--resume-from", "journal")
        proxy = self.slow_line(4_000_000)
        process, _, err = self.started(*upload)
        wait_until(lambda: proxy.bytes_sent > size // 2, PATIENCE)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(PATIENCE), 130, err.read_text())
        before = proxy.bytes_sent
        media_id = self.did(*upload).strip()
        self.assertLess(proxy.bytes_sent - before, size - size // 4)
        self.assertEqual([path.name for path in self.home.iterdir()], ["large"])
        copy = self.client().download_media(media_id).result(PATIENCE)
        self.assertEqual(copy.to_bytes(), (self.home / "large").read_bytes())

    def test_ctrl_c_while_standard_input_is_read_is_quiet_too(self) -> None:
        process = subprocess.Popen(
            self._line(("send", "--to", "bob", "--lines", "-")),
            env=child_environment(**self.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(b"one\n")
            process.stdin.flush()
            self.assertEqual(process.stdout.readline(), b"bob: is offline\n")
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(PATIENCE), 130)
            assert process.stderr is not None
            self.assertEqual(process.stderr.read(), b"Cancelled.\n")

    def test_a_gateway_that_is_not_there_is_status_3(self) -> None:
        done = self.run_with("upload", CAT, "--json", RTM_SYNC_URL="ws://127.0.0.1:1")
        self.assertEqual((done.returncode, done.stdout), (3, b""))
        error = json.loads(done.stderr)["error"]
        self.assertEqual((error["type"], error["exit_code"]), ("LoginError", 3))


class KeptTest(TalkTestCase):
    def test_listen_takes_as_many_as_it_prints_and_send_takes_none(self) -> None:
        lines = "".join(f"{number}\n" for number in range(1, 60)).encode()
        self.did("send", "--to", "bob", "--offline", "--lines", "-", stdin=lines)
        as_bob = {"RTM_SYNC_UID": "bob"}
        self.environment.update(as_bob)
        self.did("send", "--to", "carol", "something else", status=6)
        for number in (1, 2, 3):
            wait_until(lambda number=number: self.next_text() == str(number))

    def next_text(self) -> str | None:
        """What `listen` prints; None when the last login was less than half a second ago."""
        done = self.run_with("listen", "--count", 1, "--timeout", PATIENCE, "--json")
        if b"TOO_OFTEN" in done.stderr:
            return None
        self.assertEqual(done.returncode, 0, done.stderr)
        records = [json.loads(line) for line in done.stdout.splitlines()]
        [text] = [record["text"] for record in records if record["event"] == "message"]
        return str(text)


class ListenTest(TalkTestCase):
    def test_it_prints_what_arrives_one_message_a_line_and_ends_after_its_count(self) -> None:
        bob = self.client()
        room = bob.create_channel("cats")
        room.join()
        process, out, _ = self.listening("--channel", "cats", "--count", 3)
        bob.send_message_to_peer("two\nlines \x1b[31m", "alice")
        room.send_message(b"raw")
        bob.send_message_to_peer(self.uploaded(name="a.txt"), "alice")
        self.assertEqual(process.wait(PATIENCE), 0)
        text, raw, file = out.read_text().splitlines()
        self.assertRegex(text, r"^\d\d:\d\d:\d\d bob: two\\nlines \\x1b\[31m$")
        self.assertRegex(raw, r"^\S+ bob in cats: RAW 3 bytes$")
        self.assertRegex(file, r"^\S+ bob: FILE a\.txt, 5 bytes, \S{32}$")

    def test_what_arrives_is_stored_under_safe_names(self) -> None:
        bob = self.client()
        process, _, err = self.listening("--save", "inbox", "--count", 4)
        for name in ("../../escape", JOURNAL, ".bashrc"):
            bob.send_message_to_peer(self.uploaded(name.encode(), name), "alice")
        bob.send_message_to_peer(b"raw bytes", "alice")
        self.assertEqual(process.wait(PATIENCE), 0, err.read_text())
        inbox = self.home / "inbox"
        self.assertEqual([path.name for path in self.home.iterdir()], ["inbox"])
        contents = {path.name: path.read_bytes() for path in inbox.iterdir()}
        lines = contents.pop(JOURNAL).decode().splitlines()
        self.assertEqual(
            sorted(contents.values()),
            sorted([b"../../escape", JOURNAL.encode(), b".bashrc", b"raw bytes"]),
        )
        self.assertFalse([name for name in contents if name.startswith(".")])
        events = [json.loads(line) for line in lines]
        self.assertEqual(sum(event["event"] == "message" for event in events), 4)
        saved = {Path(event["path"]).name for event in events if event["event"] == "saved"}
        self.assertEqual(saved, contents.keys())

    def test_json_is_a_line_for_each_event(self) -> None:
        bob = self.client()
        process, out, _ = self.started("listen", "--json", "--count", 1)
        wait_until(lambda: "CONNECTED" in out.read_text(), PATIENCE)
        bob.send_message_to_peer("hello", "alice")
        self.assertEqual(process.wait(PATIENCE), 0)
        events = [json.loads(line) for line in out.read_text().splitlines()]
        [message] = [event for event in events if event["event"] == "message"]
        self.assertEqual(
            [message[name] for name in ("from", "channel", "type", "text")],
            ["bob", None, "TEXT", "hello"],
        )

    def test_fewer_messages_than_it_was_told_to_wait_for_are_status_3(self) -> None:
        self.assertEqual(self.did("listen", "--count", 1, "--timeout", 0.2, status=3), "")
        self.assertEqual(self.did("listen", "--timeout", 0.2), "")

    def test_it_ends_quietly_when_nobody_reads_its_output_any_more(self) -> None:
        bob = self.client()
        process = subprocess.Popen(
            self._line(("listen", "--json")),
            env=child_environment(**self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            assert process.stdout is not None and process.stderr is not None
            while b"CONNECTED" not in process.stdout.readline():
                pass
            process.stdout.close()
            bob.send_message_to_peer("nobody sees this", "alice")
            self.assertEqual(process.wait(PATIENCE), 1)
            self.assertEqual(process.stderr.read(), b"")

    def test_ctrl_c_and_sigterm_end_it_cleanly(self) -> None:
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            with self.subTest(number.name):
                process, _, err = self.listening()
                process.send_signal(number)
                self.assertEqual(process.wait(PATIENCE), status)
                self.assertNotIn("Traceback", err.read_text())

    def test_a_second_login_of_the_user_ends_it_with_the_reason(self) -> None:
        process, _, err = self.listening()
        self.client("alice")
        self.assertEqual(process.wait(PATIENCE), 1)
        self.assertIn("The session has ended: REMOTE_LOGIN.", err.read_text())
