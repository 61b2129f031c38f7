"""Credentials end with what they were made from, and so do the transfers that they began."""

from __future__ import annotations

import os
import signal
import socket
import time
import unittest
from pathlib import Path
from urllib.parse import urlsplit

import requests

from rtm_sync import RtmClient, RtmSender
from rtm_sync.errors import LoginError
from rtm_sync.hub.auth.tokens import Grant, Privileges, make_token
from rtm_sync.hub.service_sessions import ServiceSessions
from rtm_sync.hub.session import Session
from rtm_sync.rules.limits import Limits
from rtm_sync.rules.requests import UserRates
from rtm_sync.testing import GatewayProcess, RtmTestCase
from tests.support import PATIENCE, wait_until

LEAKED, KEPT = "the shop's leaked secret, 32 bytes.", "the shop's other secret, 32 bytes."
GAME = "the game's secret, 32 bytes or more"
SIZE = 24_000_000  # more than the buffers of a connection hold


class CredentialsCase(RtmTestCase):
    def setUp(self) -> None:
        self.config = self.folder() / "gateway.toml"
        self.configure(LEAKED, KEPT)
        settings = {"config": self.config, "limits": "web user_bytes=1_000_000_000"}
        self.gateway = self.entered(GatewayProcess(settings=settings))
        self.http = self.gateway.url.replace("ws", "http", 1)
        self.reloads = 0
        self.downloads = 0

    def configure(self, *secrets: str) -> None:
        shop = f"[apps.shop]\nsecrets = {list(secrets)}\n" if secrets else ""
        self.config.write_text(f"{shop}[apps.game]\nsecrets = [{GAME!r}]\n")

    def reload(self, *secrets: str) -> None:
        self.configure(*secrets)
        self.reloads += 1
        os.kill(self.gateway.pid, signal.SIGHUP)
        wait_until(lambda: self.gateway.log.count("apps were read again") == self.reloads)

    def client(self, secret: str, app_id: str = "shop", uid: str = "alice") -> RtmClient:
        client = self.entered(RtmClient(app_id, url=self.gateway.url))
        client.login(uid, make_token(app_id, uid, secret))
        return client

    def bearer(
        self, secret: str, *, token: str = "", app_id: str = "shop", uid: str = "bob"
    ) -> str:
        """A bearer token for media, made by a secret or by a user's token."""
        answer = requests.post(
            f"{self.http}/dev/v2/project/{app_id}/rtm/users/{uid}/media_session",
            auth=None if token else (app_id, secret),
            headers={"x-agora-token": token, "x-agora-uid": uid} if token else {},
            timeout=PATIENCE,
        )
        self.assertEqual(answer.status_code, 200, answer.text)
        return str(answer.json()["token"])

    def opens(self, bearer: str) -> bool:
        """Whether a bearer token is accepted."""
        answer = requests.get(
            f"{self.http}/v1/media/{'x' * 32}",
            headers={"Authorization": f"Bearer {bearer}"},
            timeout=PATIENCE,
        )
        self.assertIn(answer.status_code, (401, 404))
        return answer.status_code == 404

    def begin(self, head: str, bearer: str, body: bytes = b"") -> socket.socket:
        """Send the beginning of a request."""
        parts = urlsplit(self.http)
        connection = socket.create_connection((parts.hostname, parts.port), PATIENCE)
        self.addCleanup(connection.close)
        connection.sendall(
            f"{head}\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {bearer}\r\n".encode()
            + b"Tus-Resumable: 1.0.0\r\n\r\n"
            + body
        )
        return connection

    def begin_upload(self, bearer: str) -> socket.socket:
        """Send the half of an upload."""
        kind = "Content-Type: application/offset+octet-stream"
        head = f"POST /v1/media HTTP/1.1\r\n{kind}\r\nUpload-Length: 2000\r\nContent-Length: 2000"
        return self.begin(head, bearer, bytes(1000))

    def ended_downloads(self) -> int:
        return self.gateway.log.count("GET /v1/media/{media_id} 200")

    def begin_download(self, bearer: str, media_id: str) -> socket.socket:
        """Read the beginning of a download."""
        self.downloads += 1
        connection = self.begin(f"GET /v1/media/{media_id} HTTP/1.1", bearer)
        self.assertIn(b" 200 OK", connection.recv(1000))
        return connection

    def big_medium(self, secret: str) -> str:
        uploader = self.client(secret, uid="uploader")
        sent = uploader.create_media_message_by_uploading(bytes(SIZE)).result(PATIENCE)
        uploader.logout()
        return sent.media_id

    def assert_cut(self, *connections: socket.socket) -> None:
        """The gateway closes each connection before its transfer is complete."""
        # Not before: what is read at once is sent within the quarter of a second that a cut takes.
        wait_until(lambda: self.ended_downloads() == self.downloads)
        for connection in connections:
            received = 0
            try:
                while data := connection.recv(1_000_000):
                    received += len(data)
            except ConnectionError:
                pass
            self.assertLess(received, SIZE)

    def assert_goes_on(self, connection: socket.socket) -> None:
        """The rest of an upload is still taken."""
        connection.sendall(bytes(1000))
        self.assertIn(b" 201 Created", connection.recv(1000))


