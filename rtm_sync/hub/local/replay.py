"""The last messages of each channel, for members that missed some. Does no I/O."""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from ...messages import message_size
from ...protocol.events import ChannelMessage
from ...protocol.values import ChannelPosition
from ..engine.bus import Recovered

_ENVELOPE = 512  # the approximate bytes of a kept message in addition to its content


@dataclass(frozen=True, slots=True)
class ReplayLimits:
    """The limits of kept messages. They are ours; the reference keeps 32 messages for 30 s.

    Attributes:
        messages: the most messages of one channel.
        size: the most bytes of one channel.
        total_size: the most bytes of all channels; the least recently used channel is forgotten
            first.
        channels: the most channels with a known position.
    """

    messages: int = 1000
    size: int = 1024 * 1024
    total_size: int = 64 * 1024 * 1024
    channels: int = 100_000


class _Log:
    __slots__ = ("epoch", "kept", "sequence", "size")

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.sequence = 0
        self.kept: deque[ChannelMessage] = deque()
        self.size = 0

    @property
    def position(self) -> ChannelPosition:
        return ChannelPosition(self.epoch, self.sequence)


class ChannelLogs:
    """Numbers channels' messages and keeps the last ones. Not thread-safe.

    A forgotten channel gets a new epoch when it is used again, and every channel gets one in a new
    process. A member that reconnects with a position of an old epoch gets an incomplete answer.

    Args:
        limits: the limits of kept messages.
        new_epoch: returns a name that was never used before.
    """

    def __init__(
        self,
        limits: ReplayLimits | None = None,
        new_epoch: Callable[[], str] = lambda: secrets.token_urlsafe(6),
    ) -> None:
        self._limits = limits or ReplayLimits()
        self._new_epoch = new_epoch
        self._logs: OrderedDict[tuple[str, str], _Log] = OrderedDict()  # least recently used first
        self._size = 0

    def append(self, app_id: str, message: ChannelMessage) -> ChannelMessage:
        """Give the message its position and keep it. Returns the message with the position."""
        log = self._log(app_id, message.channel_id)
        log.sequence += 1
        message = replace(message, position=log.position)
        log.kept.append(message)
        self._add_size(log, _size(message))
        while len(log.kept) > self._limits.messages or log.size > self._limits.size:
            self._add_size(log, -_size(log.kept.popleft()))
        while self._size > self._limits.total_size and len(self._logs) > 1:
            self._forget_least_recent()
        return message

    def since(self, app_id: str, channel_id: str, since: ChannelPosition | None) -> Recovered:
        """The messages after a position; none without a position."""
        log = self._log(app_id, channel_id)
        if since is None:
            return Recovered(log.position, (), complete=True)
        known = since.epoch == log.epoch and 0 <= since.sequence <= log.sequence
        if not known:
            return Recovered(log.position, tuple(log.kept), complete=False)
        missing = log.sequence - since.sequence
        messages = tuple(log.kept)[-missing:] if missing else ()
        return Recovered(log.position, messages, complete=len(messages) == missing)

    def _log(self, app_id: str, channel_id: str) -> _Log:
        key = (app_id, channel_id)
        log = self._logs.get(key)
        if log is None:
            if len(self._logs) >= self._limits.channels:
                self._forget_least_recent()
            log = self._logs[key] = _Log(self._new_epoch())
        self._logs.move_to_end(key)
        return log

    def _add_size(self, log: _Log, size: int) -> None:
        log.size += size
        self._size += size

    def _forget_least_recent(self) -> None:
        _, log = self._logs.popitem(last=False)
        self._size -= log.size


def _size(message: ChannelMessage) -> int:
    return message_size(message.message) + _ENVELOPE
