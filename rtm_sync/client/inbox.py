"""The messages from peers that have arrived at one client and are not handled yet. No I/O."""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..protocol.requests import MessageFromPeer

REPORT_KEYS = 64  # handled messages that are reported at once
REPORT_EVERY = 0.02  # seconds; a report at most, unless there are many keys
_REMEMBERED = 2000  # handled messages. A hub offers at most 1,000 that are not handled.


@dataclass(eq=False, slots=True)
class Entry:
    """One message in the client.

    Attributes:
        number: its place in the order of arrival.
        message: the message.
        keys: the keys under which the hub has offered it in this session.
        streams: the number of event streams that hold it and have not handed it out.
    """

    number: int
    message: MessageFromPeer
    keys: set[int] = field(default_factory=set)
    streams: int = 0

    @property
    def is_stored(self) -> bool:
        """Whether the hub keeps the message until it is reported as handled."""
        return self.message.key is not None

    @property
    def name(self) -> tuple[str, str]:
        """The sender and the message id: two messages with one name are copies."""
        return self.message.peer_id, self.message.message_id


class Arrival(enum.Enum):
    """The fate of a message that arrived."""

    NEW = enum.auto()  # it waits now
    KNOWN = enum.auto()  # it waits already, or was handled: no second copy
    REFUSED = enum.auto()  # no room, or an earlier one was refused: the hub offers it again


class Inbox:
    """Waiting messages in the order of their arrival, and what was handled. Not thread-safe.

    A message waits, then a handler or event streams hold it, then it is handled or waits again. The
    client gives a message to its application in its turn: `turn_came` says that the events before
    it were handled. A message whose turn came and that nobody takes stays the first.

    Args:
        most: the most messages that wait.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._uid: str | None = None
        self._takes = False
        self._number = 0
        self._turns = 0  # messages whose turn has come, and that still wait
        self._waiting: deque[Entry] = deque()
        self._known: dict[tuple[str, str], Entry] = {}  # stored ones, waiting or held
        self._handled: OrderedDict[tuple[str, str], None] = OrderedDict()  # stored ones, the latest
        self._refused_up_to: int | None = None  # the key of the latest refused message
        self._reports: list[int] = []
        self._reported_at = float("-inf")

    # -- sessions --

    def begin_session(self, uid: str) -> None:
        """A login begins. Another user's client begins with nothing."""
        if uid != self._uid:
            self._forget_waiting()
            self._known.clear()
            self._handled.clear()
        self._uid = uid
        self._reports.clear()
        self._takes = True
        self.session_was_renewed()

    def session_was_renewed(self) -> None:
        """The hub begins anew, and will offer all that it has."""
        self._refused_up_to = None

    def stop_taking(self) -> None:
        """Refuse further messages: the client is about to log out.

        Messages that are not stored as well, which would overtake the refused ones.
        """
        self._takes = False

    def end_session(self, held: Iterable[Entry]) -> list[int]:
        """Forget the stored messages that wait, which the hub has as well.

        What the same sender sent after them goes as well, so that it does not overtake them.
        Messages whose handlers run stay known, so that the next session does not get them twice.

        Args:
            held: what the event streams have given up.

        Returns:
            The keys to report before the session ends.
        """
        self._takes = False
        held = list(held)
        for entry in [*self._waiting, *held]:
            self._known.pop(entry.name, None)
        for entry in self._known.values():
            entry.keys.clear()
        self._forget_waiting(held)
        return self.take_reports()

    def _forget_waiting(self, held: Iterable[Entry] = ()) -> None:
        senders = {entry.message.peer_id for entry in held if entry.is_stored}
        left: deque[Entry] = deque()
        for entry in self._waiting:
            if entry.is_stored:
                senders.add(entry.message.peer_id)
            elif entry.message.peer_id not in senders:
                left.append(entry)
        self._waiting = left
        self._turns = min(self._turns, len(left))

    # -- arrival --

    def arrived(self, message: MessageFromPeer) -> tuple[Arrival, Entry | None]:
        """A message arrived. Returns what became of it, and the entry of a new one."""
        key = message.key
        name = message.peer_id, message.message_id
        known = self._known.get(name)
        if known is not None:
            if key is not None:
                known.keys.add(key)
            return Arrival.KNOWN, None
        if key is not None:
            if name in self._handled:
                self._reports.append(key)
                return Arrival.KNOWN, None
            if self._refused_up_to is not None and key <= self._refused_up_to:
                self._refused_up_to = None  # the hub has begun again
        if not self._takes:
            return Arrival.REFUSED, None
        if self._refused_up_to is not None or len(self._waiting) >= self._most:
            self._refuse(message)
            return Arrival.REFUSED, None
        self._number += 1
        entry = Entry(self._number, message)
        if key is not None:
            entry.keys.add(key)
            self._known[entry.name] = entry
        self._waiting.append(entry)
        return Arrival.NEW, entry

    def withdraw(self, entry: Entry) -> None:
        """Refuse a message after all: its turn cannot be queued."""
        if entry in self._waiting:
            self._waiting.remove(entry)
            self._known.pop(entry.name, None)
        self._refuse(entry.message)

    def _refuse(self, message: MessageFromPeer) -> None:
        """Remember a refusal: what comes after a refused message must not overtake it.

        A message that is not stored does not come again, and its sender knows.
        """
        if message.key is not None:
            self._refused_up_to = max(message.key, self._refused_up_to or message.key)

    # -- the application --

    def turn_came(self) -> None:
        """The events that arrived before one more message are handled."""
        self._turns = min(self._turns + 1, len(self._waiting))

    @property
    def first(self) -> Entry | None:
        """The message to give to the application next, if its turn has come."""
        return self._waiting[0] if self._turns else None

    def take_first(self, streams: int = 0) -> Entry:
        """Give the first message to handlers, or to that many streams."""
        self._turns -= 1
        entry = self._waiting.popleft()
        entry.streams = streams
        return entry

    def give_back(self, entries: Iterable[Entry]) -> None:
        """A stream gives up messages that it did not hand out.

        What no other stream holds waits again, in its old place, before anything newer.
        """
        for entry in entries:
            entry.streams -= 1
            if entry.streams <= 0 and self._known.get(entry.name) is entry:
                self._waiting.appendleft(entry)
                self._turns += 1
        self._waiting = deque(sorted(self._waiting, key=lambda entry: entry.number))

    def handled(self, entry: Entry) -> None:
        """The application has handled a message; further calls for it do nothing."""
        if self._known.get(entry.name) is not entry:
            return  # not stored, handled before, or of another user
        del self._known[entry.name]
        self._handled[entry.name] = None
        if len(self._handled) > _REMEMBERED:
            self._handled.popitem(last=False)
        self._reports.extend(entry.keys)

    # -- reports --

    def due_reports(self, now: float, *, is_idle: bool) -> list[int]:
        """The keys to report now, which is before the next handler starts.

        While further messages have their turn soon, those of a moment are reported together. What
        took longer than this moment is reported at once.

        Args:
            is_idle: none of the messages whose turn has come can be given out.
        """
        more_follow = len(self._waiting) > (self._turns if is_idle else 0)
        is_soon = now - self._reported_at < REPORT_EVERY
        if more_follow and is_soon and len(self._reports) < REPORT_KEYS:
            return []
        self._reported_at = now
        return self.take_reports()

    def take_reports(self) -> list[int]:
        """The keys of the handled messages that were not reported yet."""
        taken, self._reports = self._reports, []
        return taken
