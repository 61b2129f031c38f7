"""The plugin manager: finds the plugins and asks them.

A plugin is a module or object with functions marked `rtm_sync.hookimpl`, named in the entry-point
group `rtm_sync` or given to one client. The built-ins (`plugins/builtin.py`) answer the very same
hooks. A hook takes what it is asked for and returns None to decline. `docs/plugins.md` says it all.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..errors import PluginError
from ..version import __version__
from .hookspecs import GROUP
from .registry import (
    ROLES,
    Implementation,
    IncompatiblePlugin,
    Origin,
    Plugin,
    PluginFailed,
    Registry,
    Role,
    plugin_code,
)
from .report import PluginDescription, PluginStatus, described, shown_scheme

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from ..hub.auth.tokens import TokenVerifier
    from ..hub.engine.contract import Engine
    from ..hub.media.store import MediaStore
    from ..thumbnails.contract import ThumbnailGenerator
    from ..transports.base import Transport, TransportOptions

DISABLE_VARIABLE = "RTM_SYNC_DISABLE_PLUGINS"

_PUBLISHED = {
    "mqtt": "rtm-sync-mqtt",
    "mqtts": "rtm-sync-mqtt",
    "nats": "rtm-sync-nats",
    "s3": "rtm-sync-s3",
}
"""Schemes that a distribution of ours serves, for advice."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Found:
    """The installed plugins: those that work, and a description of each."""

    plugins: tuple[Plugin, ...]
    descriptions: tuple[PluginDescription, ...]


class _Installed:
    """Imports the entry points when first asked. Thread-safe.

    No lock is held meanwhile: two threads may both import (Python imports a module once), and what
    the first of them finds counts.
    """

    def __init__(self, disabled: Iterable[str] | None) -> None:
        self._disabled = None if disabled is None else frozenset(disabled)
        self._lock = threading.Lock()  # guards _found
        self._found: _Found | None = None
        self._importing = threading.local()

    def found(self) -> _Found | None:
        """What is installed; None to a plugin that asks while this thread imports it."""
        if self._found is not None:
            return self._found
        if getattr(self._importing, "now", False):
            return None
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
        from importlib.metadata import entry_points  # loads email, zipfile and more

        disabled = _disabled_by_environment() if self._disabled is None else self._disabled
        registry = Registry()
        descriptions: list[PluginDescription] = []
        # A distribution that two folders of the path describe is found twice.
        entries = {(entry.name, entry.value): entry for entry in entry_points(group=GROUP)}
        for _, entry in sorted(entries.items()):
            if entry.name in disabled:
                reason = f"{DISABLE_VARIABLE} names it"
                descriptions.append(described(entry, PluginStatus.DISABLED, None, reason))
                continue
            began = time.perf_counter()
            hooks, status, reason = _imported(entry, registry)
            took = time.perf_counter() - began
            descriptions.append(described(entry, status, took, reason, hooks))
        return _Found(tuple(registry.plugins), tuple(descriptions))


def _imported(entry: EntryPoint, registry: Registry) -> tuple[tuple[str, ...], PluginStatus, str]:
    """Import a plugin and register it: its hooks, and what became of it and why."""
    try:
        with plugin_code():
            subject = entry.load()
        plugin = registry.register(entry.name, subject, Origin.INSTALLED)
    except IncompatiblePlugin as error:
        return (), PluginStatus.INCOMPATIBLE, str(error)
    except PluginFailed as error:
        cause, reason = error.__cause__, str(error)
        if isinstance(cause, Exception):
            reason = f"{type(cause).__name__}: {reason}"
        return (), PluginStatus.FAILED, reason
    return plugin.hooks, PluginStatus.LOADED, ""


def _disabled_by_environment() -> frozenset[str]:
    names = os.environ.get(DISABLE_VARIABLE, "")
    return frozenset(name.strip() for name in names.split(",") if name.strip())


