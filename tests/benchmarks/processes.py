"""The gateway in a process of its own, and what the system says of it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rtm_sync.testing import GatewayProcess


@dataclass(frozen=True)
class Gateway:
    url: str
    pid: int
    folder: Path

    @property
    def http(self) -> str:
        return self.url.replace("ws://", "http://")


@contextlib.contextmanager
def gateway_process() -> Iterator[Gateway]:
    """A gateway with a temporary folder, of which `data` is its own."""
    with (
        tempfile.TemporaryDirectory(prefix="rtm-sync-benchmark-") as name,
        GatewayProcess(Path(name) / "data") as process,
    ):
        yield Gateway(process.url, process.pid, Path(name))


def cpu_seconds(pid: int) -> float:
    """Seconds for which the process, its children aside, has had a core so far."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


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
