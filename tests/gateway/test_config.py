"""The gateway's settings: one name in three sources, and refusals that say what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import click

from rtm_sync.cli.commands import rtm_sync
from rtm_sync.gateway.config import ConfigError, GatewayConfig, is_loopback, load_config
from tests.support import RtmTestCase

SECRET = "a secret of tests, 32 bytes or more"
SETTINGS = {
    "host": "::1",
    "port": 9000,
    "data": "elsewhere",
    "engine": "local:///elsewhere",
    "media": "memory://",
    "app_id": "my-app",
    "app_secret": SECRET,
    "clock_skew": 5.5,
    "limits": "web",
    "tls_cert": "chain.pem",
    "tls_key": "key.pem",
    "origins": "https://app.example",
    "proxies": "10.0.0.0/8 ::1",
    "connections_per_address": 7,
    "metrics": "127.0.0.1:9464",
    "silence": 7.5,
    "drain": 2.5,
    "log_level": "warning",
    "log_format": "json",
}
OTHERS = {"config", "as_json", "quiet"}  # options of the command, not of the gateway
EVERYTHING = GatewayConfig(**SETTINGS)  # type: ignore[arg-type]


class ConfigCase(RtmTestCase):
    def toml(self, text: str | bytes) -> Path:
        path = self.folder() / "gateway.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def loaded(
        self,
        toml: str | bytes | None = None,
        environment: Mapping[str, str] | None = None,
        **options: object,
    ) -> GatewayConfig:
        file = None if toml is None else self.toml(toml)
        return load_config(file, environment or {}, options)

    def refusal(
        self,
        toml: str | bytes | None = None,
        environment: Mapping[str, str] | None = None,
        **options: object,
    ) -> str:
        with self.assertRaises(ConfigError) as caught:
            self.loaded(toml, environment, **options)
        return str(caught.exception)


class SourceTest(ConfigCase):
    def test_nothing_given_is_a_trial_on_loopback(self) -> None:
        config = self.loaded()
        self.assertEqual(config, GatewayConfig())
        self.assertTrue(config.is_open)
        self.assertEqual((config.host, config.port, config.data), ("127.0.0.1", 8765, "rtm-data"))

    def test_these_tests_know_every_setting(self) -> None:
        self.assertEqual(
            list(SETTINGS), [item.name for item in fields(GatewayConfig) if item.name != "apps"]
        )
        for name, value in SETTINGS.items():
            self.assertNotEqual(value, getattr(GatewayConfig(), name), name)

    def test_every_setting_can_come_from_the_file(self) -> None:
        lines = [f"{name} = {value!r}" for name, value in SETTINGS.items()]
        self.assertEqual(self.loaded("\n".join(lines)), EVERYTHING)

    def test_every_setting_can_come_from_the_environment(self) -> None:
        environment = {f"RTM_SYNC_{name.upper()}": str(value) for name, value in SETTINGS.items()}
        self.assertEqual(self.loaded(environment=environment), EVERYTHING)

    def test_every_setting_can_come_from_an_option(self) -> None:
        command = rtm_sync.commands["serve"]
        arguments = [
            text
            for name, value in SETTINGS.items()
            for text in (f"--{name.replace('_', '-')}", str(value))
        ]
        context = command.make_context("serve", arguments)
        options = {name: context.params[name] for name in context.params if name not in OTHERS}
        self.assertEqual(self.loaded(**options), EVERYTHING)

    def test_serve_has_no_option_that_is_no_setting(self) -> None:
        parameters = rtm_sync.commands["serve"].params
        options = {item.name for item in parameters if isinstance(item, click.Option)}
        self.assertEqual(options, {*SETTINGS, *OTHERS})

    def test_options_win_over_the_environment_and_that_over_the_file(self) -> None:
        toml = 'data = "file"\nport = 1\nlimits = "web"'
        environment = {"RTM_SYNC_DATA": "environment", "RTM_SYNC_PORT": "2"}
        config = self.loaded(toml, environment, data="option", drain=None)
        self.assertEqual((config.data, config.port, config.limits), ("option", 2, "web"))
        self.assertEqual(config.drain, GatewayConfig().drain)

    def test_variables_that_are_not_settings_are_somebody_elses(self) -> None:
        environment = {"RTM_SYNC_DISABLE_PLUGINS": "x", "RTM_SYNC_CONFIG": "y", "PORT": "1"}
        self.assertEqual(self.loaded(environment=environment), GatewayConfig())

    def test_numbers_may_be_written_as_text_and_whole_ones_where_any_will_do(self) -> None:
        config = self.loaded('port = "9000"\ndrain = 3')
        self.assertEqual((config.port, config.drain), (9000, 3.0))
        self.assertIsInstance(config.drain, float)


class RefusalTest(ConfigCase):
    def test_a_wrong_value_is_refused_with_its_name_and_what_is_allowed(self) -> None:
        for options, refusal in (
            ({"port": -1}, "port is -1; it must be 0 to 65,535."),
            ({"port": 65_536}, "port is 65536; it must be 0 to 65,535."),
            ({"limits": "none"}, 'limits: \'none\' is neither "linux", "web" nor NAME=VALUE.'),
            (
                {"limits": "web sends=0/3"},
                "limits: sends is '0/3'; it must be COUNT/SECONDS, such as 180/3.",
            ),
            (
                {"proxies": "localhost"},
                "proxies: 'localhost' does not appear to be an IPv4 or IPv6 network.",
            ),
            (
                {"connections_per_address": -1},
                "connections_per_address is -1; it must be 0 to 1,000,000.",
            ),
            (
                {"log_level": "loud"},
                "log_level is 'loud'; it must be debug or info or warning or error.",
            ),
            ({"log_format": "xml"}, "log_format is 'xml'; it must be text or json."),
            ({"metrics": "9464"}, "metrics is '9464'; it must be like 127.0.0.1:9464."),
            ({"tls_cert": "x"}, "tls_cert and tls_key belong together; set both, or neither."),
            ({"silence": 0.5}, "silence is 0.5; it must be 1 to 3,600 seconds."),
            ({"drain": -0.1}, "drain is -0.1; it must be 0 to 600 seconds."),
            ({"drain": 601.0}, "drain is 601.0; it must be 0 to 600 seconds."),
            ({"drain": float("nan")}, "drain is nan; it must be 0 to 600 seconds."),
            ({"host": ""}, "host is empty; leave it out for its default."),
            ({"data": " "}, "data is empty; leave it out for its default."),
        ):
            with self.subTest(**options):
                self.assertEqual(self.refusal(**options), refusal)

    def test_the_ends_of_each_range_are_allowed(self) -> None:
        for options in ({"port": 0}, {"port": 65_535}, {"drain": 0.0}, {"drain": 600.0}):
            with self.subTest(**options):
                [(name, value)] = options.items()
                self.assertEqual(getattr(self.loaded(**options), name), value)

    def test_a_value_of_the_wrong_kind_is_refused_with_its_place(self) -> None:
        for toml, refusal in (
            ("port = true", "port in {} is True; it must be a whole number."),
            ("port = 80.5", "port in {} is 80.5; it must be a whole number."),
            ('port = "http"', "port in {} is 'http'; it must be a whole number."),
            ("port = [80]", "port in {} is [80]; it must be a whole number."),
            ('drain = "long"', "drain in {} is 'long'; it must be a number."),
            ("drain = false", "drain in {} is False; it must be a number."),
            ("host = 127", "host in {} is 127; it must be text."),
            ('data = ["a"]', "data in {} is ['a']; it must be text."),
            ("[limits]\nsends = 1", "limits in {} is {{'sends': 1}}; it must be text."),
        ):
            with self.subTest(toml):
                file = self.toml(toml)
                with self.assertRaises(ConfigError) as caught:
                    load_config(file, {}, {})
                self.assertEqual(str(caught.exception), refusal.format(file))

    def test_a_variable_of_the_wrong_kind_is_refused_with_its_place(self) -> None:
        for value in ("", "http", "80.5"):
            with self.subTest(value):
                self.assertEqual(
                    self.refusal(environment={"RTM_SYNC_PORT": value}),
                    f"port in the environment is {value!r}; it must be a whole number.",
                )

    def test_an_unknown_name_in_the_file_is_refused_with_those_there_are(self) -> None:
        refusal = self.refusal("prot = 8765")
        self.assertRegex(
            refusal, r"^'prot' in .*gateway\.toml is not a setting; the settings are host, port"
        )
        for name in SETTINGS:
            self.assertIn(name, refusal)

    def test_a_file_that_is_no_toml_is_refused(self) -> None:
        for content in (b"port =", b"\xff\xfe", b"port = 1\nport = 2"):
            with self.subTest(content):
                self.assertRegex(self.refusal(content), r"gateway\.toml is not TOML: .+\.$")

    def test_a_file_that_cannot_be_read_is_named(self) -> None:
        for path in (self.folder() / "absent.toml", self.folder()):
            with self.subTest(path.suffix), self.assertRaisesRegex(ConfigError, str(path)):
                load_config(path, {}, {})


class SecretTest(ConfigCase):
    def test_an_app_and_its_secret_belong_together(self) -> None:
        refusal = "app_id and app_secret belong together; set both, or neither."
        self.assertEqual(self.refusal(app_id="my-app"), refusal)
        self.assertEqual(self.refusal(app_secret=SECRET), refusal)

    def test_a_secret_of_31_bytes_is_too_short_and_one_of_32_is_not(self) -> None:
        self.assertIn(
            "has 31 bytes; HS256 needs at least 32", self.refusal(app_id="a", app_secret="s" * 31)
        )
        self.assertFalse(self.loaded(app_id="a", app_secret="s" * 32).is_open)

    def test_an_app_id_has_at_most_64_characters(self) -> None:
        self.assertIn(
            "app_id has 65 characters; it needs 1 to 64",
            self.refusal(app_id="a" * 65, app_secret=SECRET),
        )

    def test_a_secret_is_in_no_refusal_and_no_repr(self) -> None:
        self.assertNotIn(SECRET, repr(EVERYTHING))
        for refusal in (
            self.refusal("app_secret = 12345"),
            self.refusal(app_id="a", app_secret="12345"),
            self.refusal(app_secret="12345" * 10),
        ):
            with self.subTest(refusal):
                self.assertIn("secret", refusal)
                self.assertNotIn("12345", refusal)

    def test_without_a_secret_only_loopback_is_allowed(self) -> None:
        for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
            with self.subTest(host):
                self.assertTrue(is_loopback(host))
                self.assertEqual(self.loaded(host=host).host, host)
        for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.example", "127.0.0.1.example"):
            with self.subTest(host):
                self.assertFalse(is_loopback(host))
                refusal = f"host is {host!r}, and without an app_secret anybody"
                self.assertIn(refusal, self.refusal(host=host))
                self.assertFalse(self.loaded(host=host, app_id="a", app_secret=SECRET).is_open)


class AppsTest(ConfigCase):
    def test_apps_and_their_keys_come_from_the_file(self) -> None:
        config = self.loaded(
            f"""
            host = "0.0.0.0"
            [apps.shop]
            secrets = ["{SECRET}", "{SECRET}2"]
            [apps."a game"]
            public_keys = ["game.pem"]
            jwks = "game.json"
            """
        )
        self.assertFalse(config.is_open)
        self.assertEqual(
            config.secrets,
            {"shop": (SECRET, SECRET + "2"), "a game": ("file:game.pem", "jwks:game.json")},
        )
        self.assertNotIn(SECRET, repr(config))

    def test_the_one_app_of_the_options_is_served_beside_them(self) -> None:
        toml = f'[apps.shop]\nsecrets = ["{SECRET}"]'
        config = self.loaded(toml, app_id="game", app_secret=SECRET)
        self.assertEqual(set(config.secrets), {"shop", "game"})
        refusal = self.refusal(toml, app_id="shop", app_secret=SECRET)
        self.assertIn("app_id is 'shop', which is also in apps", refusal)

    def test_what_is_no_app_is_refused_with_its_place(self) -> None:
        for toml, why in (
            ("apps = 1", "must be tables: [apps.NAME]"),
            ("[apps]\nshop = 1", "apps.shop in"),
            ("[apps.shop]", "'shop' has no secrets, public_keys or jwks"),
            ("[apps.shop]\nsecrets = 'x'", "secrets in apps.shop in"),
            ("[apps.shop]\nsecrets = ['short']", "has 5 bytes; HS256 needs at least 32"),
            ("[apps.shop]\nsecret = 'x'", "'secret' in apps.shop in"),
            ("[apps.shop]\njwks = 1", "jwks: one string"),
            (f"[apps.'{'x' * 65}']\nsecrets = ['{SECRET}']", "app_id has 65 characters"),
        ):
            with self.subTest(toml):
                self.assertIn(why, self.refusal(toml))
