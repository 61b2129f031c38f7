"""Background threads and loops: their start, and their failures."""

from __future__ import annotations

import asyncio
import io
import logging
import queue
import re
import threading
import unittest
from pathlib import Path
from typing import Any
from unittest.mock import patch

from aiohttp import web
from flask import Flask
from prometheus_client.exposition import generate_latest

import rtm_sync
from rtm_sync import (
    Blob,
    ConnectionState,
    InvitationApiCallError,
    LocalInvitationState,
    LoginError,
    RtmClient,
    Thumbnail,
    ThumbnailGenerator,
    TransferCancelled,
    UploadMediaError,
)
from rtm_sync.client.events import Dispatcher
from rtm_sync.client.invitation_registry import InvitationRegistry
from rtm_sync.client.invitation_states import InvitationTimes
from rtm_sync.flask.extension import Rtm
from rtm_sync.flask.sessions import running
from rtm_sync.gateway.guard.idle import IdleConnectionReaper
from rtm_sync.gateway.logs import logged
from rtm_sync.gateway.metrics import Metrics
from rtm_sync.gateway.tls import Certificate
from rtm_sync.hub.local.engine import LocalEngine
from rtm_sync.hub.media.memory import MemoryMediaStore
from rtm_sync.hub.node import Hub
from rtm_sync.hub.tasks import supervised
from rtm_sync.protocol.requests import Request
from rtm_sync.protocol.values import InvitationReceipt, InvitationSent
from rtm_sync.rules.timing import Backoff
from rtm_sync.supervision import (
    BackgroundThread,
    loop_failures,
    start_thread,
    supervised_thread,
)
from rtm_sync.thumbnails.contract import ThumbnailFailed
from rtm_sync.thumbnails.selection import generate_in_time
from rtm_sync.transfers.control import TransferControl, TransferKind
from rtm_sync.transfers.pool import TransferPool
from tests.support import RtmTestCase, local_gateway, wait_until

PATIENCE = 30.0
AT_ONCE = Backoff(0.0, 0.0)


class StartThreadTest(RtmTestCase):
    def test_it_returns_a_running_daemon_of_that_name(self) -> None:
        go = threading.Event()
        thread = start_thread("rtm-sync-test", go.wait)
        self.assertTrue(thread.is_alive())
        self.assertTrue(thread.daemon)
        self.assertEqual(thread.name, "rtm-sync-test")
        go.set()
        thread.join()


class BackgroundThreadTest(RtmTestCase):
    def test_it_runs_once_until_it_retires_and_can_be_joined_after(self) -> None:
        go, runs = threading.Event(), []

        def work() -> None:
            runs.append(thread.is_current)
            thread.retire()
            go.wait(PATIENCE)

        thread = BackgroundThread("rtm-sync-test", work)
        self.assertFalse(thread.is_alive)
        thread.start()
        wait_until(lambda: len(runs) == 1, PATIENCE)
        thread.start()  # the first has retired
        wait_until(lambda: len(runs) == 2, PATIENCE)
        self.assertTrue(thread.is_alive)
        go.set()
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive)
        self.assertEqual(runs, [True, True])

    def test_a_start_that_was_interrupted_leaves_one_thread(self) -> None:
        go, runs = threading.Event(), []

        def work() -> None:
            runs.append(1)
            go.wait(PATIENCE)

        thread = BackgroundThread("rtm-sync-test", work)
        start = threading.Thread.start

        def interrupted(self: threading.Thread) -> None:
            threading.Thread.start = start  # type: ignore[method-assign]
            start(self)
            raise KeyboardInterrupt

        threading.Thread.start = interrupted  # type: ignore[method-assign]
        with self.assertRaises(KeyboardInterrupt):
            thread.start()
        thread.start()
        wait_until(lambda: runs, PATIENCE)
        wait_until(
            lambda: [one.name for one in threading.enumerate()].count("rtm-sync-test") == 1,
            PATIENCE,
        )
        go.set()
        thread.join(PATIENCE)
        self.assertEqual(runs, [1])

    def test_a_thread_of_an_interrupted_start_that_comes_too_late_ends(self) -> None:
        runs: list[int] = []
        late: list[threading.Thread] = []
        thread = BackgroundThread("rtm-sync-test", lambda: runs.append(1))
        start = threading.Thread.start

        def interrupted(self: threading.Thread) -> None:
            threading.Thread.start = start  # type: ignore[method-assign]
            late.append(self)
            raise KeyboardInterrupt

        threading.Thread.start = interrupted  # type: ignore[method-assign]
        with self.assertRaises(KeyboardInterrupt):
            thread.start()
        thread.start()
        wait_until(lambda: runs, PATIENCE)
        thread.join(PATIENCE)
        late[0].start()  # when the one that was started since has ended
        late[0].join(PATIENCE)
        self.assertEqual(runs, [1])


