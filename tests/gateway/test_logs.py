"""The gateway's log: users' actions, as text or JSON, and never secrets or users' texts."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import threading
from typing import Any

import requests
import websocket

from rtm_sync import LoginError, RtmClient, RtmRawMessage, RtmTextMessage
from rtm_sync.gateway.logs import logged
from rtm_sync.hub.auth.tokens import make_token
from rtm_sync.printable import printable
from rtm_sync.testing import GatewayProcess
from tests.support import PATIENCE, RtmTestCase, at_once, wait_until

SECRET = "a secret of tests, 32 bytes or more"
WORDS = "c4n4ry"  # part of every user's text


class Notes(logging.Handler):
    """All log records of this process's clients."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class FullRunTest(RtmTestCase):
    def setUp(self) -> None:
        settings = {
            "app_id": "app",
            "app_secret": SECRET,
            "log_level": "debug",
            "log_format": "json",
        }
        self.gateway = self.entered(GatewayProcess(settings=settings))
        self.http = self.gateway.url.replace("ws://", "http://")
        self.notes = Notes()
        logger = logging.getLogger("rtm_sync")
        level = logger.level
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self.notes)
        self.addCleanup(logger.removeHandler, self.notes)
        self.addCleanup(logger.setLevel, level)
        self.secrets = {WORDS, SECRET}
        self.clients: list[RtmClient] = []
        # When the gateway has stopped, each waits a second for the answer to its logout.
        self.addCleanup(lambda: at_once(*(client.close for client in self.clients)))

    def client(self, uid: str) -> RtmClient:
        token = make_token("app", uid, SECRET)
        self.secrets.add(token)
        client = RtmClient("app", url=self.gateway.url)
        self.clients.append(client)
        client.login(uid, token)
        self.secrets.add(client._transport._connection.token)  # type: ignore[attr-defined]
        return client

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.gateway.log.splitlines() if line[:1] == "{"]
        return [line for line in lines if line.get("event") == kind]

    def talk(self) -> None:
        """Put the words into every field that takes a user's text."""
        alice, bob = self.client("alice"), self.client("bob")
        room = alice.create_channel("room")
        room.join()
        for message in (RtmTextMessage(WORDS, WORDS), RtmRawMessage(WORDS.encode(), WORDS)):
            for uid in ("bob", "carol"):
                alice.send_message_to_peer(
                    message, uid, enable_offline_messaging=True, enable_historical_messaging=True
                )
            room.send_message(message, enable_historical_messaging=True)
        alice.set_local_user_attributes({WORDS: WORDS})
        alice.add_or_update_channel_attributes("room", {WORDS: WORDS})
        uploaded = alice.create_media_message_by_uploading(
            WORDS.encode() * 1000, file_name=f"{WORDS}.bin"
        ).result(PATIENCE)
        self.secrets.add(uploaded.media_id)
        bob.download_media(uploaded.media_id).result(PATIENCE)
        invitation = alice.create_local_invitation("bob")
        invitation.content = WORDS
        invitation.send()
        bob.logout()

    def provoke(self) -> None:
        """Put the words into refused requests."""
        with RtmClient("app", url=self.gateway.url) as eve, self.assertRaises(LoginError):
            eve.login("eve", f"{WORDS}.{WORDS}.{WORDS}")
        carol = self.client("carol")
        socket = carol._transport._connection._socket  # type: ignore[attr-defined]
        for frame in (
            f'{{"jsonrpc":"2.0","id":901,"method":"{WORDS}","params":{{}}}}',
            f'{{"jsonrpc":"2.0","id":902,"method":"peer.send","params":{{"{WORDS}":1}}}}',
            f"{WORDS} is no JSON",
        ):
            socket.send(frame)
        for _ in range(2):
            raw = websocket.create_connection(f"{self.gateway.url}/v1/signalling", PATIENCE)
            self.addCleanup(raw.shutdown)
            raw.send(f"{WORDS} is no login")
            raw.recv()
        answers = [
            requests.request(method, self.http + path, headers=headers, timeout=PATIENCE)
            for method, path, headers in (
                ("GET", f"/{WORDS}", {}),
                ("GET", f"/v1/media/{WORDS}?token={WORDS}", {"Authorization": f"Bearer {WORDS}"}),
                (WORDS.upper(), "/healthz", {}),
                ("POST", "/v1/media", {"Tus-Resumable": "1.0.0", "Upload-Metadata": WORDS}),
                ("GET", "/healthz", {"X-Forwarded-For": WORDS, "Origin": f"https://{WORDS}"}),
            )
        ]
        answers.append(
            requests.post(
                f"{self.http}/dev/v2/project/app/rtm/users/alice/peer_messages",
                json={"destination": "bob", "payload": WORDS},
                auth=("app", SECRET),
                timeout=PATIENCE,
            )
        )
        self.assertEqual([answer.status_code for answer in answers], [404, 401, 400, 401, 403, 200])

    def test_nothing_is_repeated_that_is_secret_or_somebodys_own(self) -> None:
        self.talk()
        self.provoke()
        wait_until(lambda: len(self.events("request")) >= 12)
        self.gateway.stop()
        log = self.gateway.log
        self.assertIn("alice", log)
        for line in [*log.splitlines(), *self.notes.lines]:
            for secret in self.secrets:
                self.assertNotIn(secret.lower(), line.lower())

    def test_what_happened_is_told_in_objects(self) -> None:
        alice = self.client("alice")
        uploaded = alice.create_media_message_by_uploading(bytes(1234)).result(PATIENCE)
        alice.download_media(uploaded.media_id).result(PATIENCE)
        with RtmClient("app", url=self.gateway.url) as eve, self.assertRaises(LoginError):
            eve.login("eve", "wrong")
        alice.logout()
        wait_until(lambda: self.events("session_ended"))
        self.gateway.stop()
        [serving] = self.events("serving")
        self.assertEqual((serving["level"], serving["url"]), ("INFO", self.gateway.url))
        self.assertRegex(serving["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(
            [(event["uid"], event["outcome"]) for event in self.events("login")],
            [("alice", "new"), ("eve", "invalid_token")],
        )
        [ended] = self.events("session_ended")
        self.assertEqual((ended["uid"], ended["reason"]), ("alice", "logout"))
        [upload] = self.events("upload")
        self.assertEqual((upload["app_id"], upload["size"]), ("app", 1234))
        of_media = [item for item in self.events("request") if item["method"] == "POST"]
        self.assertEqual(
            [(item["route"], item["status"], item["uid"]) for item in of_media],
            [("/v1/media", 201, "alice")],
        )
        self.assertEqual(of_media[0]["address"], "127.0.0.1")
        [download] = [item for item in self.events("request") if "{" in item["route"]]
        self.assertEqual((download["route"], download["uid"]), ("/v1/media/{media_id}", "alice"))
        self.assertGreater(download["bytes"], 1234)  # the headers are included


class ForgeryTest(RtmTestCase):
    """What strangers send fakes no line, and fills no disk."""

    FORGED = "\x1b[2K\r\n2030-01-01T00:00:00.000Z INFO forged \u2028\u202e"
    LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ +|    ")

    def setUp(self) -> None:
        self.gateway = self.entered(GatewayProcess(settings={"log_level": "debug"}))

    def test_ids_of_strangers_cannot_fake_a_line(self) -> None:
        with RtmClient(self.FORGED, url=self.gateway.url) as eve:
            eve.login("eve")
            eve.create_media_message_by_uploading(b"bytes").result(PATIENCE)
            socket = eve._transport._connection._socket  # type: ignore[attr-defined]
            socket.send(json.dumps({"jsonrpc": "2.0", "id": 901, "method": self.FORGED}))
        requests.get(
            f"{self.gateway.url.replace('ws', 'http')}/healthz",
            headers={"User-Agent": "a\x1b[2Kb", "X-Forwarded-For": "\x1b[2K"},
            timeout=PATIENCE,
        )
        wait_until(lambda: "session of eve@" in self.gateway.log)
        self.gateway.stop()
        warning, *lines = self.gateway.log.replace("\r", "\n").splitlines()
        self.assertIn("NO APP SECRET", warning)
        for line in lines:
            self.assertRegex(line, self.LINE)
            self.assertFalse(line.startswith("2030"))
            self.assertEqual(line, printable(line))

    def test_a_request_logs_a_bounded_number_of_bytes(self) -> None:
        socket = websocket.create_connection(f"{self.gateway.url}/v1/signalling", PATIENCE)
        self.addCleanup(socket.shutdown)
        login = {"protocol": 1, "app_id": "app", "uid": "eve"}
        socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "login", "params": login}))
        self.assertIn("result", json.loads(socket.recv()))
        before = len(self.gateway.log)
        socket.send(json.dumps({"jsonrpc": "2.0", "id": 2, "method": "x" * 200_000}))
        socket.send("[" + "x" * 200_000)
        wait_until(lambda: "eve@app GET" in self.gateway.log)
        self.assertLess(len(self.gateway.log) - before, 10_000)

    def test_a_traceback_is_bounded_and_indented(self) -> None:
        for form in ("text", "json"):
            with self.subTest(form):
                stream = io.StringIO()
                with logged("info", form, stream):
                    try:
                        raise ValueError(self.FORGED * 10_000)
                    except ValueError:
                        logging.getLogger("rtm_sync.test").exception("failed: %s", "x" * 10_000)
                first, *others = stream.getvalue().splitlines()
                self.assertIn("characters more)", first)
                self.assertEqual([line for line in others if not line.startswith("    ")], [])
                self.assertEqual(bool(others), form == "text")
                self.assertLess(len(stream.getvalue()), 50_000)

    def test_no_level_names_a_medium_so_that_it_can_be_opened(self) -> None:
        media_id = "Gz_TZqDaVZr52MatwZvc3OnYpr39gQi4"
        other = "0123456789abcdef0123456789abcdef"  # a user id of the same length
        for form in ("text", "json"):
            with self.subTest(form):
                stream = io.StringIO()
                with logged("info", form, stream):
                    logger = logging.getLogger("elsewhere")
                    logger.warning("retrying /bucket/%s.part for %s", media_id, other)
                    try:
                        raise KeyError(media_id)
                    except KeyError:
                        logger.exception("failed")
                written = stream.getvalue()
                self.assertNotIn(media_id, written)
                self.assertIn(f"/bucket/medium-5920cf05.part for {other}", written)
                self.assertEqual(written.count("medium-5920cf05"), 2)