class PluginManager:
    """Finds the plugins and asks them. Thread-safe; no plugin's code runs under a lock.

    Implementations of a hook are asked one at a time: those of this manager's own plugins, then the
    built-in ones, then the installed ones, which are not even imported when a nearer one answered.
    Within each, pluggy's order: `tryfirst` ones, the others, and the plugin registered last before
    those registered earlier. `trylast` ones come after all others. (The built-in token verifier
    takes every app, so it is one of them.)

    Args:
        disabled: entry-point names to leave out; None for what `RTM_SYNC_DISABLE_PLUGINS` names.
        extra: plugin objects of this manager only, registered in this order.

    Raises:
        PluginError: one of `extra` is no plugin, or does not fit.
    """

    def __init__(self, disabled: Iterable[str] | None = None, extra: Iterable[object] = ()) -> None:
        self._own = _distinct(extra)
        self._installed = _Installed(disabled)
        self._lock = threading.Lock()  # guards _generators
        self._generators: tuple[ThumbnailGenerator, ...] | None = None
        # Never changed, but replaced by one that is complete when the installed are imported.
        # Threads that come at once may each make one; all are alike.
        self._registry = _registry_of(self._own) if self._own else None

    def extended(self, extra: Iterable[object]) -> PluginManager:
        """A manager with more plugins of its own, and the same installed ones.

        Raises:
            PluginError: one of `extra` is no plugin, or does not fit.
        """
        manager = PluginManager(extra=(*self._own, *extra))
        manager._installed = self._installed
        return manager

    def names(self) -> list[str]:
        """Names of the plugins that can be asked, built-ins included."""
        return sorted(item.name for item in self.describe() if item.status is PluginStatus.LOADED)

    def describe(self) -> list[PluginDescription]:
        """Every plugin, in the order they are asked, also those switched off or failed."""
        found = self._installed.found()
        here = []
        for plugin in reversed(self._present().plugins):
            version, distribution = "", ""
            if plugin.origin is Origin.INSTALLED:
                continue
            if plugin.origin is Origin.BUILT_IN:
                version, distribution = __version__, "rtm-sync"
            here.append(
                PluginDescription(
                    plugin.name, version, distribution, plugin.hooks, PluginStatus.LOADED, None
                )
            )
        return here if found is None else [*here, *found.descriptions]

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
        """All generators, the highest priority first; of equals, the one asked first.

        Plugins are asked once. One that fails is left out, with a warning.
        """
        if self._generators is None:
            found = self._all_generators()
            if self._installed.found() is None:  # a plugin asks while it is imported
                return list(found)
            with self._lock:
                if self._generators is None:
                    self._generators = found
        return list(self._generators)

    def _all_generators(self) -> tuple[ThumbnailGenerator, ...]:
        found: list[ThumbnailGenerator] = []
        for group in self._groups("thumbnail"):
            taken = {generator.name for generator in found}
            answers = [_generator_of(one) for one in group]
            found += [one for one in answers if one is not None and one.name not in taken]
        return tuple(sorted(found, key=lambda generator: -generator.priority))

    def _serving(self, hook: str, asked: str, **arguments: object) -> Any:
        """The one answer of the first group that has any."""
        failures: list[tuple[str, PluginFailed]] = []
        for group in self._groups(hook):
            answers = _answers_of(group, arguments, failures)
            if len(answers) > 1:
                _close_all(answers)
                raise self._ambiguous(ROLES[hook].kind, asked, [plugin for plugin, _ in answers])
            if answers:
                for name, failure in failures:
                    kind = ROLES[hook].kind
                    logger.warning("asked for a %s, plugin %r failed: %s", kind, name, failure)
                return answers[0][1]
        if failures:
            problems = "; ".join(f"plugin {name!r} failed: {failure}" for name, failure in failures)
            raise PluginError(
                f"No {ROLES[hook].kind} for {shown_scheme(asked)!r}: {problems}."
            ) from failures[-1][1].__cause__
        raise self._absent(ROLES[hook], asked)

    def _groups(self, hook: str) -> Iterator[list[Implementation]]:
        """The implementations in the order they are asked, those of one rank together.

        The order must not depend on whether the installed plugins are imported already: they come
        after the nearer ones, `tryfirst` or not, and only `trylast` puts a nearer one after them.
        """
        near, far = [], []
        for one in self._present().implementations(hook):
            if not (one.hookimpl.trylast or one.plugin.origin is Origin.INSTALLED):
                near.append(one)
        yield from _by_rank(near)
        for one in self._complete().implementations(hook):
            if one.hookimpl.trylast or one.plugin.origin is Origin.INSTALLED:
                far.append(one)
        yield from _by_rank(far)

    def _present(self) -> Registry:
        """The plugins as far as they are imported; at least this manager's own and the built-in."""
        registry = self._registry
        if registry is None:
            registry = self._registry = _registry_of(self._own)
        return registry

    def _complete(self) -> Registry:
        """All plugins; to one that asks while it is imported, all but the installed ones."""
        found = self._installed.found()
        registry = self._present()
        if found is not None and not registry.is_complete:
            registry = self._registry = _registry_of(self._own, found)
        return registry

    def _ambiguous(self, kind: str, asked: str, plugins: list[Plugin]) -> PluginError:
        names = [plugin.name for plugin in plugins]
        way_out = f"Switch off all but one, as with {DISABLE_VARIABLE}={','.join(names[1:])}"
        if plugins[0].origin is Origin.OWN:
            way_out = "Give the client one of them."
        return PluginError(
            f"More than one plugin serves {shown_scheme(asked)!r} as {kind}: {', '.join(names)}. "
            + way_out
        )

    def _absent(self, role: Role, asked: str) -> PluginError:
        scheme = shown_scheme(asked)
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


