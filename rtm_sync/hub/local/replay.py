"""The last messages of each channel, for members that missed some. Does no I/O."""

from __future__ import annotations

import base64
import hashlib
import logging
import secrets
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ...messages import message_size
from ...protocol.codec import decode_json
from ...protocol.errors import ProtocolError
from ...protocol.events import ChannelMessage
from ...protocol.values import ChannelPosition
from ..engine.bus import Recovered

SECRET_SIZE = 16  # bytes
ID_SIZE = 16  # bytes

_ENVELOPE = 512  # the approximate bytes of a kept message in addition to its content

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplayLimits:
    """The limits of kept messages. They are ours; the reference keeps 32 messages for 30 s.

    Attributes:
        messages: the most messages of one channel.
        size: the most bytes of one channel.
        total_size: the most bytes of all channels; the least recently used channel of the app with
            most bytes is forgotten first.
        channels: the most channels with a known position; likewise, of the app with most channels.
        age: seconds for which a message is kept; it is removed within a minute after that.
        duplicate_window: seconds for which the id of a stored message is remembered across a
            restart.
    """

    messages: int = 1000
    size: int = 1024 * 1024
    total_size: int = 64 * 1024 * 1024
    channels: int = 100_000
    age: float = 600.0
    duplicate_window: float = 120.0


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A message in the log of its channel.

    Attributes:
        app_id, channel_id: the channel.
        sequence: the number of the message; numbers grow.
        previous: the number of the channel's message before it.
        at: the wall clock when it was published, seconds since the epoch.
        id: the digest of what names the message: sent again, it has the same.
        message: the message, or its JSON, which is decoded when a member needs it, or None when the
            message has become too old and only its number is known.
    """

    app_id: str
    channel_id: str
    sequence: int
    previous: int
    at: float
    id: bytes
    message: ChannelMessage | str | None

    @property
    def size(self) -> int:
        """The bytes that the message counts against the limits."""
        if self.message is None:
            return 0
        if isinstance(self.message, str):  # JSON is ASCII
            return len(self.message)
        return message_size(self.message.message) + _ENVELOPE


@dataclass(slots=True)
class Removals:
    """What has to be removed from a stored log, because the log in memory has removed it.

    Attributes:
        deleted: the numbers of messages that are not needed any more.
        ids: when these messages were published, and their ids.
        emptied: the numbers of messages of which only the number and the id are needed.
        forgotten: apps of which channels were forgotten, with the newest number of these channels.
    """

    deleted: list[int] = field(default_factory=list)
    ids: list[tuple[float, bytes]] = field(default_factory=list)
    emptied: list[int] = field(default_factory=list)
    forgotten: dict[str, int] = field(default_factory=dict)


class _Log:
    """One channel's kept messages.

    Attributes:
        epoch: names the count to this channel's members.
        kept: the messages, oldest first.
        size: their bytes.
        before: the number of the channel's message before them.
        is_emptied: `before` is the number of an emptied message.
    """

    __slots__ = ("before", "epoch", "is_emptied", "kept", "size")

    def __init__(self, epoch: str, before: int) -> None:
        self.epoch = epoch
        self.kept: deque[KeptMessage] = deque()
        self.size = 0
        self.before = before
        self.is_emptied = False

    @property
    def newest(self) -> int:
        return self.kept[-1].sequence if self.kept else self.before


class _AppLogs:
    """The logs of one app's channels.

    Attributes:
        logs: by channel, in the order of their newest messages: the log that is quiet for the
            longest time is first.
        size: their bytes.
    """

    __slots__ = ("logs", "size")

    def __init__(self) -> None:
        self.logs: OrderedDict[str, _Log] = OrderedDict()
        self.size = 0


class ChannelLogs:
    """Numbers channels' messages and keeps the last ones. Not thread-safe.

    All channels share one count. So a position tells whether a forgotten log had newer messages,
    and a channel without messages needs no log. `number` gives messages their numbers. `keep` makes
    them available to members: where logs are stored, it is called when the messages are stored.
    Where there is too much, the app with most of it loses some, so that no app's messages push out
    those of an app with fewer.

    Args:
        limits: the limits of kept messages.
        secret: makes the epochs of the channels; new for each count.
        last: the count so far.
        forgotten: the newest number of a forgotten channel so far, of each app.
        forgotten_of_all: the least of these numbers for an app that is not among them.

    Attributes:
        removals: what was removed since `take_removals` was called.
    """

    def __init__(
        self,
        limits: ReplayLimits | None = None,
        secret: bytes | None = None,
        last: int = 0,
        forgotten: Mapping[str, int] | None = None,
        forgotten_of_all: int = 0,
    ) -> None:
        self._limits = limits or ReplayLimits()
        self._secret = secret or secrets.token_bytes(SECRET_SIZE)
        self._last = last
        self._newest = last  # the number of the newest kept message
        self._apps: dict[str, _AppLogs] = {}
        self._count = 0  # of logs
        self._size = 0
        self._forgotten = dict(forgotten or {})
        self._forgotten_of_all = forgotten_of_all
        self.removals = Removals()

    def number(
        self, messages: Iterable[tuple[str, ChannelMessage]], at: float
    ) -> list[KeptMessage]:
        """Give messages their positions.

        Args:
            messages: each with its app id.
            at: the wall clock, seconds since the epoch.

        Returns:
            The messages with positions, to be kept, or dropped, before others are numbered.
        """
        numbered = []
        newest: dict[tuple[str, str], tuple[str, int]] = {}  # the epoch, and the number
        for app_id, message in messages:
            key = (app_id, message.channel_id)
            epoch, previous = newest.get(key) or self._newest_of(*key)
            self._last += 1
            newest[key] = epoch, self._last
            placed = ChannelMessage(
                message.channel_id,
                message.message,
                message.member_id,
                message.message_id,
                message.message_props,
                ChannelPosition(epoch, self._last),
            )
            digest = digest_of(app_id, message)
            numbered.append(KeptMessage(*key, self._last, previous, at, digest, placed))
        return numbered

    def keep(self, message: KeptMessage) -> None:
        """Keep a message, and remove what the limits do not allow any more."""
        key = (message.app_id, message.channel_id)
        app = self._apps.setdefault(message.app_id, _AppLogs())
        log = app.logs.get(message.channel_id)
        if log is None:
            log = app.logs[message.channel_id] = _Log(self._epoch(*key), message.previous)
            self._count += 1
        elif message.previous > log.newest:  # the file lost some of those between
            while log.kept:
                self._drop_oldest(app, log)
        if not log.kept:
            if log.is_emptied:
                self.removals.deleted.append(log.before)
                log.is_emptied = False
            log.before = message.previous
        app.logs.move_to_end(message.channel_id)
        self._newest = message.sequence
        log.kept.append(message)
        self._add_size(app, log, message.size)
        if message.message is None:
            while log.kept:
                self._drop_oldest(app, log)
        while len(log.kept) > self._limits.messages or log.size > self._limits.size:
            self._drop_oldest(app, log)
        while self._size > self._limits.total_size and self._count > 1:
            self._forget_quietest(max(self._apps, key=lambda name: self._apps[name].size))
        while self._count > self._limits.channels and self._count > 1:
            self._forget_quietest(max(self._apps, key=lambda name: len(self._apps[name].logs)))

    def since(self, app_id: str, channel_id: str, since: ChannelPosition | None) -> Recovered:
        """The messages after a position; none without a position."""
        epoch = self._epoch(app_id, channel_id)
        newest = ChannelPosition(epoch, self._newest)
        if since is None:
            return Recovered(newest, (), complete=True)
        log = self._log(app_id, channel_id)
        is_known = since.epoch == epoch and 0 <= since.sequence <= self._newest
        complete = is_known and since.sequence >= (
            self._forgotten_of(app_id) if log is None else log.before
        )
        messages = []
        for kept in () if log is None else log.kept:
            if not is_known or kept.sequence > since.sequence:
                message = _decoded(kept)
                if message is None:
                    complete = False
                else:
                    position = ChannelPosition(epoch, kept.sequence)
                    messages.append(replace(message, position=position))
        return Recovered(newest, tuple(messages), complete)

    def expire(self, now: float) -> None:
        """Remove what is too old. `now` is the wall clock, seconds since the epoch."""
        oldest = now - self._limits.age
        for app in self._apps.values():
            for log in app.logs.values():
                while log.kept and log.kept[0].at < oldest:
                    self._drop_oldest(app, log)

    def take_removals(self) -> Removals:
        """What was removed since the last call."""
        taken, self.removals = self.removals, Removals()
        return taken

    def put_back(self, removals: Removals) -> None:
        """Return removals that could not be made."""
        self.removals.deleted[:0] = removals.deleted
        self.removals.ids[:0] = removals.ids
        self.removals.emptied[:0] = removals.emptied
        self.removals.forgotten = removals.forgotten | self.removals.forgotten

    def _newest_of(self, app_id: str, channel_id: str) -> tuple[str, int]:
        """The channel's epoch, and the number of its newest message."""
        log = self._log(app_id, channel_id)
        if log is None:
            return self._epoch(app_id, channel_id), self._forgotten_of(app_id)
        return log.epoch, log.newest

    def _log(self, app_id: str, channel_id: str) -> _Log | None:
        app = self._apps.get(app_id)
        return None if app is None else app.logs.get(channel_id)

    def _forgotten_of(self, app_id: str) -> int:
        """The newest number of the app's forgotten channels, or a greater one."""
        return self._forgotten.get(app_id, self._forgotten_of_all)

    def _epoch(self, app_id: str, channel_id: str) -> str:
        """Names the count to one channel's members: positions of other channels mean nothing."""
        channel = f"{len(app_id)} {app_id} {channel_id}".encode()
        digest = hashlib.blake2b(channel, key=self._secret, digest_size=6).digest()
        return base64.urlsafe_b64encode(digest).decode()

    def _drop_oldest(self, app: _AppLogs, log: _Log) -> None:
        message = log.kept.popleft()
        self._add_size(app, log, -message.size)
        log.before = message.sequence
        if log.kept:
            self._delete(message)
        else:  # the channel's newest number, which tells whether a member has missed anything
            log.is_emptied = True
            if message.message is not None:
                self.removals.emptied.append(message.sequence)

    def _forget_quietest(self, app_id: str) -> None:
        app = self._apps[app_id]
        _, log = app.logs.popitem(last=False)
        if not app.logs:
            del self._apps[app_id]
        self._count -= 1
        self._size -= log.size
        app.size -= log.size
        newest = max(self._forgotten_of(app_id), log.newest)
        self._forgotten[app_id] = self.removals.forgotten[app_id] = newest
        for message in log.kept:
            self._delete(message)
        if log.is_emptied:
            self.removals.deleted.append(log.before)

    def _delete(self, message: KeptMessage) -> None:
        self.removals.deleted.append(message.sequence)
        self.removals.ids.append((message.at, message.id))

    def _add_size(self, app: _AppLogs, log: _Log, size: int) -> None:
        log.size += size
        app.size += size
        self._size += size


def digest_of(app_id: str, message: ChannelMessage) -> bytes:
    """The digest of what names a message: sent again, it has the same."""
    parts = (app_id, message.channel_id, message.member_id, message.message_id)
    text = "".join(f"{len(part)} {part}" for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=ID_SIZE).digest()


def _decoded(kept: KeptMessage) -> ChannelMessage | None:
    """A kept message, or None when it cannot be read: that must not keep back the others."""
    if not isinstance(kept.message, str):
        return kept.message
    try:
        return decode_json(ChannelMessage, kept.message)
    except ProtocolError as error:
        logger.warning("the channel message %d cannot be read: %s", kept.sequence, error)
        return None
