"""Clients and their process: exit, fork, Ctrl-C, garbage collection, many logins."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from rtm_sync import ConnectionState, RtmClient
from rtm_sync.testing import local_gateway
from tests.support import PATIENCE, RtmTestCase, wait_until

EXIT_BOUND = 5.0  # seconds in which a script must end, also with busy clients


def both_transports(case: RtmTestCase) -> list[str]:
    return ["memory://", case.entered(local_gateway())]


class ExitTest(RtmTestCase):
    def script(self, body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", body, *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def assert_ends_quietly(self, body: str, url: str) -> None:
        marked = body + "\nimport time; print('LAST', time.time())\n"
        done = self.script(marked, url)
        ended = time.time()
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        last = float(done.stdout.split("LAST ")[1])
        self.assertLess(ended - last, EXIT_BOUND)

    def test_a_script_that_forgets_to_close_ends_at_once(self) -> None:
        for url in both_transports(self):
            with self.subTest(url.partition(":")[0]):
                self.assert_ends_quietly(
                    """
import sys
from rtm_sync import RtmClient
client = RtmClient("app", url=sys.argv[1])
client.login("alice")
client.on("MessageFromPeer", print)
client.create_channel("room").join()
""",
                    url,
                )

    UPLOADS = """
import os, sys, threading
from rtm_sync import RtmClient
client = RtmClient("app", url=sys.argv[1])
client.login("alice")
uploads = [client.create_media_message_by_uploading(os.urandom(500_000)) for _ in range(30)]
"""

    SLOW_ONE = """
import io, threading
class Slow(io.BytesIO):
    def read(self, size=-1):
        threading.Event().wait(1.0)
        return super().read(size)
uploads.append(client.create_media_message_by_uploading(Slow(b"still running")))
"""

    def test_a_script_that_ends_with_transfers_running_finishes_them(self) -> None:
        """Those that wait as well, and their callbacks while the client is still logged in."""
        body = (
            self.UPLOADS
            + """
def tell(upload):
    client.send_message_to_peer(upload.result().media_id, "bob")
    print("sent", flush=True)
for upload in uploads:
    upload.add_done_callback(tell)
"""
        )
        for url in both_transports(self):
            with self.subTest(url.partition(":")[0]):
                done = self.script(body, url)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertEqual(done.stdout.count("sent"), 30)

    def test_a_sender_finishes_them_as_well(self) -> None:
        body = """
import os, sys
from rtm_sync import RtmSender
sender = RtmSender("app", url=sys.argv[1])
for _ in range(30):
    upload = sender.create_media_message_by_uploading(os.urandom(500_000))
    upload.add_done_callback(lambda upload: print(upload.exception(), flush=True))
"""
        done = self.script(body, self.entered(local_gateway()))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout.count("None"), 30)

    def test_one_that_fails_then_is_logged(self) -> None:
        body = """
import logging, threading
from rtm_sync import RtmClient
logging.basicConfig()
client = RtmClient("app")
client.login("alice")
def fail(blob, room):
    threading.main_thread().join(0.5)  # the script has ended by then
    raise ValueError("no picture")
client.create_media_message_by_uploading(b"x", thumbnail=fail)
"""
        done = self.script(body)
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stderr, "a transfer failed: .*no picture")

    def test_close_interrupts_them_and_says_how_many(self) -> None:
        logged = "import logging; logging.basicConfig()\n"
        silenced = "import logging; logging.getLogger('rtm_sync').setLevel('CRITICAL')\n"
        for first, ending, count in (
            (logged, "client.close()", 1),
            ("", "client.close()", 1),  # on standard error, without the log
            (silenced, "client.close()", 0),
            ("", "client.close(wait=True)", 0),
        ):
            for url in both_transports(self):
                with self.subTest(ending, first=first, url=url.partition(":")[0]):
                    done = self.script(first + self.UPLOADS + self.SLOW_ONE + ending, url)
                    self.assertEqual(done.returncode, 0)
                    self.assertEqual(done.stderr.count("waiting transfers were interrupted"), count)
                    self.assertEqual(done.stderr.count("close(wait=True) waits for them"), count)

    def interrupted(self, body: str, url: str) -> tuple[float, str]:
        """Ctrl-C after the script says that it is ready: seconds to its end, and its errors."""
        with subprocess.Popen(
            [sys.executable, "-c", body, url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), "ready\n")
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE)
            return time.monotonic() - began, errors

    def test_ctrl_c_ends_the_wait_for_them(self) -> None:
        body = """
