"""The gateway's settings: the same names as options, RTM_SYNC_* variables and in the TOML file."""

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
    """An invalid setting. The message has its name, its value and the allowed values."""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The configuration of one gateway process.

    Attributes:
        host, port: the address of the listener; port 0 chooses a free port.
        data: the folder of the SQLite file and the media.
        engine, media: URLs of the engine and the media store; empty means local ones under `data`.
        app_id, app_secret: the app, whose users need tokens. The secret is a shared secret, or the
            path of public keys: `file:PATH`, `jwks:PATH`. Without any app the gateway is for
            trials: it accepts any app id and uid, and listens on loopback only.
        apps: more apps and their secrets. An app may have several, for the change of keys. In the
            TOML file only.
        clock_skew: seconds by which the clocks of token servers may differ.
        limits: the reference's tier, "linux" or "web", and changes to it:
            `web sends=500/3 user_bytes=1_000_000_000`; see `rtm_sync.rules.limits.Limits`.
        tls_cert, tls_key: PEM files of the certificate chain and its key. With them the gateway
            serves `wss` and `https` only. Renewed files are loaded while it runs.
        origins: origins of web pages that may use the gateway from a browser, in addition to its
            own: `https://app.example`, several separated by spaces, or `*`.
        proxies: addresses and networks of trusted proxies, separated by spaces. The gateway
            believes their `X-Forwarded-For` headers.
        connections_per_address: the most concurrent connections of one address (for IPv6 of one
            /64 network). Proxies are exempt; 0 means no limit.
        metrics: the `host:port` at which `/metrics` is served to Prometheus; empty means nowhere.
        silence: seconds without a frame or ping after which a connection is closed; clients ping
            every two seconds.
        drain: seconds that running transfers get to finish at SIGTERM.
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
            raise ConfigError(
                f"app_id is {self.app_id!r}, which is also in apps; configure it in one place."
            )
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
        """All apps and their secrets."""
        own = {self.app_id: (self.app_secret,)} if self.app_secret else {}
        return own | dict(self.apps)

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """The (host, port) at which metrics are served, or None."""
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
    """Merge the sources. Options override the environment, which overrides the file.

    Args:
        file: the TOML file, or None.
        environment: the environment variables.
        options: the command line's options; None means not given.

    Raises:
        ConfigError: an unknown name, a value of the wrong type, or an invalid setting.
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
    """The secrets of each app in the `[apps.NAME]` tables; public keys are prefixed paths."""
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
                f"{min(unknown)!r} in {where} is not a setting; the settings are secrets, "
                "public_keys, jwks."
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
        raise ConfigError(f"{name} in {where} must be a list of strings (jwks: one string).")
    return given


def parse_networks(text: str) -> tuple[Network, ...]:
    """Parse addresses and networks that are separated by spaces. Raises ValueError."""
    return tuple(ipaddress.ip_network(item, strict=False) for item in text.split())


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_toml(file: Path) -> dict[str, object]:
    """The content of a TOML file. Raises ConfigError when it cannot be read or is not TOML."""
    try:
        return dict(tomllib.loads(file.read_text("utf-8")))
    except OSError as error:
        raise ConfigError(f"The configuration file cannot be read: {error}.") from error
    except ValueError as error:  # not TOML, or not even UTF-8
        raise ConfigError(f"{file} is not TOML: {error}.") from error


def settings_in_environment(
    environment: Mapping[str, str], kinds: Mapping[str, type]
) -> dict[str, Any]:
    """The settings in RTM_SYNC_* variables; `kinds` has their names and types.

    Raises:
        ConfigError: a value of the wrong type.
    """
    given = {
        name: environment[ENVIRONMENT_PREFIX + name.upper()]
        for name in kinds
        if ENVIRONMENT_PREFIX + name.upper() in environment
    }
    return checked_settings(given, kinds, "the environment")


def checked_settings(
    given: Mapping[str, object], kinds: Mapping[str, type], where: str
) -> dict[str, Any]:
    """Convert values to the types of their settings; numbers may also be given as text.

    Raises:
        ConfigError: an unknown name, or a value of the wrong type. The message omits secrets.
    """
    checked: dict[str, Any] = {}
    for name, value in given.items():
        kind = kinds.get(name)
        if kind is None:
            raise ConfigError(
                f"{name!r} in {where} is not a setting; the settings are {', '.join(kinds)}."
            )
        try:
            checked[name] = _converted(value, kind)
        except ValueError:
            shown = "not" if name in _SECRETS else f"{value!r}; it must be"
            raise ConfigError(f"{name} in {where} is {shown} {_KIND_NAMES[kind]}.") from None
    return checked


def _converted(value: object, kind: type) -> object:
    if isinstance(value, bool) or (kind is str and not isinstance(value, str)):
        raise ValueError  # bool is a subclass of int, and `str` converts everything
    return value if isinstance(value, kind) else kind(str(value))
