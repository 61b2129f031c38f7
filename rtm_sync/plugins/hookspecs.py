"""The hook specifications, and the markers for those who fill them."""

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
HOOKS_VERSION = 1
"""Version of the hook specifications; raised only when plugins of the version before would break.

A plugin that was written for another one says so with an attribute `RTM_SYNC_HOOKS`; without it,
it wants version 1.
"""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Hooks:
    """The hook specifications, version 1. All are called without a lock held.

    Each implementation is called by itself, so `hookwrapper=True` and `wrapper=True` are refused.
    """

    @hookspec(firstresult=True)
    def transport(self, url: str, options: TransportOptions) -> Transport | None:
        """How a client reaches a hub at `url`. Called once for each client, on the caller's thread.

        Return a transport that has not been opened, or None when the URL's scheme is not yours.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def engine(self, url: str) -> Engine | None:
        """What a hub asks of the world beyond its node, for `url`. Called when a hub is made."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def media_store(self, url: str) -> MediaStore | None:
        """Where blobs live, for `url`. Called when a hub is made."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def token_verifier(self, app_id: str, secret: str, clock_skew: float) -> TokenVerifier | None:
        """Who checks tokens of the app that has this secret. Called when a hub is made.

        Clocks may differ by `clock_skew` seconds.
        """
        raise NotImplementedError

    @hookspec
    def thumbnail(self) -> ThumbnailGenerator | None:
        """A thumbnail generator. All plugins' answers are collected; see `ThumbnailGenerator`.

        Called once, when a thumbnail is first asked for, on the caller's thread.
        """
        raise NotImplementedError