class WriterTest(RtmTestCase):
    def test_lines_for_people_have_a_time_and_a_level(self) -> None:
        stream = io.StringIO()
        with logged("info", "text", stream):
            logging.getLogger("rtm_sync.test").info("hello %d", 1)
            logging.getLogger("rtm_sync.test").debug("not this")
            logging.getLogger("elsewhere").info("nor this")
            logging.getLogger("elsewhere").warning("but this")
        lines = stream.getvalue().splitlines()
        self.assertEqual(len(lines), 2)
        self.assertRegex(lines[0], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    hello 1$")
        self.assertRegex(lines[1], r"WARNING but this$")

    def test_a_reader_that_is_stuck_holds_nobody_up(self) -> None:
        reading, writing = os.pipe()
        stream = os.fdopen(writing, "w")
        logger = logging.getLogger("rtm_sync.test")

        def flood() -> None:
            with logged("info", "text", stream):
                for _ in range(15_000):
                    logger.info("x" * 100)

        thread = threading.Thread(target=flood, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())
        with os.fdopen(reading, "rb") as reader:
            ended = threading.Thread(target=reader.read, daemon=True)
            ended.start()
            wait_until(lambda: "rtm-sync-log" not in {item.name for item in threading.enumerate()})
            stream.close()
            ended.join(PATIENCE)
