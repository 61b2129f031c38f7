"""The extension points of rtm_sync, all of them, and the manager that finds who fills them.

A plugin is a module or object with functions marked `rtm_sync.hookimpl`, named in the entry-point
group `rtm_sync` or given to one client. The built-ins (`default_plugins.py`) answer the very same
hooks. A hook takes what it is asked for and returns None to decline. `docs/plugins.md` says it all.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from .errors import PluginError
from .version import __version__

if TYPE_CHECKING:
    from .hub.engine import Engine
    from .hub.media import MediaStore
    from .hub.tokens import TokenVerifier
    from .thumbnails import ThumbnailGenerator
    from .transports.base import Transport, TransportOptions

GROUP = "rtm_sync"
HOOKS_VERSION = 1
"""Version of the hook specifications; raised only when plugins of the version before would break.

A plugin that was written for another one says so with an attribute `RTM_SYNC_HOOKS`; without it,
it wants version 1.
"""

DISABLE_VARIABLE = "RTM_SYNC_DISABLE_PLUGINS"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)
logger = logging.getLogger(__name__)


class Hooks:
    """The hook specifications, version 1. All are called without a lock held."""

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

    @hookspec(firstresult=True)
    def thumbnail(self) -> ThumbnailGenerator | None:
        """A thumbnail generator. All plugins' answers are collected; see `ThumbnailGenerator`.

        Called once, when a thumbnail is first asked for, on the caller's thread.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _Role:
    """What a hook is for.

    Attributes:
        kind: what its answer is called in messages.
        module, contract: where the class is that an answer must be an instance of.
        built_in: what needs no plugin.
    """

    kind: str
    module: str
    contract: str
    built_in: str


_ROLES = {
    "transport": _Role("transport", ".transports.base", "Transport", "ws://, wss://, memory://"),
    "engine": _Role("engine", ".hub.engine", "Engine", "local://"),
    "media_store": _Role("media store", ".hub.media", "MediaStore", "disk:///folder, memory://"),
    "token_verifier": _Role(
        "token verifier", ".hub.tokens", "TokenVerifier", "JWT (pip install PyJWT)"
    ),
    "thumbnail": _Role("thumbnail generator", ".thumbnails", "ThumbnailGenerator", "none"),
}

_PUBLISHED = {
    "mqtt": "rtm-sync-mqtt",
    "mqtts": "rtm-sync-mqtt",
    "nats": "rtm-sync-nats",
    "s3": "rtm-sync-s3",
}
"""Schemes that a distribution of ours serves, for advice."""


class PluginStatus(str, Enum):
    """What became of a plugin."""

    LOADED = "loaded"
    DISABLED = "disabled"
    INCOMPATIBLE = "incompatible"
    FAILED = "failed"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class PluginDescription:
    """One plugin, for people.

    Attributes:
        name: of its entry point, or of the object given to a client; what
            `RTM_SYNC_DISABLE_PLUGINS` takes.
        version, distribution: of what was installed; "" for an object given to a client.
        hooks: what it answers; empty unless it is loaded.
        status: what became of it.
        load_time: seconds that importing it took; None when it was not imported.
        reason: why it is not loaded.
    """

    name: str
    version: str
    distribution: str
    hooks: tuple[str, ...]
    status: PluginStatus
    load_time: float | None
    reason: str = ""


class _IncompatiblePlugin(Exception):
    """A plugin that was written for other hooks than ours; the message says for which."""


