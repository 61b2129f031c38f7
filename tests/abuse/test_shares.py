"""One user's or one app's load over real sockets, and what the others notice of it: nothing."""

from __future__ import annotations

import os
import queue
from pathlib import Path

import requests

from rtm_sync import PeerMessageError, RtmClient
from rtm_sync.hub.auth.tokens import make_token
from rtm_sync.testing import GatewayProcess, RtmTestCase
from tests.support import PATIENCE

SECRETS = {
    "shop": "the shop's secret, 32 bytes or more",
    "game": "the game's secret, 32 bytes or more",
}


class SharesCase(RtmTestCase):
    LIMITS = "linux"

    def setUp(self) -> None:
        config = self.folder() / "gateway.toml"
        config.write_text(
            "".join(f"[apps.{app_id}]\nsecrets = [{SECRETS[app_id]!r}]\n" for app_id in SECRETS)
        )
        settings = {"config": config, "limits": self.LIMITS}
        self.gateway = self.entered(GatewayProcess(settings=settings))
        self.http = self.gateway.url.replace("ws", "http", 1)

    def client(self, uid: str, app_id: str = "shop") -> RtmClient:
        client = self.entered(RtmClient(app_id, url=self.gateway.url))
        client.login(uid, make_token(app_id, uid, SECRETS[app_id]))
        return client


class UploadTest(SharesCase):
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.gateway.pid}/fd"))

    def begin(self, session: requests.Session, uid: str, token: str) -> None:
        """Begin an upload of two bytes, and send one."""
        answer = session.post(
            f"{self.http}/v1/media",
            data=b"1",
            headers={
                "Authorization": f"Bearer {token}",
                "Tus-Resumable": "1.0.0",
                "Upload-Length": "2",
                "Content-Type": "application/offset+octet-stream",
            },
            timeout=PATIENCE,
        )
        self.assertEqual((answer.status_code, answer.headers["Upload-Offset"]), (201, "1"), uid)

    def test_unfinished_uploads_hold_no_descriptors(self) -> None:
        before = None
        with requests.Session() as session:
            for number in range(10):
                uid = f"user-{number}"
                answer = session.post(
                    f"{self.http}/dev/v2/project/shop/rtm/users/{uid}/media_session",
                    auth=("shop", SECRETS["shop"]),
                    timeout=PATIENCE,
                )
                for _ in range(30):
                    self.begin(session, uid, answer.json()["token"])
                if before is None:  # the storage threads have begun
                    before = self.descriptors()
        assert before is not None
        self.assertEqual(len(list(Path(self.gateway.data).glob("media/*/*.part"))), 300)
        self.assertLess(self.descriptors(), before + 20)


class MailboxTest(SharesCase):
    LIMITS = "linux mailbox_sender_messages=300 user_message_bytes=100_000"

    def received(self, uid: str, count: int) -> list[str]:
        """The texts of the messages that waited for a user."""
        client = self.entered(RtmClient("shop", url=self.gateway.url))
        texts: queue.SimpleQueue[str] = queue.SimpleQueue()
        client.on("MessageFromPeer", lambda message, *_: texts.put(message.text))
        client.login(uid, make_token("shop", uid, SECRETS["shop"]))
        return [texts.get(timeout=PATIENCE) for _ in range(count)]

    def test_short_messages_of_anybody_erase_nothing_that_waits(self) -> None:
        bob, mallory = self.client("bob"), self.client("mallory")
        for text in ("first", "second"):
            bob.send_message_to_peer(text, "alice", enable_offline_messaging=True)
        for _ in range(220):
            mallory.send_message_to_peer("x", "alice", enable_offline_messaging=True)
        bob.send_message_to_peer("third", "alice", enable_offline_messaging=True)
        waited = self.received("alice", 200)
        self.assertEqual([text for text in waited if text != "x"], ["first", "second", "third"])

    def test_messages_to_users_who_never_come_end_at_a_quota(self) -> None:
        mallory, of_game = self.client("mallory"), self.client("mallory", "game")
        for option in ("enable_offline_messaging", "enable_historical_messaging"):
            with self.subTest(option), self.assertRaises(PeerMessageError) as caught:
                for number in range(40):
                    mallory.send_message_to_peer("x" * 5000, f"nobody-{number}", **{option: True})
            self.assertEqual(caught.exception.reason, "FAILURE")
            self.assertIn("the quota is 100,000", str(caught.exception))
        of_game.send_message_to_peer("x" * 5000, "nobody", enable_offline_messaging=True)
