"""The process that `thumbnail_process.decoded_apart` starts; see there.

Run as a file with a decoder's path, the longest side, the seconds and the bytes of memory it may
have. Imports nothing of rtm_sync: that would take longer than most decoding.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys

REFUSED = 3  # the exit status that says: what was printed is the reason


def main() -> int:
    """Decode standard input to standard output.

    Returns:
        0 with `width height` in a line and the pixels after it, or `REFUSED` with the reason.
    """
    decoder, side, seconds, memory = sys.argv[1], *map(int, sys.argv[2:5])
    del sys.path[0]  # our own folder, whose modules are no top-level ones
    _end_after(seconds + 1)  # should nobody be left to end us
    # What libraries print must not get between the pixels.
    with os.fdopen(os.dup(1), "wb") as output:
        os.dup2(2, 1)
        content = sys.stdin.buffer.read()
        decode = runpy.run_path(decoder)["decode"]
        _limit(memory)
        try:
            width, height, pixels = decode(content, side)
        except MemoryError:
            output.write(f"It takes more than {memory:,} bytes of memory.".encode())
            return REFUSED
        except Exception as error:  # a stranger's bytes in a large library: anything may come out
            reason = " ".join(f"{error}".split()).rstrip(".") or type(error).__name__
            output.write(f"{reason}.".encode())
            return REFUSED
        output.write(b"%d %d\n" % (width, height))
        output.write(pixels)
    return 0


def _end_after(seconds: int) -> None:
    """End this process then; without SIGALRM, as on Windows, as soon as the decoder lets Python."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)
        return
    import threading

    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _limit(memory: int) -> None:
    """Let this process have so much memory, write no files and leave no core.

    On Windows, which has no module `resource`, nothing of this is in force.
    """
    try:
        import resource
    except ImportError:
        return
    for kind, limit in (
        (resource.RLIMIT_DATA, memory),  # not RLIMIT_AS: what is only reserved costs nothing
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(OSError, ValueError):  # where the system has no such limit
            resource.setrlimit(kind, (limit, limit))


if __name__ == "__main__":
    sys.exit(main())
