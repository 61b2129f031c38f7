"""The extension points of rtm_sync, and the manager that finds who fills them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names

if TYPE_CHECKING:
    from .hookspecs import GROUP, HOOKS_VERSION, Hooks, hookimpl, hookspec
    from .loader import DISABLE_VARIABLE, PluginManager, plugin_manager
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
    from .report import PluginDescription, PluginStatus, described, one_line, shown_scheme
else:
    __getattr__ = lazy_names(
        __name__,
        {
            ".hookspecs": (
                "GROUP",
                "HOOKS_VERSION",
                "Hooks",
                "hookimpl",
                "hookspec",
            ),
            ".loader": (
                "DISABLE_VARIABLE",
                "PluginManager",
                "plugin_manager",
            ),
            ".registry": (
                "Implementation",
                "IncompatiblePlugin",
                "Origin",
                "Plugin",
                "PluginFailed",
                "ROLES",
                "Registry",
                "Role",
                "plugin_code",
            ),
            ".report": (
                "PluginDescription",
                "PluginStatus",
                "described",
                "one_line",
                "shown_scheme",
            ),
        },
    )

__all__ = [
    "DISABLE_VARIABLE",
    "GROUP",
    "HOOKS_VERSION",
    "ROLES",
    "Hooks",
    "Implementation",
    "IncompatiblePlugin",
    "Origin",
    "Plugin",
    "PluginDescription",
    "PluginFailed",
    "PluginManager",
    "PluginStatus",
    "Registry",
    "Role",
    "described",
    "hookimpl",
    "hookspec",
    "one_line",
    "plugin_code",
    "plugin_manager",
    "shown_scheme",
]
