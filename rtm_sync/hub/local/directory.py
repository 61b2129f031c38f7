"""Claims, presence and user attributes in memory; bans and revocations in SQLite."""

from __future__ import annotations

import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ...protocol.values import ConnectionChangeReason, PeerOnlineState
from ..engine.directory import Claim, Directory
from .part import LocalPart


@dataclass(slots=True)
class _Held:
    """A user that a session holds, with the data that ends with the claim."""

    claim: Claim
    state: PeerOnlineState = PeerOnlineState.ONLINE
    attributes: dict[str, str] = field(default_factory=dict)


class LocalDirectory(LocalPart, Directory):
    """The directory of one machine. Claims end with the process."""

    SCHEMA: ClassVar[str] = """
CREATE TABLE IF NOT EXISTS bans (
    app_id TEXT NOT NULL, uid TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (app_id, uid)
);
CREATE TABLE IF NOT EXISTS revocations (
    app_id TEXT NOT NULL, uid TEXT NOT NULL, before REAL NOT NULL, PRIMARY KEY (app_id, uid)
);
"""

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(path, now)
        self._revisions = itertools.count(1)
        self._held: dict[tuple[str, str], _Held] = {}
        self._followed: set[tuple[str, str]] = set()

    async def stop(self) -> None:
        self._held.clear()
        self._followed.clear()
        await super().stop()

    async def claim(self, app_id: str, uid: str, session_id: str) -> Claim:
        node, before = self._running_node, self._held.get((app_id, uid))
        if before is not None and before.claim.session_id == session_id:
            return before.claim
        held = _Held(Claim(session_id, next(self._revisions)))
        self._held[app_id, uid] = held
        if before is not None:
            reason = ConnectionChangeReason.REMOTE_LOGIN
            node.evict(app_id, uid, before.claim.session_id, reason)
        self._report_presence(app_id, uid, held.state)
        return held.claim

    async def release(self, app_id: str, uid: str, session_id: str) -> None:
        if self._held_by(app_id, uid, session_id) is not None:
            del self._held[app_id, uid]
            self._report_presence(app_id, uid, PeerOnlineState.OFFLINE)

    async def kick(self, app_id: str, uid: str) -> bool:
        node, held = self._running_node, self._held.get((app_id, uid))
        if held is not None:
            reason = ConnectionChangeReason.BANNED_BY_SERVER
            node.evict(app_id, uid, held.claim.session_id, reason)
        return held is not None

    async def set_reachable(
        self, app_id: str, uid: str, session_id: str, *, reachable: bool
    ) -> None:
        held = self._held_by(app_id, uid, session_id)
        if held is not None:
            held.state = PeerOnlineState.ONLINE if reachable else PeerOnlineState.UNREACHABLE
            self._report_presence(app_id, uid, held.state)

    async def presence(self, app_id: str, uids: Sequence[str]) -> dict[str, PeerOnlineState]:
        return {uid: self._state_of(app_id, uid) for uid in uids}

    async def follow(self, app_id: str, uid: str) -> PeerOnlineState:
        state = self._state_of(app_id, uid)
        self._followed.add((app_id, uid))
        return state

    async def unfollow(self, app_id: str, uid: str) -> None:
        self._followed.discard((app_id, uid))

    async def put_user_attributes(
        self, app_id: str, uid: str, session_id: str, attributes: dict[str, str]
    ) -> None:
        held = self._held_by(app_id, uid, session_id)
        if held is not None:
            held.attributes = attributes

    async def user_attributes(self, app_id: str, uid: str) -> dict[str, str] | None:
        self._require_running()
        held = self._held.get((app_id, uid))
        return None if held is None else held.attributes

    async def ban(self, app_id: str, uid: str, until: float) -> None:
        now = self._now()

        def store(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM bans WHERE (app_id = ? AND uid = ?) OR until <= ?", (app_id, uid, now)
            )
            if until > 0:
                connection.execute("INSERT INTO bans VALUES (?, ?, ?)", (app_id, uid, until))

        await self._running_database.run(store)

    async def banned_until(self, app_id: str, uid: str) -> float:
        return await self._time_of(
            "SELECT until FROM bans WHERE app_id = ? AND uid = ?", app_id, uid
        )

    async def bans(self, app_id: str, now: float, after: str, limit: int) -> dict[str, float]:
        def load(connection: sqlite3.Connection) -> list[tuple[str, float]]:
            return connection.execute(
                "SELECT uid, until FROM bans WHERE app_id = ? AND uid > ? AND until > ? "
                "ORDER BY uid LIMIT ?",
                (app_id, after, now, limit),
            ).fetchall()

        return dict(await self._running_database.run(load))

    async def revoke(self, app_id: str, uid: str, before: float) -> None:
        def store(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO revocations VALUES (?, ?, ?)", (app_id, uid, before)
            )

        await self._running_database.run(store)

    async def revoked_before(self, app_id: str, uid: str) -> float:
        return await self._time_of(
            "SELECT before FROM revocations WHERE app_id = ? AND uid = ?", app_id, uid
        )

    async def _time_of(self, statement: str, app_id: str, uid: str) -> float:
        """The time that the statement selects for a user, epoch seconds, or 0."""

        def load(connection: sqlite3.Connection) -> tuple[float] | None:
            row: tuple[float] | None = connection.execute(statement, (app_id, uid)).fetchone()
            return row

        row = await self._running_database.run(load)
        return 0.0 if row is None else row[0]

    def _held_by(self, app_id: str, uid: str, session_id: str) -> _Held | None:
        self._require_running()
        held = self._held.get((app_id, uid))
        return held if held is not None and held.claim.session_id == session_id else None

    def _state_of(self, app_id: str, uid: str) -> PeerOnlineState:
        self._require_running()
        held = self._held.get((app_id, uid))
        return PeerOnlineState.OFFLINE if held is None else held.state

    def _report_presence(self, app_id: str, uid: str, state: PeerOnlineState) -> None:
        if (app_id, uid) in self._followed:
            self._running_node.presence_changed(app_id, uid, state)
