"""Event handlers and the one thread that runs them."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, TypeVar, overload

from ..rules.timing import Deadline
from ..supervision import BackgroundThread, supervised_thread
from .inbox import Entry
from .listeners import Handler, Listeners, ReceivedEvent, StreamQueue, run_handlers

logger = logging.getLogger(__name__)

_MAX_WAITING = 10_000

BareHandler: TypeAlias = Callable[[], object]
"""Handler of an event without arguments, such as `TokenExpired()`."""

H = TypeVar("H", bound=Handler)


def event_name(event: str, known: frozenset[str], owner: str) -> str:
    """The name of an event as the reference writes it, from either form.

    Raises:
        ValueError: `owner` has no such event; the message lists its events.
    """
    if event in known:
        return event
    # str(), because `@client.on` without its event passes the function
    camel = "".join(part.capitalize() for part in str(event).split("_"))
    if camel in known:
        return camel
    raise ValueError(f"{owner} has no event {event!r}; it has {', '.join(sorted(known))}.")


class EventEmitter:
    """Named events and their handlers (the reference's EventEmitter, in Python).

    Names are accepted as the reference writes them or in snake case: "MessageFromPeer" and
    "message_from_peer" are the same event. Handlers run one at a time on the client's dispatcher
    thread, in the order the events arrived; a handler may call any blocking method. An
    exception of a handler is reported, and does not affect other handlers. Thread-safe.
    """

    EVENTS: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._listeners = Listeners()

    @overload
    def on(self, event: str) -> Callable[[H], H]: ...
    @overload
    def on(self, event: str, handler: H) -> H: ...
    def on(self, event: str, handler: H | None = None) -> H | Callable[[H], H]:
        """Call `handler` at each `event`; without a handler, a decorator.

        Raises:
            ValueError: there is no such event.
        """
        if handler is None:
            name = self.event_name(event)
            return lambda decorated: self._add(name, decorated, once=False)
        return self._add(event, handler, once=False)

    def once(self, event: str, handler: H) -> H:
        """Call `handler` at the next `event` only."""
        return self._add(event, handler, once=True)

    def off(self, event: str, handler: Handler) -> None:
        """Remove a handler (its latest registration); unknown ones are ignored."""
        self._listeners.remove(self.event_name(event), handler)
        self._listeners_changed()

    def remove_all_listeners(self, event: str | None = None) -> None:
        """Remove all handlers, of one event or of all."""
        self._listeners.remove_all(None if event is None else self.event_name(event))
        self._listeners_changed()

    def listeners(self, event: str) -> list[Handler]:
        """The handlers of an event, in calling order."""
        return self._listeners.handlers(self.event_name(event))

    def listener_count(self, event: str) -> int:
        """How many handlers an event has."""
        return len(self.listeners(event))

    def wait_for(
        self,
        event: str,
        timeout: float | None = 30.0,
        predicate: Callable[..., bool] | None = None,
    ) -> tuple[Any, ...]:
        """Block until the next `event` and return its arguments. For scripts; not for handlers.

        Only events that arrive after the call began count. Where that is a race, begin `events()`
        before the cause. A message that was sent with `enable_offline_messaging` and that nobody
        has handled counts as well, and the returned one is handled then.

        Args:
            timeout: seconds; None waits for ever.
            predicate: called with the event's arguments; events for which it is false do not count.
                Such a message is not handled: it waits for the next handler, stream or call.
                A client has at most 1,000 messages that wait so: more are not offered to it.

        Raises:
            TimeoutError: no event came in time, or before the client was closed.
        """
        chosen = frozenset({self.event_name(event)})
        refused = 0
        with EventStream(self, chosen, _MAX_WAITING, prefetch=1) as arriving:
            for received, entry in arriving.take_until(timeout):
                if predicate is None or predicate(*received.args):
                    arriving.hand_out(entry)  # no other thread closes this stream
                    return received.args
                refused += entry is not None
        when = (
            "before the client was closed"
            if self._listeners.have_ended
            else f"within {timeout} seconds"
        )
        advice = ""
        if refused:
            advice = (
                f" {refused:,} messages that the predicate refused still wait, and when these are "
                "1,000 they keep back newer ones: handle them with a handler, events() or "
                "wait_for() without a predicate."
            )
        raise TimeoutError(f"No {event} {when}.{advice}")

    def events(self, *names: str, max_waiting: int = _MAX_WAITING) -> EventStream:
        """An iterator over the named events from now on; over all events when no name is given.

        Use it as a context manager. It collects events until it or the client is closed. The
        iteration begins with the messages that were sent with `enable_offline_messaging` and that
        nobody has handled. Such a message is handled when the iterator returns it, unless there are
        handlers as well. Those that it has not returned when it is closed wait for the next
        handler, stream or `wait_for`.

        Args:
            max_waiting: the bound of the queue. A full queue drops its oldest event, but no message
                that was sent with `enable_offline_messaging`: those wait until it has room, and a
                stream that is not read keeps them back for the other streams as well.
        """
        chosen = frozenset(self.event_name(name) for name in names) or self.EVENTS
        return EventStream(self, chosen, max_waiting)

    def emit(self, event: str, *args: Any, on_error: Callable[[BaseException], object]) -> None:
        """Run the handlers of an event, now, on this thread."""
        handlers, queues = self._listeners.take(event)
        for stream in queues:
            stream.put(ReceivedEvent(event, args))
        run_handlers(handlers, args, on_error)

    def _add(self, event: str, handler: H, *, once: bool) -> H:
        name = self.event_name(event)
        if not callable(handler):
            raise TypeError(f"The handler of {name} must be callable, not {handler!r}.")
        self._listeners.add(name, handler, once=once)
        self._listeners_changed()
        return handler

    def _listeners_changed(self) -> None:
        """There are other handlers or streams than before. Called without a lock held."""

    @classmethod
    def event_name(cls, event: str) -> str:
        """The event's name as the reference writes it.

        Raises:
            ValueError: there is no such event.
        """
        return event_name(event, cls.EVENTS, cls.__name__)

    def end_streams(self) -> None:
        """End all waits and iterations; no more events will come (not for applications)."""
        self._listeners.end()

    def _listen(self, waiter: StreamQueue) -> None:
        self._listeners.open(waiter)
        self._listeners_changed()

    # The next three methods are for stored messages in streams, which only a client has.

    def _stream_took(self) -> None:
        """A stream has room for one more event."""

    def _stream_handed_out(self, entry: Entry) -> None:
        """A stream has returned a message to the application."""

    def _stream_closed(self, waiter: StreamQueue, held: list[Entry]) -> None:
        """A stream is closed, and gives up the messages that it took and did not hand out."""
        self._listeners.close(waiter)


class EventStream:
    """Events of one emitter as an iterator: `for event in client.events("MessageFromPeer")`."""

    def __init__(
        self,
        emitter: EventEmitter,
        names: frozenset[str],
        max_waiting: int,
        prefetch: int = _MAX_WAITING,
    ) -> None:
        self._emitter = emitter
        self._held: list[Entry] = []  # taken and not handed out
        self._waiter = StreamQueue(names, max_waiting, prefetch)
        emitter._listen(self._waiter)

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[ReceivedEvent]:
        return self.until(None)

    def until(self, timeout: float | None) -> Iterator[ReceivedEvent]:
        """Iterate for at most `timeout` seconds in all."""
        for event, entry in self.take_until(timeout):
            if self.hand_out(entry):
                yield event

    def take_until(self, timeout: float | None) -> Iterator[tuple[ReceivedEvent, Entry | None]]:
        """As `until`, but `hand_out` has to follow for each event (not for applications)."""
        deadline = Deadline(timeout)
        while True:
            item = self._waiter.get(deadline.timeout)
            if item is None:
                return
            if item[1] is not None:
                self._held.append(item[1])
            self._emitter._stream_took()
            yield item

    def hand_out(self, entry: Entry | None) -> bool:
        """The application gets an event that was taken (not for applications).

        Returns False when the stream was closed meanwhile and has given up the message.
        """
        if entry is not None:
            try:
                self._held.remove(entry)
            except ValueError:
                return False
            self._emitter._stream_handed_out(entry)
        return True

    def close(self) -> None:
        """Stop collecting. An iteration gets the events that were collected, and then ends.

        Messages that were sent with `enable_offline_messaging` are not among them: they wait for
        the next handler, stream or `wait_for`.
        """
        held = []
        with contextlib.suppress(IndexError):
            while True:  # one at a time: another thread may hand one out, or this one gives it up
                held.append(self._held.pop())
        self._emitter._stream_closed(self._waiter, held)


class Dispatcher:
    """Runs the application's handlers, one at a time, in the order events arrived.

    Owns one daemon thread, started by `start()` or the first event and ended by `close()`. Never
    called with a lock held. A handler may call any blocking method of the client, `close()`
    included.

    Args:
        max_waiting: bound of the queue; `submit` refuses beyond it.
    """

    def __init__(self, max_waiting: int = 10_000) -> None:
        self._max_waiting = max_waiting
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards _closed and putting calls into _queue
        self._closed = False
        self._stopping = threading.Event()
        self._thread = BackgroundThread("rtm-sync-dispatcher", self._run)

    @property
    def backlog(self) -> int:
        """The number of queued calls."""
        return self._queue.qsize()

    def start(self) -> None:
        """Start the thread, unless it runs or `close` was called.

        Raises:
            RuntimeError: the system allows no more threads.
        """
        with self._lock:
            if not self._closed:
                self._thread.start()

    def submit(self, run: Callable[[], object]) -> bool:
        """Queue a call; False when the queue is full or closed, or the thread cannot be started.

        Never blocks.
        """
        try:
            self.start()
        except RuntimeError as error:
            logger.error("an event was not queued: %s", error)  # noqa: TRY400  not our bug
            return False
        with self._lock:
            if self._closed or self._queue.qsize() >= self._max_waiting:
                return False
            self._queue.put(run)  # with the lock: no call may come after the end mark
        return True

    def close(self, drain: float = 1.0, timeout: float = 5.0) -> None:
        """Refuse new calls, run the queued calls for up to `drain` seconds, and end. Idempotent.

        Called from a handler, it returns at once; the thread ends after the handler and the queued
        calls.
        """
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)  # the end mark, which the bound does not count
        self._thread.join(drain)
        if self._thread.is_alive and not self._thread.is_current:
            self._stopping.set()
            self._drop_waiting()
            self._queue.put(None)
            self._thread.join(timeout - drain)

    def drain(self, timeout: float) -> None:
        """Wait until the queued calls have run, at most `timeout` seconds.

        Called from a handler, it returns at once.
        """
        if not self._thread.is_alive or self._thread.is_current:
            return
        done = threading.Event()
        with self._lock:
            if self._closed:
                return
            self._queue.put(done.set)  # one beyond the bound, as the end mark
        done.wait(timeout)

    def _drop_waiting(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()

    def _run(self) -> None:
        supervised_thread("dispatcher", self._run_calls, self._stopping)

    def _run_calls(self) -> None:
        while (run := self._next_call()) is not None:
            try:
                run()
            except BaseException:
                logger.exception("dispatching an event failed")

    def _next_call(self) -> Callable[[], object] | None:
        """Wait for the next call; None is the end mark."""
        return self._queue.get()