class SupervisedTest(unittest.IsolatedAsyncioTestCase):
    async def test_a_failure_is_logged_with_its_traceback_counted_and_tried_again(self) -> None:
        before = loop_failures().get("test", 0)
        runs: list[int] = []

        async def work() -> None:
            runs.append(1)
            if len(runs) < 4:
                raise KeyError("a bug")

        with self.assertLogs("rtm_sync.supervision", "ERROR") as logs:
            await supervised("test", work, backoff=AT_ONCE)
        self.assertEqual(len(runs), 4)
        self.assertEqual(loop_failures()["test"] - before, 3)
        self.assertEqual(len(logs.records), 3)
        self.assertIn("the test loop failed", logs.output[0])
        self.assertIn("KeyError: 'a bug'", logs.output[0])

    async def test_the_waits_grow_and_begin_anew_after_a_long_healthy_run(self) -> None:
        now = 0.0
        waits: list[int] = []

        class Counting(Backoff):
            def wait(self, failures: int, uniform: object = None) -> float:
                waits.append(failures)
                return 0.0

        async def work() -> None:
            nonlocal now
            if len(waits) == 3:
                now += 3600.0
            if len(waits) < 5:
                raise ValueError

        with self.assertLogs("rtm_sync.supervision"):
            await supervised("test", work, backoff=Counting(0.0, 0.0), clock=lambda: now)
        self.assertEqual(waits, [1, 2, 3, 1, 2])

    async def test_cancelling_ends_it(self) -> None:
        async def work() -> None:
            await asyncio.sleep(3600)

        task = asyncio.create_task(supervised("test", work))
        await asyncio.sleep(0)
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task


class SupervisedThreadTest(RtmTestCase):
    def test_it_goes_on_after_a_failure_and_ends_when_it_is_told(self) -> None:
        before = loop_failures().get("test thread", 0)
        stopping = threading.Event()
        runs: list[int] = []

        def work() -> None:
            runs.append(1)
            if len(runs) == 3:
                stopping.set()
            raise ValueError("a bug")

        with self.assertLogs("rtm_sync.supervision", "ERROR"):
            supervised_thread("test thread", work, stopping, backoff=AT_ONCE)
        self.assertEqual(len(runs), 3)
        self.assertEqual(loop_failures()["test thread"] - before, 3)

    def test_it_ends_with_its_work(self) -> None:
        runs: list[int] = []
        supervised_thread("test thread", lambda: runs.append(1), threading.Event())
        self.assertEqual(runs, [1])


class OneFailedStart:
    """In the block, the next start of a thread of that name fails, as at the system's limit."""

    _LOW = (
        "_start_new_thread" if hasattr(threading, "_start_new_thread") else "_start_joinable_thread"
    )

    def __init__(self, name: str) -> None:
        self._name = name
        self._start = threading.Thread.start
        self.has_failed = False

    def __enter__(self) -> OneFailedStart:
        start, low = self._start, self._LOW
        real = getattr(threading, low)

        def refuse(*_: object, **__: object) -> None:
            raise RuntimeError("can't start new thread")

        def started(thread: threading.Thread) -> None:
            if self.has_failed or not thread.name.startswith(self._name):
                return start(thread)
            self.has_failed = True
            setattr(threading, low, refuse)
            try:
                return start(thread)
            finally:
                setattr(threading, low, real)

        threading.Thread.start = started  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        threading.Thread.start = self._start  # type: ignore[method-assign]


