"""Event handlers and the one thread that runs them."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias, TypeVar, overload

from ..rules.timing import Deadline
from ..supervision import BackgroundThread, supervised_thread

logger = logging.getLogger(__name__)

Handler = Callable[..., object]
BareHandler: TypeAlias = Callable[[], object]
"""Handler of an event without arguments, such as `TokenExpired()`."""

H = TypeVar("H", bound=Handler)


class ReceivedEvent(NamedTuple):
    """One event as `wait_for` and `events()` give it: its name and its handler arguments."""

    name: str
    args: tuple[Any, ...]


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
        self._handlers: dict[str, list[tuple[Handler, bool]]] = {}
        self._waiters: list[_Waiter] = []
        self._over = False
        self._events_lock = threading.Lock()  # guards _handlers, _waiters and _over

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
        name = self.event_name(event)
        with self._events_lock:
            handlers = self._handlers.get(name, [])
            for index in range(len(handlers) - 1, -1, -1):
                if handlers[index][0] == handler:
                    del handlers[index]
                    break

    def remove_all_listeners(self, event: str | None = None) -> None:
        """Remove all handlers, of one event or of all."""
        with self._events_lock:
            if event is None:
                self._handlers.clear()
            else:
                self._handlers.pop(self.event_name(event), None)

    def listeners(self, event: str) -> list[Handler]:
        """The handlers of an event, in calling order."""
        with self._events_lock:
            return [handler for handler, _ in self._handlers.get(self.event_name(event), [])]

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
        before the cause.

        Args:
            timeout: seconds; None waits for ever.
            predicate: called with the event's arguments; events for which it is false do not count.

        Raises:
            TimeoutError: no event came in time, or before the client was closed.
        """
        with self.events(event) as arriving:
            for received in arriving.until(timeout):
                if predicate is None or predicate(*received.args):
                    return received.args
        when = "before the client was closed" if self._over else f"within {timeout} seconds"
        raise TimeoutError(f"No {event} {when}.")

    def events(self, *names: str, max_waiting: int = 10_000) -> EventStream:
        """An iterator over the named events from now on; over all events when no name is given.

        Use it as a context manager. It collects events until it or the client is closed.

        Args:
            max_waiting: the bound of the queue; a full queue drops its oldest event.
        """
        chosen = frozenset(self.event_name(name) for name in names) or self.EVENTS
        return EventStream(self, chosen, max_waiting)

    def emit(self, event: str, *args: Any, on_error: Callable[[BaseException], object]) -> None:
        """Run the handlers of an event, now, on this thread."""
        with self._events_lock:
            handlers = self._handlers.get(event, [])
            chosen = [handler for handler, _ in handlers]
            self._handlers[event] = [entry for entry in handlers if not entry[1]]
            waiters = [waiter for waiter in self._waiters if event in waiter.names]
        for waiter in waiters:
            waiter.put(ReceivedEvent(event, args))
        for handler in chosen:
            try:
                handler(*args)
            except BaseException as error:  # such as sys.exit(), which must not end the thread
                on_error(error)

    def _add(self, event: str, handler: H, *, once: bool) -> H:
        name = self.event_name(event)
        if not callable(handler):
            raise TypeError(f"The handler of {name} must be callable, not {handler!r}.")
        with self._events_lock:
            self._handlers.setdefault(name, []).append((handler, once))
        return handler

    @classmethod
    def event_name(cls, event: str) -> str:
        """The event's name as the reference writes it.

        Raises:
            ValueError: there is no such event.
        """
        return event_name(event, cls.EVENTS, cls.__name__)

    def end_streams(self) -> None:
        """End all waits and iterations; no more events will come (not for applications)."""
        with self._events_lock:
            self._over = True
            waiters = list(self._waiters)
        for waiter in waiters:
            waiter.close()

    def _listen(self, waiter: _Waiter) -> None:
        with self._events_lock:
            self._waiters.append(waiter)
            over = self._over
        if over:
            waiter.close()

    def _unlisten(self, waiter: _Waiter) -> None:
        with self._events_lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)


class _Waiter:
    """A bounded queue of events for one `EventStream`."""

    def __init__(self, names: frozenset[str], max_waiting: int) -> None:
        self.names = names
        self._waiting: deque[ReceivedEvent] = deque(maxlen=max_waiting)
        self._closed = False
        self._changed = threading.Condition()  # guards _waiting and _closed

    def put(self, event: ReceivedEvent) -> None:
        with self._changed:
            self._waiting.append(event)
            self._changed.notify()

    def get(self, timeout: float | None) -> ReceivedEvent | None:
        """The next event; None after the time-out, and after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout)
            return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class EventStream:
    """Events of one emitter as an iterator: `for event in client.events("MessageFromPeer")`."""

    def __init__(self, emitter: EventEmitter, names: frozenset[str], max_waiting: int) -> None:
        self._emitter = emitter
        self._waiter = _Waiter(names, max_waiting)
        emitter._listen(self._waiter)

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[ReceivedEvent]:
        return self.until(None)

    def until(self, timeout: float | None) -> Iterator[ReceivedEvent]:
        """Iterate for at most `timeout` seconds in all."""
        deadline = Deadline(timeout)
        while True:
            event = self._waiter.get(deadline.timeout)
            if event is None:
                return
            yield event

    def close(self) -> None:
        """Stop collecting. An iteration gets the events that were collected, and then ends."""
        self._emitter._unlisten(self._waiter)
        self._waiter.close()


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
