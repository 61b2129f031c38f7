"""Chaos from a seed: clients talk while everything between them fails, and all is accounted for.

Each client sits behind its own `FaultProxy`, which misbehaves every fraction of a second; peer
messages, channel messages, offline messages and media are sent throughout. In mode "gateway" the
gateway is killed, frozen and stopped as well; the sessions in its memory end with it.

Whoever sends goes on under the same message id until it is acknowledged. At the end everything
acknowledged must have arrived, once and in order, and no member of a channel may be told that it
has missed something (`Reconnected(recovered=False)`).

A seed repeats the faults and what is sent, not the moments at which threads run: a rare failure may
need several runs of its seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import queue
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rtm_sync import ChannelMessageError, RtmChannel, RtmClient, RtmError, RtmTextMessage
from rtm_sync.testing import FaultProxy, GatewayProcess, random_faults, wait_until

MODES = ("network", "gateway")
APP = "chaos"
ROOM = "room"
PATIENCE = 40.0  # seconds for what is under way to be done once the faults are over
OVERDUE = 3.0  # seconds beyond its own time-out that a call may take on a busy machine
LETTERS = 60  # offline messages for one receiver; 200 are kept
_PING = {"ping_interval": 0.1, "ping_timeout": 0.3}  # shorter than many of the stalls
_EXPECTED = frozenset({"TIMEOUT", "FAILURE"})  # what a call may say of a network that fails


@dataclass(frozen=True)
class Plan:
    """One run: what it is, from which seed, how long."""

    seed: int
    seconds: float
    mode: str = "network"
    clients: int = 4


@dataclass
class Report:
    """What happened. `problems` is what must be empty."""

    plan: Plan
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds beyond its time-out that a call took

    def __str__(self) -> str:
        plan = self.plan
        lines = [
            f"mode {plan.mode}, seed {plan.seed}, {plan.clients} clients, {plan.seconds:g} s",
            "  " + ", ".join(f"{count:,} {what}" for what, count in sorted(self.counts.items())),
            "  faults: "
            + ", ".join(f"{count:,} {what}" for what, count in sorted(self.faults.items())),
            *(f"  PROBLEM {problem}" for problem in self.problems),
        ]
        return "\n".join(lines)


class Sent:
    """Numbered messages of one sender to somebody, or to a channel."""

    def __init__(self) -> None:
        self.begun = -1  # the newest number
        self.acknowledged: list[int] = []


class Stream:
    """Numbered messages from one sender to one receiver, as both ends saw them."""

    def __init__(self, name: str, sent: Sent | None = None) -> None:
        self.name = name
        self.sent = sent or Sent()
        self.received: list[int] = []
        self._excused = -1  # the receiver knows that it may have missed these

    @property
    def is_complete(self) -> bool:
        return not self._lost()

    def excuse(self) -> None:
        """The receiver was told that it missed some: what was on its way until now, at most."""
        self._excused = self.sent.begun

    def problems(self) -> Iterator[str]:
        acknowledged = self.sent.acknowledged
        lost = self._lost()
        if lost:
            yield f"{self.name}: lost {sorted(lost)[:20]} of {len(acknowledged)} acknowledged"
        copies = [number for number, count in Counter(self.received).items() if count > 1]
        if copies:
            yield f"{self.name}: twice {copies[:20]}"
        early = [b for a, b in itertools.pairwise(self.received) if b < a]
        if early:
            yield f"{self.name}: too late {early[:20]}"

    def excused(self) -> int:
        """How many acknowledged messages the receiver missed, and knows it."""
        return len(self._missing()) - len(self._lost())

    def _missing(self) -> set[int]:
        return set(self.sent.acknowledged) - set(self.received)

    def _lost(self) -> set[int]:
        return {number for number in self._missing() if number > self._excused}


class User:
    """A client behind its own proxy."""

    def __init__(self, uid: str, proxy: FaultProxy) -> None:
        self.uid = uid
        self.proxy = proxy
        self.to_fetch: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._attempts = 0
        self.client = self.another()

    @property
    def reconnects(self) -> int:
        """Attempts to connect after the first."""
        return max(0, self._attempts - 1)

    def another(self) -> RtmClient:
        """A client behind the same proxy; its attempts to connect are counted."""
        return RtmClient(APP, url=self.proxy.url, token_provider=self._token, **_PING)

    def _token(self) -> str:
        self._attempts += 1
        return ""  # a gateway for trial looks at none


class Chaos:
    """One run. Owns its threads until `run` returns."""

    def __init__(self, plan: Plan, gateway: GatewayProcess) -> None:
        self.report = Report(plan)
        self._plan = plan
        self._gateway = gateway
        self._stopping = threading.Event()
        self._given_up = threading.Event()  # well after _stopping: no more patience
        self._lock = threading.Lock()  # guards the report's counts
        self._streams: list[Stream] = []
        self._stored: dict[str, str] = {}  # media id: SHA-256, acknowledged
        self._fetched: set[str] = set()

    def run(self) -> Report:
        plan = self._plan
        with contextlib.ExitStack() as stack:
            users = []
            for number in range(plan.clients):
                proxy = stack.enter_context(FaultProxy(self._gateway.url))
                user = User(f"user-{number}", proxy)
                stack.callback(user.client.close)
                user.client.login(user.uid)
                users.append(user)
            workers = [
                *self._media(users),
                *self._letters(users),
                *self._peers(users),
                *self._channel(users),
            ]
            threads = [
                threading.Thread(target=self._guarded, args=(name, work), name=f"chaos {name}")
                for name, work in workers
            ]
            with self._failing(users):
                for thread in threads:
                    thread.start()
                self._stopping.wait(plan.seconds)
                self._stopping.set()
            self._finish(threads)
            self.report.counts["reconnects"] = sum(user.reconnects for user in users)
        self._check_media()
        for stream in self._streams:
            self.report.problems += stream.problems()
            self.report.counts["messages delivered"] += len(stream.received)
            self.report.counts["channel messages missed, and told so"] += stream.excused()
        return self.report

    @contextlib.contextmanager
    def _failing(self, users: list[User]) -> Iterator[None]:
        """In the block, things fail."""
        with contextlib.ExitStack() as stack:
            played = [
                stack.enter_context(
                    user.proxy.play(random_faults(self._plan.seed * 1000 + number, every=0.5))
                )
                for number, user in enumerate(users)
            ]
            if self._plan.mode == "gateway":
                stack.enter_context(self._failing_gateway())
            yield
        for made in played:
            self.report.faults += made
        del self.report.faults["restore"]

    @contextlib.contextmanager
    def _failing_gateway(self) -> Iterator[None]:
        def fail() -> None:
            chance = random.Random(self._plan.seed)
            while not self._stopping.wait(chance.uniform(0.3, 2.0)):
                fault = chance.choice(["SIGKILL", "SIGKILL", "SIGTERM", "SIGSTOP"])
                if fault == "SIGSTOP":
                    self._gateway.pause()
                    self._stopping.wait(chance.uniform(0, 1.0))
                    self._gateway.resume()
                elif fault == "SIGTERM":
                    self._gateway.restart()
                else:
                    self._gateway.kill()
                    self._stopping.wait(chance.uniform(0, 0.5))
                    self._gateway.start()
                self.report.faults[fault] += 1

        thread = threading.Thread(target=self._guarded, args=("gateway", fail))
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join()

    def _finish(self, threads: list[threading.Thread]) -> None:
        """The faults are over: what is under way gets its time."""
        deadline = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(AssertionError):
            wait_until(
                lambda: all(stream.is_complete for stream in self._streams),
                max(0.0, deadline - time.monotonic()),
            )
        self._given_up.set()
        for thread in threads:
            thread.join(PATIENCE)
            if thread.is_alive():
                self.report.problems.append(f"{thread.name} hangs")

    # -- what is sent --

    def _peers(self, users: list[User]) -> Iterator[tuple[str, Callable[[], None]]]:
        """Everybody sends to the next one."""
        for user, peer in zip(users, [*users[1:], users[0]], strict=True):
            stream = self._stream(f"{user.uid} to {peer.uid}")
            peer.client.on(
                "MessageFromPeer",
                lambda message, sender, _, stream=stream: stream.received.append(int(message.text)),
            )
            yield f"peer {user.uid}", self._sending(user, "peer", stream, _to_peer(user, peer.uid))

    def _channel(self, users: list[User]) -> Iterator[tuple[str, Callable[[], None]]]:
        """Everybody sends to the room they are all in."""
        sent = {user.uid: Sent() for user in users}
        members = []
        for user in users:
            streams = {
                uid: self._stream(f"{uid} in the room, to {user.uid}", sent[uid])
                for uid in sent
                if uid != user.uid
            }
            members.append(_Member(user.client.create_channel(ROOM), streams, self._told))
        for user, member in zip(users, members, strict=True):
            member.channel.join()
            stream = Stream(f"{user.uid} in the room", sent[user.uid])  # its sending end
            yield f"channel {user.uid}", self._sending(user, "channel", stream, member.send)

    def _told(self) -> None:
        self._count("times told of missed channel messages")
        self.report.problems.append("a channel was not recovered")

    def _sending(
        self, user: User, kind: str, stream: Stream, send: Callable[[str, str, float], bool]
    ) -> Callable[[], None]:
        chance = random.Random(f"{self._plan.seed} {kind} {user.uid}")

        def work() -> None:
            for number in itertools.count():
                if self._stopping.wait(chance.uniform(0, 0.02)):
                    return
                self._send_until_acknowledged(kind, stream, number, send, chance)

        return work

    def _send_until_acknowledged(
        self,
        kind: str,
        stream: Stream,
        number: int,
        send: Callable[[str, str, float], bool],
        chance: random.Random,
    ) -> None:
        """Send one message, under one id, as often as it takes."""
        self._count(f"{kind} messages sent")
        stream.sent.begun = number
        message_id = f"{kind}-{number}"
        while not self._given_up.is_set():
            timeout = chance.choice([0.05, 0.2, 1.0, 3.0])  # the short ones end in many copies
            with self._in_time(timeout):
                try:
                    if send(str(number), message_id, timeout):
                        stream.sent.acknowledged.append(number)
                        self._count(f"{kind} messages acknowledged")
                        return
                    self._count(f"{kind} messages answered with offline")
                except RtmError as error:
                    self._expect(error)
                    self._count(f"{kind} messages sent again")
            self._given_up.wait(0.02)

    def _letters(self, users: list[User]) -> Iterator[tuple[str, Callable[[], None]]]:
        """Everybody writes to users who are away, and these come for their mail now and then."""
        for user in users:
            yield f"letters {user.uid}", lambda user=user: self._write_letters(user)  # type: ignore[misc]

    def _write_letters(self, user: User) -> None:
        chance = random.Random(f"{self._plan.seed} letters {user.uid}")
        for generation in itertools.count():
            reader = f"away-{user.uid}-{generation}"
            stream = self._stream(f"{user.uid} to {reader}, offline")
            send = _to_peer(user, reader, is_away=True)
            for number in range(LETTERS):
                if self._stopping.wait(chance.uniform(0, 0.05)):
                    break
                self._send_until_acknowledged("offline", stream, number, send, chance)
            self._read_letters(user, reader, stream)
            if self._stopping.is_set():
                return

    def _read_letters(self, user: User, reader: str, stream: Stream) -> None:
        """Log in through the same bad line; all that was acknowledged comes."""
        client = user.another()
        with contextlib.closing(client):
            client.on(
                "MessageFromPeer",
                lambda message, *_: stream.received.append(int(message.text)),
            )
            while not self._given_up.is_set():
                try:
                    client.login(reader)
                    break
                except RtmError as error:
                    if error.reason not in ("TIMEOUT", "UNKNOWN", "TOO_OFTEN"):
                        raise
                    self._count("logins repeated")
                    self._given_up.wait(0.2)
            while not (stream.is_complete or self._given_up.wait(0.02)):
                pass

    def _media(self, users: list[User]) -> Iterator[tuple[str, Callable[[], None]]]:
        """Everybody uploads, and the next one downloads it."""
        for user, peer in zip(users, [*users[1:], users[0]], strict=True):
            yield f"upload {user.uid}", lambda user=user, peer=peer: self._upload(user, peer)  # type: ignore[misc]
            yield f"download {user.uid}", lambda user=user: self._download(user)  # type: ignore[misc]

    def _upload(self, user: User, peer: User) -> None:
        chance = random.Random(f"{self._plan.seed} media {user.uid}")
        while not self._stopping.wait(chance.uniform(0, 0.3)):
            data = chance.randbytes(int(10 ** chance.uniform(0, 6.2)))
            self._count("media uploads begun")
            try:
                upload = user.client.create_media_message_by_uploading(data)
                message = upload.result(PATIENCE)
            except RtmError as error:
                self._expect(error)
                self._count("media uploads failed")
                continue
            digest = hashlib.sha256(data).hexdigest()
            self._stored[message.media_id] = digest
            self._count("media acknowledged")
            peer.to_fetch.put((message.media_id, digest))
        peer.to_fetch.put(None)

    def _download(self, user: User) -> None:
        while (wanted := user.to_fetch.get(timeout=self._plan.seconds + PATIENCE)) is not None:
            media_id, digest = wanted
            data = self._downloaded(user, media_id)
            if data is not None:
                self._fetched.add(media_id)
                self._count("media downloaded")
                if hashlib.sha256(data).hexdigest() != digest:
                    self.report.problems.append(f"the medium {media_id} arrived damaged")

    def _downloaded(self, user: User, media_id: str) -> bytes | None:
        while not self._given_up.is_set():
            try:
                return user.client.download_media(media_id).result(PATIENCE).to_bytes()
            except RtmError as error:
                self._expect(error)
                self._count("media downloads repeated")
        return None

    # -- accounts --

    def _check_media(self) -> None:
        """Every acknowledged medium was fetched while things failed or could be now, and whatever
        the gateway shows is whole."""
        shown = _shown_media(self._gateway.data)
        for media_id in self._stored.keys() - shown.keys():
            self.report.problems.append(f"the medium {media_id} was acknowledged and is not there")
        for media_id, (recorded, stored) in shown.items():
            if recorded != stored:
                self.report.problems.append(f"the medium {media_id} is not what its record says")
            if self._stored.get(media_id, recorded) != recorded:
                self.report.problems.append(f"the medium {media_id} is not what was uploaded")
        for media_id in sorted(self._stored.keys() - self._fetched):
            self.report.problems.append(f"the medium {media_id} was never downloaded")

    def _stream(self, name: str, sent: Sent | None = None) -> Stream:
        stream = Stream(name, sent)
        self._streams.append(stream)
        return stream

    def _count(self, what: str) -> None:
        with self._lock:
            self.report.counts[what] += 1

    def _expect(self, error: RtmError) -> None:
        if error.reason not in _EXPECTED:
            self.report.problems.append(f"unexpected: {error!r}")

    @contextlib.contextmanager
    def _in_time(self, timeout: float) -> Iterator[None]:
        """A call that outlives its time-out hangs, whatever it says in the end."""
        began = time.monotonic()
        yield
        over = time.monotonic() - began - timeout
        self.report.slowest = max(self.report.slowest, over)
        if over > OVERDUE:
            self.report.problems.append(f"a call of {timeout:.1f} s took {over:.1f} s longer")

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # the run must tell, whatever it is
            self.report.problems.append(f"{name} died: {error!r}")


class _Member:
    """A member of the room: notes what comes, and what it was told to have missed."""

    def __init__(
        self, channel: RtmChannel, streams: dict[str, Stream], on_missed: Callable[[], None]
    ) -> None:
        self.channel = channel
        self._streams = streams
        self._on_missed = on_missed
        channel.on("ChannelMessage", self._received)
        channel.on("Reconnected", self._reconnected)

    def send(self, text: str, message_id: str, timeout: float) -> bool:
        try:
            self.channel.send_message(text, message_id=message_id, timeout=timeout)
        except ChannelMessageError as error:
            if error.reason != "NOT_IN_CHANNEL":
                raise
            self.channel.join()  # it was told that joining again had failed
            self._reconnected(recovered=False)
            return False
        return True

    def _received(self, message: RtmTextMessage, sender: str, _: object) -> None:
        self._streams[sender].received.append(int(message.text))

    def _reconnected(self, recovered: bool) -> None:
        if not recovered:
            self._on_missed()
            for stream in self._streams.values():
                stream.excuse()


def run(plan: Plan) -> Report:
    """Run the plan with a gateway of its own."""
    with GatewayProcess() as gateway:
        chaos = Chaos(plan, gateway)
        report = chaos.run()
        report.counts["messages delivered"] = sum(len(stream.received) for stream in chaos._streams)
        if not gateway.is_running:
            report.problems.append(f"the gateway died: {gateway.log[-2000:]}")
        return report


def _to_peer(
    user: User, peer_id: str, *, is_away: bool = False
) -> Callable[[str, str, float], bool]:
    def send(text: str, message_id: str, timeout: float) -> bool:
        result = user.client.send_message_to_peer(
            text,
            peer_id,
            message_id=message_id,
            timeout=timeout,
            enable_offline_messaging=is_away,
        )
        return result.has_peer_received or result.cached_by_server

    return send


def _shown_media(data: Path) -> dict[str, tuple[str, str]]:
    """What the gateway has records of: media id → SHA-256 by the record, and of the file."""
    import json

    with contextlib.closing(sqlite3.connect(data / "rtm.sqlite3")) as connection:
        rows = connection.execute("SELECT media_id, info FROM media").fetchall()
    shown = {}
    for media_id, info in rows:
        file = data / "media" / media_id[:2] / media_id
        stored = hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "no file"
        shown[media_id] = (json.loads(info)["sha256"], stored)
    return shown
