"""The settings of a login: from options, RTM_SYNC_* environment variables and TOML profiles."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import click
import tenacity

from ..client.client import RtmClient
from ..errors import LoginError
from ..gateway.config import ConfigError, checked_settings, read_toml, settings_in_environment
from ..hub.auth.tokens import make_token
from ..protocol.ids import app_id_problem, id_problem

DEFAULT_PROFILE = "default"
NO_PROXY = "none"
SIGTERM_STATUS = 143

_RETRY_LOGIN = tenacity.Retrying(
    # A script runs many commands in a row, and the hub allows two logins a second.
    retry=tenacity.retry_if_exception(
        lambda error: isinstance(error, LoginError) and error.reason == "TOO_OFTEN"
    ),
    wait=tenacity.wait_random(0.2, 0.8),
    stop=tenacity.stop_after_delay(12),
    reraise=True,
)


@dataclass(frozen=True, slots=True)
class Profile:
    """The settings with which a command logs in.

    Attributes:
        url: the hub's URL, as for `RtmClient`.
        app_id, uid: the app and the user; a login needs both.
        token: a token of the app's server; a hub without an app secret needs none.
        app_secret: signs a new token for each login when no token is given.
        proxy: the URL of an HTTP proxy; "none" for none, empty for the environment's proxy.
        ca_file: trusted certificates, a PEM file; empty for the environment's.
    """

    url: str = field(default="ws://127.0.0.1:8765", repr=False)  # it may have a password
    app_id: str = ""
    uid: str = ""
    token: str = field(default="", repr=False)
    app_secret: str = field(default="", repr=False)
    proxy: str = field(default="", repr=False)
    ca_file: str = ""

    @property
    def client_proxy(self) -> str | None:
        """The proxy in the form that `RtmClient` takes."""
        return "" if self.proxy == NO_PROXY else self.proxy or None

    def require(self, *names: str) -> None:
        """Raise ConfigError when one of these settings is missing or not valid."""
        for name in names:
            if not getattr(self, name):
                raise ConfigError(
                    f"{name} is missing: pass --{name.replace('_', '-')}, set "
                    f"RTM_SYNC_{name.upper()}, or write {name} into a profile."
                )
        problem = ("app_id" in names and app_id_problem(self.app_id)) or (
            "uid" in names and id_problem("uid", self.uid)
        )
        if problem:
            raise ConfigError(problem)

    def token_for(self, uid: str) -> Callable[[], str] | None:
        """A function that returns a token of the user; None without a token and a secret."""
        if self.token:
            return lambda: self.token
        if self.app_secret:
            return lambda: make_token(self.app_id, uid, self.app_secret.rstrip("\r\n"))
        return None

    def client(self, **options: Any) -> RtmClient:
        """A client of this profile, which is not logged in. `options` are of `RtmClient`."""
        return RtmClient(
            self.app_id,
            url=self.url,
            token_provider=self.token_for(self.uid),
            proxy=self.client_proxy,
            ca_file=self.ca_file or None,
            **options,
        )


KINDS: Mapping[str, type] = {item.name: str for item in fields(Profile)}
"""The settings of a profile with their types. All are texts."""


def default_file() -> Path:
    """The profiles file when no other is given."""
    return Path(click.get_app_dir("rtm-sync")) / "profiles.toml"


def load_profiles(file: Path | None) -> dict[str, dict[str, Any]]:
    """The profiles of a file by name. For None, those of the default file, if it exists.

    Raises:
        ConfigError: the file cannot be read, or a part of it is not a profile.
    """
    if file is None:
        file = default_file()
        if not file.exists():
            return {}
    found = {}
    for name, table in read_toml(file).items():
        if not isinstance(table, dict):
            raise ConfigError(
                f"{name!r} in {file} is not in a profile; write it below a line such as "
                f"[{DEFAULT_PROFILE}]."
            )
        found[name] = checked_settings(table, KINDS, f"profile {name!r} of {file}")
    return found


def load_profile(
    file: Path | None,
    name: str | None,
    environment: Mapping[str, str],
    options: Mapping[str, object],
) -> Profile:
    """Merge the sources: options override the environment, which overrides the profile.

    Raises:
        ConfigError: there is no such profile, or it has an unknown name or a value that is not a
            text.
    """
    profiles = load_profiles(file)
    if name is not None and name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise ConfigError(
            f"There is no profile {name!r} in {file or default_file()}; its profiles: {known}."
        )
    settings = dict(profiles.get(name or DEFAULT_PROFILE, {}))
    settings |= settings_in_environment(environment, KINDS)
    settings |= {key: value for key, value in options.items() if value is not None}
    return replace(Profile(), **settings)


@contextlib.contextmanager
def logged_in(client: RtmClient, profile: Profile) -> Iterator[RtmClient]:
    """Log in for the block, and close the client after it, also after SIGTERM and Ctrl-C."""

    def terminate(*_: object) -> NoReturn:
        raise SystemExit(SIGTERM_STATUS)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with client:
            _RETRY_LOGIN(client.login, profile.uid)
            yield client
    finally:
        signal.signal(signal.SIGTERM, before)