class _Plugin:
    """A plugin whose hooks fit ours, under a pluggy manager of its own.

    So one plugin is asked at a time, and what it raises has a name.

    Raises:
        Exception: it does not fit, or inspecting it failed.
    """

    def __init__(self, name: str, subject: object) -> None:
        self.name = name
        self.subject = subject
        wanted = getattr(subject, "RTM_SYNC_HOOKS", 1)
        if wanted != HOOKS_VERSION:
            raise _IncompatiblePlugin(
                f"it wants version {wanted!r} of the hooks, and rtm_sync {__version__} has "
                f"version {HOOKS_VERSION}; install a version of it, or of rtm_sync, that fits"
            )
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(Hooks)
        try:
            self._manager.register(subject, name=name)
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise _IncompatiblePlugin(
                f"it does not fit version {HOOKS_VERSION} of the hooks "
                f"({', '.join(_ROLES)}): {_one_line(error)}"
            ) from error
        callers = self._manager.get_hookcallers(subject) or []
        self.hooks = tuple(sorted(caller.name for caller in callers))
        if not self.hooks:
            raise ValueError("it has no function marked rtm_sync.hookimpl")

    def ask(self, hook: str, arguments: dict[str, object]) -> Any:
        """Its answer, None when it declines or does not have the hook.

        Raises:
            Exception: what the hook raised; TypeError when the answer is none.
        """
        answer = getattr(self._manager.hook, hook)(**arguments)
        if answer is not None:
            role = _ROLES[hook]
            contract = getattr(importlib.import_module(role.module, __package__), role.contract)
            if not isinstance(answer, contract):
                raise TypeError(f"it answered with a {type(answer).__name__}, no {role.contract}")
        return answer


@dataclass(frozen=True, slots=True)
class _Found:
    """The installed plugins: those that work, and a description of each."""

    plugins: tuple[_Plugin, ...]
    descriptions: tuple[PluginDescription, ...]


class _Installed:
    """Imports the entry points when first asked. Thread-safe.

    No lock is held meanwhile: two threads may both import (Python imports a module once), and what
    the first of them finds counts. A plugin that asks for plugins while it is imported is not told
    of any but the built-ins.
    """

    def __init__(self, disabled: Iterable[str] | None) -> None:
        self._disabled = None if disabled is None else frozenset(disabled)
        self._lock = threading.Lock()  # guards _found
        self._found: _Found | None = None
        self._importing = threading.local()

    def found(self) -> _Found:
        if self._found is not None:
            return self._found
        if getattr(self._importing, "now", False):
            return _Found((), ())
        self._importing.now = True
        try:
            found = self._import_all()
        finally:
            self._importing.now = False
        with self._lock:
            first = self._found is None
            if first:
                self._found = found
            published = self._found
        assert published is not None
        if first:
            for item in published.descriptions:
                if item.reason and item.status is not PluginStatus.DISABLED:
                    logger.warning("plugin %r is not used: %s", item.name, item.reason)
        return published

    def _import_all(self) -> _Found:
        disabled = _disabled_by_environment() if self._disabled is None else self._disabled
        plugins: list[_Plugin] = []
        descriptions: list[PluginDescription] = []
        # A distribution that two folders of the path describe is found twice.
        entries = {(entry.name, entry.value): entry for entry in entry_points(group=GROUP)}
        for _, entry in sorted(entries.items()):
            if entry.name in disabled:
                reason = f"{DISABLE_VARIABLE} names it"
                descriptions.append(_described(entry, PluginStatus.DISABLED, None, reason))
                continue
            began = time.perf_counter()
            plugin, status, reason = _imported(entry)
            took = time.perf_counter() - began
            if plugin is not None:
                plugins.append(plugin)
            hooks = () if plugin is None else plugin.hooks
            descriptions.append(_described(entry, status, took, reason, hooks))
        return _Found(tuple(plugins), tuple(descriptions))


def _imported(entry: EntryPoint) -> tuple[_Plugin | None, PluginStatus, str]:
    try:
        return _Plugin(entry.name, entry.load()), PluginStatus.LOADED, ""
    except _IncompatiblePlugin as error:
        return None, PluginStatus.INCOMPATIBLE, str(error)
    except (Exception, SystemExit) as error:  # a stranger's module may do anything
        return None, PluginStatus.FAILED, f"{type(error).__name__}: {_one_line(error)}"


def _described(
    entry: EntryPoint,
    status: PluginStatus,
    took: float | None,
    reason: str,
    hooks: tuple[str, ...] = (),
) -> PluginDescription:
    version, distribution = (entry.dist.version, entry.dist.name) if entry.dist else ("", "")
    return PluginDescription(entry.name, version, distribution, hooks, status, took, reason)


