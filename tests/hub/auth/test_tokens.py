"""Tokens: only a valid token that the app has signed for this user is accepted."""

from __future__ import annotations

import math
import time
import unittest
from typing import Any

import jwt

from rtm_sync.errors import LoginError
from rtm_sync.hub.auth.tokens import JwtVerifier, TokenVerifier, make_token
from rtm_sync.testing import TokenVerifierContract
from tests.support import RtmTestCase

APP, SECRET = "app", "s" * 32


def now(plus: int) -> int:
    return int(time.time()) + plus


def signed(secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    body = {"app": "app", "sub": "alice", "exp": now(3600)} | claims
    body = {name: value for name, value in body.items() if value is not None}
    return jwt.encode(body, secret, algorithm=algorithm)


class JwtCase(TokenVerifierContract):
    """Creates JWTs for the contract kit."""

    secrets = (SECRET,)

    def verifier(self) -> TokenVerifier:
        return JwtVerifier(APP, SECRET)

    def token(self, uid: str, ttl: float) -> str:
        return make_token(APP, uid, SECRET, ttl=ttl)

    def foreign_token(self, uid: str, ttl: float) -> str:
        return make_token("other", uid, SECRET, ttl=ttl)

    def forged_token(self, uid: str, ttl: float) -> str:
        return make_token(APP, uid, "x" * 32, ttl=ttl)


class JwtContractTest(JwtCase, RtmTestCase):
    test_no_token_is_valid_for_longer_than_may_be = None  # a JWT may be valid for ever


class JwtVerifierTest(unittest.TestCase):
    def setUp(self) -> None:
        self.verifier = JwtVerifier("app", SECRET)

    def assert_refused(self, reason: str, token: str, uid: str = "alice") -> None:
        with self.assertRaises(LoginError) as caught:
            self.verifier.verify(token, uid)
        self.assertEqual(caught.exception.reason, reason, token)
        self.assertNotIn(SECRET, str(caught.exception))

    def test_a_good_token_says_when_it_ends(self) -> None:
        grant = self.verifier.verify(make_token("app", "alice", SECRET, ttl=60), "alice")
        self.assertAlmostEqual(grant.expires_at, time.time() + 60, delta=5)

    def test_an_expired_one_has_its_own_code_and_clocks_may_differ_a_little(self) -> None:
        self.verifier.verify(signed(exp=now(-10)), "alice")
        self.assert_refused("TOKEN_EXPIRED", signed(exp=now(-60)))

    def test_one_of_another_app_or_another_user_is_refused(self) -> None:
        self.assert_refused("INVALID_APP_ID", signed(app="other"))
        self.assert_refused("INVALID_APP_ID", signed(app=None))
        self.assert_refused("INVALID_TOKEN", signed(), uid="bob")

    def test_forged_and_damaged_ones_are_refused(self) -> None:
        good = signed()
        head, body, signature = good.split(".")
        unsigned = jwt.encode({"sub": "alice", "app": "app", "exp": now(60)}, "", algorithm="none")
        forged = (
            signed(secret="x" * 32),
            signed(algorithm="HS384", secret=SECRET * 2),
            unsigned,
            f"{head}.{body}.",
            f"{head}.{body[:-2]}.{signature}",
            good[:-1],
            "",
            "nonsense",
            "a.b.c",
            "é.é.é",
        )
        for token in forged:
            with self.subTest(token[:40]):
                self.assert_refused("INVALID_TOKEN", token)

    def test_what_is_missing_or_no_number_is_refused(self) -> None:
        for claims in (
            {"exp": None},
            {"sub": None},
            {"sub": ["alice"]},
            {"exp": "soon"},
            {"exp": [now(60)]},
            {"exp": math.nan},
            {"exp": math.inf},
            {"iat": "yesterday"},
            {"iat": [1]},
            {"iat": math.nan},
            {"iat": math.inf},
            {"nbf": now(3600)},
        ):
            with self.subTest(claims):
                self.assert_refused("INVALID_TOKEN", signed(**claims))

    def test_a_claim_that_is_null_is_refused_and_not_taken_as_absent(self) -> None:
        body = {"app": "app", "sub": "alice", "exp": now(3600), "iat": now(0)}
        for name in (*body, "rtm"):
            token = jwt.encode(body | {name: None}, SECRET, algorithm="HS256")
            with self.subTest(name), self.assertRaises(LoginError):
                self.verifier.verify(token, "alice")

    def test_an_enormous_one_is_refused_before_it_is_decoded(self) -> None:
        self.assert_refused("INVALID_TOKEN", "a" * 10_000_000)

    def test_a_secret_that_is_too_short_is_refused_with_a_way_out(self) -> None:
        for make in (
            lambda: JwtVerifier("app", "short"),
            lambda: make_token("app", "alice", "short"),
        ):
            with self.assertRaisesRegex(ValueError, "has 5 bytes; HS256 needs at least 32"):
                make()
