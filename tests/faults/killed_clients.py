"""Chaos in which the clients are processes, which are killed like the gateway.

Each user's client is a process (`client_process`) behind a `FaultProxy` of its own. A thread for
each user makes its faults, one at a time: those of the network, a black hole, SIGKILL, SIGTERM,
SIGSTOP, or an orderly close; after an end another process of the user starts. Meanwhile the gateway
is killed, restarted and frozen.

At the end everything is drained: what is still stored comes to the processes that live, then these
close, and a last process of each user finds out whether anything is left. The books decide.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rtm_sync.testing import FaultProxy, GatewayProcess, random_faults, wait_until
from tests.faults.books import Books, End, Life
from tests.faults.chaos import PATIENCE, Plan, Report
from tests.faults.client_process import Orders, given_path, read_book, sent_path

QUIET = 2.0  # seconds without a message after which a mailbox counts as empty
_SETTLED = 1.0  # seconds of a good line before an orderly close
_CLOSE_BOUND = 30.0  # seconds
_FAULTS = (
    *["network"] * 4,
    *["SIGKILL"] * 3,
    *["SIGTERM"] * 2,
    *["close"] * 2,
    "black hole",
    "SIGSTOP",
)


class User:
    """A user, whose client is a process. One thread at a time uses it."""

    def __init__(self, orders: Orders, lives: list[Life]) -> None:
        self._orders = orders
        self.lives = lives
        self._process: subprocess.Popen[bytes] | None = None
        self.ended_in_order: list[tuple[Life, float, float]] = []  # with the times of its close

    @property
    def life(self) -> Life:
        return self.lives[-1]

    @property
    def given(self) -> Path:
        """The book of the present process."""
        return given_path(self._orders.folder, self._orders.uid, self.life.number)

    def start(self, **changes: object) -> None:
        """Start another process."""
        self.lives.append(Life(self._orders.uid, len(self.lives)))
        orders = dataclasses.replace(
            self._orders,
            life=self.life.number,
            **changes,  # type: ignore[arg-type]
        )
        command = [sys.executable, "-m", "tests.faults.client_process"]
        with Path(f"{self.given}.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, json.dumps(dataclasses.asdict(orders))],
                stdin=subprocess.PIPE,
                stderr=log,
            )

    def signal(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    def end(self, number: signal.Signals) -> None:
        """End the process by a signal."""
        self.signal(number)
        self._wait(_CLOSE_BOUND)

    def say(self, command: str) -> None:
        """Give the process a command."""
        stdin = self._running.stdin
        assert stdin is not None
        stdin.write(f"{command}\n".encode())
        stdin.flush()

    def close(self) -> None:
        """Have the process close its client and end."""
        began = time.monotonic()
        self.say("close")
        self._wait(_CLOSE_BOUND)
        self.ended_in_order.append((self.life, began, time.monotonic()))

    def kill(self) -> None:
        """End whatever runs."""
        if self._process is not None:
            self.end(signal.SIGKILL)

    def has_written(self, what: str) -> bool:
        return any(entry["what"] == what for entry in read_book(self.given))

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        return Path(f"{self.given}.log").read_text("utf-8", "replace")[-2000:]

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def _wait(self, timeout: float) -> None:
        process, self._process = self._running, None
        try:
            process.wait(timeout)
        finally:
            process.kill()
            process.wait()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


class KilledClients:
    """One run. Owns its threads and processes until `run` returns."""

    def __init__(self, plan: Plan, gateway: GatewayProcess, folder: Path) -> None:
        self.report = Report(plan)
        self._plan = plan
        self._gateway = gateway
        self._folder = folder
        self._over = threading.Event()
        self._books = Books()
        self._outages: list[tuple[float, float]] = []  # of the gateway
        self._lock = threading.Lock()  # guards the report

    def run(self) -> Report:
        with contextlib.ExitStack() as stack:
            proxies = [
                stack.enter_context(FaultProxy(self._gateway.url))
                for _ in range(self._plan.clients)
            ]
            users = self._users(proxies)
            for user in users:
                stack.callback(user.kill)
                user.start()
            for user in users:
                wait_until(lambda user=user: user.has_written("joined"))  # type: ignore[misc]
            threads = [
                threading.Thread(target=self._guarded, args=(self._fail_client, user, proxy))
                for user, proxy in zip(users, proxies, strict=True)
            ]
            threads.append(threading.Thread(target=self._guarded, args=(self._fail_gateway,)))
            for thread in threads:
                thread.start()
            self._over.wait(self._plan.seconds)
            self._over.set()
            for thread in threads:
                thread.join()
            self._drain(users)
            self._gateway.stop()
            self._balance(users)
        return self.report

    def _users(self, proxies: list[FaultProxy]) -> list[User]:
        """One behind each proxy. Everybody sends to the next two, and to the room."""
        uids = [f"user-{number}" for number in range(len(proxies))]
        folder, seed = str(self._folder), self._plan.seed
        users = []
        for number, (uid, proxy) in enumerate(zip(uids, proxies, strict=True)):
            peers = tuple([*uids[number + 1 :], *uids[:number]][:2])
            users.append(User(Orders(proxy.url, uid, 0, folder, seed, peers, in_room=True), []))
        return users

    # -- what fails --

    def _fail_client(self, user: User, proxy: FaultProxy) -> None:
        chance = random.Random(f"{self._plan.seed} {user.life.uid}")
        steps = random_faults(
            self._plan.seed * 1000 + int(user.life.uid.rpartition("-")[2]), every=0.5
        )
        while not self._over.wait(chance.uniform(0.1, 1.5)):
            fault = chance.choice(_FAULTS)
            if fault == "network":
                step = next(steps)
                next(steps)  # "restore", which comes anyway
                getattr(proxy, step.fault)(**step.options)
                self._over.wait(step.seconds)
                proxy.restore()
                fault = step.fault
            elif fault == "black hole":
                proxy.stall()
                self._over.wait(chance.uniform(0.5, 3.0))
                proxy.drop()  # what is in the hole is lost
                proxy.restore()
            elif fault == "SIGSTOP":
                user.signal(signal.SIGSTOP)
                self._over.wait(chance.uniform(0.2, 2.0))
                user.signal(signal.SIGCONT)
            else:
                self._end_client(user, fault)
                self._over.wait(chance.uniform(0, 1.5))
                user.start()
            self._count(fault)
        proxy.restore()

    def _end_client(self, user: User, how: str) -> None:
        if not user.is_running:
            self._problem(f"{user.life} died: {user.log()}")
            user.kill()
        elif how == "close":
            self._over.wait(_SETTLED)
            user.close()
        else:
            user.end(signal.Signals[how])

    def _fail_gateway(self) -> None:
        chance = random.Random(self._plan.seed)
        while not self._over.wait(chance.uniform(1.0, 4.0)):
            fault = chance.choice(["SIGKILL", "SIGKILL", "SIGTERM", "SIGSTOP"])
            began = time.monotonic()
            if fault == "SIGSTOP":
                self._gateway.pause()
                self._over.wait(chance.uniform(0, 1.0))
                self._gateway.resume()
            else:
                self._books.gateway_ended.append(began)
                if fault == "SIGTERM":
                    self._gateway.restart()
                else:
                    self._gateway.kill()
                    self._over.wait(chance.uniform(0, 0.5))
                    self._gateway.start()
            self._outages.append((began, time.monotonic()))
            self._count(f"gateway {fault}")

    # -- the end --

    def _drain(self, users: list[User]) -> None:
        """The faults are over: what is under way and what is stored gets its time."""
        for user in users:
            user.say("finish")
        self._wait_for(users, "finished")
        self._wait_until_quiet(users)
        for user in users:
            if user.is_running:
                user.life.saw_the_end = True
                user.close()
            else:
                self._problem(f"{user.life} died: {user.log()}")
        for user in users:
            user.kill()
            user.start(peers=(), in_room=False)
        self._wait_for(users, "finished")
        self._wait_until_quiet(users)
        for user in users:
            user.life.saw_the_end = True
            user.close()
        self._over.set()

    def _wait_for(self, users: list[User], what: str) -> None:
        for user in users:
            try:
                wait_until(lambda user=user: user.has_written(what), PATIENCE)  # type: ignore[misc]
            except AssertionError:
                self._problem(f"{user.life} has not {what}: {user.log()}")

    def _wait_until_quiet(self, users: list[User]) -> None:
        """Wait until no process has been given anything for two seconds."""
        size, since = -1, time.monotonic()

        def is_quiet() -> bool:
            nonlocal size, since
            now = sum(user.given.stat().st_size for user in users if user.given.exists())
            if now != size:
                size, since = now, time.monotonic()
            return time.monotonic() - since >= QUIET

        with contextlib.suppress(AssertionError):  # the books are balanced in any case
            wait_until(is_quiet, PATIENCE)

    def _balance(self, users: list[User]) -> None:
        for user in users:
            for life, began, ended in user.ended_in_order:
                is_cut_off = any(a < ended and b > began - _SETTLED for a, b in self._outages)
                entries = read_book(given_path(str(self._folder), life.uid, life.number))
                was_connected = any(entry.get("connected") for entry in entries)
                life.end = End.CLOSED if was_connected and not is_cut_off else End.CUT_OFF
                self._count(f"orderly ends, {life.end.value}")
        for user in users:
            self._books.lives += user.lives
            for entry in read_book(sent_path(str(self._folder), user.life.uid)):
                self._books.enter_sent(user.life.uid, entry)
        for life in self._books.lives:
            for entry in read_book(given_path(str(self._folder), life.uid, life.number)):
                self._books.enter_given(life, entry)
        problems, counts = self._books.balance()
        self.report.counts += counts
        self.report.problems += problems
        left = stored_messages(self._gateway.data)
        if left:
            self.report.problems.append(f"{left} messages are left in the mailbox")

    def _count(self, fault: str) -> None:
        with self._lock:
            self.report.faults[fault] += 1

    def _problem(self, problem: str) -> None:
        with self._lock:
            self.report.problems.append(problem)

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # the run must tell, whatever it is
            self._problem(f"{work.__name__} died: {error!r}")


def run(plan: Plan) -> Report:
    """Run the plan with a gateway of its own."""
    with tempfile.TemporaryDirectory(prefix="rtm-sync-") as folder, GatewayProcess() as gateway:
        return KilledClients(plan, gateway, Path(folder)).run()


def stored_messages(data: Path) -> int:
    """How many messages a gateway's folder has stored."""
    with contextlib.closing(sqlite3.connect(data / "rtm.sqlite3")) as connection:
        (count,) = connection.execute("SELECT COUNT(*) FROM offline").fetchone()
    return int(count)
