"""The extension points of rtm_sync, and the manager that finds the plugins which fill them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names

if TYPE_CHECKING:
    from .hookspecs import GROUP, HOOKS_VERSION, Hooks, hookimpl, hookspec
    from .loader import DISABLE_VARIABLE, PluginManager, plugin_manager
    from .report import PluginDescription, PluginStatus
else:
    __getattr__ = lazy_names(
        __name__,
        {
            ".hookspecs": ("GROUP", "HOOKS_VERSION", "Hooks", "hookimpl", "hookspec"),
            ".loader": ("DISABLE_VARIABLE", "PluginManager", "plugin_manager"),
            ".report": ("PluginDescription", "PluginStatus"),
        },
    )

__all__ = [
    "DISABLE_VARIABLE",
    "GROUP",
    "HOOKS_VERSION",
    "Hooks",
    "PluginDescription",
    "PluginManager",
    "PluginStatus",
    "hookimpl",
    "hookspec",
    "plugin_manager",
]