class KeyTest(CredentialsCase):
    def test_what_was_made_by_a_key_ends_when_the_key_is_removed(self) -> None:
        media_id = self.big_medium(KEPT)
        token = make_token("shop", "bob", LEAKED, ttl=86_400)
        made = [self.bearer(LEAKED), self.bearer(LEAKED, token=token)]
        of_the_kept = self.bearer(KEPT)
        of_another_app = self.bearer(GAME, app_id="game")
        client, other = self.client(LEAKED), self.client(KEPT, uid="carol")
        transfers = [self.begin_upload(made[0]), self.begin_download(made[1], media_id)]
        staying = [self.begin_upload(of_the_kept), self.begin_upload(of_another_app)]
        self.reload(KEPT)
        self.assertEqual([self.opens(bearer) for bearer in made], [False, False])
        self.assert_cut(*transfers)
        wait_until(lambda: client.connection_state.name == "ABORTED")
        self.assertTrue(self.opens(of_the_kept) and self.opens(of_another_app))
        for connection in staying:
            self.assert_goes_on(connection)
        self.assertEqual(other.connection_state.name, "CONNECTED")
        with self.assertRaises(LoginError):
            self.client(LEAKED)

    def test_what_was_made_for_an_app_ends_when_the_app_is_removed(self) -> None:
        made, other = self.bearer(KEPT), self.bearer(GAME, app_id="game")
        client = self.client(KEPT)
        transfer = self.begin_upload(made)
        self.reload()
        self.assertEqual([self.opens(made), self.opens(other)], [False, True])
        self.assert_cut(transfer)
        wait_until(lambda: client.connection_state.name == "ABORTED")

    def test_a_key_of_a_file_ends_with_its_place_in_the_file(self) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
            PublicFormat,
        )

        def write(private: Ed25519PrivateKey) -> str:
            form = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
            new = Path(f"{file}.new")
            new.write_bytes(private.public_key().public_bytes(*form))
            new.replace(file)
            return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

        file = self.config.with_name("public.pem")
        old = write(Ed25519PrivateKey.generate())
        self.config.write_text(f"[apps.shop]\npublic_keys = [{str(file)!r}]\n")
        os.kill(self.gateway.pid, signal.SIGHUP)
        wait_until(lambda: "apps were read again" in self.gateway.log)
        bearer = self.bearer("", token=make_token("shop", "bob", old))
        client = self.client(old)
        self.assertTrue(self.opens(bearer))
        write(Ed25519PrivateKey.generate())
        wait_until(lambda: not self.opens(bearer))
        wait_until(lambda: client.connection_state.name == "ABORTED")


