"""The program of the decoder process that `thumbnails.subprocess.decoded_apart` starts.

It is run as a file. Its arguments are the decoder's path, the longest side in pixels, the time
limit in seconds and the memory limit in bytes. It imports nothing of rtm_sync, because that import
would take longer than decoding most pictures.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys

REFUSED = 3  # exit status: the decoder refused the file, and standard output has the reason


def main() -> int:
    """Decode standard input to standard output.

    Returns:
        0 after a line `width height` and the pixels, or `REFUSED` after the reason.
    """
    decoder, side, seconds, memory = sys.argv[1], *map(int, sys.argv[2:5])
    del sys.path[0]  # the folder of this file, whose modules are not top-level modules
    _end_after(seconds + 1)  # exit if the parent process died
    # The output of libraries must not mix with the pixels.
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
        except Exception as error:  # a library may raise any exception for a hostile file
            reason = " ".join(f"{error}".split()).rstrip(".") or type(error).__name__
            output.write(f"{reason}.".encode())
            return REFUSED
        output.write(b"%d %d\n" % (width, height))
        output.write(pixels)
    return 0


def _end_after(seconds: int) -> None:
    """End this process after so many seconds.

    Where SIGALRM does not exist (Windows), a thread ends the process, which needs the decoder to
    release Python's global lock.
    """
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)
        return
    import threading

    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _limit(memory: int) -> None:
    """Limit the memory of this process to so many bytes, and forbid files and core dumps.

    Windows has no module `resource`, so there are no limits there.
    """
    try:
        import resource
    except ImportError:
        return
    for kind, limit in (
        (resource.RLIMIT_DATA, memory),  # not RLIMIT_AS: address space costs nothing until used
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(OSError, ValueError):  # some systems do not have this limit
            resource.setrlimit(kind, (limit, limit))


if __name__ == "__main__":
    sys.exit(main())
