"""The extension points of rtm_sync, all of them, and the manager that finds who fills them.

A plugin is a module or object with functions marked `rtm_sync.hookimpl`, named in the entry-point
group `rtm_sync`. The built-ins are registered through these very hooks. Every hook takes what it
is asked for and returns None to decline; the first plugin that answers serves the request, the
last registered is asked first. The built-ins are in `default_plugins.py`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, TypeVar

import pluggy

from .errors import PluginError

if TYPE_CHECKING:
    from .hub.engine import Engine
    from .hub.media import MediaStore
    from .hub.tokens import TokenVerifier
    from .thumbnails import ThumbnailGenerator
    from .transports.base import Transport, TransportOptions

GROUP = "rtm_sync"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)
logger = logging.getLogger(__name__)

T = TypeVar("T")


class Hooks:
    """The hook specifications. All are called without a lock held."""

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
    def token_verifier(self, app_id: str, secret: str) -> TokenVerifier | None:
        """Who checks tokens of the app that has this secret. Called when a hub is made."""
        raise NotImplementedError

    @hookspec
    def thumbnail(self) -> ThumbnailGenerator | None:
        """A thumbnail generator. All answers are collected; see `ThumbnailGenerator`.

        Called when a thumbnail is first asked for, on a transfer's thread.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class PluginFailure:
    """A plugin that could not be loaded, and why."""

    name: str
    reason: str


class PluginManager:
    """Loads entry points once and asks hooks. Thread-safe.

    Args:
        disabled: entry-point names to leave out.
        extra: plugin objects of this manager only.
    """

    def __init__(
        self,
        disabled: Iterable[str] = (),
        extra: Iterable[object] = (),
    ) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(Hooks)
        self._disabled = frozenset(disabled)
        self._extra = tuple(extra)
        self._loaded = False
        self._lock = threading.Lock()  # guards _loaded; loading imports, and never calls a hook
        self.failures: list[PluginFailure] = []

    def names(self) -> list[str]:
        """Names of the registered plugins, built-ins included."""
        self._load()
        return sorted(name for name, plugin in self._manager.list_name_plugin() if plugin)

    def transport(self, url: str, options: TransportOptions) -> Transport:
        """The transport for `url`. Raises `PluginError` when nobody has it."""
        self._load()
        found: Transport | None = self._manager.hook.transport(url=url, options=options)
        return self._served(found, "transport", url, "ws://, wss://, memory://")

    def engine(self, url: str) -> Engine:
        """The engine for `url`. Raises `PluginError` when nobody has it."""
        self._load()
        found: Engine | None = self._manager.hook.engine(url=url)
        return self._served(found, "engine", url, "local://")

    def media_store(self, url: str) -> MediaStore:
        """The media store for `url`. Raises `PluginError` when nobody has it."""
        self._load()
        found: MediaStore | None = self._manager.hook.media_store(url=url)
        return self._served(found, "media store", url, "disk:///folder, memory://")

    def token_verifier(self, app_id: str, secret: str) -> TokenVerifier:
        """The token verifier of an app. Raises `PluginError` when nobody has it."""
        self._load()
        found: TokenVerifier | None = self._manager.hook.token_verifier(
            app_id=app_id, secret=secret
        )
        return self._served(found, "token verifier", app_id, "JWT HS256 (pip install PyJWT)")

    def thumbnail_generators(self) -> list[ThumbnailGenerator]:
        """All generators, the highest priority first."""
        self._load()
        found: list[ThumbnailGenerator] = self._manager.hook.thumbnail()
        return sorted(found, key=lambda generator: -generator.priority)

    def _served(self, found: T | None, kind: str, asked: str, built_in: str) -> T:
        if found is not None:
            return found
        scheme = asked.partition(":")[0]
        failed = "; ".join(f"{item.name}: {item.reason}" for item in self.failures)
        raise PluginError(
            f"No {kind} serves {scheme!r}. Built in: {built_in}. Installed plugins: "
            f"{', '.join(self.names())}." + (f" Failed to load: {failed}." if failed else "")
        )

    def _load(self) -> None:
        with self._lock:
            if self._loaded:
                return
            from . import default_plugins

            self._manager.register(default_plugins, name="built-in")
            for entry in entry_points(group=GROUP):
                if entry.name in self._disabled or self._manager.has_plugin(entry.name):
                    continue
                try:
                    self._manager.register(entry.load(), name=entry.name)
                except Exception as error:  # a stranger's import may raise anything
                    if self._manager.has_plugin(entry.name):  # a hook of it does not fit ours
                        self._manager.unregister(name=entry.name)
                    self.failures.append(PluginFailure(entry.name, f"{error}"))
                    logger.warning("plugin %r could not be loaded: %s", entry.name, error)
            for plugin in self._extra:
                if not self._manager.is_registered(plugin):  # it may be installed as well
                    self._manager.register(plugin)
            self._loaded = True


def _disabled_by_environment() -> list[str]:
    names = os.environ.get("RTM_SYNC_DISABLE_PLUGINS", "")
    return [name.strip() for name in names.split(",") if name.strip()]


plugin_manager = PluginManager(disabled=_disabled_by_environment())
"""The process's plugins: the built-ins and everything installed."""
