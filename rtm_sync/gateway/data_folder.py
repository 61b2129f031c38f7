"""The folders of a gateway: no other gateway uses them, and they are still those that it opened."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..hub.open_paths import OpenPaths
from ..portable import (
    close_to_others,
    folder_in_url,
    is_own,
    lock_file,
    mode_for_others,
    open_folder,
    open_private,
    unlock_file,
)
from .config import ConfigError, GatewayConfig

_LOCK = "lock"
_OURS = (_LOCK, "rtm.sqlite3")  # a folder with one of these is a gateway's
_SCHEMES = ("local:", "disk:")  # the URLs of an engine and a media store in a folder

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def held_folders(config: GatewayConfig) -> Iterator[list[OpenPaths]]:
    """Hold the data folder, and the folders of the engine's and the media store's URLs.

    Two gateways on one folder would remove each other's files. Other users of the machine get no
    access: a folder that is open to them is closed.

    Yields:
        tells whether each folder was removed or replaced meanwhile.

    Raises:
        ConfigError: another gateway uses one of the folders, or one is open to other users and is
            not the gateway's alone.
        OSError: a folder cannot be used.
    """
    folders = {"The data folder": Path(config.data)}
    for name, url in (("The engine's folder", config.engine), ("The media folder", config.media)):
        with contextlib.suppress(ValueError):  # which its plugin explains better
            if url.startswith(_SCHEMES) and folder_in_url(url):
                folders[name] = Path(folder_in_url(url))
    with contextlib.ExitStack() as stack:
        held: dict[Path, OpenPaths] = {}
        for name, folder in folders.items():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if folder.resolve() not in held:
                held[folder.resolve()] = stack.enter_context(_held(name, folder))
        yield list(held.values())


@contextlib.contextmanager
def _held(name: str, folder: Path) -> Iterator[OpenPaths]:
    """Hold a folder's locks: one of the folder itself and one of its file `lock`.

    Removing the file does not release the folder. The file's lock is for systems and file systems
    that lock no folders (Windows, which removes no open file; NFS), and for older versions.
    """
    watched = OpenPaths(name, [folder])
    with contextlib.ExitStack() as stack:
        descriptor = open_folder(folder)
        is_folder_locked = False
        is_free = True
        was_open = 0
        if descriptor is not None:
            stack.callback(os.close, descriptor)
            was_open = _close_folder(name, folder, os.fstat(descriptor))
            with contextlib.suppress(OSError):  # the file system has no locks for folders
                is_free = is_folder_locked = lock_file(descriptor)
        lock = folder / _LOCK
        close_to_others(lock)
        file = stack.enter_context(open(lock, "w", opener=open_private))
        if not is_free or not lock_file(file.fileno()):
            others = ", or held by a user who could read it until now" if was_open else ""
            raise ConfigError(
                f"{name} {folder} is used by another gateway{others}; choose another one."
            )
        stack.callback(unlock_file, file.fileno())
        watched.require()
        yield watched if is_folder_locked else OpenPaths(name, [folder, lock])


def _close_folder(name: str, folder: Path, status: os.stat_result) -> int:
    """Take other users' permissions from a folder; returns what they had.

    Whoever may read a folder may hold its lock.

    Raises:
        ConfigError: the folder is another user's, or others may have files in it.
    """
    others = mode_for_others(status)
    if not others:
        return 0
    mode = stat.S_IMODE(status.st_mode)
    is_shared = bool(status.st_mode & stat.S_ISVTX)
    found = {path.name for path in folder.iterdir()}
    is_ours = not found or (not found.isdisjoint(_OURS) and not others & 0o022)
    if not is_own(status) or is_shared or not is_ours:
        reason = "is not the gateway's alone" if is_own(status) else "belongs to another user"
        raise ConfigError(
            f"{name} {folder} is open to other users (mode {mode:o}) and {reason}: choose a folder "
            f"inside it, which the gateway creates with mode 700, or chmod 700 {folder}."
        )
    folder.chmod(0o700)
    logger.warning(
        "%s %s was open to other users (mode %o); it has mode 700 now", name, folder, mode
    )
    return others
