"""The gateway as a child process that a test can stop, pause, kill and restart."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar

from .case import PATIENCE
from .ports import free_port

_LOG_LIMIT = 64 * 1024


class GatewayProcess:
    """`rtm-sync serve` as a child process, always on the same port and data folder::

        with GatewayProcess() as gateway:
            client = RtmClient("app", url=gateway.url)
            …
            gateway.kill()
            gateway.start()

    The `with` block starts it, and kills it at the end, so that no process and no temporary folder
    remains. One thread at a time may start or end it. It needs the signals of POSIX: on Windows
    use `local_gateway`.

    Args:
        data: its data folder; a temporary one when not given.
        settings: the gateway's settings by their names: `{"app_id": "app", "limits": "web"}`.

    Attributes:
        data: the data folder.
        url: for `RtmClient(url=…)`.
    """

    _MODULE: ClassVar[str] = "rtm_sync"

    def __init__(
        self, data: Path | None = None, settings: Mapping[str, object] | None = None
    ) -> None:
        self._own_folder = None
        if data is None:
            self._own_folder = tempfile.TemporaryDirectory(prefix="rtm-sync-")
            data = Path(self._own_folder.name)
        self.data = data
        self._port = free_port()
        self.url = f"ws://127.0.0.1:{self._port}"
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._log = ""

    def __enter__(self) -> GatewayProcess:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process's id. Raises RuntimeError when it does not run."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether the process exists, also when it is paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """The standard error of the present or latest process; at most 64 KB."""
        if self._errors is not None:
            size = os.fstat(self._errors.fileno()).st_size
            start = max(0, size - _LOG_LIMIT)
            # Not read(): the child writes through the same file position.
            self._log = os.pread(self._errors.fileno(), _LOG_LIMIT, start).decode(
                "utf-8", "replace"
            )
        return self._log

    def start(self, timeout: float = PATIENCE) -> float:
        """Start it and wait until it serves; returns how many seconds that took.

        Raises:
            RuntimeError: it runs already, or it ended or did not serve within `timeout` seconds;
                the message has its output.
        """
        if self._process is not None:
            raise RuntimeError(f"The gateway runs already, as process {self._process.pid}.")
        began = time.monotonic()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed when the process has ended
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._MODULE, "serve"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=self._environment(),
        )
        said = self._first_line(self._process, began + timeout)
        if self.url.encode() not in said:
            self.kill()
            raise RuntimeError(
                f"The gateway did not serve {self.url} within {timeout:g} seconds. It said: "
                f"{said.decode('utf-8', 'replace')}{self._log}"
            )
        return time.monotonic() - began

    def stop(self, timeout: float = PATIENCE) -> int:
        """Send SIGTERM and wait until the gateway has drained; returns its exit status.

        Raises:
            RuntimeError: it does not run, or had to be killed after `timeout` seconds.
        """
        process = self._running()
        process.terminate()
        process.send_signal(signal.SIGCONT)  # a paused process does not handle SIGTERM
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(
                f"The gateway did not end within {timeout:g} seconds of SIGTERM. It said: "
                f"{self._log}"
            ) from None
        self._ended()
        return status

    def pause(self) -> None:
        """Send SIGSTOP: the sockets stay open, and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT: the process continues after `pause`."""
        self._running().send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL if the process runs; it cannot clean up. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._ended()

    def restart(self) -> float:
        """Stop it and start it again on the same data and port; returns seconds, as `start`."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """Kill it, and remove the data folder if that is a temporary one. Idempotent."""
        self.kill()
        if self._own_folder is not None:
            self._own_folder.cleanup()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("The gateway does not run; start it first.")
        return self._process

    def _ended(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.stdout is not None:
            process.stdout.close()
        _ = self.log  # keep it
        errors, self._errors = self._errors, None
        if errors is not None:
            errors.close()

    def _environment(self) -> dict[str, str]:
        """This process's environment, with the settings of this gateway only."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("RTM_SYNC_")
        }
        settings: dict[str, object] = {"port": self._port, "data": self.data, **self._settings}
        return inherited | {
            f"RTM_SYNC_{name.upper()}": str(value) for name, value in settings.items()
        }

    @staticmethod
    def _first_line(process: subprocess.Popen[bytes], deadline: float) -> bytes:
        """The first line of standard output, as far as it was written in time."""
        assert process.stdout is not None
        said = b""
        while not said.endswith(b"\n"):
            ready, _, _ = select.select(
                [process.stdout], [], [], max(0, deadline - time.monotonic())
            )
            data = os.read(process.stdout.fileno(), 4096) if ready else b""
            if not data:
                break
            said += data
        return said
