"""The apps of a gateway: token verifiers, and the shared secrets of server processes."""

from __future__ import annotations

import hmac
import secrets as random_secrets
from collections.abc import Mapping, Sequence

from ..hub.auth.keys import fingerprint, is_shared
from ..hub.auth.tokens import AnyOf, TokenVerifier
from ..plugins.loader import PluginManager, plugin_manager
from .config import ConfigError, GatewayConfig


def verifiers_of(
    config: GatewayConfig, plugins: PluginManager = plugin_manager
) -> dict[str, TokenVerifier] | None:
    """The token verifier of each app; None where no app is configured and tokens are not needed.

    Raises:
        ConfigError: a secret is not a valid key, or a key file cannot be used.
        PluginError: no plugin verifies such tokens.
    """
    if config.is_open:
        return None
    try:
        return {
            app_id: AnyOf(
                {
                    fingerprint(secret): plugins.token_verifier(app_id, secret, config.clock_skew)
                    for secret in secrets
                }
            )
            for app_id, secrets in config.secrets.items()
        }
    except ValueError as error:
        raise ConfigError(str(error)) from error


class AppSecrets:
    """Authenticates server processes: one that knows a shared secret of an app may act as any user.

    Args:
        config: the apps. Without apps every secret is accepted.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._secrets: Mapping[str, Sequence[str]] | None = None
        self.replace(config)

    def replace(self, config: GatewayConfig) -> None:
        """Replace the apps and their secrets."""
        self._secrets = None if config.is_open else config.secrets

    @property
    def is_open(self) -> bool:
        """Whether every secret is accepted."""
        return self._secrets is None

    def accept(self, app_id: str, secret: str) -> str | None:
        """The name of a shared secret of the app (see `fingerprint`), or None for another secret.

        Takes constant time for each secret, and for an unknown app as long as for one secret.
        """
        if self._secrets is None:
            return fingerprint(secret)
        known = [one for one in self._secrets.get(app_id, ()) if is_shared(one)]
        found = [
            hmac.compare_digest(secret.encode(), one.encode())
            for one in known or [random_secrets.token_hex()]
        ]
        return fingerprint(secret) if any(found) and known else None
