"""The handlers and event streams of one emitter, and the queues of the streams."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from .inbox import Entry

Handler = Callable[..., object]


class ReceivedEvent(NamedTuple):
    """One event as `wait_for` and `events()` give it: its name and its handler arguments."""

    name: str
    args: tuple[Any, ...]


class Listeners:
    """The handlers and event streams of one emitter. Thread-safe."""

    def __init__(self) -> None:
        self._handlers: dict[str, list[tuple[Handler, bool]]] = {}
        self._queues: list[StreamQueue] = []
        self._have_ended = False
        self._lock = threading.Lock()  # guards all above

    @property
    def have_ended(self) -> bool:
        """Whether `end` was called."""
        return self._have_ended

    def add(self, name: str, handler: Handler, *, once: bool) -> None:
        """Add a handler of an event; `once` removes it when it is called."""
        with self._lock:
            self._handlers.setdefault(name, []).append((handler, once))

    def remove(self, name: str, handler: Handler) -> None:
        """Remove the latest registration of a handler; unknown ones are ignored."""
        with self._lock:
            handlers = self._handlers.get(name, [])
            for index in range(len(handlers) - 1, -1, -1):
                if handlers[index][0] == handler:
                    del handlers[index]
                    break

    def remove_all(self, name: str | None) -> None:
        """Remove the handlers of one event, or of all."""
        with self._lock:
            if name is None:
                self._handlers.clear()
            else:
                self._handlers.pop(name, None)

    def handlers(self, name: str) -> list[Handler]:
        """The handlers of an event, in calling order."""
        with self._lock:
            return [handler for handler, _ in self._handlers.get(name, [])]

    def have_handlers(self) -> bool:
        """Whether any event has a handler."""
        with self._lock:
            return any(self._handlers.values())

    def exist(self, name: str) -> bool:
        """Whether an event has handlers or streams."""
        with self._lock:
            return bool(self._handlers.get(name)) or any(
                name in queue.names for queue in self._queues
            )

    def take(self, name: str) -> tuple[list[Handler], list[StreamQueue]]:
        """The handlers and the streams for one event; the handlers of `once` are removed."""
        with self._lock:
            handlers = self._handlers.get(name, [])
            self._handlers[name] = [entry for entry in handlers if not entry[1]]
            queues = [queue for queue in self._queues if name in queue.names]
        return [handler for handler, _ in handlers], queues

    def queues(self) -> list[StreamQueue]:
        """The queues of the open streams."""
        with self._lock:
            return list(self._queues)

    def open(self, queue: StreamQueue) -> None:
        """Add a stream; after the end it is closed at once."""
        with self._lock:
            self._queues.append(queue)
            have_ended = self._have_ended
        if have_ended:
            queue.close()

    def close(self, queue: StreamQueue) -> None:
        """Remove a stream, and close its queue."""
        with self._lock:
            if queue in self._queues:
                self._queues.remove(queue)
        queue.close()

    def end(self) -> None:
        """Close all streams; no more events will come."""
        with self._lock:
            self._have_ended = True
            queues = list(self._queues)
        for queue in queues:
            queue.close()


class StreamQueue:
    """A bounded queue of events for one `EventStream`.

    Args:
        names: the events that it takes.
        max_waiting: the most events.
        prefetch: the most stored messages, where no other stream takes them.
    """

    def __init__(self, names: frozenset[str], max_waiting: int, prefetch: int) -> None:
        self.names = names
        self._max_waiting = max_waiting
        self._prefetch = prefetch
        self._waiting: deque[tuple[ReceivedEvent, Entry | None]] = deque()
        self._stored = 0  # of those waiting
        self._closed = False
        self._changed = threading.Condition()  # guards all above

    def has_room(self, *, is_alone: bool) -> bool:
        """Whether the queue takes one more stored message, or is closed and needs none.

        Only one thread puts stored messages into the queue, and asks before: room stays.

        Args:
            is_alone: no other stream takes the message.
        """
        with self._changed:
            most = min(self._prefetch, self._max_waiting) if is_alone else self._max_waiting
            return self._closed or self._stored < most

    def put(self, event: ReceivedEvent, entry: Entry | None = None) -> bool:
        """Add an event. A full queue drops the oldest that is not a stored message.

        Args:
            event: the event.
            entry: its stored message.

        Returns:
            False when the queue is closed, or full of stored messages; the event was not added.
        """
        with self._changed:
            if self._closed:
                return False
            if len(self._waiting) >= self._max_waiting and not self._drop_oldest():
                return False
            self._waiting.append((event, entry))
            self._stored += entry is not None
            self._changed.notify()
            return True

    def get(self, timeout: float | None) -> tuple[ReceivedEvent, Entry | None] | None:
        """The next event; None after the time-out, and after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout)
            if not self._waiting:
                return None
            event, entry = self._waiting.popleft()
            self._stored -= entry is not None
            return event, entry

    def give_up_stored(self) -> list[Entry]:
        """Remove the stored messages."""
        with self._changed:
            stored = [entry for _, entry in self._waiting if entry is not None]
            self._waiting = deque(item for item in self._waiting if item[1] is None)
            self._stored = 0
            return stored

    def close(self) -> None:
        """Take no more events; `get` returns those that wait, and then None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _drop_oldest(self) -> bool:
        if self._stored == len(self._waiting):
            return False
        for index, (_, entry) in enumerate(self._waiting):
            if entry is None:
                del self._waiting[index]
                break
        return True


def run_handlers(
    handlers: list[Handler], args: tuple[Any, ...], on_error: Callable[[BaseException], object]
) -> None:
    """Call each handler; report the exceptions."""
    for handler in handlers:
        try:
            handler(*args)
        except BaseException as error:  # such as sys.exit(), which must not end the thread
            on_error(error)
