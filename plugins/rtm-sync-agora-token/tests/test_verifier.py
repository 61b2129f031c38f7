"""Tokens of both versions, made by the published builders, and every kind of invalid token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import time
import zlib

import rtm_sync_agora_token
from agora_token_builder import RtmTokenBuilder as Builder006
from agora_token_builder.AccessToken import AccessToken as AccessToken006
from agoraiotools import AccessToken2, RtmTokenBuilder2, ServiceChat, ServiceRtc, ServiceRtm
from rtm_sync_agora_token import AgoraTokenVerifier, token_verifier

from rtm_sync import LoginError, RtmClient
from rtm_sync.errors import LoginErrorCode
from rtm_sync.gateway.app import BackgroundGateway, make_hub
from rtm_sync.gateway.config import GatewayConfig
from rtm_sync.hub.auth.tokens import TokenVerifier
from rtm_sync.hub.node import Hub
from rtm_sync.plugins import PluginManager
from rtm_sync.testing import RtmTestCase, TokenVerifierContract

APP, CERTIFICATE = "970CA35de60c44645bbae8a215061b33", "5CFd2fd1755d40ecb72977518be15d3b"
OTHER_APP, OTHER_CERTIFICATE = "0" * 32, "f" * 32
DAY = 24 * 3600
INVALID, EXPIRED, UNAUTHORIZED = (
    LoginErrorCode.LOGIN_ERR_INVALID_TOKEN,
    LoginErrorCode.LOGIN_ERR_TOKEN_EXPIRED,
    LoginErrorCode.LOGIN_ERR_NOT_AUTHORIZED,
)

# Published vectors: user "test_user", salt 1, made at 1111111; 006 with a login until 1446455471,
# 007 with one for 600 seconds.
VECTOR_006 = (
    "006970CA35de60c44645bbae8a215061b33IAAsR0qgiCxv0vrpRcpkz5BrbfEWCBZ6kvR6t7qG/wJIQob86ogAAAAAEAAB"
    "AAAAR/QQAAEA6AOvKDdW"
)
VECTOR_007 = (
    "007eJxTYOCdJftjyTM2zxW6Xhm/5T0j5LdcUt/xYVt48fb5Mp3PX9coMFiaGzg7GpumpJoZJJuYmJmYJiUlplokGhmaGpgZ"
    "Jhkbu38RYIhgYmBgZABhJiBmBPM5GUpSi0viS4tTiwBZVh6A"
)


def token_006(
    uid: str,
    ttl: float,
    app_id: str = APP,
    certificate: str = CERTIFICATE,
    made_at: float | None = None,
) -> str:
    token = AccessToken006(app_id, certificate, uid)
    token.addPrivilege(1000, int(time.time() + ttl))
    if made_at is not None:
        token.ts = int(made_at + DAY)
    return str(token.build())


def token_007(
    uid: str,
    ttl: float,
    app_id: str = APP,
    certificate: str = CERTIFICATE,
    made_at: float | None = None,
    services: tuple[object, ...] | None = None,
) -> str:
    """A token that expires after so many seconds; for a negative number, it has expired."""
    issued_at = time.time() if made_at is None else made_at
    if ttl < 0 and made_at is None:
        issued_at += ttl - 600
        ttl = 600
    token = AccessToken2(app_id, certificate, int(issued_at), int(ttl))
    if services is None:
        service = ServiceRtm(uid)
        service.add_privilege(ServiceRtm.kPrivilegeLogin, int(ttl))
        services = (service,)
    for service in services:
        token.add_service(service)
    return str(token.build())


class Version006Test(TokenVerifierContract, RtmTestCase):
    secrets = (CERTIFICATE,)
    longest = DAY

    def verifier(self) -> TokenVerifier:
        return AgoraTokenVerifier(APP, CERTIFICATE)

    def token(self, uid: str, ttl: float) -> str:
        return token_006(uid, ttl)

    def foreign_token(self, uid: str, ttl: float) -> str:
        return token_006(uid, ttl, OTHER_APP, OTHER_CERTIFICATE)

    def forged_token(self, uid: str, ttl: float) -> str:
        return token_006(uid, ttl, APP, OTHER_CERTIFICATE)

    def test_what_the_published_builder_makes_is_valid(self) -> None:
        ends_at = int(time.time()) + 600
        made = Builder006.buildToken(APP, CERTIFICATE, "alice", 1, ends_at)
        self.assertEqual(self.verifier().verify(made, "alice").expires_at, ends_at)

    def test_without_an_end_it_lasts_a_day(self) -> None:
        made = Builder006.buildToken(APP, CERTIFICATE, "alice", 1, 0)
        grant = self.verifier().verify(made, "alice")
        self.assertAlmostEqual(grant.expires_at, time.time() + DAY, delta=10)

    def test_after_a_day_it_has_ended_whatever_it_says(self) -> None:
        made = token_006("alice", 7 * DAY, made_at=time.time() - DAY - 60)
        self.assert_refused(made, EXPIRED)

    def test_one_from_the_future_is_invalid(self) -> None:
        self.assert_refused(token_006("alice", 7 * DAY, made_at=time.time() + 3600), INVALID)

    def test_one_for_video_is_not_for_messages(self) -> None:
        video = AccessToken006(APP, CERTIFICATE, "alice")
        video.addPrivilege(1, int(time.time()) + 600)
        self.assert_refused(video.build(), UNAUTHORIZED)
        console = AccessToken006(APP, CERTIFICATE, "room", "alice")  # a console's temporary token
        console.addPrivilege(1000, int(time.time()) + 600)
        self.assert_refused(console.build(), INVALID)


class Version007Test(TokenVerifierContract, RtmTestCase):
    secrets = (CERTIFICATE,)
    longest = DAY

    def verifier(self) -> TokenVerifier:
        return AgoraTokenVerifier(APP, CERTIFICATE)

    def token(self, uid: str, ttl: float) -> str:
        return token_007(uid, ttl)

    def foreign_token(self, uid: str, ttl: float) -> str:
        return token_007(uid, ttl, OTHER_APP, OTHER_CERTIFICATE)

    def forged_token(self, uid: str, ttl: float) -> str:
        return token_007(uid, ttl, APP, OTHER_CERTIFICATE)

    def test_what_the_published_builder_makes_is_valid(self) -> None:
        made = RtmTokenBuilder2.build_token(APP, CERTIFICATE, "alice", 600)
        grant = self.verifier().verify(made, "alice")
        self.assertAlmostEqual(grant.expires_at, time.time() + 600, delta=10)

    def test_an_absolute_time_given_as_a_duration_is_a_day(self) -> None:
        made = RtmTokenBuilder2.build_token(APP, CERTIFICATE, "alice", int(time.time()) + 3600)
        grant = self.verifier().verify(made, "alice")
        self.assertAlmostEqual(grant.expires_at, time.time() + DAY, delta=10)

    def test_the_login_may_end_before_the_token(self) -> None:
        service = ServiceRtm("alice")
        service.add_privilege(ServiceRtm.kPrivilegeLogin, 60)
        grant = self.verifier().verify(token_007("alice", 600, services=(service,)), "alice")
        self.assertAlmostEqual(grant.expires_at, time.time() + 60, delta=10)

    def test_a_lifetime_of_nothing_has_ended(self) -> None:
        made = token_007("alice", 0, made_at=time.time() - 60)
        self.assert_refused(made, EXPIRED)

    def test_one_from_the_future_is_invalid(self) -> None:
        self.assert_refused(token_007("alice", 600, made_at=time.time() + 3600), INVALID)

    def test_other_services_may_stand_beside_it_and_do_not_stand_for_it(self) -> None:
        rtm = ServiceRtm("alice")
        rtm.add_privilege(ServiceRtm.kPrivilegeLogin, 600)
        video = ServiceRtc("room", "alice")
        video.add_privilege(1, 600)
        chat = ServiceChat("alice")
        chat.add_privilege(1, 600)
        for services in ((video, rtm), (rtm, chat), (video, rtm, chat)):
            made = token_007("alice", 600, services=services)
            self.assertGreater(self.verifier().verify(made, "alice").expires_at, time.time())
        for services in ((video,), (chat,), (video, chat), (ServiceRtm("alice"),)):
            self.assert_refused(token_007("alice", 600, services=services), UNAUTHORIZED)

    def test_what_unpacks_to_a_gigabyte_is_not_unpacked(self) -> None:
        bomb = base64.b64encode(zlib.compress(bytes(2_000_000), 9)).decode()
        self.assertLess(len(bomb), 4_000)
        self.assert_refused("007" + bomb, INVALID)

    def test_lies_about_lengths_are_found(self) -> None:
        for info in (
            b"",
            b"\xff\xff",
            struct.pack("<H", 32) + APP.encode() + bytes(12) + b"\xff\xff",
        ):
            for size in (0, 32, 65_535):
                packed = zlib.compress(struct.pack("<H", size) + bytes(min(size, 32)) + info)
                self.refusal("007" + base64.b64encode(packed).decode())


class VectorTest(RtmTestCase):
    def test_the_published_vectors(self) -> None:
        verifier = AgoraTokenVerifier(APP, CERTIFICATE, now=lambda: 1_111_111.0 + 60)
        # The login privilege of the vector is longer than its token, which ends after a day.
        self.assertEqual(verifier.verify(VECTOR_007, "test_user").expires_at, 1_111_111 + 600)
        ends_at = struct.unpack_from("<I", base64.b64decode(VECTOR_006[35:]), 34 + 8 + 2 + 4)[0]
        verifier = AgoraTokenVerifier(APP, CERTIFICATE, now=lambda: float(ends_at - 600))
        self.assertEqual(verifier.verify(VECTOR_006, "test_user").expires_at, ends_at)
        for token in (VECTOR_006, VECTOR_007):
            with self.assertRaises(LoginError) as caught:
                verifier.verify(token, "test_usr")
            self.assertIs(caught.exception.code, INVALID)

    def test_why_is_in_the_log_and_the_token_is_not(self) -> None:
        verifier = AgoraTokenVerifier(APP, CERTIFICATE)
        for token, why in (
            (VECTOR_007, "has expired"),
            (VECTOR_007[:-8], "cut off|unpacked|base64"),
            (token_006("alice", 600, OTHER_APP), "another app"),
            (token_007("alice", 600, made_at=time.time() + 900), "in the future"),
            (token_007("bob", 600), "for another user"),
            ("x", "neither 006 nor 007"),
        ):
            uid = "test_user" if token.startswith(VECTOR_007[:9]) else "alice"
            with (
                self.assertLogs("rtm_sync_agora_token", "INFO") as logs,
                self.assertRaises(LoginError),
            ):
                verifier.verify(token, uid)
            self.assertRegex(logs.output[0], why)
            self.assertIn(repr(uid), logs.output[0])
            if len(token) > 1:
                self.assertNotIn(token, logs.output[0])


class HookTest(RtmTestCase):
    def test_secrets_of_the_scheme_are_its_own_and_no_others(self) -> None:
        self.assertIsInstance(token_verifier(APP, f"agora:{CERTIFICATE}", 30.0), AgoraTokenVerifier)
        self.assertIsNone(token_verifier(APP, CERTIFICATE, 30.0))

    def test_what_is_no_app_id_or_certificate_is_refused_in_words(self) -> None:
        with self.assertRaisesRegex(ValueError, "app id 'my-app' is not 32 hexadecimal"):
            token_verifier("my-app", f"agora:{CERTIFICATE}", 30.0)
        with self.assertRaises(ValueError) as caught:
            token_verifier(APP, f"agora:{CERTIFICATE}0", 30.0)
        self.assertNotIn(CERTIFICATE, str(caught.exception))

    def test_a_gateway_takes_both_versions_and_says_why_not(self) -> None:
        plugins = PluginManager(extra=[rtm_sync_agora_token])
        config = GatewayConfig(
            port=0,
            data=str(self.folder()),
            app_id=APP,
            app_secret=f"agora:{CERTIFICATE}",
        )

        def hub_of(*arguments: object) -> Hub:
            return make_hub(*arguments, plugins=plugins)  # type: ignore[arg-type, misc]

        url = self.entered(BackgroundGateway(config, hub_of)).url
        for token in (token_006("alice", 600), token_007("alice", 600)):
            with RtmClient(APP, url=url) as alice:
                alice.login("alice", token)
                alice.renew_token(token_007("alice", 900))
        for token, code in (
            (token_007("bob", 600), INVALID),
            (token_006("alice", -600), EXPIRED),
            (token_007("alice", 600, services=(ServiceRtc("r", "a"),)), UNAUTHORIZED),
        ):
            with RtmClient(APP, url=url) as alice, self.assertRaises(LoginError) as caught:
                alice.login("alice", token)
            self.assertIs(caught.exception.code, code)


class OwnMintTest(RtmTestCase):
    """Tokens made by hand, so that a builder and the parser cannot share a mistake."""

    def test_006(self) -> None:
        now = int(time.time())
        message = struct.pack("<IIHHI", 7, now + DAY, 1, 1000, now + 60)
        signature = hmac.new(
            CERTIFICATE.encode(), APP.encode() + b"alice" + message, hashlib.sha256
        ).digest()
        body = struct.pack("<H", 32) + signature + struct.pack("<II", zlib.crc32(b"alice"), 0)
        body += struct.pack("<H", len(message)) + message
        token = "006" + APP + base64.b64encode(body).decode()
        verifier = AgoraTokenVerifier(APP, CERTIFICATE)
        self.assertEqual(verifier.verify(token, "alice").expires_at, now + 60)
