"""The hook specifications, and the markers for plugins that implement them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from ..hub.auth.tokens import TokenVerifier
    from ..hub.engine.contract import Engine
    from ..hub.media.store import MediaStore
    from ..thumbnails.contract import ThumbnailGenerator
    from ..transports.base import Transport, TransportOptions

GROUP = "rtm_sync"
"""The entry-point group of plugins, and the project name of the pluggy markers."""

HOOKS_VERSION = 1
"""Version of the hook specifications. It rises only with a change that breaks older plugins.

A plugin declares the version that it was written for in an attribute `RTM_SYNC_HOOKS`. A plugin
without the attribute was written for version 1.
"""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Hooks:
    """The hook specifications, version 1. No hook is called with a lock held.

    Each implementation is called by itself, so a hook wrapper (`hookwrapper=True` or
    `wrapper=True`) has nothing to wrap and is refused.
    """

    @hookspec(firstresult=True)
    def transport(self, url: str, options: TransportOptions) -> Transport | None:
        """Make the transport by which a client reaches the hub at `url`.

        Called once for each client, on the thread that makes the client.

        Returns:
            A transport that has not been opened; None for a URL of another plugin's scheme.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def engine(self, url: str) -> Engine | None:
        """Make the engine for `url`: claims, presence, delivery and stored state of a hub.

        Called when a hub is made.

        Returns:
            An engine; None for a URL of another plugin's scheme.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def media_store(self, url: str) -> MediaStore | None:
        """Make the media store for `url`, which holds the bytes of media.

        Called when a hub is made.

        Returns:
            A media store; None for a URL of another plugin's scheme.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def token_verifier(self, app_id: str, secret: str, clock_skew: float) -> TokenVerifier | None:
        """Make the verifier of an app's tokens. Called when a hub is made.

        Args:
            app_id: the app.
            secret: the app's secret, as it is configured.
            clock_skew: seconds by which the clocks of token servers may differ.

        Returns:
            A token verifier; None for an app that another plugin serves.
        """
        raise NotImplementedError

    @hookspec
    def thumbnail(self) -> ThumbnailGenerator | None:
        """Make a thumbnail generator. The generators of all plugins are used.

        Called once, on the thread that needs the first thumbnail.

        Returns:
            A generator; None when the plugin has none on this machine.
        """
        raise NotImplementedError
