"""The gateway's settings: one set of names for options, RTM_SYNC_* variables and the TOML file."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..hub.auth.keys import JWKS, PEM, check_secret
from ..protocol.ids import app_id_problem
from ..rules.limits import Limits
from .guard.addresses import Network

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\s]+):\d{1,5}")
ENVIRONMENT_PREFIX = "RTM_SYNC_"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
_SECRETS = ("app_secret", "token")
_KIND_NAMES = {str: "text", int: "a whole number", float: "a number"}


class ConfigError(ValueError):
    """A setting that cannot be; the message names it, its value and what is allowed."""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """What one gateway process serves.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        data: folder of the SQLite file and the media.
        engine, media: URLs of the engine and media store; empty means local ones under `data`.
        app_id, app_secret: the app it serves, with token checks; without any app it is for trial:
            any app and uid, loopback only. A secret, or where public keys are: `file:PATH`,
            `jwks:PATH`.
        apps: more apps, and their secrets; each may have several, as while they are changed. In the
            TOML file only.
        clock_skew: seconds that clocks of token servers may differ.
        limits: the reference's tier, "linux" or "web", and what is to differ from it:
            `web sends=500/3 user_bytes=1_000_000_000`; see `rtm_sync.rules.limits.Limits`.
        tls_cert, tls_key: PEM files of the certificate chain and its key; with them it serves `wss`
            and `https` only. Renewed files are taken up while it runs.
        origins: web pages that may use it from a browser, besides its own: `https://app.example`,
            several with spaces between, or `*`.
        proxies: addresses and networks, with spaces between; what their `X-Forwarded-For` says is
            believed.
        connections_per_address: at once from one address (of IPv6: one /64), proxies excepted; 0 is
            any number.
        metrics: `host:port` where Prometheus may read `/metrics`; empty is nowhere.
        silence: seconds without a frame or ping after which a client's connection counts as lost;
            clients ping every two.
        drain: seconds that running requests get at SIGTERM.
        log_level: "debug", "info", "warning" or "error".
        log_format: "text" or "json", on standard error.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    data: str = "rtm-data"
    engine: str = ""
    media: str = ""
    app_id: str = ""
    app_secret: str = field(default="", repr=False)
    apps: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    clock_skew: float = 30.0
    limits: str = "linux"
    tls_cert: str = ""
    tls_key: str = field(default="", repr=False)
    origins: str = ""
    proxies: str = "127.0.0.1 ::1"
    connections_per_address: int = 1000
    metrics: str = ""
    silence: float = 10.0
    drain: float = 8.0
    log_level: str = "info"
    log_format: str = "text"

    def __post_init__(self) -> None:
        self._check_values()
        for name, read in (("limits", Limits.parse), ("proxies", parse_networks)):
            try:
                read(getattr(self, name))
            except ValueError as error:
                raise ConfigError(f"{name}: {error}.") from error
        if self.metrics and not _ADDRESS.fullmatch(self.metrics):
            raise ConfigError(f"metrics is {self.metrics!r}; it must be like 127.0.0.1:9464.")
        for one, other in (("app_id", "app_secret"), ("tls_cert", "tls_key")):
            if bool(getattr(self, one)) != bool(getattr(self, other)):
                raise ConfigError(f"{one} and {other} belong together; set both, or neither.")
        self._check_app()

    def _check_values(self) -> None:
        for name in ("host", "data"):
            if not getattr(self, name).strip():
                raise ConfigError(f"{name} is empty; leave it out for its default.")
        for name, least, most, unit in (
            ("port", 0, 65_535, ""),
            ("connections_per_address", 0, 1_000_000, ""),
            ("clock_skew", 0, 600, " seconds"),
            ("drain", 0, 600, " seconds"),
            ("silence", 1, 3600, " seconds"),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigError(f"{name} is {value}; it must be {least} to {most:,}{unit}.")
        for name, allowed in (("log_level", LOG_LEVELS), ("log_format", LOG_FORMATS)):
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"{name} is {value!r}; it must be {' or '.join(allowed)}.")

    def _check_app(self) -> None:
        if self.app_id in self.apps:
            raise ConfigError(f"app_id is {self.app_id!r}, which is one of the apps as well.")
        for app_id, secrets in self.secrets.items():
            problem = app_id_problem(app_id)
            if problem is not None:
                raise ConfigError(problem)
            if not secrets:
                raise ConfigError(f"The app {app_id!r} has no secrets, public_keys or jwks.")
            try:
                for secret in secrets:
                    check_secret(secret)
            except ValueError as error:
                raise ConfigError(str(error)) from error
        if self.is_open and not is_loopback(self.host):
            raise ConfigError(
                f"host is {self.host!r}, and without an app_secret anybody could log in as "
                "anybody: set app_id and app_secret, or listen on 127.0.0.1."
            )

    @property
    def secrets(self) -> dict[str, tuple[str, ...]]:
        """The apps that are served, and their secrets."""
        own = {self.app_id: (self.app_secret,)} if self.app_secret else {}
        return own | dict(self.apps)

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Where metrics are served."""
        if not self.metrics:
            return None
        host, _, port = self.metrics.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def is_open(self) -> bool:
        """Whether any uid is accepted without a token."""
        return not self.secrets


def load_config(
    file: Path | None, environment: Mapping[str, str], options: Mapping[str, object]
) -> GatewayConfig:
    """Merge the sources; options win over the environment, that over the file.

    Raises:
        ConfigError: an unknown name, a value of the wrong kind, or settings that cannot be.
    """
    kinds: dict[str, type] = {
        item.name: type(item.default) for item in fields(GatewayConfig) if item.name != "apps"
    }
    settings: dict[str, Any] = {}
    if file is not None:
        given = read_toml(file)
        settings["apps"] = _apps(given.pop("apps", {}), file)
        settings |= checked_settings(given, kinds, str(file))
    settings |= settings_in_environment(environment, kinds)
    settings |= {name: value for name, value in options.items() if value is not None}
    return replace(GatewayConfig(), **settings)


def _apps(given: object, file: Path) -> dict[str, tuple[str, ...]]:
    """The `[apps.NAME]` tables: app id → its secrets, public keys by their paths."""
    if not isinstance(given, dict):
        raise ConfigError(f"apps in {file} must be tables: [apps.NAME].")
    apps = {}
    for app_id, table in given.items():
        where = f"apps.{app_id} in {file}"
        if not isinstance(table, dict):
            raise ConfigError(f"{where} must be a table.")
        unknown = table.keys() - {"secrets", "public_keys", "jwks"}
        if unknown:
            raise ConfigError(
                f"{min(unknown)!r} in {where} is no setting; there are secrets, public_keys, jwks."
            )
        jwks = table.get("jwks", [])
        apps[app_id] = (
            *_texts(table.get("secrets", []), "secrets", where),
            *(PEM + path for path in _texts(table.get("public_keys", []), "public_keys", where)),
            *(JWKS + path for path in _texts([jwks] if jwks else [], "jwks", where)),
        )
    return apps


def _texts(given: object, name: str, where: str) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise ConfigError(f"{name} in {where} must be a list of texts; jwks is one text.")
    return given


def parse_networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks with spaces between. Raises ValueError."""
    return tuple(ipaddress.ip_network(item, strict=False) for item in text.split())


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_toml(file: Path) -> dict[str, object]:
    """What a TOML file says. Raises ConfigError when it cannot be read or is none."""
    try:
        return dict(tomllib.loads(file.read_text("utf-8")))
    except OSError as error:
        raise ConfigError(f"The configuration file cannot be read: {error}.") from error
    except ValueError as error:  # not TOML, or not even UTF-8
        raise ConfigError(f"{file} is not TOML: {error}.") from error


