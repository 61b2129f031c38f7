"""The cost of importing the package."""

from __future__ import annotations

import subprocess
import sys
import unittest

import rtm_sync


class CostTest(unittest.TestCase):
    def loaded_by(self, statement: str) -> set[str]:
        code = f"{statement}\nimport sys\nprint(*sys.modules)"
        return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())

    def test_importing_loads_no_server_no_database_and_no_plugin(self) -> None:
        loaded = self.loaded_by("import rtm_sync")
        own = loaded - self.loaded_by("import requests, websocket, pluggy, tenacity")
        for name in ("aiohttp", "sqlite3", "jwt", "uvloop", "click", "rich", "PIL", "flask"):
            self.assertNotIn(name, loaded)
        for name in ("asyncio", "rtm_sync.hub.node", "rtm_sync.plugins.builtin", "rtm_sync_pillow"):
            self.assertNotIn(name, own)

    def test_every_public_name_is_there(self) -> None:
        for name in rtm_sync.__all__:
            self.assertTrue(hasattr(rtm_sync, name), name)
        self.assertEqual(sorted(set(rtm_sync.__all__)), sorted(rtm_sync.__all__))
