"""What differs between operating systems: locks, forks, limits, signals, folders in URLs.

Every other module asks here instead of trying an import or an attribute. The lowest layer: it
imports nothing of ours. Where a system lacks something, a function's docstring says what happens
there. Written for POSIX and Windows; on Windows itself it has not been run yet.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path, PurePath
from urllib.parse import quote, unquote, urlsplit

_ON_WINDOWS = os.name == "nt"
_LOCKED_BYTE = 2**31 - 2  # as far as msvcrt reaches: what it locks, others cannot even read
_ERROR_SHARING_VIOLATION = 32

# -- files --


try:
    import fcntl
except ImportError:  # Windows
    _msvcrt = importlib.import_module("msvcrt")

    def _lock(fd: int) -> None:
        _locking(fd, _msvcrt.LK_NBLCK)

    def unlock_file(fd: int) -> None:
        """Let go of the lock. Closing does it too, but Windows does not say how soon."""
        _locking(fd, _msvcrt.LK_UNLCK)

    def _locking(fd: int, mode: int) -> None:
        position = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        try:
            _msvcrt.locking(fd, mode, 1)
        finally:
            os.lseek(fd, position, os.SEEK_SET)

else:

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock_file(fd: int) -> None:
        """Let go of the lock. Closing the descriptor does it, too."""
        fcntl.flock(fd, fcntl.LOCK_UN)


def lock_file(fd: int) -> bool:
    """Lock an open file for this descriptor alone, without waiting.

    The system takes the lock back when the descriptor is closed or its process dies. By `flock`, or
    on Windows by `msvcrt.locking` of one byte far beyond the file's end.

    Returns:
        False when another descriptor has the lock, in whichever process.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        _lock(fd)
    except (BlockingIOError, PermissionError):  # the first by flock, the second by msvcrt
        return False
    return True


def open_unlinked(path: str, flags: int) -> int:
    """An opener for `open` that does not follow a symbolic link.

    Without `O_NOFOLLOW` it does follow: compare what was opened with `Path.lstat`.
    """
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def is_own(status: os.stat_result) -> bool:
    """Whether a file is of this process's user; always on Windows, where folders decide that."""
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def is_readable_by_others(path: Path) -> bool:
    """Whether a file's mode lets others read it; never on Windows, which has no such mode."""
    return hasattr(os, "geteuid") and bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def is_in_use(error: OSError) -> bool:
    """Whether Windows refused to move or remove a file because it is open. POSIX does not."""
    return getattr(error, "winerror", None) == _ERROR_SHARING_VIOLATION


def sync_folder(path: Path) -> None:
    """Make the names in a folder outlive a power cut. Windows opens no folders: there, nothing."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def folder_url(scheme: str, folder: PurePath, windows: bool = _ON_WINDOWS) -> str:
    """The URL of an absolute folder, such as disk:///srv/media or disk:///C%3A/media."""
    path = folder.as_posix()
    return f"{scheme}://{quote(f'/{path}' if windows and folder.drive[1:] == ':' else path)}"


def folder_in_url(url: str, windows: bool = _ON_WINDOWS) -> str:
    """The folder that a URL names, "" when it names none. On Windows it may begin with a drive.

    Raises:
        ValueError: it names a host.
    """
    parts = urlsplit(url)
    host, path = unquote(parts.netloc), unquote(parts.path)
    if windows and re.fullmatch("[A-Za-z]:", host):  # disk://C:/media
        return host + path
    if host:
        raise ValueError(f"{url!r} names the host {host!r}; a folder has three slashes before it.")
    return path[1:] if windows and re.match("/[A-Za-z]:", path) else path


# -- processes --


def after_fork_in_child(callback: Callable[[], object]) -> None:
    """Call it in each child that this process forks; never where there is no fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=callback)


def open_file_limit() -> int | None:
    """How many files, sockets included, this process may open; None for any number."""
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def raise_open_file_limit() -> None:
    """Allow this process as many files as the system lets it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def has_memory_limits() -> bool:
    """Whether `RLIMIT_DATA` holds a process to an amount of memory: on Linux alone it does."""
    try:
        import resource  # noqa: F401
    except ImportError:
        return False
    return sys.platform == "linux"


# -- signals --

STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name)
)
"""What tells a process to stop; SIGBREAK is Windows' Ctrl-Break, which a service gets."""


def on_signal(number: int, callback: Callable[[], object]) -> None:
    """Call it in the running loop when the signal comes. For the main thread."""
    import asyncio  # which a client need not load

    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(number, callback)
    except NotImplementedError:  # on Windows no loop has it
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(callback))


def on_hangup(callback: Callable[[], object]) -> None:
    """Call it in the running loop at SIGHUP; never where there is no such signal."""
    if hasattr(signal, "SIGHUP"):
        on_signal(signal.SIGHUP, callback)
