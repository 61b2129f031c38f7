"""A real Mosquitto broker for the tests, if one is installed."""

from __future__ import annotations

import contextlib
import getpass
import itertools
import shutil
import socket
import subprocess
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path

from rtm_sync.testing import wait_until

# Debian keeps servers out of the path of ordinary users.
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
WITHOUT = "these tests need the Mosquitto broker: apt install mosquitto, brew install mosquitto"

_numbers = itertools.count()


class Broker:
    """A Mosquitto process on its own loopback port.

    Args:
        extra: more lines for its configuration.
    """

    def __init__(self, folder: Path, *extra: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        lines = (f"listener {self.port} 127.0.0.1", f"user {getpass.getuser()}", *extra)
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers, 10, "Mosquitto did not start")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(10)

    def url(self, *, media: Path | None = None) -> str:
        """A URL with a topic prefix that no other test uses."""
        query = "" if media is None else f"?media=disk://{media}"
        return f"mqtt://127.0.0.1:{self.port}/test-{next(_numbers)}{query}"

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"Mosquitto ended with {self._process.returncode}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False


@contextlib.contextmanager
def running_broker(*extra: str) -> Iterator[Broker]:
    """Run a broker for the duration of the block. Skips the test if none is installed."""
    if MOSQUITTO is None:
        raise unittest.SkipTest(WITHOUT)
    with tempfile.TemporaryDirectory(prefix="rtm-sync-mqtt-") as folder:
        broker = Broker(Path(folder), *(extra or ("allow_anonymous true",)))
        broker.start()
        try:
            yield broker
        finally:
            broker.stop()
