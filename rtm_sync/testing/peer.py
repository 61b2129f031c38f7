"""Other users of the application under test, played by the test."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ..client.channel import RtmChannel
from ..client.client import RtmClient
from ..client.events import EventEmitter, event_name
from ..client.listeners import ReceivedEvent
from ..rules.timing import Deadline
from .case import PATIENCE

_KEPT = 10_000
_SHOWN = 10  # of the events that came instead of the expected one
_KNOWN = RtmClient.EVENTS | RtmChannel.EVENTS
_BY_THEMSELVES = frozenset({"ConnectionStateChanged", "MemberCountUpdated"})


class ScriptedPeer(RtmClient):
    """A user that a test plays: a real client that keeps its events until the test expects them::

        with ScriptedPeer("my-app", "bob", url=url) as bob:
            greet(application, "bob")
            message, sender, _ = bob.expect("MessageFromPeer")
            bob.send_message_to_peer("hello yourself", sender)

    `with` logs it in. The end of the block waits for its handlers, closes it, and raises the first
    exception of a handler. It is an `RtmClient`; handlers, `@bob.on("…")`, give automatic answers.
    Thread-safe.

    Args:
        app_id, url: as for `RtmClient`.
        uid: its user.
        token: for the login, when the gateway checks tokens.
    """

    def __init__(
        self, app_id: str, uid: str, *, url: str = "memory://", token: str | None = None
    ) -> None:
        self._changed = threading.Condition()  # guards _events, _errors and _recorded
        self._events: deque[ReceivedEvent] = deque(maxlen=_KEPT)
        self._errors: list[BaseException] = []
        self._handlers_thread: int | None = None  # set by every event, the login's is the first
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
        self._wait_for_handlers()
        self.close()
        with self._changed:
            errors = list(self._errors)
        if errors and error is None:  # the block's own exception comes first
            raise errors[0]

    def join(self, channel_id: str) -> RtmChannel:
        """Join a channel, and keep its events from now on.

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
        """Return the arguments of an event that has come, or wait for one.

        Takes the earliest event that fits. The others stay for later calls, in any order;
        `unexpected` has the events that no call took.

        Args:
            event: the name of an event of the client, or of a channel that `join` returned.
            where: called with the event's arguments; an event fits when it returns true.
            timeout: seconds.

        Raises:
            AssertionError: no such event came in time. The message has the events that came.
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
        """The events that came and were not taken, in order; the latest 10,000.

        A message is among them once its sender knows that it was received (`has_peer_received`).
        `ConnectionStateChanged` and `MemberCountUpdated` come by themselves and do not count.
        """
        self._wait_for_handlers()
        with self._changed:
            return [event for event in self._events if event.name not in _BY_THEMSELVES]

    def _record(self, emitter: EventEmitter) -> None:
        with self._changed:
            if emitter in self._recorded:  # a channel that is joined again
                return
            self._recorded.add(emitter)
        for name in emitter.EVENTS:
            EventEmitter.on(emitter, name, functools.partial(self._received, name))

    def _wait_for_handlers(self) -> None:
        """Wait until the handlers of the events so far have run; not when a handler calls this."""
        done = threading.Event()
        if threading.get_ident() != self._handlers_thread and self._dispatcher.submit(done.set):
            done.wait(PATIENCE)

    def _received(self, name: str, *args: object) -> None:
        self._handlers_thread = threading.get_ident()
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
