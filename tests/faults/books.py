"""The books of a chaos run: what senders were told, what applications were given, and the verdict.

No I/O. Each client process writes lines of JSON, `Books` takes them as dictionaries, and `balance`
says what is wrong. Times are of the monotonic clock, which the processes of one machine share.
"""

from __future__ import annotations

import enum
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_SHOWN = 12  # numbers in one sentence


class End(enum.Enum):
    """How the life of a client process ended."""

    CRASHED = "crashed"  # by a signal
    CUT_OFF = "cut off"  # it closed its client without a connection, so that no report arrived
    CLOSED = "closed"  # in order, over a connection that worked


@dataclass(eq=False)
class Life:
    """One process of a user's client: the first has number 0."""

    uid: str
    number: int
    end: End = End.CRASHED
    joined_at: float | None = None  # the room
    saw_the_end: bool = False  # it lived until all senders were done, and nothing more came

    def __str__(self) -> str:
        return f"{self.uid}, life {self.number}"


@dataclass(frozen=True)
class Given:
    """A handler was called with a message."""

    life: Life
    number: int
    is_redelivered: bool


@dataclass
class Account:
    """Messages from one sender to one receiver."""

    sender: str
    receiver: str
    tried: dict[int, list[float]] = field(default_factory=dict)  # when each was sent
    kept: set[int] = field(default_factory=set)  # sent with `enable_offline_messaging`
    answers: dict[int, tuple[str, float]] = field(default_factory=dict)
    given: list[Given] = field(default_factory=list)
    handled: set[int] = field(default_factory=set)  # handlers that returned
    wrong_ids: set[int] = field(default_factory=set)

    def __str__(self) -> str:
        return f"{self.sender} to {self.receiver}"

    def acknowledged(self) -> set[int]:
        return {number for number, (how, _) in self.answers.items() if how != "refused"}

    def problems(
        self, gateway_ended: Iterable[float], lives: Iterable[Life], counts: Counter[str]
    ) -> Iterator[str]:
        """What is wrong, in sentences. Adds to the counts.

        Args:
            gateway_ended: when the gateway was killed or restarted.
            lives: the processes of all users.
            counts: how much there was of what.
        """
        acknowledged = self.acknowledged()
        counts["messages acknowledged"] += len(acknowledged)
        counts["messages acknowledged and kept"] += len(acknowledged & self.kept)
        counts["messages sent again"] += sum(len(times) - 1 for times in self.tried.values())
        for how, _ in self.answers.values():
            counts[f"answered with {how}"] += 1
        has_ended_early = any(life.uid == self.receiver and not life.saw_the_end for life in lives)
        yield from self._losses(acknowledged, has_ended_early, counts)
        first = list(dict.fromkeys(given.number for given in self.given))
        early = [(a, b) for a, b in itertools.pairwise(first) if b < a]
        if early:
            counts["reordered"] += len(early)
            yield f"{self}: out of order {early[:_SHOWN]}"
        strange = set(first) - self.tried.keys()
        if strange:
            yield f"{self}: never sent {_some(strange)}"
        if self.wrong_ids:
            yield f"{self}: with another message id {_some(self.wrong_ids)}"
        yield from self._copies(sorted(gateway_ended), counts)

    def _losses(
        self, acknowledged: set[int], has_ended_early: bool, counts: Counter[str]
    ) -> Iterator[str]:
        missing = acknowledged - self.handled
        lost = missing & self.kept
        counts["acknowledged, kept and lost"] += len(lost)
        if lost:
            yield f"{self}: kept and lost {_some(lost)} of {len(acknowledged & self.kept)}"
        plain = missing - self.kept
        counts["plain messages lost with the end of a receiver"] += len(plain)
        if plain and not has_ended_early:
            yield f"{self}: plain and lost {_some(plain)}, and no receiver ended"

    def _copies(self, gateway_ended: list[float], counts: Counter[str]) -> Iterator[str]:
        times: dict[int, list[Given]] = {}
        for given in self.given:
            times.setdefault(given.number, []).append(given)
        for number, copies in times.items():
            for before, after in itertools.pairwise(copies):
                if before.life is after.life:
                    yield f"{self}: {number} twice in one process ({before.life})"
                elif self._is_announced(before, after):
                    counts[f"given again and marked, client {before.life.end.value}"] += 1
                elif number not in self.kept and self._was_sent_anew(number, gateway_ended):
                    counts["plain copies, sent again after the gateway's end"] += 1
                elif number not in self.kept:
                    yield f"{self}: {number} twice, and not kept"
                elif before.life.end is End.CLOSED:
                    yield f"{self}: {number} twice without a crash ({before.life})"
                else:
                    yield f"{self}: {number} twice and not marked ({after.life})"

    def _is_announced(self, before: Given, after: Given) -> bool:
        """Whether a copy is one that the promise allows."""
        is_kept = before.number in self.kept
        return is_kept and before.life.end is not End.CLOSED and after.is_redelivered

    def _was_sent_anew(self, number: int, gateway_ended: list[float]) -> bool:
        """Whether the sender sent it again to a gateway that had forgotten the first."""
        tried = self.tried.get(number, [])
        return any(a <= ended <= b for a, b in itertools.pairwise(tried) for ended in gateway_ended)


