"""The engine of one machine: claims and membership in memory, queues and records in SQLite."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import PluginError
from ..portable import folder_in_url
from ..protocol import (
    ChannelAttribute,
    ChannelMessage,
    ChannelPosition,
    ConnectionChangeReason,
    HistoricalMessage,
    MediaInfo,
    MemberJoined,
    MemberLeft,
    MessageFromPeer,
    PeerCall,
    PeerOnlineState,
    decode_json,
    encode_json,
)
from .database import Database
from .engine import (
    ChannelEvent,
    Delivery,
    Engine,
    HistoryQuery,
    MediaUsage,
    Node,
    OfflineMessage,
)
from .replay import ChannelLogs, Missed, ReplayLimits

_SCHEMA = """
CREATE TABLE IF NOT EXISTS offline (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    app_id TEXT NOT NULL, uid TEXT NOT NULL, expires_at REAL NOT NULL,
    sender TEXT NOT NULL, message_id TEXT NOT NULL, message TEXT NOT NULL,
    UNIQUE (app_id, uid, sender, message_id)
);
CREATE INDEX IF NOT EXISTS offline_by_user ON offline (app_id, uid, key);
CREATE TABLE IF NOT EXISTS history (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    app_id TEXT NOT NULL, source TEXT NOT NULL, destination TEXT NOT NULL,
    is_channel INTEGER NOT NULL, ms INTEGER NOT NULL, expires_at REAL NOT NULL,
    message_id TEXT NOT NULL, message TEXT NOT NULL,
    UNIQUE (app_id, source, destination, is_channel, message_id)
);
CREATE INDEX IF NOT EXISTS history_by_destination ON history (app_id, destination, key);
CREATE INDEX IF NOT EXISTS history_by_source ON history (app_id, source, key);
CREATE INDEX IF NOT EXISTS history_by_end ON history (expires_at);
CREATE INDEX IF NOT EXISTS offline_by_end ON offline (expires_at);
CREATE TABLE IF NOT EXISTS media (
    media_id TEXT PRIMARY KEY, app_id TEXT NOT NULL, uid TEXT NOT NULL,
    size INTEGER NOT NULL, expires_at REAL NOT NULL, info TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS bans (
    app_id TEXT NOT NULL, uid TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (app_id, uid)
);
CREATE TABLE IF NOT EXISTS revocations (
    app_id TEXT NOT NULL, uid TEXT NOT NULL, before REAL NOT NULL, PRIMARY KEY (app_id, uid)
);
CREATE INDEX IF NOT EXISTS media_by_end ON media (expires_at);
CREATE INDEX IF NOT EXISTS media_by_user ON media (app_id, uid, size);
"""
_BATCH = 500

CHANNEL_ATTRIBUTES_LINGER = 120.0
"""Seconds a channel's attributes outlive its last member (reference 1.3: a couple of minutes)."""


@dataclass(slots=True)
class _Claim:
    session_id: str
    state: PeerOnlineState = PeerOnlineState.ONLINE
    attributes: dict[str, str] = field(default_factory=dict)


class LocalEngine(Engine):
    """Serves one hub on one machine.

    Args:
        path: the SQLite file, whose folder is made; None keeps everything in memory.
        now: the wall clock, seconds since the epoch.
        replay: how many channel messages are kept for members who come back; in memory.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        now: Callable[[], float] = time.time,
        replay: ReplayLimits | None = None,
    ) -> None:
        self._path = None if path is None else Path(path)
        self._now = now
        self._database: Database | None = None
        self._node: Node | None = None
        self._claims: dict[tuple[str, str], _Claim] = {}
        self._members: dict[tuple[str, str], dict[str, None]] = {}
        self._channel_attributes: dict[tuple[str, str], dict[str, ChannelAttribute]] = {}
        self._forgetting: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._logs = ChannelLogs(replay)

    @classmethod
    def from_url(cls, url: str) -> LocalEngine:
        """The engine of `local:///folder` (SQLite in that folder) or `local:` (in memory)."""
        try:
            folder = folder_in_url(url)
        except ValueError as error:
            raise PluginError(str(error)) from error
        return cls(Path(folder) / "rtm.sqlite3" if folder else None)

    async def start(self, node: Node) -> None:
        self._node = node
        if self._path is None:
            self._database = Database(":memory:", _SCHEMA)
        else:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._database = Database(str(self._path), _SCHEMA)

    async def stop(self) -> None:
        for timer in self._forgetting.values():
            timer.cancel()
        self._forgetting.clear()
        if self._database is not None:
            self._database.close()
            self._database = None

    async def claim(self, app_id: str, uid: str, session_id: str) -> None:
        before = self._claims.get((app_id, uid))
        self._claims[app_id, uid] = _Claim(session_id)
        if before is not None and before.session_id != session_id:
            reason = ConnectionChangeReason.REMOTE_LOGIN
            self._there.evict(app_id, uid, before.session_id, reason)
        self._there.presence_changed(app_id, uid, PeerOnlineState.ONLINE)

    async def release(self, app_id: str, uid: str, session_id: str) -> None:
        if self._claim_of(app_id, uid, session_id) is not None:
            del self._claims[app_id, uid]
            self._there.presence_changed(app_id, uid, PeerOnlineState.OFFLINE)

    async def kick(self, app_id: str, uid: str) -> bool:
        claim = self._claims.get((app_id, uid))
        if claim is not None:
            reason = ConnectionChangeReason.BANNED_BY_SERVER
            self._there.evict(app_id, uid, claim.session_id, reason)
        return claim is not None

    async def ban(self, app_id: str, uid: str, until: float) -> None:
        def store(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM bans WHERE app_id = ? AND uid = ?", (app_id, uid))
            if until > 0:
                connection.execute("INSERT INTO bans VALUES (?, ?, ?)", (app_id, uid, until))

        await self._disk.run(store)

    async def bans(self, app_id: str, now: float) -> dict[str, float]:
        def load(connection: sqlite3.Connection) -> list[tuple[str, float]]:
            return connection.execute(
                "SELECT uid, until FROM bans WHERE app_id = ? AND until > ? ORDER BY until",
                (app_id, now),
            ).fetchall()

        return dict(await self._disk.run(load))

    async def revoke(self, app_id: str, uid: str, before: float) -> None:
        def store(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO revocations VALUES (?, ?, ?)", (app_id, uid, before)
            )

        await self._disk.run(store)

    async def revoked_before(self, app_id: str, uid: str) -> float:
        def load(connection: sqlite3.Connection) -> tuple[float] | None:
            row: tuple[float] | None = connection.execute(
                "SELECT before FROM revocations WHERE app_id = ? AND uid = ?", (app_id, uid)
            ).fetchone()
            return row

        row = await self._disk.run(load)
        return 0.0 if row is None else row[0]

    async def banned_until(self, app_id: str, uid: str) -> float:
        def load(connection: sqlite3.Connection) -> tuple[float] | None:
            row: tuple[float] | None = connection.execute(
                "SELECT until FROM bans WHERE app_id = ? AND uid = ?", (app_id, uid)
            ).fetchone()
            return row

        row = await self._disk.run(load)
        return 0.0 if row is None else row[0]

    async def set_reachable(
        self, app_id: str, uid: str, session_id: str, *, reachable: bool
    ) -> None:
        claim = self._claim_of(app_id, uid, session_id)
        if claim is not None:
            claim.state = PeerOnlineState.ONLINE if reachable else PeerOnlineState.UNREACHABLE
            self._there.presence_changed(app_id, uid, claim.state)

    async def presence(self, app_id: str, uids: Sequence[str]) -> dict[str, PeerOnlineState]:
        claims = ((uid, self._claims.get((app_id, uid))) for uid in uids)
        return {uid: claim.state if claim else PeerOnlineState.OFFLINE for uid, claim in claims}

    async def put_user_attributes(
        self, app_id: str, uid: str, session_id: str, attributes: dict[str, str]
    ) -> None:
        claim = self._claim_of(app_id, uid, session_id)
        if claim is not None:
            claim.attributes = attributes

    async def user_attributes(self, app_id: str, uid: str) -> dict[str, str] | None:
        claim = self._claims.get((app_id, uid))
        return None if claim is None else claim.attributes

    async def change_channel_attributes(
        self,
        app_id: str,
        channel_id: str,
        change: Callable[[dict[str, ChannelAttribute]], dict[str, ChannelAttribute]],
    ) -> dict[str, ChannelAttribute]:
        key = (app_id, channel_id)
        after = change(self._channel_attributes.get(key, {}))
        if after:
            self._channel_attributes[key] = after
        else:
            self._channel_attributes.pop(key, None)
        self._forget_attributes_later(key)
        return after

    async def channel_attributes(self, app_id: str, channel_id: str) -> dict[str, ChannelAttribute]:
        return self._channel_attributes.get((app_id, channel_id), {})

    async def member_counts(self, app_id: str, channel_ids: Sequence[str]) -> dict[str, int]:
        return {name: len(self._members.get((app_id, name), ())) for name in channel_ids}

    def _claim_of(self, app_id: str, uid: str, session_id: str) -> _Claim | None:
        claim = self._claims.get((app_id, uid))
        return claim if claim is not None and claim.session_id == session_id else None

    def _forget_attributes_later(self, key: tuple[str, str]) -> None:
        """An empty channel's attributes go after a while, unless somebody has joined by then."""
        timer = self._forgetting.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._channel_attributes and key not in self._members:
            self._forgetting[key] = asyncio.get_running_loop().call_later(
                CHANNEL_ATTRIBUTES_LINGER, self._forget_attributes, key
            )

    def _forget_attributes(self, key: tuple[str, str]) -> None:
        self._forgetting.pop(key, None)
        self._channel_attributes.pop(key, None)

    async def send_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        if (app_id, uid) not in self._claims:
            return Delivery.OFFLINE
        return await self._there.deliver_to_peer(app_id, uid, message)

    async def join(self, app_id: str, channel_id: str, uid: str) -> None:
        members = self._members.setdefault((app_id, channel_id), {})
        if uid not in members:
            members[uid] = None
            self._forget_attributes_later((app_id, channel_id))
            self._there.count_changed(app_id, channel_id, len(members))
            await self.publish(app_id, MemberJoined(channel_id, uid))

    async def leave(self, app_id: str, channel_id: str, uid: str) -> None:
        members = self._members.get((app_id, channel_id), {})
        if uid in members:
            del members[uid]
            if not members:
                del self._members[app_id, channel_id]
                self._forget_attributes_later((app_id, channel_id))
            self._there.count_changed(app_id, channel_id, len(members))
            await self.publish(app_id, MemberLeft(channel_id, uid))

    async def members(self, app_id: str, channel_id: str) -> list[str]:
        return list(self._members.get((app_id, channel_id), {}))

    async def publish(self, app_id: str, event: ChannelEvent) -> None:
        if isinstance(event, ChannelMessage):
            event = self._logs.append(app_id, event)
        self._there.deliver_to_channel(app_id, event)

    async def missed(self, app_id: str, channel_id: str, since: ChannelPosition | None) -> Missed:
        return self._logs.since(app_id, channel_id, since)

    async def store_offline(
        self, app_id: str, uid: str, message: MessageFromPeer, keep: int, retention: float
    ) -> None:
        body = encode_json(message)
        expires_at = self._now() + retention

        def store(connection: sqlite3.Connection) -> None:
            connection.execute(  # OR IGNORE: a copy that is sent again is the same message
                "INSERT OR IGNORE INTO offline "
                "(app_id, uid, expires_at, sender, message_id, message) VALUES (?, ?, ?, ?, ?, ?)",
                (app_id, uid, expires_at, message.peer_id, message.message_id, body),
            )
            connection.execute(
                "DELETE FROM offline WHERE app_id = ? AND uid = ? AND key <= ("
                "SELECT key FROM offline WHERE app_id = ? AND uid = ? "
                "ORDER BY key DESC LIMIT 1 OFFSET ?)",
                (app_id, uid, app_id, uid, keep),
            )

        await self._disk.run(store)

    async def offline(self, app_id: str, uid: str, now: float) -> list[OfflineMessage]:
        def load(connection: sqlite3.Connection) -> list[tuple[int, str]]:
            connection.execute(
                "DELETE FROM offline WHERE app_id = ? AND uid = ? AND expires_at <= ?",
                (app_id, uid, now),
            )
            return connection.execute(
                "SELECT key, message FROM offline WHERE app_id = ? AND uid = ? ORDER BY key",
                (app_id, uid),
            ).fetchall()

        rows = await self._disk.run(load)
        return [OfflineMessage(key, decode_json(MessageFromPeer, body)) for key, body in rows]

    async def discard_offline(self, app_id: str, uid: str, keys: list[int]) -> None:
        def discard(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM offline WHERE key = ? AND app_id = ? AND uid = ?",
                [(key, app_id, uid) for key in keys],
            )

        await self._disk.run(discard)

    async def store_history(
        self, app_id: str, message: HistoricalMessage, retention: float
    ) -> None:
        row = (
            app_id,
            message.source,
            message.destination,
            message.is_channel,
            message.message_props.server_received_ts,
            self._now() + retention,
            message.message_id,
            encode_json(message),
        )

        def store(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR IGNORE INTO history (app_id, source, destination, is_channel, ms, "
                "expires_at, message_id, message) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )

        await self._disk.run(store)

    async def history(
        self, app_id: str, query: HistoryQuery, now: float
    ) -> list[tuple[int, HistoricalMessage]]:
        where, values = _history_conditions(app_id, query, now)
        order = "DESC" if query.newest_first else "ASC"

        def load(connection: sqlite3.Connection) -> list[tuple[int, str]]:
            return connection.execute(
                f"SELECT key, message FROM history WHERE {where} "  # noqa: S608  only our words
                f"ORDER BY key {order} LIMIT ? OFFSET ?",
                (*values, query.limit, query.offset),
            ).fetchall()

        rows = await self._disk.run(load)
        return [(key, decode_json(HistoricalMessage, body)) for key, body in rows]

    async def history_count(self, app_id: str, query: HistoryQuery, now: float) -> int:
        where, values = _history_conditions(app_id, query, now)

        def count(connection: sqlite3.Connection) -> int:
            row: tuple[int] = connection.execute(
                f"SELECT count(*) FROM history WHERE {where}",  # noqa: S608  only our words
                values,
            ).fetchone()
            return row[0]

        return await self._disk.run(count)

    async def put_media(self, app_id: str, uid: str, info: MediaInfo) -> None:
        row = (info.media_id, app_id, uid, info.size, info.expires_at, encode_json(info))

        def store(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO media (media_id, app_id, uid, size, expires_at, info) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )

        await self._disk.run(store)

    async def media(self, app_id: str, media_id: str) -> MediaInfo | None:
        def load(connection: sqlite3.Connection) -> tuple[str] | None:
            row: tuple[str] | None = connection.execute(
                "SELECT info FROM media WHERE media_id = ? AND app_id = ?", (media_id, app_id)
            ).fetchone()
            return row

        row = await self._disk.run(load)
        return None if row is None else decode_json(MediaInfo, row[0])

    async def delete_media(self, media_id: str) -> None:
        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM media WHERE media_id = ?", (media_id,))

        await self._disk.run(delete)

    async def media_usage(self, app_id: str, uid: str) -> MediaUsage:
        def load(connection: sqlite3.Connection) -> tuple[int, int]:
            row: tuple[int, int] = connection.execute(
                "SELECT total(size) FILTER (WHERE uid = ?), total(size) FROM media "
                "WHERE app_id = ?",
                (uid, app_id),
            ).fetchone()
            return row

        user, app = await self._disk.run(load)
        return MediaUsage(int(user), int(app))

    async def expired_media(self, now: float) -> list[str]:
        def load(connection: sqlite3.Connection) -> list[tuple[str]]:
            connection.execute("DELETE FROM offline WHERE expires_at <= ?", (now,))
            connection.execute("DELETE FROM history WHERE expires_at <= ?", (now,))
            connection.execute("DELETE FROM bans WHERE until <= ?", (now,))
            return connection.execute(
                "SELECT media_id FROM media WHERE expires_at <= ? LIMIT ?", (now, _BATCH)
            ).fetchall()

        return [media_id for (media_id,) in await self._disk.run(load)]

    @property
    def _there(self) -> Node:
        if self._node is None:
            raise OSError("The engine has not been started.")
        return self._node

    @property
    def _disk(self) -> Database:
        if self._database is None:
            raise OSError("The engine has been stopped.")
        return self._database


def _history_conditions(
    app_id: str, query: HistoryQuery, now: float
) -> tuple[str, tuple[str | int | float, ...]]:
    """A WHERE clause of fixed words, and the values for its question marks."""
    terms = ["app_id = ?", "expires_at > ?"]
    values: list[str | int | float] = [app_id, now]

    def require(term: str, *given: str | int | None) -> None:
        if None not in given:
            terms.append(term)
            values.extend(item for item in given if item is not None)

    if query.both_ways and query.source is not None and query.destination is not None:
        pair = (query.source, query.destination)
        require(
            "((source = ? AND destination = ?) OR (destination = ? AND source = ?))", *pair, *pair
        )
    else:
        require("source = ?", query.source)
        require("destination = ?", query.destination)
    require("is_channel = ?", query.is_channel)
    require("ms >= ?", query.start)
    require("ms < ?", query.end)
    require("key < ?" if query.newest_first else "key > ?", query.after)
    return " AND ".join(terms), tuple(values)
