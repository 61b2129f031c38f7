"""The registry of plugins under one pluggy manager: what each answers, asked one at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from inspect import Parameter, signature
from types import ModuleType
from typing import Any

import pluggy

from ..version import __version__
from .hookspecs import GROUP, HOOKS_VERSION, Hooks
from .report import one_line


@dataclass(frozen=True, slots=True)
class Role:
    """What a hook is for.

    Attributes:
        kind: what its answer is called in messages.
        contract: imports and returns the class that an answer must be an instance of.
        built_in: what needs no plugin.
    """

    kind: str
    contract: Callable[[], type]
    built_in: str


def _transport_contract() -> type:
    from ..transports.base import Transport

    return Transport


def _engine_contract() -> type:
    from ..hub.engine.contract import Engine

    return Engine


def _media_store_contract() -> type:
    from ..hub.media.store import MediaStore

    return MediaStore


def _token_verifier_contract() -> type:
    from ..hub.auth.tokens import TokenVerifier

    return TokenVerifier


def _thumbnail_contract() -> type:
    from ..thumbnails.contract import ThumbnailGenerator

    return ThumbnailGenerator


ROLES = {
    "transport": Role("transport", _transport_contract, "ws://, wss://, memory://"),
    "engine": Role("engine", _engine_contract, "local://"),
    "media_store": Role("media store", _media_store_contract, "disk:///folder, memory://"),
    "token_verifier": Role("token verifier", _token_verifier_contract, "JWT (pip install PyJWT)"),
    "thumbnail": Role("thumbnail generator", _thumbnail_contract, "none"),
}


class IncompatiblePlugin(Exception):
    """A plugin does not fit the hooks; the message says why."""


class PluginFailed(Exception):
    """A plugin's code raised; the cause is what it raised."""


@contextlib.contextmanager
def plugin_code() -> Iterator[None]:
    """Runs code of a plugin, which may raise anything.

    Raises:
        PluginFailed: it raised, SystemExit included. Ctrl-C is the user's, and passes.
    """
    try:
        yield
    except (KeyboardInterrupt, IncompatiblePlugin):
        raise
    except BaseException as error:
        raise PluginFailed(one_line(error)) from error


class Origin(Enum):
    """Where a plugin is from, the nearest first."""

    OWN = "given to the client"
    BUILT_IN = "built in"
    INSTALLED = "installed"


@dataclass(frozen=True, slots=True, eq=False)
class Plugin:
    """A plugin that fits the hooks, and the hooks that it implements."""

    name: str
    subject: object
    origin: Origin
    hooks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Implementation:
    """One function of a plugin that implements a hook."""

    plugin: Plugin
    hook: str
    hookimpl: pluggy.HookImpl

    @property
    def rank(self) -> tuple[Origin, bool, bool]:
        """Implementations of one rank are on a par: two of them that answer are a conflict."""
        return self.plugin.origin, self.hookimpl.tryfirst, self.hookimpl.trylast

    def answer(self, arguments: dict[str, object]) -> Any:
        """What it answers, None when it declines.

        Raises:
            PluginFailed: it raised, or its answer is not what the hook is for.
            Exception: what a built-in raised; callers know those errors.
        """
        if self.plugin.origin is Origin.BUILT_IN:
            return self._call(arguments)
        with plugin_code():
            return self._call(arguments)

    def _call(self, arguments: dict[str, object]) -> Any:
        answer = self.hookimpl.function(*(arguments[name] for name in self.hookimpl.argnames))
        contract = ROLES[self.hook].contract()
        if answer is not None and not isinstance(answer, contract):
            raise TypeError(f"it answered with a {type(answer).__name__}, no {contract.__name__}")
        return answer


class _Manager(pluggy.PluginManager):
    """Looks for hooks in what a plugin defines; `__init__` and its like are never hooks.

    They are most of an object's attributes: without them a registry is made in half the time.
    """

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        return None if name.startswith("__") else super().parse_hookimpl_opts(plugin, name)

    def parse_hookspec_opts(
        self, module_or_class: ModuleType | type, name: str
    ) -> pluggy.HookspecOpts | None:
        return None if name.startswith("__") else super().parse_hookspec_opts(module_or_class, name)


