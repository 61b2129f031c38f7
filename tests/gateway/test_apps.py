"""Several apps at one gateway: they are separate, and each has its own keys."""

from __future__ import annotations

from typing import Any

import requests

from rtm_sync import (
    DownloadMediaError,
    LoginError,
    PeerMessageError,
    RtmClient,
    RtmSender,
    UploadMediaError,
)
from rtm_sync.gateway.app import BackgroundGateway
from rtm_sync.gateway.config import GatewayConfig
from rtm_sync.hub.auth.tokens import Privileges, make_token
from tests.support import PATIENCE, RtmTestCase, wait_until

SHOP, GAME = "the shop's secret, 32 bytes or more", "the game's secret, 32 bytes or more"
SECOND = "the shop's second secret, as long"
SECRETS = {"shop": SHOP, "game": GAME}


class AppsCase(RtmTestCase):
    def setUp(self) -> None:
        config = GatewayConfig(
            port=0, data=str(self.folder()), apps={"shop": (SHOP, SECOND), "game": (GAME,)}
        )
        self.url = self.entered(BackgroundGateway(config)).url

    def client(self, app_id: str, uid: str, **privileges: Any) -> RtmClient:
        client = self.entered(RtmClient(app_id, url=self.url))
        allowed = Privileges(**privileges)
        client.login(uid, make_token(app_id, uid, SECRETS[app_id], privileges=allowed))
        return client

    def sender(self, app_id: str, secret: str) -> RtmSender:
        return self.entered(RtmSender(app_id, secret, url=self.url))


class CrossingTest(AppsCase):
    """Two apps with the same user and channel ids; each sees only its own data."""

    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob = self.client("shop", "alice"), self.client("shop", "bob")
        self.other_alice, self.other_bob = self.client("game", "alice"), self.client("game", "bob")
        self.arrived: list[str] = []
        self.other_bob.on("MessageFromPeer", lambda message, *_: self.arrived.append("peer"))
        self.rooms = [client.create_channel("room") for client in (self.alice, self.other_bob)]
        for room in self.rooms:
            room.join()
        self.rooms[1].on("ChannelMessage", lambda message, *_: self.arrived.append("channel"))

    def arrived_before_a_last_one(self) -> list[str]:
        """Send a last message to bob of "game", and return the events that he got before it.

        A client handles events in order: when the last one was handled, all others were too.
        """
        self.assertTrue(self.other_alice.send_message_to_peer("last", "bob").has_peer_received)
        wait_until(lambda: "peer" in self.arrived)
        return self.arrived[:-1]

    def test_the_same_uid_is_two_users(self) -> None:
        for client in (self.alice, self.other_alice):
            client.send_message_to_peer("still there", "bob")

    def test_no_message_crosses(self) -> None:
        self.assertTrue(self.alice.send_message_to_peer("hi", "bob").has_peer_received)
        self.rooms[0].send_message("hi")
        self.sender("shop", SHOP).send_message_to_channel("hi", "room")
        self.assertEqual(self.arrived_before_a_last_one(), [])

    def test_no_offline_message_waits_in_the_other(self) -> None:
        sent = self.alice.send_message_to_peer("hi", "carol", enable_offline_messaging=True)
        self.assertTrue(sent.cached_by_server)
        carols = {}
        for app_id in ("game", "shop"):
            carol = self.entered(RtmClient(app_id, url=self.url))
            arriving = carol.events("MessageFromPeer")
            carol.login("carol", make_token(app_id, "carol", SECRETS[app_id]))
            carols[app_id] = arriving
        self.other_alice.send_message_to_peer("first", "carol")
        self.assertEqual(next(carols["shop"].until(PATIENCE)).args[0].text, "hi")
        self.assertEqual(next(carols["game"].until(PATIENCE)).args[0].text, "first")

    def test_no_presence_count_member_or_attribute_crosses(self) -> None:
        self.client("shop", "dora")
        states = self.other_alice.query_peers_online_status(["dora", "bob"])
        self.assertEqual(states, {"dora": False, "bob": True})
        self.assertEqual(self.bob.get_channel_member_count(["room"]), {"room": 1})
        self.assertEqual(self.rooms[1].get_members(), ["bob"])
        self.alice.set_local_user_attributes({"name": "shop's"})
        self.assertEqual(self.other_bob.get_user_attributes("alice"), {})
        self.alice.set_channel_attributes("room", {"topic": "x"})
        self.assertEqual(self.other_bob.get_channel_attributes("room"), {})

    def test_no_history_crosses(self) -> None:
        self.alice.send_message_to_peer("hi", "bob", enable_historical_messaging=True)
        self.rooms[0].send_message("hi", enable_historical_messaging=True)
        self.assertEqual(len(list(self.bob.get_peer_history("alice"))), 1)
        self.assertEqual(list(self.other_bob.get_peer_history("alice")), [])
        self.assertEqual(list(self.rooms[1].get_history()), [])
        for app_id, found in (("shop", 2), ("game", 0)):
            history = self.sender(app_id, SECRETS[app_id]).get_history(source="alice")
            self.assertEqual(len(history), found, app_id)

    def test_no_medium_crosses(self) -> None:
        medium = self.alice.create_media_message_by_uploading(b"bytes").result(PATIENCE)
        data = self.bob.download_media(medium.media_id).result(PATIENCE).to_bytes()
        self.assertEqual(data, b"bytes")
        with self.assertRaisesRegex(DownloadMediaError, "NOT_EXIST"):
            self.other_bob.download_media(medium.media_id).result(PATIENCE)

    def test_no_token_or_secret_opens_the_other(self) -> None:
        client = self.entered(RtmClient("game", url=self.url))
        for token in (
            make_token("shop", "alice", SHOP),
            make_token("game", "alice", SHOP),
            make_token("shop", "alice", GAME),
        ):
            with self.assertRaisesRegex(LoginError, "INVALID_TOKEN|INVALID_APP_ID"):
                client.login("alice", token)
        with self.assertRaisesRegex(PeerMessageError, "USER_NOT_LOGGED_IN"):
            self.sender("game", SHOP).send_message_to_peer("hi", "bob")
        self.assertEqual(self.arrived_before_a_last_one(), [])

    def test_no_kick_crosses(self) -> None:
        self.assertTrue(self.sender("shop", SHOP).kick("bob", ban_seconds=60, revoke_tokens=True))
        self.assertEqual(self.arrived_before_a_last_one(), [])
        self.assertEqual(self.sender("game", GAME).get_bans(), {})


