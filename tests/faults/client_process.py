"""One client as a process that may be killed at any moment, and what it writes into its books.

`python -m tests.faults.client_process JSON`, with the fields of `Orders`. A line on standard input
is a command: "finish" (begin no further message), "go" (let the handlers return), "close" (close
the client and end). The end of standard input ends the process at once.

It sends numbered messages to each peer and to the room, one after the other, each under its own id
until it is answered. What a killed process had begun, the next one sends again: it reads the user's
book. Every line of a book is one `write` to the system, which outlives the process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rtm_sync import ChannelMessageError, ConnectionState, RtmClient, RtmError
from tests.faults.books import message_id

APP = "chaos"
ROOM = "room"
MOST_CACHED = 80  # kept messages in a row that the receiver did not have; a user keeps 200
_PING = {"ping_interval": 0.1, "ping_timeout": 0.3}  # shorter than many of the stalls
_PASSING = frozenset({"TIMEOUT", "FAILURE", "UNKNOWN", "TOO_OFTEN", "USER_NOT_LOGGED_IN"})


@dataclasses.dataclass(frozen=True)
class Orders:
    """What one process is to do.

    Attributes:
        url: the gateway's, or a proxy's.
        uid: the user.
        life: the number of the user's process.
        folder: of the books.
        seed: decides pauses and time-outs.
        peers: to whom it sends; empty for a process that only listens.
        in_room: whether it joins the room, and sends there when it sends at all.
        holds: whether handlers wait for the command "go".
    """

    url: str
    uid: str
    life: int
    folder: str
    seed: int
    peers: tuple[str, ...] = ()
    in_room: bool = False
    holds: bool = False


class Book:
    """A file to which lines are added."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, what: str, **entry: object) -> None:
        """Add a line."""
        line = {"what": what, "at": time.monotonic(), **entry}
        os.write(self._file, (json.dumps(line) + "\n").encode())


