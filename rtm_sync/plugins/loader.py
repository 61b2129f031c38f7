"""The plugin manager: finds the plugins and calls their hooks.

A plugin is a module or object with functions marked `rtm_sync.hookimpl`. It is named in the
entry-point group `rtm_sync`, or given to one client. The built-in plugin (`plugins/builtin.py`)
implements the same hooks. An implementation returns None to decline. `docs/plugins.md` is the
guide for authors.
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

_DISTRIBUTION_OF_SCHEME = {
    "mqtt": "rtm-sync-mqtt",
    "mqtts": "rtm-sync-mqtt",
    "nats": "rtm-sync-nats",
    "s3": "rtm-sync-s3",
}
"""The schemes of our plugin distributions, for the advice in errors."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _InstalledPlugins:
    """The installed plugins that work, and a description of every installed one."""

    plugins: tuple[Plugin, ...]
    descriptions: tuple[PluginDescription, ...]


class _EntryPoints:
    """Imports the installed plugins at the first call of `plugins`. Thread-safe.

    No lock is held during the import. Two threads may both import the plugins (Python imports each
    module once); the result of the first thread is kept.
    """

    def __init__(self, disabled: Iterable[str] | None) -> None:
        self._disabled = None if disabled is None else frozenset(disabled)
        self._lock = threading.Lock()  # guards _plugins
        self._plugins: _InstalledPlugins | None = None
        self._importing = threading.local()

    def plugins(self) -> _InstalledPlugins | None:
        """The installed plugins; None when a plugin asks while this thread imports it."""
        if self._plugins is not None:
            return self._plugins
        if getattr(self._importing, "now", False):
            return None
        self._importing.now = True
        try:
            imported = self._import_all()
        finally:
            self._importing.now = False
        with self._lock:
            if self._plugins is not None:
                return self._plugins
            self._plugins = imported
        for item in imported.descriptions:
            if item.reason and item.status is not PluginStatus.DISABLED:
                logger.warning("plugin %r is not used: %s", item.name, item.reason)
        return imported

    def _import_all(self) -> _InstalledPlugins:
        from importlib.metadata import entry_points  # loads email, zipfile and more

        disabled = _disabled_by_environment() if self._disabled is None else self._disabled
        registry = Registry()
        descriptions: list[PluginDescription] = []
        # A distribution that is in two folders of sys.path is found twice.
        entries = {(entry.name, entry.value): entry for entry in entry_points(group=GROUP)}
        for _, entry in sorted(entries.items()):
            if entry.name in disabled:
                reason = f"{DISABLE_VARIABLE} names it"
                descriptions.append(described(entry, PluginStatus.DISABLED, None, reason))
                continue
            started = time.perf_counter()
            hooks, status, reason = _imported(entry, registry)
            load_time = time.perf_counter() - started
            descriptions.append(described(entry, status, load_time, reason, hooks))
        return _InstalledPlugins(tuple(registry.plugins), tuple(descriptions))


