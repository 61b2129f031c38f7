"""Channels: membership is derived from retained messages and from presence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from rtm_sync.errors import GetMembersError, JoinChannelError
from rtm_sync.protocol import (
    ChannelPosition,
    Done,
    GetMembers,
    JoinChannel,
    JoinResult,
    LeaveChannel,
    MemberJoined,
    MemberLeft,
    UserIds,
)
from rtm_sync.rules.limits import Limits
from rtm_sync.rules.rates import KeyedWindows
from rtm_sync.rules.requests import announces_members, join_refusal, listed_members
from rtm_sync.rules.timing import Deadline
from rtm_sync.transports.base import Listener

from .connection import Connection
from .memory import Budget
from .names import Topics
from .presence import Presence


class _Channel:
    """A channel that this session has joined or is joining.

    Attributes:
        members: the session ids of each other member, by user id.
        is_open: the join is complete; the client receives the channel's events.
    """

    def __init__(self) -> None:
        self.members: dict[str, set[str]] = {}
        self.is_open = False


class Channels:
    """The channels of one session. Thread-safe.

    Args:
        fence: returns a future that is done when every retained message requested earlier has
            arrived.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        listener: Listener,
        limits: Limits,
        budget: Budget,
        fence: Callable[[], Future[None]],
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._listener = listener
        self._limits = limits
        self._budget = budget
        self._fence = fence
        self._presence: Presence
        self._lock = threading.Lock()  # guards all below; not held while waiting or in callbacks
        self._channels: dict[str, _Channel] = {}
        self._same_joins = KeyedWindows(limits.same_channel_joins)

    def set_presence(self, presence: Presence) -> None:
        """Set the source of presence. It is not a constructor argument, as each needs the other."""
        self._presence = presence

    def names(self) -> list[str]:
        """The channels that this session has joined or is joining."""
        with self._lock:
            return list(self._channels)

    def is_member(self, name: str) -> bool:
        with self._lock:
            channel = self._channels.get(name)
            return channel is not None and channel.is_open

    def users(self) -> set[str]:
        """The users that share a channel with this session."""
        with self._lock:
            return {uid for channel in self._channels.values() for uid in channel.members}

    # -- the client's calls --

    def join(self, request: JoinChannel, deadline: Deadline) -> JoinResult:
        name = request.channel_id
        with self._lock:
            refusal = join_refusal(
                name, self._channels, self._same_joins, self._limits, time.monotonic()
            )
            if refusal is not None:
                raise JoinChannelError.named(*refusal)
            self._budget.check_rate("joins", JoinChannelError)
            self._channels[name] = _Channel()
        try:
            self._connection.persist(lambda: self.enter(name, deadline), deadline)
        except BaseException:
            self._withdraw(name)
            with self._lock:
                self._channels.pop(name, None)
            raise
        return JoinResult(ChannelPosition("", 0), recovered=False)

    def leave(self, request: LeaveChannel, deadline: Deadline) -> Done:
        name = request.channel_id
        if name not in self.names():
            raise request.ERROR.named("NOT_IN_CHANNEL", f"{name!r} is not joined.")

        def attempt() -> None:
            for answer in self._withdraw(name):
                self._connection.wait(answer, deadline)

        self._connection.persist(attempt, deadline)
        with self._lock:
            self._channels.pop(name, None)
        return Done()

    def list_members(self, request: GetMembers, deadline: Deadline) -> UserIds:
        with self._lock:
            channel = self._channels.get(request.channel_id)
            others = None if channel is None or not channel.is_open else sorted(channel.members)
        if others is None:
            raise GetMembersError.named(
                "NOT_IN_CHANNEL", f"Join {request.channel_id!r} to see its members."
            )
        self._budget.check_rate("member_lists", GetMembersError)
        return UserIds(tuple(listed_members((self._topics.uid, *others), self._limits)))

    # -- for the session --

    def enter(self, name: str, deadline: Deadline) -> None:
        """Become a member, and collect the other members."""
        wait = self._connection.wait
        # No Local: the sender of a message does not receive it.
        messages = self._connection.subscribe([self._topics.channel_messages(name)], own_too=False)
        members = self._connection.subscribe([self._topics.members(name)])
        wait(messages, deadline)
        wait(members, deadline)
        wait(self._fence(), deadline)
        with self._lock:
            channel = self._channels.get(name)
            claimed = [] if channel is None else list(channel.members)
        self._presence.known(claimed, deadline)
        for uid in claimed:
            self._check(name, uid)
        wait(self._connection.publish(self._own_topic(name), b"1", retain=True), deadline)
        with self._lock:
            if channel is not None:
                channel.is_open = True

    def retract(self) -> list[Future[int]]:
        """Leave all channels at logout, without waiting for the will.

        Returns:
            The futures of the published packets.
        """
        publish = self._connection.publish
        return [publish(self._own_topic(name), retain=True) for name in self.names()]

    def forget(self) -> None:
        """Note that the broker has lost the subscriptions; `enter` makes each of them again."""
        with self._lock:
            for channel in self._channels.values():
                channel.is_open = False
                channel.members.clear()

    def user_changed(self, uid: str) -> None:
        """Handle the end of a session of a user."""
        with self._lock:
            shared = [name for name, one in self._channels.items() if uid in one.members]
        for name in shared:
            self._check(name, uid)

    def take(self, name: str, uid: str, session: str, *, is_member_now: bool) -> None:
        """Handle the message that a member's session joined or left a channel."""
        if uid == self._topics.uid:
            return
        if not is_member_now:
            self._remove(name, uid, session)
            return
        with self._lock:
            channel = self._channels.get(name)
            if channel is None:
                return
            is_new = uid not in channel.members
            channel.members.setdefault(uid, set()).add(session)
            is_open = channel.is_open
            is_announced = is_new and announces_members(len(channel.members) + 1, self._limits)
        if is_open:
            if is_announced:
                self._listener.on_event(MemberJoined(name, uid))
            watch = self._presence.watch(uid)  # the will is the only sign of a lost member
            watch.known.add_done_callback(lambda _: self._check(name, uid))

    # -- inside --

    def _own_topic(self, name: str) -> str:
        return self._topics.member(name, self._topics.uid, self._topics.session)

    def _withdraw(self, name: str) -> list[Future[int]]:
        filters = [self._topics.channel_messages(name), self._topics.members(name)]
        return [
            self._connection.publish(self._own_topic(name), retain=True),
            self._connection.unsubscribe(filters),
        ]

    def _check(self, name: str, uid: str) -> None:
        """Remove the ended sessions of a member; a will can clear only one topic."""
        watch = self._presence.watched(uid)
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or watch is None:
                return
            ended = channel.members.get(uid, set()) - watch.sessions.keys()
        for session in ended:
            self._connection.publish(self._topics.member(name, uid, session), retain=True)
            self._remove(name, uid, session)

    def _remove(self, name: str, uid: str, session: str) -> None:
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or session not in channel.members.get(uid, ()):
                return
            channel.members[uid].discard(session)
            has_left = not channel.members[uid]
            if has_left:
                del channel.members[uid]
            is_announced = (
                has_left
                and channel.is_open
                and announces_members(len(channel.members) + 1, self._limits)
            )
        if is_announced:
            self._listener.on_event(MemberLeft(name, uid))
