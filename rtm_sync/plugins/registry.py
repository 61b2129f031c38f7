"""The plugins under one pluggy manager: their checks, and calls of one implementation at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from inspect import Parameter, signature
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import pluggy

from ..version import __version__
from .hookspecs import GROUP, HOOKS_VERSION, Hooks
from .report import one_line


@dataclass(frozen=True, slots=True)
class Role:
    """The role of a hook's answers.

    Attributes:
        kind: the noun for an answer, in messages.
        contract: the class of which an answer must be an instance, as "module:class". It is
            imported with the first answer.
        built_in: the URLs that work without a plugin, in messages.
    """

    kind: str
    contract: str
    built_in: str


ROLES = {
    "transport": Role("transport", "transports.base:Transport", "ws://, wss://, memory://"),
    "engine": Role("engine", "hub.engine.contract:Engine", "local://"),
    "media_store": Role("media store", "hub.media.store:MediaStore", "disk:///folder, memory://"),
    "token_verifier": Role(
        "token verifier", "hub.auth.tokens:TokenVerifier", "JWT (pip install PyJWT)"
    ),
    "thumbnail": Role("thumbnail generator", "thumbnails.contract:ThumbnailGenerator", "none"),
}


class IncompatiblePlugin(Exception):
    """A plugin does not fit the hooks; the message says why."""


class PluginFailed(Exception):
    """A plugin's code raised an exception, which is the cause of this one."""


@contextlib.contextmanager
def plugin_code() -> Iterator[None]:
    """Run a plugin's code in a block: it may raise any exception, SystemExit included.

    Raises:
        PluginFailed: the code raised an exception.
        IncompatiblePlugin, KeyboardInterrupt: unchanged. Ctrl-C comes from the user, not from the
            plugin.
    """
    try:
        yield
    except (KeyboardInterrupt, IncompatiblePlugin):
        raise
    except BaseException as error:
        raise PluginFailed(one_line(error)) from error


class Origin(Enum):
    """The source of a plugin, in the order in which plugins are asked."""

    OWN = "given to the client"
    BUILT_IN = "built in"
    INSTALLED = "installed"


@dataclass(frozen=True, slots=True, eq=False)
class Plugin:
    """A plugin that fits the hooks, and the names of the hooks that it implements."""

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
    def is_late(self) -> bool:
        """Whether it is asked after the plugins of the application and the built-in one."""
        return self.hookimpl.trylast or self.plugin.origin is Origin.INSTALLED

    @property
    def rank(self) -> tuple[Origin, bool, bool]:
        """Its precedence. Answers from two plugins of one rank are a conflict."""
        return self.plugin.origin, self.hookimpl.tryfirst, self.hookimpl.trylast

    def answer(self, arguments: dict[str, object]) -> Any:
        """Call it: the answer, or None when the plugin declines.

        Raises:
            PluginFailed: it raised an exception, or its answer is of the wrong type.
            Exception: the exception of a built-in implementation, unchanged: callers handle those.
        """
        if self.plugin.origin is Origin.BUILT_IN:
            return self._call(arguments)
        with plugin_code():
            return self._call(arguments)

    def _call(self, arguments: dict[str, object]) -> Any:
        answer = self.hookimpl.function(*(arguments[name] for name in self.hookimpl.argnames))
        contract: type = resolve_name(f"rtm_sync.{ROLES[self.hook].contract}")
        if answer is not None and not isinstance(answer, contract):
            raise TypeError(
                f"its answer is of type {type(answer).__name__}, not {contract.__name__}"
            )
        return answer


class _Manager(pluggy.PluginManager):
    """Skips `__init__` and the like, which are most of an object's attributes and never hooks.

    A registry is made in half the time without them.
    """

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        return None if name.startswith("__") else super().parse_hookimpl_opts(plugin, name)

    def parse_hookspec_opts(
        self, module_or_class: ModuleType | type, name: str
    ) -> pluggy.HookspecOpts | None:
        return None if name.startswith("__") else super().parse_hookspec_opts(module_or_class, name)


class Registry:
    """The plugins under one pluggy manager.

    It needs no lock: plugins are registered before threads share it.

    Args:
        is_complete: whether the installed plugins will be among them.
    """

    def __init__(self, *, is_complete: bool = False) -> None:
        self.is_complete = is_complete
        self._manager = _Manager(GROUP)
        self._manager.add_hookspecs(Hooks)
        self.plugins: list[Plugin] = []

    def register(self, name: str, subject: object, origin: Origin) -> Plugin:
        """Add a plugin. pluggy asks it before the plugins that were added earlier.

        Raises:
            IncompatiblePlugin: the plugin does not fit the hooks.
            PluginFailed: the plugin implements no hook or was added before, or its own code failed
                while it was inspected.
        """
        with plugin_code():
            for other in self.plugins:
                if other.subject is subject or other.subject == subject:  # pluggy compares so
                    raise ValueError(f"it is the same object as plugin {other.name!r}")
            hooks = self._fitting_hooks(subject)
            # Two plugins may have one name; pluggy needs distinct keys.
            self._manager.register(subject, f"{name} #{len(self.plugins)}")
        plugin = Plugin(name, subject, origin, hooks)
        self.plugins.append(plugin)
        return plugin

    def implementations(self, hook: str) -> list[Implementation]:
        """The implementations of a hook, in the order in which pluggy would call them."""
        plugins = {id(plugin.subject): plugin for plugin in self.plugins}
        found = getattr(self._manager.hook, hook).get_hookimpls()
        return [Implementation(plugins[id(one.plugin)], hook, one) for one in reversed(found)]

    def _fitting_hooks(self, subject: object) -> tuple[str, ...]:
        """The names of the hooks that a plugin implements, when all its implementations fit.

        Checked before pluggy registers the plugin: pluggy would keep a part of a faulty one.
        """
        wanted = getattr(subject, "RTM_SYNC_HOOKS", 1)
        if wanted != HOOKS_VERSION:
            raise IncompatiblePlugin(
                f"it wants version {wanted!r} of the hooks, and rtm_sync {__version__} has "
                f"version {HOOKS_VERSION}; install a matching version of the plugin or of rtm_sync"
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
            raise ValueError("it has no function marked rtm_sync.hookimpl that implements a hook")
        return tuple(sorted(hooks))


def _check_implementation(
    hook: str, function: Callable[..., object], options: pluggy.HookimplOpts
) -> None:
    """Raise IncompatiblePlugin unless a function can be called as an implementation of `hook`.

    As in pluggy, a parameter with a default value need not be a parameter of the hook.
    """
    if options.get("wrapper") or options.get("hookwrapper"):
        raise IncompatiblePlugin(
            f"its {hook} is a hook wrapper, but each implementation is called by itself and there "
            "is nothing to wrap. Return an answer, or None to decline"
        )
    if options.get("tryfirst") and options.get("trylast"):
        raise IncompatiblePlugin(f"its {hook} is marked tryfirst and trylast; mark it as one only")
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
