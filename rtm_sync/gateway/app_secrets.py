"""The apps a gateway serves: whose tokens it takes, and what server processes may act for users."""

from __future__ import annotations

import hmac
import secrets as random_secrets
from collections.abc import Mapping, Sequence

from ..hub.auth.keys import is_shared
from ..hub.auth.tokens import AnyOf, TokenVerifier
from ..plugins.loader import PluginManager, plugin_manager
from .config import ConfigError, GatewayConfig


def verifiers_of(
    config: GatewayConfig, plugins: PluginManager = plugin_manager
) -> dict[str, TokenVerifier] | None:
    """Who checks each app's tokens; None where anybody may log in.

    Raises:
        ConfigError: a secret is no key, or a key file cannot be used. PluginError: nobody checks
        such tokens.
    """
    if config.is_open:
        return None
    try:
        return {
            app_id: AnyOf(
                plugins.token_verifier(app_id, secret, config.clock_skew) for secret in secrets
            )
            for app_id, secrets in config.secrets.items()
        }
    except ValueError as error:
        raise ConfigError(str(error)) from error


class AppSecrets:
    """Server processes that may act as any user of an app: those that know a shared secret of it.

    Args:
        config: the apps; where anybody may log in, anybody may act for anybody.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._secrets: Mapping[str, Sequence[str]] | None = None
        self.replace(config)

    def replace(self, config: GatewayConfig) -> None:
        """Other apps, or other secrets of theirs, from now on."""
        self._secrets = None if config.is_open else config.secrets

    @property
    def is_open(self) -> bool:
        """Whether no secret is asked for."""
        return self._secrets is None

    def accept(self, app_id: str, secret: str) -> bool:
        """Whether it is a shared secret of the app. Time does not tell which apps there are."""
        if self._secrets is None:
            return True
        known = [one for one in self._secrets.get(app_id, ()) if is_shared(one)]
        found = [
            hmac.compare_digest(secret.encode(), one.encode())
            for one in known or [random_secrets.token_hex()]
        ]
        return any(found) and bool(known)