import logging, sys, threading
from rtm_sync import Blob, RtmClient
logging.basicConfig()
client = RtmClient("app", url=sys.argv[1])
client.login("alice")
def never(blob, room):
    threading.main_thread().join(0.5)  # the script has ended by then
    print("ready", flush=True)
    threading.Event().wait(4)
client.create_media_message_by_uploading(b"x", thumbnail=never)
"""
        _, errors = self.interrupted(body, self.entered(local_gateway()))
        self.assertIn("1 running and 0 waiting transfers were interrupted", errors)

    def test_ctrl_c_while_a_handler_blocks_ends_within_a_second(self) -> None:
        body = """
import sys, threading
from rtm_sync import RtmClient
client = RtmClient("app", url=sys.argv[1])
def block(*_):
    print("ready", flush=True)
    threading.Event().wait()
client.on("MessageFromPeer", block)
client.login("alice")
client.send_message_to_peer("go", "alice")
"""
        for ending in (
            "threading.Event().wait()",
            "with client: threading.Event().wait()",
            "try: threading.Event().wait()\nfinally: client.close()",
        ):
            with self.subTest(ending):
                seconds, _ = self.interrupted(body + ending, self.entered(local_gateway()))
                self.assertLess(seconds, 2.0)  # five seconds before, and a busy machine

    def test_the_scripts_own_exception_is_the_only_traceback(self) -> None:
        done = self.script(
            """
import os
from rtm_sync import RtmClient
client = RtmClient("app")
client.login("alice")
client.create_media_message_by_uploading(os.urandom(20_000_000))
raise SystemExit(client.uid + " gives up")
"""
        )
        self.assertEqual((done.returncode, done.stderr), (1, "alice gives up\n"))

    def test_ctrl_c_while_waiting_for_a_transfer_ends_the_script(self) -> None:
        url = self.entered(local_gateway())
        body = """
import sys, threading
from rtm_sync import Blob, RtmClient
class Slow:
    def __init__(self): self.event = threading.Event()
client = RtmClient("app", url=sys.argv[1])
client.login("alice")
ready = threading.Event()
def never(blob, room):
    ready.wait(30)
    print("waiting", flush=True)
    threading.Event().wait(30)
upload = client.create_media_message_by_uploading(b"x", thumbnail=never)
try:
    ready.set()
    upload.result()
except KeyboardInterrupt:
    upload.cancel()
    print(type(upload.exception(5)).__name__, flush=True)
    import os; os._exit(3)
"""
        with subprocess.Popen(
            [sys.executable, "-c", body, url], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), "waiting\n")
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.stdout.readline(), "UploadCancelled\n")
            self.assertEqual(process.wait(PATIENCE), 3)


class HandlerFailureTest(RtmTestCase):
    SCRIPT = """
import logging, sys, threading
from rtm_sync import RtmClient
errors = []
seen = {"plain": None, "log": None, "off": None, "function": errors.append}[sys.argv[1]]
if sys.argv[1] == "log":
    logging.basicConfig(stream=sys.stdout)
if sys.argv[1] == "off":
    RtmClient.set_parameters(log_filter="OFF")
with RtmClient("app", on_handler_error=seen) as alice:
    alice.login("alice")
    done = threading.Event()
    def too_few(message, peer_id): pass
    alice.on("MessageFromPeer", too_few)
    alice.on("MessageFromPeer", lambda *_: done.set())
    alice.send_message_to_peer("hi", "alice")
    done.wait(30)
print(len(errors))
"""

    def test_the_exception_of_a_handler_is_always_seen_and_once(self) -> None:
        for how, count, shown, elsewhere in (
            ("plain", 0, True, False),
            ("log", 0, False, True),
            ("off", 0, False, False),
            ("function", 1, False, False),
        ):
            with self.subTest(how):
                done = subprocess.run(
                    [sys.executable, "-c", self.SCRIPT, how],
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    check=True,
                )
                self.assertEqual(done.stdout.splitlines()[-1], str(count))
                self.assertEqual(done.stderr.count("TypeError"), int(shown), done.stderr)
                self.assertEqual(done.stdout.count("TypeError"), int(elsewhere), done.stdout)


class ForkTest(RtmTestCase):
    SCRIPT = """
