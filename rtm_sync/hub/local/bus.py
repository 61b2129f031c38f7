"""Peer delivery, channels with their messages, and channel attributes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence

from ...protocol.events import ChannelMessage, MemberJoined, MemberLeft
from ...protocol.requests import PeerCall
from ...protocol.values import ChannelAttribute, ChannelPosition
from ..engine.bus import Bus, Recovered
from ..engine.node import ChannelEvent, Delivery, Node
from .part import LocalPart
from .replay import ReplayLimits
from .replay_log import ReplayLog

CHANNEL_ATTRIBUTES_LINGER = 120.0
"""Seconds a channel's attributes outlive its last member (reference 1.3: a couple of minutes)."""


class LocalBus(LocalPart, Bus):
    """The bus of one machine. Its only node has all users, so it needs no directory.

    Owns a timer for each empty channel that still has attributes, and the log of the channels'
    messages; `stop` ends them. Members and attributes are in memory.

    Args:
        path, now: as for every `LocalPart`. The channels' log is a file beside that database.
        replay: how many channel messages are kept for members that reconnect.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        now: Callable[[], float] = time.time,
        replay: ReplayLimits | None = None,
    ) -> None:
        super().__init__(path, now)
        # The sessions of each member of a channel: nearly always one, two during a relogin.
        self._members: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}
        self._channel_attributes: dict[tuple[str, str], dict[str, ChannelAttribute]] = {}
        self._attribute_timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._replay = replay
        self._log: ReplayLog | None = None

    async def start(self, node: Node) -> None:
        path = self._path and self._path.with_name(f"{self._path.stem}-channels{self._path.suffix}")
        self._log = ReplayLog(path, self._replay, self._now, node.deliver_to_channel)
        try:
            await super().start(node)
        except BaseException:
            await self._close_log()
            raise

    async def stop(self) -> None:
        for timer in self._attribute_timers.values():
            timer.cancel()
        self._attribute_timers.clear()
        self._members.clear()
        self._channel_attributes.clear()
        try:
            await super().stop()
        finally:
            await self._close_log()

    async def problem(self) -> str | None:
        return await super().problem() or await self._running_log.problem()

    async def _close_log(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            await log.close()

    async def send_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        return await self._running_node.deliver_to_peer(app_id, uid, message)

    async def listens(self, app_id: str, uid: str) -> bool:
        return self._running_node.listens(app_id, uid)

    async def join(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
        node, key = self._running_node, (app_id, channel_id)
        members = self._members.setdefault(key, {})
        sessions = members.get(uid, ())
        if session_id not in sessions:
            members[uid] = (*sessions, session_id)
        if not sessions:
            self._forget_attributes_later(key)
            node.count_changed(app_id, channel_id, len(members))
            node.deliver_to_channel(app_id, MemberJoined(channel_id, uid))

    async def leave(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
        node, key = self._running_node, (app_id, channel_id)
        members = self._members.get(key, {})
        sessions = members.get(uid, ())
        if session_id not in sessions:
            return
        members[uid] = tuple(item for item in sessions if item != session_id)
        if not members[uid]:
            del members[uid]
            if not members:
                del self._members[key]
                self._forget_attributes_later(key)
            node.count_changed(app_id, channel_id, len(members))
            node.deliver_to_channel(app_id, MemberLeft(channel_id, uid))

    async def members(self, app_id: str, channel_id: str) -> list[str]:
        self._require_running()
        return list(self._members.get((app_id, channel_id), {}))

    async def member_counts(self, app_id: str, channel_ids: Sequence[str]) -> dict[str, int]:
        self._require_running()
        return {name: len(self._members.get((app_id, name), ())) for name in channel_ids}

    async def publish(self, app_id: str, event: ChannelEvent) -> None:
        if isinstance(event, ChannelMessage):
            await self._running_log.publish(app_id, event)
        else:
            self._running_node.deliver_to_channel(app_id, event)

    async def recover(
        self, app_id: str, channel_id: str, since: ChannelPosition | None
    ) -> Recovered:
        return self._running_log.since(app_id, channel_id, since)

    @property
    def _running_log(self) -> ReplayLog:
        self._require_running()
        assert self._log is not None
        return self._log

    async def change_channel_attributes(
        self,
        app_id: str,
        channel_id: str,
        change: Callable[[dict[str, ChannelAttribute]], dict[str, ChannelAttribute]],
    ) -> dict[str, ChannelAttribute]:
        self._require_running()
        key = (app_id, channel_id)
        after = change(self._channel_attributes.get(key, {}))
        if after:
            self._channel_attributes[key] = after
        else:
            self._channel_attributes.pop(key, None)
        self._forget_attributes_later(key)
        return after

    async def channel_attributes(self, app_id: str, channel_id: str) -> dict[str, ChannelAttribute]:
        self._require_running()
        return self._channel_attributes.get((app_id, channel_id), {})

    def _forget_attributes_later(self, key: tuple[str, str]) -> None:
        """Forget an empty channel's attributes in 120 s, unless a user joins before then."""
        timer = self._attribute_timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._channel_attributes and key not in self._members:
            self._attribute_timers[key] = asyncio.get_running_loop().call_later(
                CHANNEL_ATTRIBUTES_LINGER, self._forget_attributes, key
            )

    def _forget_attributes(self, key: tuple[str, str]) -> None:
        self._attribute_timers.pop(key, None)
        self._channel_attributes.pop(key, None)