def _imported(entry: EntryPoint, registry: Registry) -> tuple[tuple[str, ...], PluginStatus, str]:
    """Import and register a plugin. Returns its hooks, its status and the reason for the status."""
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
    """Finds the plugins and calls their hooks. Thread-safe; no plugin's code runs under a lock.

    The implementations of a hook are asked one at a time: those of this manager's own plugins, the
    built-in ones, and then the installed ones. Installed plugins are imported only when no earlier
    plugin answered. Within each group pluggy's order applies: implementations marked `tryfirst`
    come first, and a plugin registered later comes before one registered earlier. Implementations
    marked `trylast` come after all groups. (The built-in token verifier serves every app, so it is
    marked `trylast`.)

    Args:
        disabled: names of entry points to leave out; None for the names in the environment
            variable `RTM_SYNC_DISABLE_PLUGINS`.
        extra: plugin objects of this manager only, registered in this order.

    Raises:
        PluginError: one of `extra` is not a plugin, or does not fit the hooks.
    """

    def __init__(self, disabled: Iterable[str] | None = None, extra: Iterable[object] = ()) -> None:
        self._own = _distinct(extra)
        self._installed = _EntryPoints(disabled)
        self._lock = threading.Lock()  # guards _generators
        self._generators: tuple[ThumbnailGenerator, ...] | None = None
        # A registry does not change. One with the installed plugins replaces it once they are
        # imported. Threads may each make that registry at the same time; all are equal.
        self._registry = _registry_of(self._own) if self._own else None

    def extended(self, extra: Iterable[object]) -> PluginManager:
        """A manager with more plugins of its own, and the same installed plugins.

        Raises:
            PluginError: one of `extra` is not a plugin, or does not fit the hooks.
        """
        manager = PluginManager(extra=(*self._own, *extra))
        manager._installed = self._installed
        return manager

    def names(self) -> list[str]:
        """Names of the plugins that are loaded, the built-in one included."""
        return sorted(item.name for item in self.describe() if item.status is PluginStatus.LOADED)

    def describe(self) -> list[PluginDescription]:
        """All plugins in the order in which they are asked, disabled and failed ones included."""
        installed = self._installed.plugins()
        descriptions = []
        for plugin in reversed(self._registered().plugins):
            version, distribution = "", ""
            if plugin.origin is Origin.INSTALLED:
                continue
            if plugin.origin is Origin.BUILT_IN:
                version, distribution = __version__, "rtm-sync"
            descriptions.append(
                PluginDescription(
                    plugin.name, version, distribution, plugin.hooks, PluginStatus.LOADED, None
                )
            )
        return [*descriptions, *(installed.descriptions if installed is not None else ())]

    def transport(self, url: str, options: TransportOptions) -> Transport:
        """The transport for `url`. Raises `PluginError` when no plugin serves it, or two do."""
        transport: Transport = self._answer("transport", url, url=url, options=options)
        return transport

    def engine(self, url: str) -> Engine:
        """The engine for `url`. Raises `PluginError` when no plugin serves it, or two do."""
        engine: Engine = self._answer("engine", url, url=url)
        return engine

    def media_store(self, url: str) -> MediaStore:
        """The media store for `url`. Raises `PluginError` when no plugin serves it, or two do."""
        store: MediaStore = self._answer("media_store", url, url=url)
        return store

    def token_verifier(self, app_id: str, secret: str, clock_skew: float = 30.0) -> TokenVerifier:
        """The token verifier of an app. Raises `PluginError` as `engine` does."""
        verifier: TokenVerifier = self._answer(
            "token_verifier", app_id, app_id=app_id, secret=secret, clock_skew=clock_skew
        )
        return verifier

    def thumbnail_generators(self) -> list[ThumbnailGenerator]:
        """All thumbnail generators, the highest priority first.

        Generators of one priority come in the order in which their plugins are asked. Each plugin
        is asked once. A plugin that fails is left out, and a warning is logged.
        """
        if self._generators is None:
            generators = self._all_generators()
            if self._installed.plugins() is None:  # a plugin asks while it is being imported
                return list(generators)
            with self._lock:
                if self._generators is None:
                    self._generators = generators
        return list(self._generators)

    def _all_generators(self) -> tuple[ThumbnailGenerator, ...]:
        generators: list[ThumbnailGenerator] = []
        for group in self._groups("thumbnail"):
            taken = {generator.name for generator in generators}
            answers = [_generator_of(implementation) for implementation in group]
            generators += [one for one in answers if one is not None and one.name not in taken]
        return tuple(sorted(generators, key=lambda generator: -generator.priority))

    def _answer(self, hook: str, subject: str, **arguments: object) -> Any:
        """The only answer of the first group that has an answer.

        Args:
            hook: its name.
            subject: the URL or app for which a plugin is wanted, for errors.
            arguments: of the hook.

        Raises:
            PluginError: no plugin answered, or two plugins of one rank did.
        """
        kind = ROLES[hook].kind
        failures: list[tuple[str, PluginFailed]] = []
        for group in self._groups(hook):
            answers = _answers_of(group, arguments, failures)
            if len(answers) > 1:
                _close_all(answers)
                raise _conflict(kind, subject, [plugin for plugin, _ in answers])
            if answers:
                for name, failure in failures:
                    logger.warning("plugin %r failed to make a %s: %s", name, kind, failure)
                return answers[0][1]
        if failures:
            problems = "; ".join(f"plugin {name!r} failed: {failure}" for name, failure in failures)
            raise PluginError(
                f"No {kind} for {shown_scheme(subject)!r}: {problems}."
            ) from failures[-1][1].__cause__
        raise self._unserved(hook, subject)

    def _groups(self, hook: str) -> Iterator[list[Implementation]]:
        """The implementations of a hook in the order they are asked, grouped by rank.

        The order must not depend on whether the installed plugins are imported yet. So they come
        after the other plugins, even when marked `tryfirst`; only `trylast` puts an implementation
        of another plugin behind them.
        """
        for late in (False, True):
            registry = self._registered(installed=late)
            found = [one for one in registry.implementations(hook) if one.is_late is late]
            for _, group in groupby(found, key=lambda one: one.rank):
                yield list(group)

    def _registered(self, *, installed: bool = False) -> Registry:
        """The registered plugins: this manager's own and the built-in one, at least.

        Args:
            installed: import and register the installed plugins as well, unless an installed
                plugin asks while it is being imported.
        """
        imported = self._installed.plugins() if installed else None
        registry = self._registry
        if registry is None or (imported is not None and not registry.is_complete):
            registry = self._registry = _registry_of(self._own, imported)
        return registry

    def _unserved(self, hook: str, subject: str) -> PluginError:
        role, scheme = ROLES[hook], shown_scheme(subject)
        sentences = [
            f"No {role.kind} serves {scheme!r}.",
            f"Built in: {role.built_in}.",
            f"Installed plugins: {', '.join(self.names())}.",
        ]
        for item in self.describe():
            if item.reason:
                sentences.append(f"Not used: {item.name}: {item.reason}.")
        if scheme in _DISTRIBUTION_OF_SCHEME:
            sentences.append(f"It comes with: pip install {_DISTRIBUTION_OF_SCHEME[scheme]}")
        return PluginError(" ".join(sentences))