class UserTest(CredentialsCase):
    def test_what_was_made_for_a_user_ends_when_the_user_is_kicked(self) -> None:
        media_id = self.big_medium(KEPT)
        sender = self.entered(RtmSender("shop", KEPT, url=self.http))
        for ending in ({}, {"ban_seconds": 1.0}, {"revoke_tokens": True}):
            with self.subTest(**ending):
                token = make_token("shop", "bob", KEPT)
                made = [self.bearer(KEPT), self.bearer(KEPT, token=token)]
                of_carol = self.bearer(KEPT, uid="carol")
                transfers = [self.begin_download(made[0], media_id), self.begin_upload(made[1])]
                staying = self.begin_upload(of_carol)
                sender.kick("bob", **ending)
                self.assertEqual([self.opens(bearer) for bearer in made], [False, False])
                self.assert_cut(*transfers)
                self.assertTrue(self.opens(of_carol))
                self.assert_goes_on(staying)
                sender.kick("bob", ban_seconds=0)

    def test_a_bearer_ends_with_its_token_though_the_user_has_another(self) -> None:
        media_id = self.big_medium(KEPT)
        ends = time.monotonic() + 4
        short = self.bearer(KEPT, token=make_token("shop", "bob", KEPT, ttl=4))
        long = self.bearer(KEPT, token=make_token("shop", "bob", KEPT, ttl=600))
        transfer = self.begin_download(short, media_id)
        self.assertTrue(self.opens(short))
        wait_until(lambda: not self.opens(short))
        self.assertGreater(time.monotonic(), ends - 2)
        self.assert_cut(transfer)
        self.assertTrue(self.opens(long))

    def test_all_sessions_of_an_app_end_and_those_of_another_stay(self) -> None:
        old = make_token("shop", "dave", KEPT)
        made, other = self.bearer(KEPT), self.bearer(GAME, app_id="game")
        client, of_game = self.client(KEPT), self.client(GAME, "game")
        transfer = self.begin_upload(made)
        sender = self.entered(RtmSender("shop", KEPT, url=self.http))
        self.assertEqual(sender.end_all_sessions(), 1)
        wait_until(lambda: client.connection_state.name == "ABORTED")
        self.assertEqual([self.opens(made), self.opens(other)], [False, True])
        self.assert_cut(transfer)
        self.bearer("", token=old, uid="dave")
        self.assertEqual(sender.end_all_sessions(revoke_tokens=True), 0)
        with self.assertRaises(AssertionError):
            self.bearer("", token=old, uid="dave")
        wait_until(lambda: time.time() % 1 < 0.5)  # another moment than that of the revocation
        self.bearer("", token=make_token("shop", "dave", KEPT), uid="dave")
        self.assertEqual(of_game.connection_state.name, "CONNECTED")

    def test_a_token_that_may_not_publish_publishes_nowhere(self) -> None:
        may = Privileges(join=("room",), publish=())
        answer = requests.post(
            f"{self.http}/dev/v2/project/shop/rtm/users/bob/channel_messages",
            json={"channel_name": "room", "payload": "hi"},
            headers={
                "x-agora-token": make_token("shop", "bob", KEPT, privileges=may),
                "x-agora-uid": "bob",
            },
            timeout=PATIENCE,
        )
        self.assertEqual(answer.status_code, 403)


class ServiceSessionsTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        limits = Limits()
        self.sessions = ServiceSessions(limits, UserRates(limits), lambda *_: True, most=100)

    def made(self, app_id: str, uid: str, key: str = "key") -> Session:
        return self.sessions.of(app_id, uid, 0.0, Grant(1e12, key=key))

    async def test_an_app_with_many_ends_its_own_and_no_one_elses(self) -> None:
        others = [self.made("shop", f"user-{number}") for number in range(40)]
        own = [self.made("game", f"user-{number}") for number in range(500)]
        self.assertTrue(all(session.lives for session in others))
        self.assertEqual([session.lives for session in own], 440 * [False] + 60 * [True])

    async def test_a_user_with_many_tokens_ends_its_own(self) -> None:
        other = self.made("shop", "bob")
        own = [self.made("shop", "alice", str(number)) for number in range(200)]
        self.assertTrue(other.lives)
        self.assertEqual([session.lives for session in own], 180 * [False] + 20 * [True])
        self.assertEqual(len({session.transfers for session in own[180:]}), 1)
        self.assertIs(self.sessions.by_id(own[-1].id, 0.0), own[-1])
        self.assertIsNone(self.sessions.by_id(own[0].id, 0.0))