def settings_in_environment(
    environment: Mapping[str, str], kinds: Mapping[str, type]
) -> dict[str, Any]:
    """The settings that RTM_SYNC_* variables give; `kinds` has the names. Raises ConfigError."""
    given = {
        name: environment[ENVIRONMENT_PREFIX + name.upper()]
        for name in kinds
        if ENVIRONMENT_PREFIX + name.upper() in environment
    }
    return checked_settings(given, kinds, "the environment")


def checked_settings(
    given: Mapping[str, object], kinds: Mapping[str, type], where: str
) -> dict[str, Any]:
    """The values in the kinds that the settings have; numbers may also come as text.

    Raises:
        ConfigError: an unknown name, or a value of another kind; secrets are not repeated.
    """
    checked: dict[str, Any] = {}
    for name, value in given.items():
        kind = kinds.get(name)
        if kind is None:
            raise ConfigError(f"{name!r} in {where} is no setting; there are {', '.join(kinds)}.")
        try:
            checked[name] = _converted(value, kind)
        except ValueError:
            shown = "not" if name in _SECRETS else f"{value!r}; it must be"
            raise ConfigError(f"{name} in {where} is {shown} {_KIND_NAMES[kind]}.") from None
    return checked


def _converted(value: object, kind: type) -> object:
    if isinstance(value, bool) or (kind is str and not isinstance(value, str)):
        raise ValueError  # bool is an int to Python, and everything has a text form
    return value if isinstance(value, kind) else kind(str(value))