class PluginManager:
    """Finds who answers a hook. Thread-safe; no plugin's code runs under a lock.

    Whoever is nearer is asked first, and what is farther is not even imported when that answered:
    the plugins of this manager alone, then the built-ins, then what is installed. (The built-in
    token verifier takes every app, so it is asked last.)

    Args:
        disabled: entry-point names to leave out; None for what `RTM_SYNC_DISABLE_PLUGINS` names.
        extra: plugin objects of this manager only.

    Raises:
        PluginError: one of `extra` is no plugin, or does not fit.
    """

    def __init__(self, disabled: Iterable[str] | None = None, extra: Iterable[object] = ()) -> None:
        self._installed = _Installed(disabled)
        self._own = _own_plugins(extra)
        self._lock = threading.Lock()  # guards _generators
        self._generators: tuple[ThumbnailGenerator, ...] | None = None

    def extended(self, extra: Iterable[object]) -> PluginManager:
        """A manager with more plugins of its own, and the same installed ones.

        Raises:
            PluginError: one of `extra` is no plugin, or does not fit.
        """
        manager = PluginManager()
        manager._installed = self._installed
        manager._own = (*_own_plugins(extra), *self._own)
        return manager

    def names(self) -> list[str]:
        """Names of the plugins that can be asked, built-ins included."""
        return sorted(item.name for item in self.describe() if item.status is PluginStatus.LOADED)

    def describe(self) -> list[PluginDescription]:
        """Every plugin, nearest first, also those that are switched off or failed."""
        given = [
            PluginDescription(plugin.name, "", "", plugin.hooks, PluginStatus.LOADED, None)
            for plugin in self._own
        ]
        built_in = [
            PluginDescription(
                plugin.name, __version__, "rtm-sync", plugin.hooks, PluginStatus.LOADED, None
            )
            for plugin in _built_in()
        ]
        return [*given, *built_in, *self._installed.found().descriptions]

    def transport(self, url: str, options: TransportOptions) -> Transport:
        """The transport for `url`. Raises `PluginError` when nobody has it, or two have."""
        found: Transport = self._serving("transport", url, url=url, options=options)
        return found

    def engine(self, url: str) -> Engine:
        """The engine for `url`. Raises `PluginError` when nobody has it, or two have."""
        found: Engine = self._serving("engine", url, url=url)
        return found

    def media_store(self, url: str) -> MediaStore:
        """The media store for `url`. Raises `PluginError` when nobody has it, or two have."""
        found: MediaStore = self._serving("media_store", url, url=url)
        return found

    def token_verifier(self, app_id: str, secret: str, clock_skew: float = 30.0) -> TokenVerifier:
        """The token verifier of an app. Raises `PluginError` when nobody has it, or two have."""
        found: TokenVerifier = self._serving(
            "token_verifier", app_id, app_id=app_id, secret=secret, clock_skew=clock_skew
        )
        return found

    def thumbnail_generators(self) -> list[ThumbnailGenerator]:
        """All generators, the highest priority first; of equals, the nearest.

        Plugins are asked once. One that fails is left out, with a warning.
        """
        if self._generators is None:
            found = self._all_generators()
            with self._lock:
                self._generators = self._generators or found
        return list(self._generators or ())

    def _all_generators(self) -> tuple[ThumbnailGenerator, ...]:
        own = {id(plugin.subject) for plugin in self._own}
        installed = self._installed.found().plugins
        found: list[ThumbnailGenerator] = []
        for tier in (self._own, [plugin for plugin in installed if id(plugin.subject) not in own]):
            nearer = {generator.name for generator in found}
            answers = [_generator_of(plugin) for plugin in tier]
            found += [one for one in answers if one is not None and one.name not in nearer]
        return tuple(sorted(found, key=lambda generator: -generator.priority))

    def _serving(self, hook: str, asked: str, **arguments: object) -> Any:
        """The one answer of the nearest tier that has any."""
        problems: list[str] = []
        for tier in self._tiers(hook):
            answers: list[tuple[str, Any]] = []
            for plugin in tier():
                try:
                    answer = plugin.ask(hook, arguments)
                except Exception as error:  # a plugin's code may raise anything
                    if tier is _built_in:
                        raise
                    problems.append(f"plugin {plugin.name!r} failed: {_one_line(error)}")
                    cause = error
                else:
                    answers += [] if answer is None else [(plugin.name, answer)]
            if len(answers) > 1:
                _close_all(answers)
                raise self._ambiguous(_ROLES[hook].kind, asked, [name for name, _ in answers])
            if answers:
                for problem in problems:
                    logger.warning("asked for a %s, %s", _ROLES[hook].kind, problem)
                return answers[0][1]
        if problems:
            raise PluginError(
                f"No {_ROLES[hook].kind} for {_shown(asked)!r}: {'; '.join(problems)}."
            ) from cause
        raise self._absent(_ROLES[hook], asked)

    def _tiers(self, hook: str) -> list[Callable[[], tuple[_Plugin, ...]]]:
        tiers: list[Callable[[], tuple[_Plugin, ...]]] = [
            lambda: self._own,
            _built_in,
            lambda: self._installed.found().plugins,
        ]
        if hook == "token_verifier":
            tiers[1:] = reversed(tiers[1:])
        return tiers

    def _ambiguous(self, kind: str, asked: str, names: list[str]) -> PluginError:
        own = {plugin.name for plugin in self._own}
        way_out = f"Switch off all but one, as with {DISABLE_VARIABLE}={','.join(names[1:])}"
        if own.issuperset(names):
            way_out = "Give the client one of them."
        return PluginError(
            f"More than one plugin serves {_shown(asked)!r} as {kind}: {', '.join(names)}. "
            + way_out
        )

    def _absent(self, role: _Role, asked: str) -> PluginError:
        scheme = _shown(asked)
        sentences = [
            f"No {role.kind} serves {scheme!r}.",
            f"Built in: {role.built_in}.",
            f"Installed plugins: {', '.join(self.names())}.",
        ]
        for item in self.describe():
            if item.reason:
                sentences.append(f"Not used: {item.name}: {item.reason}.")
        if scheme in _PUBLISHED:
            sentences.append(f"It comes with: pip install {_PUBLISHED[scheme]}")
        return PluginError(" ".join(sentences))