class Registry:
    """Plugins under one pluggy manager.

    Nothing is registered any more once threads share it, so it needs no lock.
    """

    def __init__(self, *, is_complete: bool = False) -> None:
        self.is_complete = is_complete  # whether the installed plugins are among them
        self._manager = _Manager(GROUP)
        self._manager.add_hookspecs(Hooks)
        self.plugins: list[Plugin] = []

    def register(self, name: str, subject: object, origin: Origin) -> Plugin:
        """Add a plugin, which pluggy then asks before those that are here already.

        Raises:
            IncompatiblePlugin: it does not fit the hooks.
            PluginFailed: it has no hook, is here already, or inspecting it failed.
        """
        with plugin_code():
            for other in self.plugins:
                if other.subject is subject or other.subject == subject:  # as pluggy sees it
                    raise ValueError(f"it is the same object as plugin {other.name!r}")
            hooks = self._fitting_hooks(subject)
            # Names may come twice, keys in pluggy may not.
            self._manager.register(subject, f"{name} #{len(self.plugins)}")
        plugin = Plugin(name, subject, origin, hooks)
        self.plugins.append(plugin)
        return plugin

    def implementations(self, hook: str) -> list[Implementation]:
        """The implementations of a hook in the order in which pluggy asks them."""
        plugins = {id(plugin.subject): plugin for plugin in self.plugins}
        found = getattr(self._manager.hook, hook).get_hookimpls()
        return [Implementation(plugins[id(one.plugin)], hook, one) for one in reversed(found)]

    def _fitting_hooks(self, subject: object) -> tuple[str, ...]:
        """The names of the hooks that a plugin implements, if all of it fits.

        Before pluggy sees the plugin, because it would leave a part of a bad one registered.
        """
        wanted = getattr(subject, "RTM_SYNC_HOOKS", 1)
        if wanted != HOOKS_VERSION:
            raise IncompatiblePlugin(
                f"it wants version {wanted!r} of the hooks, and rtm_sync {__version__} has "
                f"version {HOOKS_VERSION}; install a version of it, or of rtm_sync, that fits"
            )
        hooks = set()
        for attribute in dir(subject):
            options = self._manager.parse_hookimpl_opts(subject, attribute)
            if options is None:
                continue
            hook = options.get("specname") or attribute
            if hook in ROLES:
                _check_implementation(hook, getattr(subject, attribute), options)
                hooks.add(hook)
            elif not options.get("optionalhook"):
                raise IncompatiblePlugin(
                    f"it implements the unknown hook {hook!r}; version {HOOKS_VERSION} has "
                    f"{', '.join(ROLES)}"
                )
        if not hooks:
            raise ValueError("it has no function marked rtm_sync.hookimpl for any of the hooks")
        return tuple(sorted(hooks))


def _check_implementation(
    hook: str, function: Callable[..., object], options: pluggy.HookimplOpts
) -> None:
    """Raises IncompatiblePlugin when a function cannot be called as an implementation of `hook`.

    As for pluggy, a parameter with a default keeps it and need not be one of the hook.
    """
    if options.get("wrapper") or options.get("hookwrapper"):
        raise IncompatiblePlugin(
            f"its {hook} is a hook wrapper, and there is nothing to wrap: each implementation is "
            "called by itself. Return an answer, or None to decline"
        )
    if options.get("tryfirst") and options.get("trylast"):
        raise IncompatiblePlugin(f"its {hook} is marked tryfirst and trylast; it can be but one")
    known = list(signature(getattr(Hooks, hook)).parameters)[1:]
    for parameter in signature(function).parameters.values():
        if parameter.default is not Parameter.empty:
            continue
        if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            continue
        if parameter.name not in known:
            raise IncompatiblePlugin(
                f"its {hook} takes {parameter.name!r}, which version {HOOKS_VERSION} of that hook "
                f"does not have; it has {', '.join(known) or 'no parameters'}"
            )
        if parameter.kind is Parameter.KEYWORD_ONLY:
            raise IncompatiblePlugin(
                f"its {hook} takes {parameter.name!r} by keyword only, and arguments are passed "
                "by position"
            )
