"""`rtm-sync token`: it prints valid tokens, and refuses wrong arguments with a clear error."""

from __future__ import annotations

import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from rtm_sync import LoginError
from rtm_sync.hub.auth.tokens import JwtVerifier, Privileges
from tests.cli.support import SECRET, CommandTestCase

APP = {"RTM_SYNC_APP_ID": "my-app", "RTM_SYNC_APP_SECRET": SECRET}


class TokenTest(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.verifier = JwtVerifier("my-app", SECRET)

    def lifetime(self, *arguments: object) -> float:
        """Seconds until the printed token of alice expires."""
        printed = self.printed("token", "alice", *arguments, **APP)
        self.assertEqual(printed.count("\n"), 1)
        return self.verifier.verify(printed.strip(), "alice").expires_at - time.time()

    def test_a_token_lets_its_user_in_for_an_hour(self) -> None:
        self.assertAlmostEqual(self.lifetime(), 3600, delta=10)

    def test_the_lifetime_is_an_option(self) -> None:
        self.assertAlmostEqual(self.lifetime("--ttl", 86_400), 86_400, delta=10)

    def test_the_secret_may_be_a_line_of_standard_input(self) -> None:
        given = ("token", "alice", "--app-id", "my-app", "--app-secret", "-")
        done = self.command(*given, standard_input=f"{SECRET}\r\nthe next line\n")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertGreater(self.verifier.verify(done.stdout.strip(), "alice").expires_at, 0)
        done = self.command(*given)
        self.assertEqual(done.returncode, 2)
        self.assertIn("'--app-secret': standard input has no line to read.", done.stderr)

    def test_what_the_user_may_is_an_option(self) -> None:
        given = ("--join", "room-*", "--join", "lobby", "--publish", "lobby", "--no-upload")
        printed = self.printed("token", "alice", *given, "--no-download", **APP).strip()
        self.assertEqual(
            self.verifier.verify(printed, "alice").privileges,
            Privileges(("room-*", "lobby"), ("lobby",), upload=False, download=False),
        )
        printed = self.printed("token", "alice", **APP).strip()
        self.assertEqual(self.verifier.verify(printed, "alice").privileges, Privileges())

    def test_a_private_key_takes_the_place_of_the_secret(self) -> None:
        private = Ed25519PrivateKey.generate()
        form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.home / "private.pem").write_bytes(private.private_bytes(*form))
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (self.home / "public.pem").write_bytes(public)
        only_app = {"RTM_SYNC_APP_ID": "my-app"}
        printed = self.printed(
            "token", "alice", "--key", "private.pem", "--key-id", "k", **only_app
        )
        verifier = JwtVerifier("my-app", f"file:{self.home / 'public.pem'}")
        self.assertGreater(verifier.verify(printed.strip(), "alice").expires_at, time.time())
        (self.home / "private.pem").write_text("-----BEGIN nonsense")
        refusal = self.refused("token", "alice", "--key", "private.pem", status=2, **only_app)
        self.assertIn("The private key cannot be used", refusal)

    def test_options_and_variables_make_the_same_token(self) -> None:
        options = ("--app-id", "my-app", "--app-secret", SECRET)
        printed = self.printed("token", "alice", *options)
        self.assertGreater(self.verifier.verify(printed.strip(), "alice").expires_at, time.time())

    def test_a_token_is_for_one_user_and_one_app(self) -> None:
        token = self.printed("token", "alice", **APP).strip()
        with self.assertRaisesRegex(LoginError, "INVALID_TOKEN"):
            self.verifier.verify(token, "bob")
        with self.assertRaisesRegex(LoginError, "INVALID_APP_ID"):
            JwtVerifier("other-app", SECRET).verify(token, "alice")

    def test_a_uid_with_a_space_is_a_uid(self) -> None:
        token = self.printed("token", "alice in town", **APP).strip()
        self.assertGreater(self.verifier.verify(token, "alice in town").expires_at, time.time())

    def test_what_makes_no_token_is_refused_in_words(self) -> None:
        for arguments, changed, complaint in (
            ((), {}, "Missing argument 'UID'"),
            (("alice", "bob"), {}, r"unexpected extra argument \(bob\)"),
            (("",), {}, "UID is empty; it needs 1 to 64"),
            (("a/b",), {}, "UID 'a/b' contains '/'; allowed are"),
            (("a" * 65,), {}, "UID has 65 characters; the limit is 64"),
            (("alice", "--app-id", "x" * 65), {}, "app_id has 65 characters"),
            (("alice",), {"RTM_SYNC_APP_SECRET": "short"}, "has 5 bytes; HS256 needs at least 32"),
            (("alice", "--ttl", 0), {}, "--ttl is 0; it must be at least 1 second"),
            (("alice", "--ttl", -60), {}, "--ttl is -60; it must be at least 1 second"),
            (("alice", "--ttl", "inf"), {}, "--ttl is inf; it must be at least 1 second"),
            (("alice", "--ttl", "nan"), {}, "--ttl is nan; it must be at least 1 second"),
            (("alice", "--ttl", "soon"), {}, "'--ttl': 'soon' is not a valid float"),
        ):
            with self.subTest(arguments=arguments, **changed):
                refusal = self.refused("token", *arguments, status=2, **(APP | changed))
                self.assertRegex(refusal, complaint)

    def test_the_app_and_its_secret_are_needed(self) -> None:
        for missing, option in (
            ("RTM_SYNC_APP_ID", "--app-id"),
            ("RTM_SYNC_APP_SECRET", "--app-secret"),
        ):
            given = {name: value for name, value in APP.items() if name != missing}
            with self.subTest(missing):
                self.assertIn(option, self.refused("token", "alice", status=2, **given))

    def test_a_refusal_never_repeats_the_secret(self) -> None:
        done = self.command("token", "alice", RTM_SYNC_APP_ID="a", RTM_SYNC_APP_SECRET="hush-hush")
        self.assertEqual(done.returncode, 2)
        self.assertNotIn("hush-hush", done.stdout + done.stderr)