def _distinct(subjects: Iterable[object]) -> tuple[object, ...]:
    """The objects without those that are there already."""
    return tuple({id(subject): subject for subject in subjects}.values())


def _registry_of(own: tuple[object, ...], found: _Found | None = None) -> Registry:
    """A registry of an application's plugins, the built-in ones and those that were found.

    pluggy asks first what was registered last, so the nearest plugins are registered last; the
    installed ones, which are sorted by name, in reverse.

    Raises:
        PluginError: an application's plugin does not fit; unlike an installed one, it is an error.
    """
    from . import builtin

    registry = Registry(is_complete=found is not None)
    for plugin in reversed(found.plugins if found is not None else ()):
        if plugin.subject not in own:  # the application has given the same plugin
            registry.register(plugin.name, plugin.subject, Origin.INSTALLED)
    registry.register("built-in", builtin, Origin.BUILT_IN)
    for subject in own:
        name = getattr(subject, "__name__", None) or type(subject).__name__
        try:
            registry.register(name, subject, Origin.OWN)
        except (IncompatiblePlugin, PluginFailed) as error:
            raise PluginError(f"{name!r} cannot be a plugin: {error}.") from error
    return registry


def _by_rank(implementations: list[Implementation]) -> Iterator[list[Implementation]]:
    for _, group in groupby(implementations, key=lambda one: one.rank):
        yield list(group)


def _answers_of(
    group: list[Implementation],
    arguments: dict[str, object],
    failures: list[tuple[str, PluginFailed]],
) -> list[tuple[Plugin, Any]]:
    """Ask all of a group: the answer of each plugin that has one. Adds to `failures`."""
    answers: list[tuple[Plugin, Any]] = []
    try:
        for one in group:
            if answers and answers[-1][0] is one.plugin:
                continue  # its other function, by `specname`, has answered
            try:
                answer = one.answer(arguments)
            except PluginFailed as failure:
                failures.append((one.plugin.name, failure))
                continue
            if answer is not None:
                answers.append((one.plugin, answer))
    except BaseException:  # a built-in failed, or Ctrl-C
        _close_all(answers)
        raise
    return answers


def _generator_of(one: Implementation) -> ThumbnailGenerator | None:
    try:
        generator: ThumbnailGenerator | None = one.answer({})
        if generator is None:
            return None
        with plugin_code():
            for attribute, kind in (("name", str), ("priority", int), ("time_limit", (int, float))):
                value = getattr(generator, attribute)
                if not isinstance(value, kind):
                    raise TypeError(f"its generator's {attribute} is {value!r}")
    except PluginFailed as failure:
        logger.warning("plugin %r gives no thumbnail generator: %s", one.plugin.name, failure)
        return None
    return generator


def _close_all(answers: Iterable[tuple[Plugin, Any]]) -> None:
    """Let go of what plugins made and nobody will use."""
    for plugin, answer in answers:
        try:
            with plugin_code():
                close = getattr(answer, "close", None)
                if callable(close):
                    close()
        except PluginFailed:
            logger.debug("closing what plugin %r made failed", plugin.name, exc_info=True)


plugin_manager = PluginManager()
"""The process's plugins: the built-ins and everything installed."""