class ThreadLimitTest(RtmTestCase):
    """When the system allows no thread for a moment, one call fails, and later calls work."""

    def urls(self) -> list[str]:
        return ["memory://thread-limit", self.entered(local_gateway(self.folder()))]

    def client(self, url: str, uid: str | None = None) -> RtmClient:
        client = RtmClient("app", url=url)
        self.addCleanup(client.close)
        if uid is not None:
            client.login(uid)
        return client

    def test_a_login_fails_and_the_next_succeeds(self) -> None:
        for url, names in zip(
            self.urls(),
            (("rtm-sync-dispatcher", "rtm-sync-hub"), ("rtm-sync-dispatcher", "rtm-sync-reader")),
            strict=True,
        ):
            for name in names:
                with self.subTest(url=url, thread=name):
                    client = self.client(url)
                    with OneFailedStart(name) as limit, self.assertRaises(LoginError) as caught:
                        client.login("alice")
                    self.assertTrue(limit.has_failed)
                    self.assertIn("can't start new thread", str(caught.exception))
                    self.assertIs(client.connection_state, ConnectionState.DISCONNECTED)
                    client.login("alice")
                    arriving = client.events("MessageFromPeer")
                    self.addCleanup(arriving.close)
                    bob = self.client(url, "bob")
                    self.assertTrue(bob.send_message_to_peer("hi", "alice").has_peer_received)
                    self.assertEqual(next(arriving.until(PATIENCE)).args[0].text, "hi")
                    bob.close()
                    client.close()

    def test_an_event_that_nobody_can_handle_is_not_taken(self) -> None:
        dispatcher = Dispatcher()
        self.addCleanup(dispatcher.close)
        ran = threading.Event()
        with OneFailedStart("rtm-sync-dispatcher"), self.assertLogs("rtm_sync.client.events"):
            self.assertFalse(dispatcher.submit(ran.set))
        self.assertTrue(dispatcher.submit(ran.set))
        self.assertTrue(ran.wait(PATIENCE))

    def test_a_transfer_ends_with_an_error_and_the_next_succeeds(self) -> None:
        for name in ("rtm-sync-watcher", "rtm-sync-transfer"):
            with self.subTest(thread=name):
                pool = TransferPool()
                with OneFailedStart(name) as limit, self.assertRaises(UploadMediaError) as caught:
                    pool.submit(TransferKind.UPLOAD, lambda control: 1).result(PATIENCE)
                self.assertTrue(limit.has_failed)
                self.assertEqual(caught.exception.reason, "FAILURE")
                self.assertEqual(pool.submit(TransferKind.UPLOAD, lambda _: 7).result(PATIENCE), 7)
                # The watcher runs: a cancel signal is seen.
                signal = threading.Event()
                waiting = pool.submit(
                    TransferKind.UPLOAD,
                    lambda control: control.pause(PATIENCE),
                    cancel_signal=signal,
                )
                signal.set()
                with self.assertRaises(TransferCancelled):
                    waiting.result(PATIENCE)
                pool.close()

    def test_an_invitation_is_refused_at_either_end_and_the_next_arrives(self) -> None:
        (url, _) = self.urls()
        alice, bob = self.client(url, "alice"), self.client(url, "bob")
        arriving = bob.events("RemoteInvitationReceived")
        self.addCleanup(arriving.close)
        with OneFailedStart("rtm-sync-invitations"), self.assertRaises(InvitationApiCallError):
            alice.create_local_invitation("bob").send()
        alice.create_local_invitation("bob").send()
        self.assertEqual(next(arriving.until(PATIENCE)).args[0].caller_id, "alice")
        with (
            OneFailedStart("rtm-sync-invitation-step") as limit,
            self.assertLogs("rtm_sync.client.invitation_registry", "WARNING"),
        ):
            alice.create_local_invitation("bob").send()
            self.assertEqual(next(arriving.until(PATIENCE)).args[0].caller_id, "alice")
        self.assertTrue(limit.has_failed)

    def test_a_thumbnail_fails_and_the_next_is_made(self) -> None:
        generator = _Generator()
        control = TransferControl(TransferKind.UPLOAD)
        with OneFailedStart("rtm-sync-thumbnail"), self.assertRaises(ThumbnailFailed):
            generate_in_time(generator, Blob.from_bytes(b"x"), 1000, control)
        made = generate_in_time(generator, Blob.from_bytes(b"x"), 1000, control)
        self.assertEqual(made.data, b"small")

    def test_every_thread_of_the_package_is_started_in_one_place(self) -> None:
        root = Path(rtm_sync.__file__).parent
        plugins = root.parent / "plugins"
        files = [*root.rglob("*.py"), *plugins.glob("*/rtm_*/**/*.py")]
        self.assertGreater(len(files), 100)
        found = {file.name for file in files if re.search(r"\bThread\(", file.read_text())}
        self.assertEqual(found, {"supervision.py"})