def _own_plugins(subjects: Iterable[object]) -> tuple[_Plugin, ...]:
    """The plugins of an application; unlike a stranger's, a bad one is an error at once."""
    found: dict[int, _Plugin] = {}
    for subject in subjects:
        name = getattr(subject, "__name__", None) or type(subject).__name__
        try:
            found.setdefault(id(subject), _Plugin(name, subject))
        except Exception as error:  # inspecting it runs its code
            raise PluginError(f"{name!r} cannot be a plugin: {_one_line(error)}.") from error
    return tuple(found.values())


def _generator_of(plugin: _Plugin) -> ThumbnailGenerator | None:
    try:
        generator: ThumbnailGenerator | None = plugin.ask("thumbnail", {})
        if generator is None:
            return None
        for attribute, kind in (("name", str), ("priority", int), ("time_limit", (int, float))):
            value = getattr(generator, attribute)
            if not isinstance(value, kind):
                raise TypeError(f"its generator's {attribute} is {value!r}")
    except Exception as error:  # a plugin's code may raise anything
        problem = _one_line(error)
        logger.warning("plugin %r gives no thumbnail generator: %s", plugin.name, problem)
        return None
    return generator


@cache
def _built_in() -> tuple[_Plugin, ...]:
    from . import default_plugins

    return (_Plugin("built-in", default_plugins),)


def _close_all(answers: Iterable[tuple[str, Any]]) -> None:
    """Let go of what plugins made and nobody will use."""
    for name, answer in answers:
        close = getattr(answer, "close", None)
        try:
            if callable(close):
                close()
        except Exception:  # a plugin's code may raise anything
            logger.debug("closing what plugin %r made failed", name, exc_info=True)


def _shown(asked: str) -> str:
    """A URL's scheme: the rest may hold a secret."""
    return asked.partition(":")[0]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _disabled_by_environment() -> frozenset[str]:
    names = os.environ.get(DISABLE_VARIABLE, "")
    return frozenset(name.strip() for name in names.split(",") if name.strip())


plugin_manager = PluginManager()
"""The process's plugins: the built-ins and everything installed."""
