"""The folders of a gateway: no other gateway uses them, and they are still those that it opened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..hub.open_paths import OpenPaths
from ..portable import folder_in_url, lock_file, open_folder, unlock_file
from .config import ConfigError, GatewayConfig

_SCHEMES = ("local:", "disk:")  # the URLs of an engine and a media store in a folder


@contextlib.contextmanager
def held_folders(config: GatewayConfig) -> Iterator[list[OpenPaths]]:
    """Hold the data folder, and the folders of the engine's and the media store's URLs.

    Two gateways on one folder would remove each other's files.

    Yields:
        tells whether each folder was removed or replaced meanwhile.

    Raises:
        ConfigError: another gateway uses one of the folders.
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
        if descriptor is not None:
            stack.callback(os.close, descriptor)
            with contextlib.suppress(OSError):  # the file system has no locks for folders
                is_free = is_folder_locked = lock_file(descriptor)
        lock = folder / "lock"
        file = stack.enter_context(lock.open("w"))
        if not is_free or not lock_file(file.fileno()):
            raise ConfigError(f"{name} {folder} is used by another gateway; choose another one.")
        stack.callback(unlock_file, file.fileno())
        watched.require()
        yield watched if is_folder_locked else OpenPaths(name, [folder, lock])
