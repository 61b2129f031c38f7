"""Descriptions of plugins for people: each plugin's status, and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class PluginStatus(str, Enum):
    """The state of a plugin."""

    LOADED = "loaded"
    DISABLED = "disabled"
    INCOMPATIBLE = "incompatible"
    FAILED = "failed"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class PluginDescription:
    """A description of one plugin, for people.

    Attributes:
        name: the entry point's name, or the name of the object that was given to a client.
            `RTM_SYNC_DISABLE_PLUGINS` takes the entry point's name.
        version, distribution: of the installed distribution; "" for an object given to a client.
        hooks: the hooks that the plugin implements; empty unless the plugin is loaded.
        status: the plugin's state.
        load_time: seconds that the import took; None when the plugin was not imported.
        reason: why the plugin is not loaded; "" when it is.
    """

    name: str
    version: str
    distribution: str
    hooks: tuple[str, ...]
    status: PluginStatus
    load_time: float | None
    reason: str = ""


def described(
    entry: EntryPoint,
    status: PluginStatus,
    load_time: float | None,
    reason: str,
    hooks: tuple[str, ...] = (),
) -> PluginDescription:
    """The description of an installed plugin, with its distribution's name and version."""
    version, distribution = (entry.dist.version, entry.dist.name) if entry.dist else ("", "")
    return PluginDescription(entry.name, version, distribution, hooks, status, load_time, reason)


def shown_scheme(url: str) -> str:
    """The scheme of a URL, for messages: the rest of the URL may hold a secret."""
    return url.partition(":")[0]


def one_line(error: BaseException) -> str:
    """The text of a plugin's exception on one line, without a full stop at its end."""
    try:
        text = " ".join(str(error).split()).rstrip(".")
    except Exception:  # a plugin's exception may have a __str__ that fails
        text = ""
    if isinstance(error, Exception):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}".rstrip(": ")  # the text of SystemExit is a number
