"""The gateway's log: users' actions, as text or JSON, and never secrets or users' texts."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from typing import Any

import requests
import websocket

from rtm_sync import LoginError, RtmClient, RtmRawMessage, RtmTextMessage
from rtm_sync.gateway.logs import logged
from rtm_sync.hub.auth.tokens import make_token
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
