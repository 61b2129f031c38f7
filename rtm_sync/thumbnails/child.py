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
import struct
import sys

# Of Linux: unshare(2), prctl(2) and landlock(7).
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_NO_NEW_PRIVILEGES = 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_FILE_RIGHTS = (13, 14, 15, 15, 16)  # how many each version of Landlock knows

REFUSED = 3  # exit status: the decoder refused the file, and standard output has the reason


def main() -> int:
    """Decode standard input to standard output.

    Returns:
        0 after a line `width height` and the pixels, or `REFUSED` after the reason.
    """
    decoder, side, seconds, memory = sys.argv[1], *map(int, sys.argv[2:5])
    del sys.path[0]  # the folder of this file, whose modules are not top-level modules
    _end_after(seconds + 1)  # exit if the parent process died
    _leave_network()  # before the decoder's libraries start threads, with which it is impossible
    # The output of libraries must not mix with the pixels.
    with os.fdopen(os.dup(1), "wb") as output:
        os.dup2(2, 1)
        content = sys.stdin.buffer.read()
        decode = runpy.run_path(decoder)["decode"]
        _leave_files()
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


def _leave_network() -> None:
    """Take the network from this process, where Linux lets a process do that: it gets an empty one.

    A user namespace of its own gives the right to do so, and no other right.
    """
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _leave_files() -> None:
    """Take all files from this process but those of Python, libraries and fonts, which it may read.

    And TCP connections, signals, and the sockets of other processes. By Landlock, which Linux has
    from 5.13 on; versions that know less are asked for less.
    """
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        call = ctypes.CDLL(None, use_errno=True).syscall
        version = call(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
        if version < 1:
            return
        handled = [(1 << _FILE_RIGHTS[min(version, len(_FILE_RIGHTS)) - 1]) - 1]
        if version >= 4:
            handled.append(0b11)  # bind and connect by TCP
        if version >= 6:
            handled.append(0b11)  # abstract sockets and signals
        attributes = (ctypes.c_uint64 * len(handled))(*handled)
        size = ctypes.c_size_t(ctypes.sizeof(attributes))
        ruleset = call(_CREATE_RULESET, attributes, size, 0)
        if ruleset < 0:
            return
        for folder in _readable_folders():
            with contextlib.suppress(OSError):
                descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
                rule = struct.pack("=Qi", _READ_FILE | _READ_FOLDER, descriptor)
                call(_ADD_RULE, ruleset, 1, rule, 0)
                os.close(descriptor)
        if ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0:
            call(_RESTRICT_SELF, ruleset, 0)
        os.close(ruleset)


def _readable_folders() -> set[str]:
    """Python's own folders, and those of the system's libraries and fonts."""
    packages = {path for path in sys.path if path.endswith(("site-packages", "dist-packages"))}
    return {sys.prefix, sys.base_prefix, *packages, "/usr", "/lib", "/lib64", "/etc/fonts"}


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
