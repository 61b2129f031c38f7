"""Gives the messages from peers to the application, in order, and reports those it has handled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ..protocol.requests import MessageFromPeer
from ..rules.timing import Deadline
from ..transports.base import Transport
from .events import Dispatcher
from .inbox import Arrival, Entry, Inbox
from .listeners import Handler, Listeners, ReceivedEvent, StreamQueue, run_handlers

EVENT = "MessageFromPeer"
_MAX_WAITING = 10_000
_REPORT_LIMIT = 1000  # keys of one report


class PeerMessages:
    """The inbox of one client, between its transport, dispatcher and listeners. Thread-safe.

    A message is handled when it had handlers and each of them returned or raised, or when it had
    none and a stream or `wait_for` returned it. A stored message that nobody takes waits. A message
    that is not stored is dropped then.

    Args:
        listeners: the handlers and the streams.
        dispatcher: runs the handlers.
        transport: is told who listens, and what was handled.
        on_error: called with the exception of a handler.
    """

    def __init__(
        self,
        listeners: Listeners,
        dispatcher: Dispatcher,
        transport: Transport,
        on_error: Callable[[BaseException], object],
    ) -> None:
        self._listeners = listeners
        self._dispatcher = dispatcher
        self._transport = transport
        self._on_error = on_error
        # Guards _inbox and what the streams hold of it, so that a stream which closes and a message
        # which is given out do not change places. Not held in handlers or calls of the transport.
        self._lock = threading.Lock()
        self._inbox = Inbox(_MAX_WAITING)
        self._gives_until = Deadline(None)  # stored messages to handlers and streams
        self._running: Entry | None = None
        self._handlers_returned = threading.Condition(self._lock)
        self._handlers_thread = 0
        self._listening = _LatestState(transport.set_listening)
        self._listening.tell(self._listens)

    # -- sessions --

    def begin_session(self, uid: str) -> None:
        """A login begins."""
        with self._lock:
            self._inbox.begin_session(uid)
            self._gives_until = Deadline(None)

    def session_was_renewed(self) -> None:
        """The hub had lost the session and made a new one."""
        with self._lock:
            self._inbox.session_was_renewed()

    def stop_soon(self, seconds: float) -> None:
        """The client is about to log out: refuse further messages.

        Args:
            seconds: the time for which those that wait are still given to handlers.
        """
        with self._lock:
            self._inbox.stop_taking()
            self._gives_until = Deadline(seconds)

    def wait_for_handlers(self, timeout: float) -> None:
        """Wait until the handlers of the message that is being handled have returned.

        Called from one of them, it returns at once.
        """
        with self._lock:
            if threading.get_ident() != self._handlers_thread:
                self._handlers_returned.wait_for(lambda: self._running is None, timeout)

    def end_session(self) -> None:
        """Report what was handled. The rest waits on the hub for the next login. Idempotent.

        A message whose handler logs out counts as handled: it would end every later login as well.
        """
        with self._lock:
            if self._running is not None and threading.get_ident() == self._handlers_thread:
                self._inbox.handled(self._running)
            held = [entry for queue in self._listeners.queues() for entry in queue.give_up_stored()]
            keys = self._inbox.end_session(held)
        self._send_report(keys)

    # -- arrival, on the transport's thread --

    def arrived(self, message: MessageFromPeer) -> bool:
        """Queue a message. Returns False when there is no room for it.

        A stored message that came before is not queued again. A message that is not stored is
        dropped when nobody listens: it would overtake those that the hub keeps until one does.
        """
        if not message.message_props.message_id:
            props = replace(message.message_props, message_id=message.message_id)
            message = replace(message, message_props=props)
        with self._lock:
            if message.key is None and not self._listens():
                return True
            arrival, entry = self._inbox.arrived(message)
        if entry is None:
            if arrival is Arrival.KNOWN:
                self.report()
            return arrival is Arrival.KNOWN
        if self._dispatcher.submit(self._turn_came):
            return True
        with self._lock:
            self._inbox.withdraw(entry)
        return False

    def discard(self, message: MessageFromPeer) -> bool:
        """Drop a message of a blocked user. Returns False for one that is not stored."""
        if message.key is None:
            return False
        self._send_report([message.key])
        return True

    # -- listeners, on the application's threads --

    def listeners_changed(self) -> None:
        """There are other handlers or streams than before."""
        self._listening.tell(self._listens)
        self.go_on()

    def go_on(self) -> None:
        """Give out what waits, if there is someone who takes it now."""
        with self._lock:
            waits = self._inbox.first is not None
        if waits and self._listens():
            self._dispatcher.submit(self._give_out)

    def handed_out(self, entry: Entry) -> None:
        """A stream has returned a message to the application."""
        with self._lock:
            self._inbox.handled(entry)
        self.report()

    def close_stream(self, queue: StreamQueue, held: Iterable[Entry]) -> None:
        """Close a stream; what it has not handed out waits again.

        Args:
            held: what it has taken from its queue and not handed out.
        """
        with self._lock:
            self._listeners.close(queue)
            self._inbox.give_back([*held, *queue.give_up_stored()])
        self.listeners_changed()

    def report(self) -> None:
        """Report what was handled."""
        with self._lock:
            keys = self._inbox.take_reports()
        self._send_report(keys)

    # -- inside; the first three run on the dispatcher's thread --

    def _turn_came(self) -> None:
        with self._lock:
            self._inbox.turn_came()
        self._give_out()
        self._transport.event_handled()

    def _give_out(self) -> None:
        """Give the messages whose turn has come to whoever listens."""
        while (handlers := self._next()) is not None:
            running = self._running
            if running is None:
                continue
            message = running.message
            try:
                arguments = (message.message, message.peer_id, message.message_props)
                run_handlers(handlers, arguments, self._on_error)
            finally:
                with self._lock:
                    self._running = None
                    self._inbox.handled(running)
                    self._handlers_returned.notify_all()
            self._listening.tell(self._listens)  # the handlers of `once` are gone
            self._report_some(is_idle=False)
        self._report_some(is_idle=True)

    def _report_some(self, *, is_idle: bool) -> None:
        with self._lock:
            keys = self._inbox.due_reports(time.monotonic(), is_idle=is_idle)
        self._send_report(keys)

    def _next(self) -> list[Handler] | None:
        """Take the first message, for its handlers or the streams; None when there is none to take.

        The message is `_running` when it has handlers.
        """
        self._handlers_thread = threading.get_ident()
        with self._lock:
            entry = self._inbox.first
            if entry is None or (
                entry.is_stored and (self._gives_until.has_passed or not self._listens())
            ):
                return None
            message = entry.message
            handlers, queues = self._listeners.take(EVENT)
            event = ReceivedEvent(EVENT, (message.message, message.peer_id, message.message_props))
            if handlers or not entry.is_stored:
                for queue in queues:
                    queue.put(event)
                self._inbox.take_first()
                self._running = entry if handlers else None
                return handlers
            is_alone = len(queues) == 1
            if not all(queue.has_room(is_alone=is_alone) for queue in queues):
                return None  # until each has room: none misses a stored message
            streams = sum([queue.put(event, entry) for queue in queues])
            if not streams:
                return None  # they were closed
            self._inbox.take_first(streams)
            return []

    def _listens(self) -> bool:
        return self._listeners.exist(EVENT)

    def _send_report(self, keys: Sequence[int]) -> None:
        for start in range(0, len(keys), _REPORT_LIMIT):
            self._transport.messages_handled(keys[start : start + _REPORT_LIMIT])


class _LatestState:
    """Tells each change of a state; the latest one last, whichever threads see them."""

    def __init__(self, tell: Callable[[bool], object]) -> None:
        self._tell = tell
        self._lock = threading.Lock()  # guards all below; not held while telling
        self._told: bool | None = None
        self._is_telling = False
        self._must_look_again = False

    def tell(self, read: Callable[[], bool]) -> None:
        """Read the state, and tell it when it has changed. Does not wait for another thread."""
        with self._lock:
            self._must_look_again = True
            if self._is_telling:
                return
            self._is_telling = True
        try:
            while True:
                with self._lock:
                    if not self._must_look_again:
                        self._is_telling = False
                        return
                    self._must_look_again = False
                state = read()
                if state is not self._told:
                    self._tell(state)
                    self._told = state
        except BaseException:  # Ctrl-C
            with self._lock:
                self._is_telling = False
            raise