def _distinct(subjects: Iterable[object]) -> tuple[object, ...]:
    """The objects in their order, each once."""
    return tuple({id(subject): subject for subject in subjects}.values())


def _registry_of(own: tuple[object, ...], installed: _InstalledPlugins | None = None) -> Registry:
    """A registry of an application's plugins, the built-in one and the installed ones.

    pluggy asks the plugin registered last first. So the installed plugins are registered first, in
    the reverse order of their names, and the application's plugins last.

    Raises:
        PluginError: an application's plugin does not fit the hooks. An installed plugin that does
            not fit is only left out.
    """
    from . import builtin

    registry = Registry(is_complete=installed is not None)
    for plugin in reversed(installed.plugins if installed is not None else ()):
        if plugin.subject not in own:  # the application may give an installed plugin
            registry.register(plugin.name, plugin.subject, Origin.INSTALLED)
    registry.register("built-in", builtin, Origin.BUILT_IN)
    for subject in own:
        name = getattr(subject, "__name__", None) or type(subject).__name__
        try:
            registry.register(name, subject, Origin.OWN)
        except (IncompatiblePlugin, PluginFailed) as error:
            raise PluginError(f"{name!r} cannot be a plugin: {error}.") from error
    return registry


def _conflict(kind: str, subject: str, plugins: list[Plugin]) -> PluginError:
    names = [plugin.name for plugin in plugins]
    way_out = f"Disable all but one, for example {DISABLE_VARIABLE}={','.join(names[1:])}"
    if plugins[0].origin is Origin.OWN:
        way_out = "Give the client one of them."
    return PluginError(
        f"More than one plugin serves {shown_scheme(subject)!r} as {kind}: {', '.join(names)}. "
        + way_out
    )


def _answers_of(
    group: list[Implementation],
    arguments: dict[str, object],
    failures: list[tuple[str, PluginFailed]],
) -> list[tuple[Plugin, Any]]:
    """Call all implementations of a group: the plugins that answered, with their answers.

    The failures of plugins are appended to `failures`.
    """
    answers: list[tuple[Plugin, Any]] = []
    try:
        for one in group:
            if answers and answers[-1][0] is one.plugin:
                continue  # another function of the plugin, by `specname`, has answered
            try:
                answer = one.answer(arguments)
            except PluginFailed as failure:
                failures.append((one.plugin.name, failure))
                continue
            if answer is not None:
                answers.append((one.plugin, answer))
    except BaseException:  # the built-in plugin failed, or Ctrl-C
        _close_all(answers)
        raise
    return answers


def _generator_of(implementation: Implementation) -> ThumbnailGenerator | None:
    try:
        generator: ThumbnailGenerator | None = implementation.answer({})
        if generator is None:
            return None
        with plugin_code():
            for attribute, kind in (("name", str), ("priority", int), ("time_limit", (int, float))):
                value = getattr(generator, attribute)
                if not isinstance(value, kind):
                    raise TypeError(f"the {attribute} of its generator is {value!r}")
    except PluginFailed as failure:
        name = implementation.plugin.name
        logger.warning("plugin %r failed to make a thumbnail generator: %s", name, failure)
        return None
    return generator


def _close_all(answers: Iterable[tuple[Plugin, Any]]) -> None:
    """Close the objects that plugins made and no caller will get."""
    for plugin, answer in answers:
        try:
            with plugin_code():
                close = getattr(answer, "close", None)
                if callable(close):
                    close()
        except PluginFailed:
            logger.debug("closing the answer of plugin %r failed", plugin.name, exc_info=True)


plugin_manager = PluginManager()
"""The plugins of this process: the built-in one and the installed ones."""
