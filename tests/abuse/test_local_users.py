"""A local user without rights reads nothing of the gateway's, and cannot keep it from starting."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

from rtm_sync import RtmClient
from rtm_sync.testing import GatewayProcess, RtmTestCase
from tests.support import PATIENCE, local_gateway

_NOBODY = 65534


class LocalUserTest(RtmTestCase):
    def setUp(self) -> None:
        self.home = self.folder()
        self.home.chmod(0o755)  # the local user gets as far as the data folder
        self.data = self.home / "data"
        self.addCleanup(os.umask, os.umask(0))  # the administrator's; the gateway inherits it

    def assert_closed(self) -> None:
        """Nobody else has a permission on anything in the data folder."""
        paths = [self.data, *self.data.rglob("*")]
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
        self.assertEqual({path: oct(mode) for path, mode in modes.items() if mode & 0o077}, {})
        self.assertGreaterEqual(len(paths), 6)
        if os.geteuid() == 0:
            for path in paths:
                self.assertNotEqual(self.as_nobody("ls" if path.is_dir() else "cat", path), 0, path)
            self.assertEqual(self.as_nobody("ls", self.home), 0)

    def as_nobody(self, command: str, path: Path) -> int:
        done = subprocess.run(
            [command, path],
            user=_NOBODY,
            group=_NOBODY,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode

    def use(self, url: str) -> None:
        """Have a gateway store messages and media."""
        with RtmClient("app", url=url) as alice:
            alice.login("alice")
            alice.send_message_to_peer("kept", "bob", enable_offline_messaging=True)
            alice.create_media_message_by_uploading(b"bytes").result(PATIENCE)

    def test_a_new_data_folder_is_the_gateways_alone(self) -> None:
        with GatewayProcess(self.data) as gateway:
            self.use(gateway.url)
            self.assert_closed()

    def test_a_hub_in_a_process_with_its_own_umask_closes_its_files(self) -> None:
        with local_gateway(self.data) as url:
            self.use(url)
            self.assert_closed()

    def test_a_folder_that_somebody_made_is_closed(self) -> None:
        self.data.mkdir(mode=0o777)
        with GatewayProcess(self.data) as gateway:
            self.use(gateway.url)
            self.assert_closed()
            self.assertIn("was open to other users (mode 777); it has mode 700 now", gateway.log)

    def test_the_files_of_an_older_gateway_are_closed(self) -> None:
        with GatewayProcess(self.data) as gateway:
            self.use(gateway.url)
            gateway.stop()
            for path in (self.data, self.data / "lock", self.data / "rtm.sqlite3"):
                path.chmod(0o755 if path.is_dir() else 0o644)
            gateway.start()
            self.use(gateway.url)
            self.assert_closed()

    def test_a_folder_with_other_files_in_it_is_refused_in_words(self) -> None:
        self.data.mkdir(mode=0o755)
        (self.data / "my notes").touch()
        with self.assertRaises(RuntimeError) as caught:
            GatewayProcess(self.data).start()
        refusal = str(caught.exception)
        self.assertIn("is open to other users (mode 755) and is not the gateway's", refusal)
        self.assertEqual(stat.S_IMODE(self.data.stat().st_mode), 0o755)
        self.data.chmod(0o700)
        with GatewayProcess(self.data) as gateway:
            self.use(gateway.url)

    def test_a_folder_that_is_everybodys_is_refused_in_words(self) -> None:
        self.data.mkdir()
        self.data.chmod(0o1777)
        with self.assertRaises(RuntimeError) as caught:
            GatewayProcess(self.data).start()
        self.assertIn("choose a folder inside it", str(caught.exception))
