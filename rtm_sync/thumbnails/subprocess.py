"""Decoding in a process of its own, for decoders that a stranger's file may crash or hang.

A crash there is a refusal here; time and memory are bounded by the system, not by good will. On
Windows time alone is.
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

_decoding = threading.BoundedSemaphore(2)  # processes at once; each may take all its memory


@dataclass(frozen=True, slots=True)
class Pixels:
    """A decoded picture: rows from the top, three bytes (red, green, blue) for each pixel."""

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
    """Have a decoder turn a file into pixels, in a process of its own that ends with it.

    The decoder is a Python file with a function `decode(content: bytes, side: int)` that returns
    width, height and the RGB bytes. It is run by its path, not as a part of its package, so that
    it costs no more than its own imports. What it raises is the reason of a refusal. Thread-safe;
    two at once in this process, others wait.

    Args:
        decoder: the Python file.
        content: what is to be decoded.
        side: the longest side wanted, in pixels; the decoder may give more.
        seconds: until the process is ended.
        memory: bytes that the decoder may take, beside its code. In force where the system has
            `RLIMIT_DATA` (Linux); `rtm-sync doctor` tells whether it has.

    Raises:
        CannotThumbnail: the decoder refused, crashed, or had not enough time or memory.
        OSError: Python cannot be started, as where it is part of another program.
    """
    if not sys.executable:
        raise OSError("sys.executable is empty: there is no Python to start for the decoder.")
    command = [sys.executable, str(Path(child.__file__)), str(decoder)]
    with (
        _decoding,
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
            raise CannotThumbnail(f"It is not decoded within {seconds} seconds.") from error
        finally:
            process.kill()
    if process.returncode == child.REFUSED:
        raise CannotThumbnail(output.decode(errors="replace"))
    if process.returncode:
        raise CannotThumbnail(
            f"Its decoder crashed ({_ending(process.returncode)}), perhaps for want of memory: "
            f"it may have {memory:,} bytes."
        )
    head, _, data = output.partition(b"\n")
    width, height = map(int, head.split())
    return Pixels(width, height, data)


def _ending(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"status {status}"
