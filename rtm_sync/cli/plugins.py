"""`plugins`: what the plugin manager knows, as records."""

from __future__ import annotations

from importlib.metadata import entry_points

from ..plugins import GROUP, PluginManager
from ..version import __version__


def describe(plugins: PluginManager) -> list[dict[str, str]]:
    """Every plugin, built-ins first: its name, distribution and version, and the error if any."""
    installed = {
        entry.name: (entry.dist.name, entry.dist.version)
        for entry in entry_points(group=GROUP)
        if entry.dist is not None
    }
    errors = dict.fromkeys(plugins.names(), "")
    errors |= {failure.name: failure.reason for failure in plugins.failures}
    records = []
    for name, error in sorted(errors.items(), key=lambda item: (item[0] != "built-in", item)):
        distribution, version = installed.get(name, ("", ""))
        if name == "built-in":
            distribution, version = "rtm-sync", __version__
        records.append(
            {"name": name, "distribution": distribution, "version": version, "error": error}
        )
    return records
