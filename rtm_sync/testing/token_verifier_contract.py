"""The contract of every token verifier, as a test case to mix in."""

from __future__ import annotations

import random
import string
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..errors import LoginError, LoginErrorCode
from ..hub.auth.tokens import Grant, TokenVerifier
from .case import RtmTestCase

if TYPE_CHECKING:
    _Base = RtmTestCase
else:
    _Base = object

UID = "alice"
_HOUR = 3600.0
_LONG_AGO = -2 * 24 * _HOUR
_SKEW = 120.0  # seconds a verifier may allow clocks to differ
_BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
_SECONDS = 2.0  # for one token, however odd


class TokenVerifierContract(_Base):
    """Mix into a `RtmTestCase` and say how tokens are made:

        class MyVerifierTest(TokenVerifierContract, RtmTestCase):
            def verifier(self) -> TokenVerifier:
                return MyVerifier("my-app", SECRET)

            def token(self, uid: str, ttl: float) -> str:
                return sign("my-app", uid, ttl, SECRET)

            def foreign_token(self, uid: str, ttl: float) -> str:
                return sign("other-app", uid, ttl, SECRET)

            def forged_token(self, uid: str, ttl: float) -> str:
                return sign("my-app", uid, ttl, OTHER_SECRET)

    Attributes:
        secrets: texts that no error's message may have: keys, certificates.
        longest: seconds a token is valid at most, whatever its own expiry; None for no limit.
    """

    secrets: Sequence[str] = ()
    longest: float | None = None

    def verifier(self) -> TokenVerifier:
        """The verifier of one app."""
        raise NotImplementedError

    def token(self, uid: str, ttl: float) -> str:
        """A token of that app for the user; `ttl` is seconds, negative for an expired token."""
        raise NotImplementedError

    def foreign_token(self, uid: str, ttl: float) -> str:
        """A token of another app that is valid in all other respects."""
        raise NotImplementedError

    def forged_token(self, uid: str, ttl: float) -> str:
        """A token of that app, signed with a wrong key."""
        raise NotImplementedError

    # -- helpers --

    def refusal(
        self, token: str, uid: str = UID, verifier: TokenVerifier | None = None
    ) -> LoginError:
        """Assert that a token is refused in time, without secrets in the error; return it."""
        verifier = verifier or self.verifier()
        began = time.monotonic()
        with self.assertRaises(LoginError) as caught:
            verifier.verify(token, uid)
        self.assertLess(time.monotonic() - began, _SECONDS)
        error = caught.exception
        self.assertTrue(error.message)
        for secret in self.secrets:
            self.assertNotIn(secret, str(error))
        if len(token) > 20:
            self.assertNotIn(token, str(error))
        return error

    def assert_refused(self, token: str, code: LoginErrorCode, uid: str = UID) -> None:
        self.assertIs(self.refusal(token, uid).code, code)

    # -- good --

    def test_a_good_token_is_granted_until_it_ends(self) -> None:
        for ttl in (60.0, _HOUR, 12 * _HOUR):
            verifier = self.verifier()
            grant = verifier.verify(self.token(UID, ttl), UID)
            self.assertIsInstance(grant, Grant)
            self.assertTrue(not grant.key or verifier.has_key(grant.key), grant.key)
            self.assertAlmostEqual(grant.expires_at, time.time() + ttl, delta=10)

    def test_no_token_is_valid_for_longer_than_may_be(self) -> None:
        if self.longest is None:
            self.skipTest("tokens may be valid for ever")
        grant = self.verifier().verify(self.token(UID, 30 * self.longest), UID)
        self.assertLess(grant.expires_at, time.time() + self.longest + 10)

    def test_every_uid_that_may_be_is_checked_as_it_is(self) -> None:
        for uid in ("a", "0", "x" * 64, "!#$%&()+-:;<=.>?@[]^_ {|}~,", "Alice"):
            self.verifier().verify(self.token(uid, _HOUR), uid)
            self.assert_refused(
                self.token(uid, _HOUR), LoginErrorCode.LOGIN_ERR_INVALID_TOKEN, uid.swapcase() + "x"
            )

    def test_many_threads_may_use_one_verifier(self) -> None:
        verifier = self.verifier()
        good, forged = self.token(UID, _HOUR), self.forged_token(UID, _HOUR)
        start = threading.Barrier(8)

        def work(_: int) -> int:
            start.wait(30)
            granted = 0
            for _ in range(50):
                granted += verifier.verify(good, UID).expires_at > time.time()
                self.refusal(forged, verifier=verifier)
            return granted

        with ThreadPoolExecutor(8) as threads:
            self.assertEqual(sum(threads.map(work, range(8))), 400)

    # -- bad --

    def test_a_token_that_has_ended_is_expired(self) -> None:
        for ttl in (_LONG_AGO, -_HOUR, -_SKEW):
            self.assert_refused(self.token(UID, ttl), LoginErrorCode.LOGIN_ERR_TOKEN_EXPIRED)

    def test_another_users_token_is_refused(self) -> None:
        for uid in ("bob", "alic", "alice2", "ALICE", " alice", ""):
            self.assert_refused(
                self.token(uid or "bob", _HOUR), LoginErrorCode.LOGIN_ERR_INVALID_TOKEN
            )

    def test_another_apps_token_is_refused_as_that(self) -> None:
        self.assert_refused(self.foreign_token(UID, _HOUR), LoginErrorCode.LOGIN_ERR_INVALID_APP_ID)

    def test_a_forged_token_is_refused_whatever_else_is_wrong_with_it(self) -> None:
        for uid, ttl in ((UID, _HOUR), ("bob", _HOUR), (UID, _LONG_AGO)):
            error = self.refusal(self.forged_token(uid, ttl))
            self.assertIs(error.code, LoginErrorCode.LOGIN_ERR_INVALID_TOKEN)

    def test_no_character_may_be_another(self) -> None:
        verifier, good = self.verifier(), self.token(UID, _HOUR)
        meant = verifier.verify(good, UID)
        meaningless = 0
        for position, char in enumerate(good):
            other = _BASE64[_BASE64.index(char) ^ 0x20] if char in _BASE64 else "A"
            changed = good[:position] + other + good[position + 1 :]
            try:
                grant = verifier.verify(changed, UID)
            except LoginError:
                self.refusal(changed, verifier=verifier)
            else:
                self.assertEqual(grant, meant)
                meaningless += 1
        # A packed format ends in bits that mean nothing; a signature has none of these.
        self.assertLessEqual(meaningless, 2)

    def test_no_character_may_be_missing_or_more(self) -> None:
        verifier, good = self.verifier(), self.token(UID, _HOUR)
        for end in range(len(good) - 2):  # the last one or two may be padding
            self.refusal(good[:end], verifier=verifier)
        for more in ("A" * 40, "." * 3, good):
            self.refusal(good + more, verifier=verifier)

    def test_what_is_no_token_at_all_is_invalid(self) -> None:
        for text in (
            "",
            " ",
            ".",
            "..",
            "...",
            "null",
            "{}",
            "\0",
            "é" * 100,
            "\ud800",  # half of a surrogate pair: not even text
            "a.b.c",
            "A" * 7_000,
            "A" * 1_000_000,
            "." * 1_000_000,
            "[" * 5_000,
            self.token(UID, _HOUR) + "\n",
            self.token(UID, _HOUR) * 1_000,
        ):
            with self.subTest(text[:20]):
                self.assert_refused(text, LoginErrorCode.LOGIN_ERR_INVALID_TOKEN)

    def test_noise_is_refused(self) -> None:
        chance = random.Random(1)
        verifier, good = self.verifier(), self.token(UID, _HOUR)
        for _ in range(300):
            noise = "".join(chance.choices(_BASE64 + "-_=.", k=chance.randint(1, 300)))
            cut = chance.randrange(len(good))
            self.refusal(noise, verifier=verifier)
            self.refusal(good[:cut] + noise, verifier=verifier)