def read_book(path: Path) -> list[dict[str, Any]]:
    """The lines of a book; none where there is no file yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def sent_path(folder: str, uid: str) -> Path:
    """The book of all that a user sent."""
    return Path(folder, f"{uid}.sent")


def given_path(folder: str, uid: str, life: int) -> Path:
    """The book of what one process was given."""
    return Path(folder, f"{uid}.{life}.given")


class ClientProcess:
    """The process's work."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._before = read_book(sent_path(orders.folder, orders.uid))
        self._sent = Book(sent_path(orders.folder, orders.uid))
        self._given = Book(given_path(orders.folder, orders.uid, orders.life))
        self._chance = random.Random(f"{orders.seed} {orders.uid} {orders.life}")
        self._finishing = threading.Event()  # no further message is begun
        self._closing = threading.Event()
        self._may_return = threading.Event()
        if not orders.holds:
            self._may_return.set()
        self._client = RtmClient(APP, url=orders.url, **_PING)  # type: ignore[arg-type]
        self._client.on("MessageFromPeer", self._from_peer)
        self._channel = self._client.create_channel(ROOM)
        if orders.in_room:
            self._channel.on("ChannelMessage", self._from_room)
            self._channel.on("Reconnected", self._reconnected)

    def run(self) -> None:
        """Work until standard input says "close"."""
        threading.Thread(target=self._obey, daemon=True).start()
        self._until_it_works(lambda: self._client.login(self._orders.uid))
        senders = [
            threading.Thread(target=self._guarded, args=(peer,)) for peer in self._orders.peers
        ]
        if self._orders.in_room:
            self._until_it_works(self._channel.join)
            self._given.write("joined")
            if self._orders.peers:
                senders.append(threading.Thread(target=self._guarded, args=(None,)))
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        self._given.write("finished")
        self._closing.wait()
        is_connected = self._client.connection_state is ConnectionState.CONNECTED
        self._given.write("closing", connected=is_connected)
        self._client.close()

    def _obey(self) -> None:
        for line in sys.stdin:
            command = line.strip()
            if command == "go":
                self._may_return.set()
            else:
                self._finishing.set()
            if command == "close":
                self._closing.set()
        if not self._closing.is_set():
            os._exit(1)

    def _until_it_works(self, call: Any) -> None:
        while not self._closing.is_set():
            try:
                call()
            except RtmError as error:
                self._expect(error)
                self._closing.wait(0.1)
            else:
                return

    def _expect(self, error: RtmError) -> None:
        if error.reason not in _PASSING:
            self._given.write("problem", problem=f"unexpected: {error!r}")

    # -- what comes --

    def _from_peer(self, message: Any, sender: str, props: Any) -> None:
        number = int(message.text)
        self._given.write(
            "given",
            number=number,
            id=props.message_id,
            redelivered=props.is_redelivered,
            offline=props.is_offline_message,
            **{"from": sender},
        )
        self._may_return.wait()
        if number % 8 == 7:  # some handlers take a while, so that other messages wait
            time.sleep(0.3 if number % 32 == 31 else 0.03)
        self._given.write("handled", number=number, **{"from": sender})

    def _from_room(self, message: Any, sender: str, _: object) -> None:
        if sender != self._orders.uid:
            self._given.write("seen", number=int(message.text), **{"from": sender})

    def _reconnected(self, recovered: bool) -> None:
        if not recovered:
            self._given.write("problem", problem="the channel was not recovered")

    # -- what is sent --

    def _guarded(self, to: str | None) -> None:
        try:
            self._send(to)
        except BaseException as error:  # the book must tell, whatever it is
            self._given.write("problem", problem=f"sending to {to} died: {error!r}")

    def _send(self, to: str | None) -> None:
        mine = [entry for entry in self._before if entry["to"] == to]
        number, kept, is_open = -1, False, False
        cached = 0  # in a row
        for entry in mine:
            if entry["what"] == "tried":
                number, kept, is_open = entry["number"], entry["kept"], True
            else:
                is_open = False
                cached = _in_a_row(cached, entry["how"])
        while is_open or not self._finishing.wait(self._chance.uniform(0, 0.02)):
            if not is_open:
                number += 1
                kept = self._chance.random() < 0.8 and cached < MOST_CACHED
            how = self._until_answered(to, number, kept)
            if how is None:
                return
            self._sent.write("answered", to=to, number=number, kept=kept, how=how)
            cached = _in_a_row(cached, how)
            is_open = False

    def _until_answered(self, to: str | None, number: int, kept: bool) -> str | None:
        while not self._closing.is_set():
            self._sent.write("tried", to=to, number=number, kept=kept)
            timeout = self._chance.choice([0.1, 0.5, 3.0])  # the short ones end in many copies
            try:
                return self._once(to, number, kept, timeout)
            except RtmError as error:
                if isinstance(error, ChannelMessageError) and error.reason == "NOT_IN_CHANNEL":
                    self._given.write("problem", problem="was told that it is not in the channel")
                    with contextlib.suppress(RtmError):
                        self._channel.join()
                else:
                    self._expect(error)
                self._closing.wait(0.02)
        return None

    def _once(self, to: str | None, number: int, kept: bool, timeout: float) -> str:
        if to is None:
            self._channel.send_message(
                str(number), message_id=f"room-{self._orders.uid}-{number}", timeout=timeout
            )
            return "accepted"
        result = self._client.send_message_to_peer(
            str(number),
            to,
            message_id=message_id(self._orders.uid, to, number),
            timeout=timeout,
            enable_offline_messaging=kept,
        )
        if result.has_peer_received:
            return "received"
        return "cached" if result.cached_by_server else "refused"


def _in_a_row(cached: int, how: str) -> int:
    if how == "received":
        return 0
    return cached + (how == "cached")


def main() -> None:
    fields = json.loads(sys.argv[1])
    ClientProcess(Orders(**{**fields, "peers": tuple(fields["peers"])})).run()


if __name__ == "__main__":
    main()
