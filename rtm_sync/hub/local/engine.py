"""The local engine: one object with one database implements the five contracts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from ...errors import PluginError
from ...portable import folder_in_url
from ..engine.contract import Engine
from .archive import LocalArchive
from .bus import LocalBus
from .directory import LocalDirectory
from .mailbox import LocalMailbox
from .media_index import LocalMediaIndex
from .replay import ReplayLimits


class LocalEngine(LocalBus, LocalDirectory, LocalMailbox, LocalArchive, LocalMediaIndex, Engine):
    """Serves one hub on one machine. Each part keeps its own state; all share one database.

    Args:
        path: the SQLite file; its folder is created. None keeps all data in memory.
        now: the wall clock, seconds since the epoch.
        replay: how many channel messages are kept, in memory, for members that reconnect.
    """

    SCHEMA: ClassVar[str] = (
        LocalDirectory.SCHEMA + LocalMailbox.SCHEMA + LocalArchive.SCHEMA + LocalMediaIndex.SCHEMA
    )

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        now: Callable[[], float] = time.time,
        replay: ReplayLimits | None = None,
    ) -> None:
        super().__init__(path, now, replay)

    @classmethod
    def from_url(cls, url: str) -> LocalEngine:
        """The engine of `local:///folder` (SQLite in that folder) or `local:` (in memory)."""
        try:
            folder = folder_in_url(url)
        except ValueError as error:
            raise PluginError(str(error)) from error
        return cls(Path(folder) / "rtm.sqlite3" if folder else None)