class _Generator(ThumbnailGenerator):
    name = "plain"

    def can_handle(self, content_type: str) -> bool:
        return True

    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        return Thumbnail(b"small", 1, 1, "image/png")


class Fault:
    """Makes the first call of a method raise an unexpected error."""

    def __init__(self, owner: object, name: str) -> None:
        self._owner, self._name = owner, name
        self.has_happened = threading.Event()

    def __enter__(self) -> Fault:
        self._method = getattr(self._owner, self._name)

        def fail_once(*args: object, **options: object) -> object:
            if not self.has_happened.is_set():
                self.has_happened.set()
                raise ZeroDivisionError("a bug")
            return self._method(*args, **options)

        setattr(self._owner, self._name, fail_once)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self._owner, self._name, self._method)


class LoopTest(RtmTestCase):
    """Each loop logs and counts an unexpected error, and continues."""

    def failed(self, loop: str) -> int:
        return loop_failures().get(loop, 0)

    def test_the_reader_loses_the_connection_and_connects_anew(self) -> None:
        url = self.entered(local_gateway(self.folder()))
        clients = [RtmClient("app", url=url) for _ in range(2)]
        for client, uid in zip(clients, ("alice", "bob"), strict=True):
            self.addCleanup(client.close)
            client.login(uid)
        alice, bob = clients
        arriving = alice.events("MessageFromPeer", "Reconnected")
        self.addCleanup(arriving.close)
        before = self.failed("reader")
        with (
            self.assertLogs("rtm_sync.supervision", "ERROR") as logs,
            Fault(alice._transport._connection.session, "receive"),  # type: ignore[attr-defined]
        ):
            sent = bob.send_message_to_peer("hi", "alice", timeout=PATIENCE)
        self.assertTrue(sent.has_peer_received)
        events = arriving.until(PATIENCE)
        names = [next(events).name for _ in range(2)]
        self.assertEqual(sorted(names), ["MessageFromPeer", "Reconnected"])
        self.assertEqual(self.failed("reader") - before, 1)
        self.assertIn("ZeroDivisionError: a bug", logs.output[0])

    def test_the_dispatcher_goes_on(self) -> None:
        dispatcher = Dispatcher()
        self.addCleanup(dispatcher.close)
        ran = threading.Event()
        before = self.failed("dispatcher")
        with self.assertLogs("rtm_sync.supervision", "ERROR"), Fault(dispatcher, "_next_call"):
            dispatcher.submit(ran.set)
            self.assertTrue(ran.wait(PATIENCE))
        self.assertEqual(self.failed("dispatcher") - before, 1)

    def test_the_transfer_watcher_goes_on(self) -> None:
        pool = TransferPool()
        self.addCleanup(pool.close)
        signal = threading.Event()
        before = self.failed("transfer watcher")
        with self.assertLogs("rtm_sync.supervision", "ERROR"), Fault(pool, "_look_at") as fault:
            waiting = pool.submit(
                TransferKind.UPLOAD, lambda control: control.pause(PATIENCE), cancel_signal=signal
            )
            self.assertTrue(fault.has_happened.wait(PATIENCE))
            signal.set()
            with self.assertRaises(TransferCancelled):
                waiting.result(PATIENCE)
        self.assertEqual(self.failed("transfer watcher") - before, 1)

    def test_invitations_go_on(self) -> None:
        steps: queue.SimpleQueue[object] = queue.SimpleQueue()

        def call(request: Request[Any], timeout: float) -> Any:
            steps.put(request)
            if before == self.failed("invitations"):
                raise ZeroDivisionError("a bug")
            return InvitationSent(InvitationReceipt.RECEIVED)

        before = self.failed("invitations")
        dispatcher = Dispatcher()
        self.addCleanup(dispatcher.close)
        book = InvitationRegistry(
            call, dispatcher.submit, print, print, lambda: True, InvitationTimes(resend=0.01)
        )
        self.addCleanup(book.close)
        invitation = book.local("bob")
        with self.assertLogs("rtm_sync.supervision", "ERROR"):
            invitation.send()
            states = LocalInvitationState
            wait_until(lambda: invitation.state is states.RECEIVED_BY_REMOTE, PATIENCE)
        self.assertEqual(self.failed("invitations") - before, 1)
        self.assertEqual(steps.qsize(), 2)

    def test_the_flask_sweeper_goes_on(self) -> None:
        rtm = Rtm()
        app = Flask(__name__)
        app.config.update(RTM_APP_ID="app", RTM_URL="memory://sweeper")
        rtm.init_app(app)
        before = self.failed("flask sweeper")
        with (
            running(app),
            app.app_context(),
            self.assertLogs("rtm_sync.supervision", "ERROR"),
            patch("rtm_sync.flask.sessions._SWEEP_INTERVAL", 0.01),
        ):
            app.config["RTM_USER_LINGER"] = "a while"  # not a number
            user = rtm.client_for("alice")
            wait_until(lambda: self.failed("flask sweeper") > before, PATIENCE)
            app.config["RTM_USER_LINGER"] = 0.0
            wait_until(lambda: user.uid is None, PATIENCE)

    def test_the_gateways_log_goes_on(self) -> None:
        class Stream(io.StringIO):
            has_failed = False

            def write(self, text: str) -> int:
                if "one" in text and not self.has_failed:
                    self.has_failed = True
                    raise ZeroDivisionError("a bug")
                return super().write(text)

        stream = Stream()
        before = self.failed("log")
        log = logging.getLogger("rtm_sync.test")
        with logged("info", "text", stream):
            log.info("one")
            wait_until(lambda: self.failed("log") > before, PATIENCE)
            log.info("two")
            wait_until(lambda: "two" in stream.getvalue(), PATIENCE)
        self.assertIn("ZeroDivisionError: a bug", stream.getvalue())

    def test_the_gateways_watches_go_on(self) -> None:
        class Certificates(Certificate):
            def __init__(self) -> None:
                self.looks = 0  # no files: what is looked at is not what is tested

            def reload_if_changed(self) -> bool:
                self.looks += 1
                if self.looks == 1:
                    raise ZeroDivisionError("a bug")
                return False

        class Server(web.Server):
            looks = 0

            @property
            def connections(self) -> list[Any]:
                self.looks += 1
                if self.looks == 1:
                    raise ZeroDivisionError("a bug")
                return []

        async def answer(request: web.BaseRequest) -> web.Response:
            return web.Response()

        async def watch() -> None:
            certificate, server = Certificates(), Server(answer)
            watches = [
                asyncio.ensure_future(certificate.watch(0.001)),
                asyncio.ensure_future(IdleConnectionReaper().watch(server)),
            ]

            async def three_looks() -> None:
                while certificate.looks < 3 or server.looks < 3:
                    await asyncio.sleep(0.01)

            await asyncio.wait_for(three_looks(), PATIENCE)
            for task in watches:
                task.cancel()
            await asyncio.gather(*watches, return_exceptions=True)

        before = [self.failed(loop) for loop in ("certificate", "idle connections")]
        with (
            self.assertLogs("rtm_sync.supervision", "ERROR"),
            patch("rtm_sync.gateway.guard.idle.REQUEST_LIMIT", 0.01),
        ):
            asyncio.run(watch())
        after = [self.failed(loop) for loop in ("certificate", "idle connections")]
        self.assertEqual(after, [count + 1 for count in before])

    def test_failures_are_counted_in_the_gateways_metrics(self) -> None:
        ended = threading.Event()

        def work() -> None:
            ended.set()
            raise ZeroDivisionError("a bug")

        with self.assertLogs("rtm_sync.supervision", "ERROR"):
            supervised_thread("counted", work, ended)
        metrics = Metrics()
        metrics.watch(Hub(LocalEngine(), MemoryMediaStore()))
        text = generate_latest(metrics.registry).decode()
        self.assertIn('rtm_loop_failures_total{loop="counted"} 1.0', text)
