"""Channels: joining and leaving, messages to members, member lists and counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ...errors import (
    ChannelMessageError,
    GetChannelMemberCountError,
    GetMembersError,
    JoinChannelError,
    LeaveChannelError,
)
from ...protocol.events import (
    AttributesUpdated,
    ChannelMessage,
    MemberCountUpdated,
    MemberJoined,
    MemberLeft,
)
from ...protocol.frames import encode_notice
from ...protocol.ids import id_problem, message_id_problem
from ...protocol.requests import (
    GetChannelMemberCount,
    GetMembers,
    JoinChannel,
    LeaveChannel,
    SendChannelMessage,
)
from ...protocol.values import Done, JoinResult, MemberCounts, ReceivedMessageProperties, UserIds
from ...rules.limits import Limits
from ...rules.requests import announces_members, join_refusal, listed_members
from ..auth.tokens import NotPrivileged
from ..engine.bus import Bus
from ..engine.node import ChannelEvent
from ..metrics_sink import MetricsSink, timed
from ..session import Session
from ..tasks import BackgroundTasks, Outcomes, once
from .history import HistoryService
from .member_counts import MemberCountThrottle

_Channel = tuple[str, str]
"""(app_id, channel_id)"""


class ChannelService:
    """Serves the channel requests of one hub, and knows the members on this node.

    Args:
        bus: knows the members on all nodes, and delivers events to every node.
        history: keeps the messages sent with `enable_historical_messaging`.
        sends: the outcomes of recent sends: a message sent twice is published once.
        limits: rates, sizes and times.
        now: the wall clock, seconds since the epoch.
        metrics_sink: records each message.
        observe: called with the app id, "channel" and the event at each join and leave.
        tasks: runs the sending of missed messages.
    """

    def __init__(
        self,
        bus: Bus,
        history: HistoryService,
        sends: Outcomes,
        limits: Limits,
        now: Callable[[], float],
        metrics_sink: MetricsSink,
        observe: Callable[[str, str, dict[str, Any]], object],
        tasks: BackgroundTasks,
    ) -> None:
        self._bus = bus
        self._history = history
        self._sends = sends
        self._limits = limits
        self._now = now
        self._metrics_sink = metrics_sink
        self._observe = observe
        self._tasks = tasks
        self._members: dict[_Channel, dict[Session, None]] = {}
        self._counts: dict[_Channel, MemberCountThrottle] = {}

    def __len__(self) -> int:
        """The number of channels that have members on this node."""
        return len(self._members)

    # -- requests --

    async def join(self, session: Session, request: JoinChannel) -> JoinResult:
        channel_id = request.channel_id
        self._check_join(session, channel_id)
        session.channels[channel_id] = None
        self._members.setdefault((session.app_id, channel_id), {})[session] = None
        if request.since is not None:
            session.hold_channel(channel_id)
        session.memberships.add(channel_id)
        try:
            await self._bus.join(session.app_id, channel_id, session.uid, session.id)
            recovered = await self._bus.recover(session.app_id, channel_id, request.since)
        except BaseException:
            session.channels.pop(channel_id, None)
            self._remove(session, channel_id)
            raise
        session.require_life(JoinChannelError)
        self._report_channel_event(session, channel_id, "Join")
        if request.since is not None:  # a task, because the missed messages follow the answer
            others = [item for item in recovered.messages if item.member_id != session.uid]
            self._tasks.spawn(session.catch_up(channel_id, map(encode_notice, others)))
        return JoinResult(recovered.position, recovered.complete)

    async def leave(self, session: Session, request: LeaveChannel) -> Done:
        if request.channel_id not in session.channels:
            raise LeaveChannelError.named(
                "NOT_IN_CHANNEL", f"The user has not joined {request.channel_id[:64]!r}."
            )
        del session.channels[request.channel_id]
        self._report_channel_event(session, request.channel_id, "Leave")
        self._remove(session, request.channel_id)
        await self._bus.leave(session.app_id, request.channel_id, session.uid, session.id)
        if request.channel_id not in session.channels:  # unless it was joined again meanwhile
            session.memberships.discard(request.channel_id)
        return Done()

    async def send(self, session: Session, request: SendChannelMessage) -> Done:
        if request.channel_id not in session.channels:
            raise ChannelMessageError.named(
                "NOT_IN_CHANNEL", f"Join {request.channel_id[:64]!r} before sending to it."
            )
        return await self._send(session, request)

    async def send_as_non_member(self, session: Session, request: SendChannelMessage) -> None:
        """Send to a channel without being a member, as the reference's REST API allows.

        Raises:
            ChannelMessageError: the request is refused.
            OSError: the engine failed.
        """
        session.require_life(ChannelMessageError)
        problem = id_problem("channel_id", request.channel_id)
        if problem is not None:
            raise ChannelMessageError.named("INVALID_MESSAGE", problem)
        await self._send(session, request)

    async def members(self, session: Session, request: GetMembers) -> UserIds:
        if request.channel_id not in session.channels:
            raise GetMembersError.named(
                "NOT_IN_CHANNEL", f"Join {request.channel_id[:64]!r} before listing its members."
            )
        session.check_rate("member_lists", GetMembersError)
        members = await self._bus.members(session.app_id, request.channel_id)
        return UserIds(tuple(listed_members(members, self._limits)))

    async def counts(self, session: Session, request: GetChannelMemberCount) -> MemberCounts:
        ids, limit = request.channel_ids, self._limits.counted_channels
        if not ids:
            raise GetChannelMemberCountError.named("INVALID_ARGUMENT", "channel_ids is empty.")
        if len(ids) > limit:
            raise GetChannelMemberCountError.named(
                "EXCEED_LIMIT", f"{len(ids)} channel_ids are too many; the limit is {limit}."
            )
        for channel_id in ids:
            problem = id_problem("channel_id", channel_id)
            if problem is not None:
                raise GetChannelMemberCountError.named("INVALID_ARGUMENT", problem)
            if not session.privileges.may_join(channel_id):
                raise GetChannelMemberCountError.named(
                    "FAILURE",
                    f"The token does not allow the user to read {channel_id!r}.",
                    NotPrivileged(),
                )
        session.check_rate("member_counts", GetChannelMemberCountError)
        return MemberCounts(await self._bus.member_counts(session.app_id, ids))

    # -- sessions that end --

    def ended(self, session: Session) -> None:
        """Report to the observer that an ended session has left its channels."""
        for channel_id in session.channels:
            self._report_channel_event(session, channel_id, "Leave")

    def forget(self, session: Session) -> None:
        """Remove a session from its channels on this node. Idempotent."""
        for channel_id in session.channels:
            self._remove(session, channel_id)

    # -- events from the engine --

    def deliver(self, app_id: str, event: ChannelEvent) -> None:
        """Push an event to the channel's members on this node, except its originator."""
        channel = (app_id, event.channel_id)
        members = self._members.get(channel)
        if not members:
            return
        origin = None if isinstance(event, AttributesUpdated) else event.member_id
        if isinstance(event, (MemberJoined, MemberLeft)) and self._is_large(channel):
            return
        frame = encode_notice(event)  # encoded once for all members
        for session in tuple(members):
            if session.uid != origin:
                session.push_to_member(event.channel_id, frame)

    def count_changed(self, app_id: str, channel_id: str, count: int) -> None:
        """A channel has `count` members now, on all nodes."""
        channel = (app_id, channel_id)
        if channel in self._members:
            throttle = self._counts.setdefault(channel, MemberCountThrottle())
            throttle.count = count
            self._send_count(channel, throttle)

    # -- inside --

    def _check_join(self, session: Session, channel_id: str) -> None:
        problem = id_problem("channel_id", channel_id)
        if problem is not None:
            raise JoinChannelError.named("INVALID_ARGUMENT", problem)
        if not session.privileges.may_join(channel_id):
            raise JoinChannelError.named(
                "REJECTED",
                f"The token does not allow the user to join {channel_id!r}.",
                NotPrivileged(),
            )
        now = asyncio.get_running_loop().time()
        refusal = join_refusal(
            channel_id, session.channels, session.same_channel_joins, self._limits, now
        )
        if refusal is not None:
            raise JoinChannelError.named(*refusal)
        session.check_rate("joins", JoinChannelError)

    async def _send(self, session: Session, request: SendChannelMessage) -> Done:
        problem = message_id_problem(request.message_id)
        if problem is not None:
            raise ChannelMessageError.named("INVALID_MESSAGE", problem)
        if not session.privileges.may_publish(request.channel_id):
            raise ChannelMessageError.named(
                "FAILURE",
                f"The token does not allow the user to send to {request.channel_id!r}.",
                NotPrivileged(),
            )
        session.check_rate("sends", ChannelMessageError)
        with timed(self._metrics_sink, "channel") as timing:
            timing.outcome = "sent"
            return await once(
                self._sends,
                session.user,
                f"channel {request.channel_id} {request.message_id}",
                lambda: self._publish(session, request),
                ChannelMessageError,
            )

    async def _publish(self, session: Session, request: SendChannelMessage) -> Done:
        message = ChannelMessage(
            request.channel_id,
            request.message,
            session.uid,
            request.message_id,
            ReceivedMessageProperties(int(self._now() * 1000), message_id=request.message_id),
        )
        if request.enable_historical_messaging:
            await self._history.keep(session, request.channel_id, message)
        await self._bus.publish(session.app_id, message)
        return Done()

    def _remove(self, session: Session, channel_id: str) -> None:
        channel = (session.app_id, channel_id)
        session.release_channel(channel_id)
        members = self._members.get(channel, {})
        members.pop(session, None)
        if not members:
            self._members.pop(channel, None)
            throttle = self._counts.pop(channel, None)
            if throttle is not None and throttle.timer is not None:
                throttle.timer.cancel()

    def _report_channel_event(self, session: Session, channel_id: str, kind: str) -> None:
        event = {
            "group_id": channel_id,
            "user_id": session.uid,
            "type": kind,
            "ms": int(self._now() * 1000),
        }
        self._observe(session.app_id, "channel", event)

    def _is_large(self, channel: _Channel) -> bool:
        throttle = self._counts.get(channel)
        return throttle is not None and not announces_members(throttle.count, self._limits)

    def _send_count(self, channel: _Channel, throttle: MemberCountThrottle) -> None:
        """Send the member count to the channel's members, now or as soon as the throttle allows."""
        if self._counts.get(channel) is not throttle:
            return  # the channel has no members on this node any more
        loop = asyncio.get_running_loop()
        now = loop.time()
        wait = throttle.wait(now)
        if wait == 0.0:
            throttle.sent(now)
            frame = encode_notice(MemberCountUpdated(channel[1], throttle.count))
            for session in tuple(self._members.get(channel, ())):
                session.push_to_member(channel[1], frame)
        elif wait is not None and throttle.timer is None:
            throttle.timer = loop.call_later(wait, self._count_is_due, channel, throttle)

    def _count_is_due(self, channel: _Channel, throttle: MemberCountThrottle) -> None:
        throttle.timer = None
        self._send_count(channel, throttle)