@dataclass
class Room:
    """The messages of one sender to the channel, and which member's process saw which."""

    sender: str
    tried: dict[int, float] = field(default_factory=dict)  # when each was first sent
    answers: set[int] = field(default_factory=set)
    seen: dict[Life, list[int]] = field(default_factory=dict)

    def problems(self, lives: Iterable[Life], counts: Counter[str]) -> Iterator[str]:
        """What is wrong for members: each has to see what was first sent after it had joined.

        A process that ended early need not have seen what came after the last that it saw.
        """
        counts["channel messages acknowledged"] += len(self.answers)
        for life in lives:
            if life.joined_at is None or life.uid == self.sender:
                continue
            seen = self.seen.get(life, [])
            counts["channel messages seen"] += len(seen)
            name = f"{self.sender} in the room, to {life}"
            last = max(seen, default=-1)
            lost = {
                number
                for number in self.answers
                if self.tried[number] > life.joined_at and (life.saw_the_end or number < last)
            } - set(seen)
            counts["channel messages acknowledged and lost"] += len(lost)
            if lost:
                yield f"{name}: lost {_some(lost)}"
            if any(b <= a for a, b in itertools.pairwise(seen)):
                yield f"{name}: twice or out of order"


class Books:
    """All accounts of a run."""

    def __init__(self) -> None:
        self.lives: list[Life] = []  # those of a user in the order of time
        self.gateway_ended: list[float] = []  # times
        self._accounts: dict[tuple[str, str], Account] = {}
        self._rooms: dict[str, Room] = {}
        self._noted: list[str] = []  # what processes reported

    def account(self, sender: str, receiver: str) -> Account:
        """The account of one sender and one receiver."""
        return self._accounts.setdefault((sender, receiver), Account(sender, receiver))

    def room(self, sender: str) -> Room:
        """The account of one sender's channel messages."""
        return self._rooms.setdefault(sender, Room(sender))

    def enter_sent(self, uid: str, entry: Mapping[str, Any]) -> None:
        """A line of a sender's book: a message was sent, or its sender was told what became of it.

        Its `to` is the receiver, or None for the room.
        """
        what, number, at = entry["what"], entry["number"], entry["at"]
        if entry["to"] is None:
            room = self.room(uid)
            if what == "tried":
                room.tried.setdefault(number, at)
            else:
                room.answers.add(number)
            return
        account = self.account(uid, entry["to"])
        if what == "tried":
            account.tried.setdefault(number, []).append(at)
            if entry["kept"]:
                account.kept.add(number)
        else:
            account.answers[number] = entry["how"], at

    def enter_given(self, life: Life, entry: Mapping[str, Any]) -> None:
        """A line of the book of one process: what its application was given, and did."""
        what = entry["what"]
        if what == "joined":
            life.joined_at = entry["at"]
        elif what == "seen":
            self.room(entry["from"]).seen.setdefault(life, []).append(entry["number"])
        elif what == "given":
            number = entry["number"]
            account = self.account(entry["from"], life.uid)
            account.given.append(Given(life, number, entry["redelivered"]))
            if entry["id"] != message_id(entry["from"], life.uid, number):
                account.wrong_ids.add(number)
        elif what == "handled":
            self.account(entry["from"], life.uid).handled.add(entry["number"])
        elif what == "problem":
            self._noted.append(f"{life}: {entry['problem']}")

    def balance(self) -> tuple[list[str], Counter[str]]:
        """What is wrong, and how much of what there was."""
        counts: Counter[str] = Counter()
        problems = list(self._noted)
        for account in self._accounts.values():
            problems += account.problems(self.gateway_ended, self.lives, counts)
        for room in self._rooms.values():
            problems += room.problems(self.lives, counts)
        counts["processes"] = len(self.lives)
        return problems, counts


def message_id(sender: str, receiver: str, number: int) -> str:
    """The id of a peer message."""
    return f"{sender}-{receiver}-{number}"


def _some(numbers: Iterable[int]) -> str:
    return str(sorted(numbers)[:_SHOWN])
