"""Decoding in a separate process, for decoders that a hostile file may crash or hang.

A crash of that process is a `CannotThumbnail` here. The operating system limits its time and its
memory. It gets none of this process's environment and descriptors. On Linux it has no network, and
no files but those of Python, libraries and fonts; `protection` tells what is in force. Windows
limits only its time.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from . import child, probe
from .contract import CannotThumbnail

_NEEDED = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")

_slots = threading.BoundedSemaphore(2)  # decoder processes at once, to bound their memory


@dataclass(frozen=True, slots=True)
class Pixels:
    """A decoded picture: rows from the top, with three bytes (red, green, blue) for each pixel."""

    width: int
    height: int
    data: bytes = field(repr=False)


def decoded_apart(
    decoder: Path,
    content: bytes,
    side: int,
    *,
    seconds: int = 4,
    memory: int = 200 * 1024 * 1024,
) -> Pixels:
    """Decode a file into pixels in a separate process, which ends with this call.

    The decoder is a Python file with a function `decode(content: bytes, side: int)` that returns
    width, height and the RGB bytes. It is run by its path and not as a part of its package, so that
    only its own imports take time. An exception that it raises is the reason for a
    `CannotThumbnail`. Thread-safe; two decoder processes run at once, and further calls wait.

    Args:
        decoder: the Python file.
        content: the bytes to decode.
        side: the longest side wanted, in pixels. The decoder may return a larger picture.
        seconds: the time limit.
        memory: bytes that the decoder may take, beside its code. The limit needs `RLIMIT_DATA`
            (Linux); `rtm-sync doctor` shows whether the system has it.

    Raises:
        CannotThumbnail: the decoder refused the file, crashed, or exceeded its time or memory.
        OSError: Python cannot be started, for example where it is embedded in another program.
    """
    if not sys.executable:
        raise OSError("sys.executable is empty, so no Python can be started for the decoder.")
    command = [sys.executable, str(Path(child.__file__)), str(decoder)]
    with (
        _slots,
        subprocess.Popen(  # noqa: S603  Python and files of ours
            [*command, str(side), str(seconds), str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        ) as process,
    ):
        try:
            output, _ = process.communicate(content, seconds)
        except subprocess.TimeoutExpired as error:
            raise CannotThumbnail(f"It was not decoded within {seconds} seconds.") from error
        finally:
            if process.returncode is None:
                process.kill()
    if process.returncode == child.REFUSED:
        raise CannotThumbnail(output.decode(errors="replace"))
    if process.returncode:
        raise CannotThumbnail(
            f"Its decoder crashed ({_exit_reason(process.returncode)}), perhaps for lack of "
            f"memory: the limit is {memory:,} bytes."
        )
    head, _, data = output.partition(b"\n")
    width, height = map(int, head.split())
    return Pixels(width, height, data)


@dataclass(frozen=True, slots=True)
class Protection:
    """What a decoder process cannot reach here.

    Attributes:
        environment: the variables of this process.
        files: files, but those of Python, libraries and fonts.
        network: other processes and machines.
    """

    environment: bool
    files: bool
    network: bool


def protection() -> Protection:
    """Find out what a decoder process cannot reach, by one that tries it.

    Raises:
        CannotThumbnail, OSError: the process does not work here.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        tempfile.TemporaryDirectory(prefix="rtm-sync-") as folder,
    ):
        file = Path(folder) / "file"
        file.touch()
        content = f"{listener.getsockname()[1]}\n{file}".encode()
        reached = decoded_apart(Path(probe.__file__), content, 1).data
    return Protection(*(not one for one in reached))


def _environment() -> dict[str, str]:
    """The environment of a decoder: what Python needs to start and find libraries, and no more."""
    kept = {name: os.environ[name] for name in _NEEDED if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _exit_reason(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"status {status}"
