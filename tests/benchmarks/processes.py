"""The gateway in a process of its own, and what the system says of it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class GatewayProcess:
    url: str
    pid: int
    folder: Path

    @property
    def http(self) -> str:
        return self.url.replace("ws://", "http://")


@contextlib.contextmanager
def gateway_process() -> Iterator[GatewayProcess]:
    """`rtm-sync serve` on a free port with a temporary data folder."""
    with tempfile.TemporaryDirectory(prefix="rtm-sync-benchmark-") as name:
        command = [
            sys.executable,
            "-m",
            "rtm_sync",
            "serve",
            "--port",
            "0",
            "--data",
            f"{name}/data",
        ]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                yield GatewayProcess(line.split()[1], process.pid, Path(name))
            finally:
                process.terminate()


def resident(pid: int | str = "self") -> float:
    """Megabytes of resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def peak(pid: int | str = "self") -> float:
    """Megabytes of resident memory at the most."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


def reset_peak(pid: int | str = "self") -> None:
    """Start the peak anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
