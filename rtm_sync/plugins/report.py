"""Descriptions of plugins, for people: what became of each, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


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


def described(
    entry: EntryPoint,
    status: PluginStatus,
    took: float | None,
    reason: str,
    hooks: tuple[str, ...] = (),
) -> PluginDescription:
    version, distribution = (entry.dist.version, entry.dist.name) if entry.dist else ("", "")
    return PluginDescription(entry.name, version, distribution, hooks, status, took, reason)


def shown_scheme(asked: str) -> str:
    """A URL's scheme: the rest may hold a secret."""
    return asked.partition(":")[0]


def one_line(error: BaseException) -> str:
    """The text of an error for a sentence of ours; the error may be a plugin's own."""
    try:
        text = " ".join(str(error).split()).rstrip(".")
    except Exception:  # a plugin's exception may have a __str__ that fails
        text = ""
    if isinstance(error, Exception):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}".rstrip(": ")  # SystemExit has but a number