import os, sys
from rtm_sync import RtmClient, RtmError
with RtmClient("app", url=sys.argv[1]) as client:
    client.login("alice")
    channel = client.create_channel("room")
    channel.join()
    child = os.fork()
    if child == 0:
        calls = {
            "send": lambda: client.send_message_to_peer("x", "bob"),
            "channel": lambda: channel.send_message("x"),
            "login": lambda: client.login("carol"),
            "logout": client.logout,
            "upload": lambda: client.create_media_message_by_uploading(b"x"),
            "download": lambda: client.download_media("m" * 32),
        }
        for name, call in calls.items():
            try:
                call()
            except RtmError as error:
                assert "fork" in str(error), (name, error)
            else:
                print("no error from", name)
        client.close()
        with RtmClient("app", url=sys.argv[1]) as own:  # a new one works
            own.login("carol")
            own.create_media_message_by_uploading(b"x").result(10)
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    # The child's close and exit did not touch the parent's session.
    assert not client.send_message_to_peer("x", "bob").has_peer_received
    client.create_media_message_by_uploading(b"x").result(10)
    print("parent", client.connection_state.name)
"""

    def test_a_client_of_the_parent_is_refused_in_the_child_and_lives_on_in_the_parent(
        self,
    ) -> None:
        for url in both_transports(self):
            with self.subTest(url.partition(":")[0]):
                done = subprocess.run(
                    [sys.executable, "-c", self.SCRIPT, url],
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    check=False,
                )
                self.assertEqual(
                    (done.returncode, done.stdout, done.stderr), (0, "parent CONNECTED\n", "")
                )

    def test_a_multiprocessing_pool_of_clients(self) -> None:
        url = self.entered(local_gateway())
        body = """
import multiprocessing, sys
from rtm_sync import RtmClient
def work(number):
    with RtmClient("app", url=sys.argv[1]) as client:
        client.login(f"worker-{number}")
        return client.create_media_message_by_uploading(bytes([number])).result(20).size
parent = RtmClient("app", url=sys.argv[1])
parent.login("parent")
with multiprocessing.get_context("fork").Pool(4) as pool:
    print(sum(pool.map(work, range(12))))
parent.close()
"""
        done = subprocess.run(
            [sys.executable, "-c", body, url],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "12\n", ""))


class CloseTest(RtmTestCase):
    def test_close_twice_at_once_and_from_a_handler(self) -> None:
        for url in both_transports(self):
            with self.subTest(url.partition(":")[0]):
                client = RtmClient("app", url=url)
                client.login("alice")
                closed = threading.Event()

                def on_message(*_: object, client: RtmClient = client) -> None:
                    client.close()
                    closed.set()  # noqa: B023  the loop waits for it below

                client.on("MessageFromPeer", on_message)
                with RtmClient("app", url=url) as bob:
                    bob.login("bob")
                    bob.send_message_to_peer("go", "alice")
                    self.assertTrue(closed.wait(PATIENCE))
                threads = [threading.Thread(target=client.close) for _ in range(8)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(PATIENCE)
                self.assertFalse(any(thread.is_alive() for thread in threads))
                self.assertIs(client.connection_state, ConnectionState.DISCONNECTED)

    def test_a_forgotten_client_that_never_logged_in_is_collected(self) -> None:
        client = RtmClient("app")
        collected = threading.Event()

        class Mark:
            def __del__(self) -> None:
                collected.set()

        client.mark = Mark()  # type: ignore[attr-defined]
        del client
        gc.collect()
        self.assertTrue(collected.is_set())

    def test_many_logins_leave_threads_and_descriptors_where_they_were(self) -> None:
        cycles = 200  # enough to see a leak of one login
        for url in both_transports(self):
            with self.subTest(url.partition(":")[0]), RtmClient("app", url=url) as client:
                for number in range(3):
                    client.login(f"alice-{number}")
                    client.logout()
                descriptors, threads = _descriptors(), threading.active_count()
                for number in range(cycles):
                    client.login(f"user-{number}")
                    client.create_channel("room").join()
                    client.logout()
                wait_until(
                    lambda descriptors=descriptors, threads=threads: (  # type: ignore[misc]
                        _descriptors() <= descriptors + 1 and threading.active_count() <= threads
                    ),
                    PATIENCE,
                )


def _descriptors() -> int:
    return len(os.listdir(Path("/proc/self/fd")))
