"""Differences between operating systems: locks, forks, limits, signals, folders in URLs.

Every other module calls this one instead of testing for an import or an attribute. It is in the
lowest layer and imports no other module of the package. Where a system lacks a feature, a
function's docstring says what happens. Written for POSIX and Windows; it has not been run on
Windows yet.
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
_LOCKED_BYTE = 2**31 - 2  # the last one for msvcrt: other processes cannot even read locked bytes
_ERROR_SHARING_VIOLATION = 32

# -- files --


try:
    import fcntl
except ImportError:  # Windows
    _msvcrt = importlib.import_module("msvcrt")

    def _lock(fd: int) -> None:
        _locking(fd, _msvcrt.LK_NBLCK)

    def unlock_file(fd: int) -> None:
        """Release the lock. Closing does it too, but on Windows at an unspecified time."""
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
        """Release the lock. Closing the descriptor does it, too."""
        fcntl.flock(fd, fcntl.LOCK_UN)


def boot_id() -> str:
    """Names the time since the machine was switched on; "" where the system has no name for it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def lock_file(fd: int) -> bool:
    """Lock an open file exclusively for this descriptor, without waiting.

    The system releases the lock when the descriptor is closed or its process dies. Uses `flock`,
    which takes folders, too, or on Windows `msvcrt.locking` of one byte far beyond the file's end.

    Returns:
        False when another descriptor, of this or another process, has the lock.

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

    Where `O_NOFOLLOW` does not exist, it follows links: compare the opened file with `Path.lstat`.
    """
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def open_without_waiting(path: str, flags: int) -> int:
    """An opener for `open` that waits for no writer of a FIFO; reads do not wait either.

    Windows has no FIFOs among its files and no such flag; the file is opened as usual.
    """
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def wait_until_readable(fd: int, seconds: float) -> bool:
    """Wait until a read of a pipe or socket would not wait, for `seconds` at the most.

    Returns:
        False when the time is over.

    Raises:
        OSError: the system cannot wait for this kind of file. Windows can wait for sockets only.
    """
    import select  # here, because most programs need no waiting

    if not hasattr(select, "poll"):
        return bool(select.select([fd], [], [], seconds)[0])
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def wait_until_writable(fd: int, seconds: float) -> bool:
    """Wait until a socket takes bytes without waiting, or is lost, for `seconds` at the most.

    Returns:
        False when the time is over.

    Raises:
        OSError, ValueError: the descriptor is closed.
    """
    import select

    if not hasattr(select, "poll"):
        return any(select.select([], [fd], [fd], seconds))
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))


def is_own(status: os.stat_result) -> bool:
    """Whether this process's user owns a file. Always True on Windows, without owner ids."""
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def is_readable_by_others(path: Path) -> bool:
    """Whether a file's mode lets other users read it. Always False on Windows."""
    return hasattr(os, "geteuid") and bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def open_private(path: str, flags: int) -> int:
    """An opener for `open` that creates files which other users cannot open."""
    return os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o600)


def create_privately() -> None:
    """From now on, only this process's user may use what the process creates. Not on Windows."""
    os.umask(0o077)


def mode_for_others(status: os.stat_result) -> int:
    """The permissions that other users have, of 0o077. Always 0 on Windows, without modes."""
    return stat.S_IMODE(status.st_mode) & 0o077 if hasattr(os, "geteuid") else 0


def close_to_others(path: Path) -> None:
    """Take other users' permissions from a file, if there is one that this process's user owns."""
    with contextlib.suppress(FileNotFoundError):
        status = path.stat()
        if mode_for_others(status) and is_own(status):
            path.chmod(stat.S_IMODE(status.st_mode) & ~0o077)


def is_in_use(error: OSError) -> bool:
    """Whether Windows refused to move or remove a file because it is open. Never on POSIX."""
    return getattr(error, "winerror", None) == _ERROR_SHARING_VIOLATION


def open_folder(path: Path) -> int | None:
    """A descriptor of a folder, which the caller closes. None on Windows: it cannot open folders.

    While the descriptor is open, no other folder gets the folder's identity.
    """
    return os.open(path, os.O_RDONLY) if hasattr(os, "O_DIRECTORY") else None


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable. Does nothing on Windows."""
    folder = open_folder(path)
    if folder is None:
        return
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def file_identity(path: Path) -> tuple[int, int] | None:
    """The device and inode of a file or folder, or None where there is none.

    No other one has the same as long as this one exists; an open file exists after its removal.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def folder_url(scheme: str, folder: PurePath, windows: bool = _ON_WINDOWS) -> str:
    """The URL of an absolute folder, such as disk:///srv/media or disk:///C%3A/media."""
    path = folder.as_posix()
    return f"{scheme}://{quote(f'/{path}' if windows and folder.drive[1:] == ':' else path)}"


def folder_in_url(url: str, windows: bool = _ON_WINDOWS) -> str:
    """The folder that a URL names, or "". On Windows the folder may begin with a drive.

    Raises:
        ValueError: the URL names a host.
    """
    parts = urlsplit(url)
    host, path = unquote(parts.netloc), unquote(parts.path)
    if windows and re.fullmatch("[A-Za-z]:", host):  # disk://C:/media
        return host + path
    if host:
        raise ValueError(f"{url!r} names the host {host!r}; write three slashes before a folder.")
    return path[1:] if windows and re.match("/[A-Za-z]:", path) else path


# -- processes --


def after_fork_in_child(callback: Callable[[], object]) -> None:
    """Call `callback` in each forked child of this process. Never called where fork is missing."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=callback)


def open_file_limit() -> int | None:
    """How many files, including sockets, this process may open; None means no limit."""
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def raise_open_file_limit() -> None:
    """Raise this process's limit of open files to the hard limit."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def has_memory_limits() -> bool:
    """Whether `RLIMIT_DATA` limits a process's memory. Only on Linux."""
    try:
        import resource  # noqa: F401
    except ImportError:
        return False
    return sys.platform == "linux"


# -- signals --

STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name)
)
"""The signals that stop a process. SIGBREAK is Ctrl-Break, which a Windows service gets."""


def on_signal(number: int, callback: Callable[[], object]) -> None:
    """Call `callback` in the running loop at the signal. For the main thread only."""
    import asyncio  # here, because clients should not load it

    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(number, callback)
    except NotImplementedError:  # the loops of Windows have no signal handlers
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(callback))


def on_hangup(callback: Callable[[], object]) -> None:
    """Call `callback` in the running loop at SIGHUP. Never called on Windows."""
    if hasattr(signal, "SIGHUP"):
        on_signal(signal.SIGHUP, callback)
