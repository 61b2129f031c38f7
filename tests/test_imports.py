"""What an import of the package loads, and that public names are there when they are used."""

from __future__ import annotations

import pickle
import pydoc
import subprocess
import sys
import unittest

import rtm_sync

LOADED_LATER = (
    "requests",  # by the first transfer over HTTP, and by Blob.from_url
    "urllib3",
    "websocket",  # by the first client of a gateway
    "tenacity",  # likewise
    "pluggy",  # by the first client
    "importlib.metadata",  # by the first look for installed plugins
    "email",
    "http.client",
    "asyncio",  # by the first hub in the process
    "sqlite3",
    "ssl",
    "uuid",
    "rtm_sync.hub",
    "rtm_sync.rules.idempotency",
    "rtm_sync.client.sender",
    "rtm_sync.thumbnails.selection",  # by the first upload
    "rtm_sync.transports.embedded",
    "rtm_sync.transports.gateway",
    "rtm_sync.transports.retry",
    "rtm_sync.plugins.loader",
    "rtm_sync.plugins.builtin",
    "rtm_sync_pillow",
    # only by servers, by the command line, or by their plugins
    "aiohttp",
    "jwt",
    "uvloop",
    "click",
    "rich",
    "PIL",
    "flask",
)


def loaded_by(statements: str) -> set[str]:
    """The modules that a new interpreter has loaded after the statements."""
    code = f"{statements}\nimport sys\nprint(*sys.modules)"
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    return set(output.splitlines()[-1].split())


class CostTest(unittest.TestCase):
    def test_importing_the_client_loads_only_what_a_client_always_needs(self) -> None:
        loaded = loaded_by("from rtm_sync import RtmClient") - loaded_by("pass")
        self.assertIn("rtm_sync.client.client", loaded)
        self.assertEqual(loaded.intersection(LOADED_LATER), set())

    def test_importing_the_package_loads_only_the_loader_of_names(self) -> None:
        loaded = loaded_by("import rtm_sync")
        own = {name for name in loaded if name.partition(".")[0] == "rtm_sync"}
        self.assertEqual(own, {"rtm_sync", "rtm_sync.lazy_names"})

    def test_messages_and_transfers_in_one_process_need_no_http(self) -> None:
        loaded = loaded_by(
            "import rtm_sync\n"
            "with rtm_sync.RtmClient('app') as client:\n"
            "    client.login('alice')\n"
            "    client.send_message_to_peer('hello', 'bob')\n"
            "    message = client.create_media_message_by_uploading(b'x').result(60)\n"
            "    client.download_media(message.media_id).result(60)\n"
        )
        self.assertIn("rtm_sync.transports.embedded", loaded)
        self.assertEqual(loaded.intersection({"requests", "urllib3", "websocket"}), set())


class NameTest(unittest.TestCase):
    def test_every_public_name_is_there(self) -> None:
        for name in rtm_sync.__all__:
            self.assertTrue(hasattr(rtm_sync, name), name)
        self.assertEqual(sorted(set(rtm_sync.__all__)), sorted(rtm_sync.__all__))

    def test_every_name_of_a_new_interpreter_is_public(self) -> None:
        code = (
            "import rtm_sync\n"
            "missing = set(rtm_sync.__all__) - set(dir(rtm_sync))\n"
            "assert not missing, missing\n"
            "assert rtm_sync.errors.LoginErrorCode.LOGIN_ERR_REJECTED == 2\n"
            "assert rtm_sync.plugins.plugin_manager\n"
            "from rtm_sync import *\n"
            "assert create_instance is RtmClient is rtm_sync.create_instance\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_an_unknown_name_is_an_error_that_names_it(self) -> None:
        with self.assertRaisesRegex(AttributeError, "'rtm_sync' has no attribute 'RtmClinet'"):
            _ = rtm_sync.RtmClinet  # type: ignore[attr-defined]
        self.assertFalse(hasattr(rtm_sync, "__path_hooks__"))

    def test_pickles_and_help_know_the_names(self) -> None:
        error = rtm_sync.LoginError.named("REJECTED", "no")
        self.assertIs(type(pickle.loads(pickle.dumps(error))), rtm_sync.LoginError)
        self.assertIs(pickle.loads(pickle.dumps(rtm_sync.RtmClient)), rtm_sync.RtmClient)
        text = pydoc.plain(pydoc.render_doc(rtm_sync.RtmClient))
        for method in ("login", "open_media", "get_user_attributes", "query_peers_online_status"):
            self.assertIn(f" {method}(", text)