class KeysTest(AppsCase):
    def test_two_secrets_of_an_app_are_valid_at_once(self) -> None:
        for secret in (SHOP, SECOND):
            client = self.entered(RtmClient("shop", url=self.url))
            client.login("alice", make_token("shop", "alice", secret))
            self.assertEqual(self.sender("shop", secret).query_peers_presence(["x"]).keys(), {"x"})


class PrivilegeTest(AppsCase):
    """An action that a token does not allow is 403 over HTTP, and is not retried."""

    def ask(self, method: str, path: str, uid: str, token: str, **more: Any) -> requests.Response:
        headers = {"x-agora-uid": uid, "x-agora-token": token, **more.pop("headers", {})}
        url = self.url.replace("ws:", "http:") + path
        return requests.request(method, url, headers=headers, timeout=PATIENCE, **more)

    def test_media_are_refused_to_clients(self) -> None:
        alice = self.client("shop", "alice", upload=False)
        bob = self.client("shop", "bob", download=False)
        with self.assertRaisesRegex(UploadMediaError, "FAILURE.*does not allow uploads"):
            alice.create_media_message_by_uploading(b"bytes").result(PATIENCE)
        medium = bob.create_media_message_by_uploading(b"bytes").result(PATIENCE)
        with self.assertRaisesRegex(DownloadMediaError, "FAILURE.*does not allow downloads"):
            bob.download_media(medium.media_id).result(PATIENCE)
        self.assertEqual(
            alice.download_media(medium.media_id).result(PATIENCE).to_bytes(), b"bytes"
        )

    def test_server_processes_with_the_users_token_are_refused_with_403(self) -> None:
        user = "/dev/v2/project/shop/rtm/users/alice"
        token = make_token(
            "shop", "alice", SHOP, privileges=Privileges(publish=("news",), upload=False)
        )
        body = {"channel_name": "other", "payload": "hi"}
        refused = self.ask("POST", user + "/channel_messages", "alice", token, json=body)
        self.assertEqual(
            (refused.status_code, refused.json()["code"]), (403, "CHANNEL_MESSAGE_ERR_FAILURE")
        )
        body["channel_name"] = "news"
        sent = self.ask("POST", user + "/channel_messages", "alice", token, json=body)
        self.assertEqual(sent.status_code, 200, sent.text)
        upload = self.ask("POST", user + "/media", "alice", token, data=b"bytes")
        self.assertEqual(upload.status_code, 403, upload.text)

    def test_a_media_session_may_no_more_than_its_token(self) -> None:
        user = "/dev/v2/project/shop/rtm/users/alice"
        token = make_token("shop", "alice", SHOP, privileges=Privileges(upload=False))
        bearer = self.ask("POST", user + "/media_session", "alice", token).json()["token"]
        headers = {"Authorization": f"Bearer {bearer}"}
        tus = {**headers, "Tus-Resumable": "1.0.0", "Upload-Length": "5"}
        begun = self.ask("POST", "/v1/media", "alice", token, headers=tus)
        self.assertEqual(begun.status_code, 403, begun.text)
        self.assertIn("does not allow uploads", begun.text)
        medium = (
            self.client("shop", "bob").create_media_message_by_uploading(b"bytes").result(PATIENCE)
        )
        got = self.ask("GET", f"/v1/media/{medium.media_id}", "alice", token, headers=headers)
        self.assertEqual((got.status_code, got.content), (200, b"bytes"))

    def test_a_revoked_token_ends_its_media_session(self) -> None:
        user = "/dev/v2/project/shop/rtm/users/alice"
        token = make_token("shop", "alice", SHOP)
        bearer = self.ask("POST", user + "/media_session", "alice", token).json()["token"]
        headers = {"Authorization": f"Bearer {bearer}"}
        path = "/v1/media/" + "A" * 32
        self.assertEqual(self.ask("GET", path, "alice", token, headers=headers).status_code, 404)
        self.sender("shop", SHOP).kick("alice", revoke_tokens=True)
        self.assertEqual(self.ask("GET", path, "alice", token, headers=headers).status_code, 401)
        self.assertEqual(self.ask("POST", user + "/media_session", "alice", token).status_code, 401)
