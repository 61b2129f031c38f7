"""Hides from a process the functions that Windows does not have.

`hide()` must run before `rtm_sync` is imported. This file is run by its path, so that few modules
were imported which may have kept a hidden function. Tests with it show that rtm_sync needs none of
these functions, and does not rename or remove open files. They cannot show other rules of Windows:
its file names, its event loop, its console.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess  # noqa: F401  it takes a system with msvcrt for Windows, so it comes first
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "uvloop")
_NAMES: dict[ModuleType, tuple[str, ...]] = {
    os: (
        *("register_at_fork", "fork", "forkpty", "sendfile", "pread", "pwrite", "killpg"),
        *("O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK"),
        *("getuid", "geteuid", "getgid", "getegid", "fchmod", "fchown", "chown"),
    ),
    signal: (
        *("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGKILL", "SIGSTOP", "SIGCONT", "SIGCHLD"),
        *("alarm", "pause", "setitimer", "pthread_kill", "pthread_sigmask"),
    ),
    socket: ("MSG_DONTWAIT", "TCP_NOTSENT_LOWAT", "TCP_QUICKACK", "TCP_USER_TIMEOUT"),
    select: ("poll", "epoll"),
}
_SHARING_VIOLATION = 32


def hide() -> None:
    """Hide modules and functions, and forbid to rename or remove open files. Cannot be undone."""
    for module, names in _NAMES.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    os.supports_dir_fd.clear()
    os.supports_fd.clear()
    for name in _MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # None makes an import fail
    sys.modules["msvcrt"] = _msvcrt()
    import asyncio  # only now, because it must not see the hidden functions either

    # The method of the base class raises NotImplementedError, as on Windows.
    for kind in asyncio.SelectorEventLoop.__mro__:
        if kind is not asyncio.AbstractEventLoop and "add_signal_handler" in vars(kind):
            delattr(kind, "add_signal_handler")
    sys.addaudithook(_refuse_open_files)


def _msvcrt() -> ModuleType:
    """A module `msvcrt` with the function that we use, made of Linux's open file description locks.

    As on Windows, a lock covers a range of bytes from the file's position on, may lie beyond the
    end of the file, belongs to the handle, and is refused with PermissionError. Unlike on Windows,
    others can read the locked range.
    """
    module = ModuleType("msvcrt")
    lock, get, set_ = fcntl.fcntl, fcntl.F_OFD_GETLK, fcntl.F_OFD_SETLK
    kinds = {0: fcntl.F_UNLCK, 2: fcntl.F_WRLCK}

    def request(kind: int, start: int, size: int) -> bytes:
        return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, size, 0)

    def locking(fd: int, mode: int, nbytes: int) -> None:
        start = os.lseek(fd, 0, os.SEEK_CUR)
        if start + nbytes > 2**31 - 1:  # the C library's long has 32 bits
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        try:
            lock(fd, set_, request(kinds[mode], start, nbytes))
        except BlockingIOError:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None

    def locked_bytes(fd: int) -> range | None:
        """For tests: the range of bytes that other handles have locked."""
        found = lock(fd, get, request(fcntl.F_WRLCK, 0, 0))
        kind, _, start, size, _ = struct.unpack("hhqqi4x", found)
        return None if kind == fcntl.F_UNLCK else range(start, start + size)

    functions: dict[str, Any] = {"locking": locking, "locked_bytes": locked_bytes}
    vars(module).update(functions, LK_UNLCK=0, LK_NBLCK=2)
    return module


def _refuse_open_files(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse to rename, remove or replace an open file, as Windows does."""
    paths = {"os.rename": arguments[:2], "os.remove": arguments[:1]}.get(event, ())
    for path in paths:
        if _is_open(path):
            error = PermissionError(errno.EACCES, "It is used by another process", str(path))
            error.winerror = _SHARING_VIOLATION  # type: ignore[attr-defined]
            raise error


def _is_open(path: Any) -> bool:
    try:
        wanted = os.lstat(path)
    except OSError:
        return False
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.path.samestat(wanted, (Path("/proc/self/fd") / name).stat()):
                return True
    return False
