"""Keys: one algorithm for each, files that change, and tokens that try to confuse algorithms."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from rtm_sync.errors import LoginError
from rtm_sync.hub.auth.keys import key_source
from rtm_sync.hub.auth.tokens import AnyOf, Grant, JwtVerifier, Privileges, make_token
from tests.support import RtmTestCase, Stopwatch

APP = "app"
SECRETS = "the first secret, of 32 bytes or so", "the second secret, of 32 bytes too"

PrivateKey = ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
ED25519 = ed25519.Ed25519PrivateKey.generate()
OTHER_ED25519 = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
KEYS: dict[str, PrivateKey] = {"EdDSA": ED25519, "RS256": RSA, "ES256": P256}


def private_pem(key: PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def public_pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def public_jwk(key: PrivateKey, kid: str) -> dict[str, str]:
    algorithms = {
        ed25519.Ed25519PrivateKey: OKPAlgorithm,
        rsa.RSAPrivateKey: RSAAlgorithm,
        ec.EllipticCurvePrivateKey: ECAlgorithm,
    }
    [algorithm] = [found for kind, found in algorithms.items() if isinstance(key, kind)]
    return json.loads(algorithm.to_jwk(key.public_key())) | {"kid": kid}


class KeyCase(RtmTestCase):
    def setUp(self) -> None:
        self.home = self.folder()

    def pem(self, key: PrivateKey, name: str = "public.pem") -> str:
        """Write the public key, and return the `file:` text that replaces a secret."""
        return f"file:{self.written(name, public_pem(key))}"

    def jwks(self, **keys: PrivateKey) -> str:
        content = {"keys": [public_jwk(key, kid) for kid, key in keys.items()]}
        return f"jwks:{self.written('keys.json', json.dumps(content).encode())}"

    def written(self, name: str, content: bytes) -> Path:
        path = self.home / name
        replacement = self.home / f"{name}.new"
        replacement.write_bytes(content)
        os.replace(replacement, path)
        return path

    def assert_refused(self, verify: Callable[[], Grant], reason: str = "INVALID_TOKEN") -> None:
        with self.assertRaises(LoginError) as caught:
            verify()
        self.assertEqual(caught.exception.reason, reason)


class AlgorithmTest(KeyCase):
    def test_a_private_key_signs_what_its_public_one_accepts(self) -> None:
        for algorithm, key in KEYS.items():
            with self.subTest(algorithm):
                made = make_token(APP, "alice", private_pem(key), ttl=60)
                self.assertEqual(jwt.get_unverified_header(made)["alg"], algorithm)
                grant = JwtVerifier(APP, self.pem(key)).verify(made, "alice")
                self.assertAlmostEqual(grant.expires_at, time.time() + 60, delta=5)
                self.assert_refused(
                    lambda made=made, key=key: JwtVerifier(APP, self.pem(key)).verify(made, "bob")
                )

    def test_another_key_of_the_same_kind_is_refused(self) -> None:
        made = make_token(APP, "alice", private_pem(OTHER_ED25519))
        verifier = JwtVerifier(APP, self.pem(ED25519))
        self.assert_refused(lambda: verifier.verify(made, "alice"))

    def test_a_public_key_is_no_shared_secret(self) -> None:
        """The classic attack: a token of HS256, signed with the bytes of the public key."""
        import base64
        import hashlib
        import hmac

        for algorithm, key in KEYS.items():
            head = {"alg": "HS256", "typ": "JWT"}
            claims = {"app": APP, "sub": "alice", "exp": int(time.time()) + 60}
            text = b".".join(
                base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
                for part in (head, claims)
            )
            verifier = JwtVerifier(APP, self.pem(key))
            for material in (public_pem(key), public_pem(key).strip()):
                mac = hmac.new(material, text, hashlib.sha256).digest()
                forged = (text + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()
                with self.subTest(algorithm):
                    self.assert_refused(
                        lambda verifier=verifier, forged=forged: verifier.verify(forged, "alice")
                    )

    def test_a_token_does_not_choose_its_algorithm(self) -> None:
        verifier = JwtVerifier(APP, self.pem(RSA))
        claims = {"app": APP, "sub": "alice", "exp": int(time.time()) + 60}
        good = jwt.encode(claims, private_pem(RSA), algorithm="RS256")
        self.assertEqual(verifier.verify(good, "alice").expires_at, claims["exp"])
        for algorithm in ("RS384", "RS512", "PS256"):
            other = jwt.encode(claims, private_pem(RSA), algorithm=algorithm)
            with self.subTest(algorithm):
                self.assert_refused(lambda other=other: verifier.verify(other, "alice"))
        self.assert_refused(lambda: verifier.verify(jwt.encode(claims, "", "none"), "alice"))

    def test_keys_that_are_none_of_these_are_refused_in_words(self) -> None:
        weak = rsa.generate_private_key(65537, 1024)
        curve = ec.generate_private_key(ec.SECP384R1())
        for content, why in (
            (public_pem(weak), "1024 bits; it must have 2048"),
            (public_pem(curve), "not a public key of Ed25519, RSA or P-256"),
            (b"nonsense", "cannot be used"),
            (private_pem(ED25519).encode(), "cannot be used"),
            (b"", "cannot be used"),
        ):
            with self.subTest(why), self.assertRaisesRegex(ValueError, why):
                JwtVerifier(APP, f"file:{self.written('key.pem', content)}")
        with self.assertRaisesRegex(ValueError, "absent.pem cannot be used"):
            JwtVerifier(APP, f"file:{self.home}/absent.pem")
        with self.assertRaisesRegex(ValueError, "private key cannot be used"):
            make_token(APP, "alice", "-----BEGIN PRIVATE KEY-----\nnonsense")


class JwksTest(KeyCase):
    def test_a_token_names_its_key_or_all_are_tried(self) -> None:
        verifier = JwtVerifier(APP, self.jwks(one=ED25519, two=RSA, three=P256))
        for kid, key in (("one", ED25519), ("two", RSA), ("three", P256), (None, RSA)):
            with self.subTest(kid):
                made = make_token(APP, "alice", private_pem(key), key_id=kid)
                self.assertGreater(verifier.verify(made, "alice").expires_at, time.time())

    def test_a_token_that_names_another_key_than_signed_it_is_refused(self) -> None:
        verifier = JwtVerifier(APP, self.jwks(one=ED25519, two=OTHER_ED25519))
        made = make_token(APP, "alice", private_pem(ED25519), key_id="two")
        self.assert_refused(lambda: verifier.verify(made, "alice"))

    def test_a_token_that_names_an_unknown_key_is_refused(self) -> None:
        one = private_pem(ED25519)
        named = JwtVerifier(APP, self.jwks(one=ED25519, two=RSA))
        for kid in ("three", "One", "one ", ""):
            made = make_token(APP, "alice", one, key_id=kid)
            with self.subTest(kid):
                self.assert_refused(lambda made=made: named.verify(made, "alice"))

    def test_a_shared_secret_checks_no_token_that_names_a_key(self) -> None:
        for kid in ("one", ""):
            made = make_token(APP, "alice", SECRETS[0], key_id=kid)
            self.assert_refused(
                lambda made=made: JwtVerifier(APP, SECRETS[0]).verify(made, "alice")
            )
        JwtVerifier(APP, SECRETS[0]).verify(make_token(APP, "alice", SECRETS[0]), "alice")

    def test_a_public_key_without_a_name_checks_tokens_of_every_kid(self) -> None:
        made = make_token(APP, "alice", private_pem(ED25519), key_id="one")
        JwtVerifier(APP, self.pem(ED25519)).verify(made, "alice")
        named, unnamed = public_jwk(RSA, "two"), public_jwk(ED25519, "")
        del unnamed["kid"]
        content = json.dumps({"keys": [named, unnamed]}).encode()
        both = JwtVerifier(APP, f"jwks:{self.written('keys.json', content)}")
        both.verify(made, "alice")
        other = make_token(APP, "alice", private_pem(RSA), key_id="one")
        self.assert_refused(lambda: both.verify(other, "alice"))

    def test_what_is_no_set_of_keys_is_refused_in_words(self) -> None:
        for content in (
            b"",
            b"[]",
            b"{}",
            b'{"keys": []}',
            b'{"keys": [{"kty": "oct", "k": "AA"}]}',
        ):
            path = self.written("keys.json", content)
            with self.subTest(content), self.assertRaisesRegex(ValueError, "cannot be used"):
                JwtVerifier(APP, f"jwks:{path}")


class ChangeTest(KeyCase):
    def test_a_file_that_changes_is_read_again(self) -> None:
        source = key_source(self.jwks(one=ED25519), check_interval=0.0)
        self.assertEqual([key.name for key in source.current()], ["one"])
        self.jwks(one=ED25519, two=RSA)
        self.assertEqual([key.name for key in source.current()], ["one", "two"])

    def test_a_damaged_or_absent_file_changes_nothing_and_is_told(self) -> None:
        source = key_source(self.jwks(one=ED25519), check_interval=0.0)
        for damage in (
            lambda: self.written("keys.json", b"nonsense"),
            (self.home / "keys.json").unlink,
        ):
            damage()
            with self.assertLogs("rtm_sync.hub.auth.keys", "ERROR") as logged:
                self.assertEqual([key.name for key in source.current()], ["one"])
            self.assertIn("keys.json cannot be used", logged.output[0])

    def test_it_is_looked_at_now_and_then_only(self) -> None:
        source = key_source(self.jwks(one=ED25519), check_interval=3600.0)
        self.jwks(two=RSA)
        self.assertEqual([key.name for key in source.current()], ["one"])

    def test_two_secrets_are_valid_at_once(self) -> None:
        both = AnyOf({secret: JwtVerifier(APP, secret) for secret in SECRETS})
        for secret in SECRETS:
            both.verify(make_token(APP, "alice", secret), "alice")
            expired = make_token(APP, "alice", secret, ttl=-60)
            self.assert_refused(
                lambda expired=expired: both.verify(expired, "alice"), "TOKEN_EXPIRED"
            )
        third = make_token(APP, "alice", "a third secret that nobody was told")
        self.assert_refused(lambda: both.verify(third, "alice"))


class PrivilegesTest(KeyCase):
    def verified(self, **claims: object) -> Privileges:
        body = {"app": APP, "sub": "alice", "exp": int(time.time()) + 60} | claims
        return JwtVerifier(APP, SECRETS[0]).verify(jwt.encode(body, SECRETS[0]), "alice").privileges

    def test_they_come_through_a_token(self) -> None:
        for given in (
            Privileges(),
            Privileges(join=()),
            Privileges(("a*", "b"), ("c",), upload=False, download=False),
        ):
            made = make_token(APP, "alice", SECRETS[0], privileges=given)
            self.assertEqual(JwtVerifier(APP, SECRETS[0]).verify(made, "alice").privileges, given)

    def test_a_claim_that_is_not_understood_makes_the_token_invalid(self) -> None:
        for claim in (
            None,
            True,
            False,
            0,
            1.5,
            "",
            "all",
            [],
            ["join"],
            [{"join": ["*"]}],
            {"joins": []},
            {"Join": []},
            {"join": None},
            {"join": True},
            {"join": "*"},
            {"join": {"*": True}},
            {"join": [1]},
            {"join": [None]},
            {"join": [["*"]]},
            {"publish": None},
            {"publish": "*"},
            {"publish": ["x"] * 101},
            {"upload": None},
            {"upload": 0},
            {"upload": 1},
            {"upload": "true"},
            {"download": None},
            {"download": []},
        ):
            with self.subTest(claim):
                self.assert_refused(lambda claim=claim: self.verified(rtm=claim))  # type: ignore[arg-type, return-value]

    def test_without_the_claim_or_its_members_everything_is_allowed(self) -> None:
        self.assertEqual(self.verified(), Privileges())
        self.assertEqual(self.verified(rtm={}), Privileges())
        self.assertEqual(self.verified(rtm={"join": []}), Privileges(join=()))

    def test_a_pattern_is_text_and_stars(self) -> None:
        for pattern, fitting, others in (
            ("room", ["room"], ["rooms", "Room", ""]),
            ("room-*", ["room-", "room-1", "room-*"], ["room", "a room-1"]),
            ("*", ["", "anything"], []),
            ("*-eu", ["a-eu", "-eu"], ["a-eu-b"]),
            ("a*b*c", ["abc", "a-b-c", "abbc", "abcbc"], ["ac", "ab", "acb"]),
            ("a*a", ["aa", "aba"], ["a"]),
            ("a.c", ["a.c"], ["abc"]),
            ("[ab]", ["[ab]"], ["a"]),
        ):
            allowed = Privileges(join=(pattern,), publish=(pattern,))
            for text in fitting:
                self.assertTrue(
                    allowed.may_join(text) and allowed.may_publish(text), (pattern, text)
                )
            for text in others:
                self.assertFalse(
                    allowed.may_join(text) or allowed.may_publish(text), (pattern, text)
                )

    def test_a_hostile_pattern_costs_no_time(self) -> None:
        hostile = Privileges(join=("*a" * 2000 + "b",))
        watch = Stopwatch()
        self.assertFalse(hostile.may_join("a" * 64))
        self.assertLess(watch.seconds(), 1.0)
