"""The other users of an application under test, played by the test itself."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ..client.channel import RtmChannel
from ..client.client import RtmClient
from ..client.events import EventEmitter, ReceivedEvent, event_name
from ..rules.timing import Deadline
from .case import PATIENCE

_KEPT = 10_000
_SHOWN = 10  # of the events that came instead of the expected one
_KNOWN = RtmClient.EVENTS | RtmChannel.EVENTS
_BY_THEMSELVES = frozenset({"ConnectionStateChanged", "MemberCountUpdated"})


class ScriptedPeer(RtmClient):
    """A user whom a test plays: a real client that remembers its events until they are expected::

        with ScriptedPeer("my-app", "bob", url=url) as bob:
            greet(application, "bob")
            message, sender, _ = bob.expect("MessageFromPeer")
            bob.send_message_to_peer("hello yourself", sender)

    `with` logs it in. At the end it lets its handlers finish, closes, and raises what they raised.
    All of `RtmClient` is there, so what it is to answer by itself is a handler: `@bob.on("…")`.
    Thread-safe.

    Args:
        app_id, url: as for `RtmClient`.
        uid: who it is.
        token: what it logs in with, where the gateway checks tokens.
    """

    def __init__(
        self, app_id: str, uid: str, *, url: str = "memory://", token: str | None = None
    ) -> None:
        self._changed = threading.Condition()  # guards _events, _errors and _recorded
        self._events: deque[ReceivedEvent] = deque(maxlen=_KEPT)
        self._errors: list[BaseException] = []
        super().__init__(app_id, url=url, on_handler_error=self._handler_raised)
        self._plays = (uid, token)
        self._recorded: set[EventEmitter] = set()
        self._record(self)

    def __enter__(self) -> ScriptedPeer:
        try:
            self.login(*self._plays)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._dispatcher.settle(PATIENCE)  # a handler that answers may finish
        self.close()
        with self._changed:
            errors = list(self._errors)
        if errors and error is None:  # what failed the block matters more
            raise errors[0]

    def join(self, channel_id: str) -> RtmChannel:
        """Join a channel; its events are remembered, too, from now on.

        Raises:
            RtmError: the channel cannot be joined; see `RtmChannel.join`.
        """
        channel = self.create_channel(channel_id)
        self._record(channel)
        channel.join()
        return channel

    def expect(
        self,
        event: str,
        where: Callable[..., object] | None = None,
        *,
        timeout: float = PATIENCE,
    ) -> tuple[Any, ...]:
        """Take an event that came, or wait for one that comes; returns its arguments.

        The earliest that fits is taken, once. Others stay for later calls, whose order need not be
        that of the events; `unexpected` has what was never taken.

        Args:
            event: of the client or of a channel it joined by `join`.
            where: called with the event's arguments; only where it returns true counts.
            timeout: seconds.

        Raises:
            AssertionError: none came in time. Names what did.
        """
        deadline = Deadline(timeout)
        name = event_name(event, _KNOWN, type(self).__name__)
        with self._changed:
            while True:
                for received in self._events:
                    if received.name == name and (where is None or where(*received.args)):
                        self._events.remove(received)
                        return received.args
                if not self._changed.wait(deadline.left):
                    raise AssertionError(self._instead_of(name, where, timeout))

    def unexpected(self) -> list[ReceivedEvent]:
        """What came and was not taken so far, in order; of 10,000 the latest.

        All that its sender knows to be received (`has_peer_received`) has come.
        `ConnectionStateChanged` and `MemberCountUpdated` come by themselves and do not count.
        """
        self._dispatcher.settle(PATIENCE)
        with self._changed:
            return [event for event in self._events if event.name not in _BY_THEMSELVES]

    def _record(self, emitter: EventEmitter) -> None:
        with self._changed:
            if emitter in self._recorded:  # a channel that is joined again
                return
            self._recorded.add(emitter)
        for name in emitter.EVENTS:
            EventEmitter.on(emitter, name, functools.partial(self._received, name))

    def _received(self, name: str, *args: object) -> None:
        with self._changed:
            self._events.append(ReceivedEvent(name, args))
            self._changed.notify_all()

    def _handler_raised(self, error: BaseException) -> None:
        with self._changed:
            self._errors.append(error)

    def _instead_of(self, name: str, where: Callable[..., object] | None, timeout: float) -> str:
        came = [f"{event.name}{event.args}" for event in self._events][-_SHOWN:]
        such = "" if where is None else " that `where` accepts"
        return (
            f"{self._plays[0]} got no {name}{such} within {timeout:g} seconds; "
            f"it got {'; '.join(came) if came else 'nothing else'}."
        )
