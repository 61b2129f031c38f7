"""Decoding in a separate process, for decoders that a hostile file may crash or hang.

A crash of that process is a `CannotThumbnail` here. The operating system limits its time and its
memory. Windows limits only its time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from . import child
from .contract import CannotThumbnail

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
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        ) as process,
    ):
        try:
            output, _ = process.communicate(content, seconds)
        except subprocess.TimeoutExpired as error:
            raise CannotThumbnail(f"It was not decoded within {seconds} seconds.") from error
        finally:
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


def _exit_reason(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"status {status}"
