"""The parts that commands share (profiles, progress, redaction), and `doctor` and `plugins`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rtm_sync import LoginError
from rtm_sync.cli.doctor import Finding, Verdict, diagnose
from rtm_sync.cli.output import ExitCode, _LineBars, exit_code
from rtm_sync.cli.profiles import Profile, load_profile
from rtm_sync.gateway.config import ConfigError
from rtm_sync.hub.auth.tokens import JwtVerifier, make_token
from rtm_sync.printable import printable
from rtm_sync.transfers.control import MediaOperationProgress
from tests.cli.support import SECRET, CommandTestCase
from tests.support import RtmTestCase, local_gateway

FILE = """
[default]
url = "ws://default:1"
app_id = "from the profile"
uid = "somebody"

[work]
url = "wss://work"
proxy = "none"
"""


class ProfileTest(RtmTestCase):
    def setUp(self) -> None:
        self.file = self.folder() / "profiles.toml"
        self.file.write_text(FILE)

    def test_options_win_over_variables_and_variables_over_the_profile(self) -> None:
        variables = {"RTM_SYNC_APP_ID": "from a variable", "RTM_SYNC_UID": "variable"}
        profile = load_profile(self.file, None, variables, {"uid": "option", "token": None})
        self.assertEqual(
            (profile.url, profile.app_id, profile.uid),
            ("ws://default:1", "from a variable", "option"),
        )

    def test_a_named_profile_takes_nothing_from_the_default_one(self) -> None:
        profile = load_profile(self.file, "work", {}, {})
        self.assertEqual((profile.url, profile.app_id), ("wss://work", ""))
        self.assertEqual((profile.client_proxy, Profile().client_proxy), ("", None))

    def test_what_is_wrong_with_a_profile_is_said_in_words_without_secrets(self) -> None:
        for text, name, complaint in (
            ("", "home", r"no profile 'home' in \S+profiles.toml; its profiles: none\."),
            (FILE, "home", "its profiles: default, work"),
            (
                "[default]\nhue = 1",
                None,
                "'hue' in profile 'default' of .* is not a setting",
            ),
            ("[default]\ntoken = 12345", None, "token in profile 'default' of .* is not text"),
            (
                'url = "ws://x"',
                None,
                r"'url' in .* is not in a profile; write it below a line such as \[default\]",
            ),
            ("[", None, "is not TOML"),
        ):
            with self.subTest(text), self.assertRaisesRegex(ConfigError, complaint) as caught:
                self.file.write_text(text)
                load_profile(self.file, name, {}, {})
            self.assertNotIn("12345", str(caught.exception))

    def test_a_missing_setting_says_the_three_ways_to_give_it(self) -> None:
        with self.assertRaisesRegex(ConfigError, "--app-id, set RTM_SYNC_APP_ID, or .* profile"):
            Profile(uid="alice").require("app_id", "uid")

    def test_a_secret_makes_tokens_and_is_not_shown(self) -> None:
        profile = Profile(app_id="app", app_secret=SECRET)
        provider = profile.token_for("alice")
        assert provider is not None
        grant = JwtVerifier("app", SECRET).verify(provider(), "alice")
        self.assertGreater(grant.expires_at, time.time())
        self.assertNotIn(SECRET, repr(profile))
        self.assertIsNone(Profile().token_for("alice"))


class OutputTest(RtmTestCase):
    def test_strangers_text_commands_no_terminal(self) -> None:
        self.assertEqual(
            printable("a\x1b]0;x\x07\n\u202egnp.exe\u2028 ünï 猫 👩‍🚀"),
            "a\\x1b]0;x\\x07\\n\\u202egnp.exe\\u2028 ünï 猫 👩‍🚀",
        )

    def test_without_a_terminal_there_is_a_line_now_and_then_with_rate_and_time_left(self) -> None:
        now, lines = [0.0], []
        show = _LineBars(lines.append, lambda: now[0]).of("cat\x07.jpg")
        assert show is not None
        for second in range(11):
            now[0] = float(second)
            show(MediaOperationProgress(second * 1_000_000, 30_000_000))
        self.assertEqual(
            lines,
            [
                "cat\\x07.jpg: 5.0 MB of 30.0 MB, 1.0 MB/s, 25 s left",
                "cat\\x07.jpg: 10.0 MB of 30.0 MB, 1.0 MB/s, 20 s left",
            ],
        )

    def test_logins_that_are_refused_and_those_that_find_nobody_differ(self) -> None:
        for reason, code in (
            ("INVALID_TOKEN", ExitCode.REFUSED),
            ("INVALID_APP_ID", ExitCode.REFUSED),
            ("TIMEOUT", ExitCode.UNREACHABLE),
            ("UNKNOWN", ExitCode.UNREACHABLE),
            ("INVALID_ARGUMENT", ExitCode.USAGE),
        ):
            with self.subTest(reason):
                self.assertIs(exit_code(LoginError.named(reason, "why")), code)


class DoctorTest(CommandTestCase):
    def findings(self, profile: Profile, **options: Any) -> dict[str, Finding]:
        return {finding.check: finding for finding in diagnose(profile, **options)}

    def test_everything_is_well_with_a_gateway_that_is_there(self) -> None:
        with local_gateway(app_id="app", app_secret=SECRET) as url:
            printed = self.printed(
                "doctor",
                RTM_SYNC_URL=url,
                RTM_SYNC_APP_ID="app",
                RTM_SYNC_APP_SECRET=SECRET,
                HTTPS_PROXY="http://user:hush@proxy:3128",
                HOME=str(self.home),
            )
        self.assertNotIn("failed", printed)
        for check in (
            *(
                "versions",
                "network",
                "addresses",
                "reachability",
                "clock",
                "token",
                "login",
                "plugins",
            ),
            "thumbnails",
        ):
            self.assertIn(f"ok       {check}: ", printed)
        for secret in (SECRET, "hush", str(self.home)):
            self.assertNotIn(secret, printed)

    def test_a_gateway_that_is_not_there_is_status_1_and_the_rest_is_looked_at(
        self,
    ) -> None:
        done = self.command(
            "doctor", "--json", RTM_SYNC_URL="ws://127.0.0.1:1", RTM_SYNC_APP_ID="app"
        )
        self.assertEqual(done.returncode, 1)
        records = {record["check"]: record for record in map(json.loads, done.stdout.splitlines())}
        self.assertEqual(records["addresses"]["verdict"], "failed")
        self.assertEqual(records["addresses"]["addresses"][0]["address"], "127.0.0.1")
        self.assertEqual(records["reachability"]["verdict"], "failed")
        self.assertIn("refused", records["reachability"]["detail"])
        self.assertEqual(records["plugins"]["plugins"][0]["status"], "loaded")
        self.assertGreater(records["disk"]["free"], 0)

    def test_a_token_that_does_not_fit_is_explained_and_never_shown(self) -> None:
        token = make_token("other", "bob", SECRET, ttl=-60)
        found = self.findings(Profile("memory://doctor", app_id="app", uid="alice", token=token))[
            "token"
        ]
        self.assertIs(found.verdict, Verdict.FAILED)
        self.assertRegex(found.detail, "expired 6. s ago; its sub is 'bob', but the uid is 'alice'")
        self.assertNotIn(token, str(found))

    def test_it_does_not_end_the_users_session_unless_told(self) -> None:
        profile = Profile("memory://doctor", app_id="app", uid="alice", token="opaque")
        self.assertIs(self.findings(profile)["login"].verdict, Verdict.SKIPPED)
        login = self.findings(profile, log_in=True)["login"]
        self.assertEqual((login.verdict, login.seen["uid"]), (Verdict.OK, "alice"))

    def test_a_profiles_file_that_others_can_read_is_a_warning(self) -> None:
        file = self.folder() / "profiles.toml"
        file.write_text(FILE)
        for mode, verdict in ((0o644, Verdict.WARNING), (0o600, Verdict.OK)):
            file.chmod(mode)
            found = self.findings(Profile("memory://doctor"), profiles=file)["profile"]
            self.assertIs(found.verdict, verdict)
        file.chmod(0o644)
        printed = self.printed("doctor", "--profiles", file, "--url", "memory://doctor")
        self.assertIn("warning  profile: ", printed)


class PluginsTest(CommandTestCase):
    def broken_plugin(self) -> Path:
        """A distribution whose plugin cannot be imported."""
        folder = self.folder()
        metadata = folder / "broken-1.2.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.2\n")
        (metadata / "entry_points.txt").write_text("[rtm_sync]\nbroken = no_such_module\n")
        return folder

    def test_built_ins_and_what_cannot_be_loaded_are_listed(self) -> None:
        path = f"{Path(__file__).parents[2]}:{self.broken_plugin()}"
        done = self.command("plugins", "--json", PYTHONPATH=path)
        self.assertEqual(done.returncode, 1)
        records = {record["name"]: record for record in map(json.loads, done.stdout.splitlines())}
        self.assertIn("loaded", {record["status"] for record in records.values()})
        broken = records["broken"]
        self.assertEqual((broken["distribution"], broken["version"]), ("broken", "1.2"))
        self.assertEqual(broken["status"], "failed")
        self.assertIn("no_such_module", broken["reason"])
