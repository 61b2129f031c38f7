"""`rtm-sync serve`: its URL, its errors at start, and its stop in time with requests finished."""

from __future__ import annotations

import io
import itertools
import os
import signal
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from rtm_sync import LoginError, RtmClient, RtmFileMessage, Transfer
from rtm_sync.hub.auth.tokens import make_token
from tests.cli.support import SECRET, CommandTestCase, Gateway
from tests.support import PATIENCE, Stopwatch, at_once, wait_until

STOP_BOUND = 10.0  # seconds in which a gateway must end under any load
PAYLOAD = os.urandom(5_000_000)
APP = ("--app-id", "my-app", "--app-secret", SECRET)


def is_listening(url: str) -> bool:
    there = urlsplit(url)
    try:
        socket.create_connection((there.hostname or "", there.port or 0), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return False
    return True


class HeldUpFile(io.BytesIO):
    """A file that blocks before its second half until `go_on` is set."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._middle = len(data) // 2
        self.in_the_middle, self.go_on = threading.Event(), threading.Event()

    def read(self, size: int | None = -1) -> bytes:
        if size and self.tell() > self._middle:
            self.in_the_middle.set()
            self.go_on.wait(PATIENCE)
        return super().read(size)


class ServeTest(CommandTestCase):
    def assert_serves(self, url: str) -> None:
        with RtmClient("my-app", url=url) as client:
            client.login("alice")
            self.assertEqual(
                client.create_media_message_by_uploading(b"1").result(PATIENCE).size, 1
            )

    def setUp(self) -> None:
        super().setUp()
        self.clients: list[RtmClient] = []
        # Each logout waits a second for its answer when the gateway is gone.
        self.addCleanup(lambda: at_once(*(client.close for client in self.clients)))

    def client(self, url: str, uid: str = "alice", token: str | None = None) -> RtmClient:
        client = RtmClient("my-app", url=url)
        self.clients.append(client)
        client.login(uid, token)
        return client


class StartTest(ServeTest):
    def test_it_prints_its_address_and_serves_there(self) -> None:
        gateway = self.serve("--data", "here")
        self.assertRegex(gateway.url, r"^ws://127\.0\.0\.1:\d+$")
        self.assertEqual(gateway.data, "here")
        alice, bob = self.client(gateway.url), self.client(gateway.url, "bob")
        message = alice.create_media_message_by_uploading(b"bytes").result(PATIENCE)
        self.assertTrue(alice.send_message_to_peer(message, "bob").has_peer_received)
        self.assertEqual(bob.download_media(message.media_id).result(PATIENCE).to_bytes(), b"bytes")

    def test_without_a_secret_it_says_loudly_that_anybody_may_log_in(self) -> None:
        gateway = self.serve()
        self.assertRegex(
            gateway.complaints, r"^NO APP SECRET: anyone .* --app-secret to serve others\.$"
        )

    def test_without_a_secret_it_refuses_every_host_but_loopback(self) -> None:
        for host in ("0.0.0.0", "gateway.example"):
            with self.subTest(host):
                refusal = self.refused("serve", "--host", host, status=2)
                self.assertIn(f"host is {host!r}, and without an app_secret anybody", refusal)
                self.assertIn("set app_id and app_secret, or listen on 127.0.0.1", refusal)
        self.assertEqual(list(self.home.iterdir()), [])

    def test_with_a_secret_it_is_quiet_and_takes_only_its_tokens(self) -> None:
        gateway = self.serve(*APP)
        self.assertEqual(gateway.complaints, "")
        token = self.printed("token", "alice", *APP).strip()
        for uid, given in (("alice", None), ("bob", token)):
            with self.subTest(uid), self.assertRaisesRegex(LoginError, "INVALID_TOKEN"):
                self.client(gateway.url, uid, given)
        self.assertEqual(self.client(gateway.url, "alice", token).uid, "alice")

    def test_options_win_over_variables_and_variables_over_the_file(self) -> None:
        (self.home / "gateway.toml").write_text('data = "from the file"\nport = 1\n')
        file = {"RTM_SYNC_CONFIG": "gateway.toml"}
        variable = {"RTM_SYNC_DATA": "from a variable"}
        option = ("--data", "from an option")
        gateways = at_once(
            lambda: self.serve(**file),
            lambda: self.serve("--config", "gateway.toml", **variable),
            lambda: self.serve(*option, **file, **variable),
        )
        self.assertEqual(
            [gateway.data for gateway in gateways],
            ["from the file", "from a variable", "from an option"],
        )
        self.assertEqual(
            sorted(path.name for path in self.home.iterdir()),
            ["from a variable", "from an option", "from the file", "gateway.toml"],
        )

    def test_the_data_folder_may_have_any_name(self) -> None:
        name = "50 %41 ? #1 & ünï"
        gateway = self.serve("--data", name)
        alice = self.client(gateway.url)
        media_id = alice.create_media_message_by_uploading(b"bytes").result(PATIENCE).media_id
        self.assertEqual(
            (self.home / name / "media" / media_id[:2] / media_id).read_bytes(), b"bytes"
        )
        self.assertTrue((self.home / name / "rtm.sqlite3").is_file())
        self.assertEqual([path.name for path in self.home.iterdir()], [name])


class RefusalTest(ServeTest):
    def test_a_data_folder_serves_one_gateway_at_a_time(self) -> None:
        first = self.serve("--data", "shared")
        self.assertEqual(
            self.refused("serve", "--port", 0, "--data", "shared", status=2),
            "The data folder shared is used by another gateway; choose another one.",
        )
        self.assert_serves(first.url)
        first.process.kill()
        first.ended()
        self.assert_serves(self.serve("--data", "shared").url)

    def test_a_port_in_use_is_named(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            refusal = self.refused("serve", "--port", port, status=1)
        self.assertRegex(refusal, rf"^The gateway cannot start: .*{port}.*address already in use")

    def test_what_cannot_be_a_setting_is_refused_in_words(self) -> None:
        (self.home / "wrong.toml").write_text("port = true\n")
        for arguments, environment, complaint in (
            (("--limits", "none"), {}, 'limits: \'none\' is neither "linux", "web" nor NAME=VALUE'),
            ((), {"RTM_SYNC_DRAIN": "long"}, "drain in the environment is 'long'; it must be a n"),
            (("--config", "wrong.toml"), {}, "port in wrong.toml is True; it must be a whole num"),
            (("--config", "absent.toml"), {}, "cannot be read: .*absent.toml"),
            (("--engine", "redis://localhost"), {}, "No engine serves 'redis'. Built in: local"),
            (("--media", "s4://bucket"), {}, "No media store serves 's4'. Built in: disk"),
        ):
            with self.subTest(arguments=arguments, **environment):
                refusal = self.refused("serve", *arguments, status=2, **environment)
                self.assertRegex(refusal, complaint)

    def test_a_data_folder_that_cannot_be_one_is_refused_in_words(self) -> None:
        (self.home / "file").write_text("not a folder")
        (self.home / "damaged").mkdir()
        (self.home / "damaged" / "rtm.sqlite3").write_bytes(b"not a database" * 1000)
        for data, reason in (("file", "File exists: 'file'"), ("damaged", "is not a database")):
            with self.subTest(data):
                refusal = self.refused("serve", "--port", 0, "--data", data, status=1)
                self.assertRegex(refusal, rf"^The gateway cannot start: .*{reason}")

    def test_a_secret_that_is_too_short_is_refused_and_not_repeated(self) -> None:
        done = self.command("serve", "--app-id", "my-app", RTM_SYNC_APP_SECRET="hush-hush")
        self.assertEqual(done.returncode, 2)
        self.assertIn("The app secret has 9 bytes; HS256 needs at least 32.", done.stderr)
        self.assertNotIn("hush-hush", done.stderr)


class KeyTest(ServeTest):
    """Keys that change while the gateway runs: SIGHUP reads the apps again."""

    numbers = itertools.count()
    OLD, NEW = "the old secret, 32 bytes or more.", "the new secret, 32 bytes or more."

    def write(self, *secrets: str) -> None:
        (self.home / "gateway.toml").write_text(f"[apps.my-app]\nsecrets = {list(secrets)}\n")

    def accepts(self, gateway: Gateway, secret: str) -> bool:
        uid = f"user-{next(self.numbers)}"  # logins of one user are limited
        with RtmClient("my-app", url=gateway.url) as client:
            try:
                client.login(uid, make_token("my-app", uid, secret))
            except LoginError as error:
                self.assertEqual(error.reason, "INVALID_TOKEN")
                return False
        return True

    def test_keys_are_changed_without_a_restart(self) -> None:
        self.write(self.OLD)
        gateway = self.serve("--config", "gateway.toml")
        staying = self.client(gateway.url, "bob", make_token("my-app", "bob", self.OLD))
        self.assertFalse(self.accepts(gateway, self.NEW))
        self.write(self.NEW, self.OLD)
        gateway.signal(signal.SIGHUP)
        wait_until(lambda: "1 apps were read again" in gateway.err)
        self.assertTrue(self.accepts(gateway, self.NEW) and self.accepts(gateway, self.OLD))
        self.assertTrue(staying.send_message_to_peer("still here", "bob").has_peer_received)
        self.write(self.NEW)
        gateway.signal(signal.SIGHUP)
        wait_until(lambda: gateway.err.count("1 apps were read again") == 2)
        self.assertTrue(self.accepts(gateway, self.NEW))
        self.assertFalse(self.accepts(gateway, self.OLD))
        wait_until(lambda: staying.connection_state.name == "ABORTED")

    def test_a_mistake_changes_nothing_and_is_told(self) -> None:
        self.write(self.OLD)
        gateway = self.serve("--config", "gateway.toml")
        for mistake, why in (
            ("nonsense", "gateway.toml"),
            ("[apps.my-app]\nsecrets = ['short']\n", "has 5 bytes"),
            ("[apps.my-app]\npublic_keys = ['absent.pem']\n", "absent.pem cannot be used"),
            ("", "cannot begin or end serving without apps"),
        ):
            (self.home / "gateway.toml").write_text(mistake)
            told = gateway.complaints.count("stay as they were")
            gateway.signal(signal.SIGHUP)
            wait_until(
                lambda told=told: gateway.complaints.count("stay as they were") == told + 1,
            )
            self.assertRegex(gateway.complaints.splitlines()[-1], why)
        self.assertTrue(self.accepts(gateway, self.OLD))


class StopTest(ServeTest):
    def upload_held_up(self, gateway: Gateway) -> tuple[Transfer[RtmFileMessage], threading.Event]:
        """An upload that blocks in its middle, and the event that lets it continue."""
        file = HeldUpFile(PAYLOAD)
        self.addCleanup(file.go_on.set)
        upload = self.client(gateway.url).create_media_message_by_uploading(file)
        self.assertTrue(file.in_the_middle.wait(PATIENCE))
        return upload, file.go_on

    def test_sigterm_lets_a_running_upload_finish_and_takes_no_new_work(self) -> None:
        gateway = self.serve("--data", "kept")
        upload, go_on = self.upload_held_up(gateway)
        watch = Stopwatch()
        gateway.signal(signal.SIGTERM)
        wait_until(lambda: not is_listening(gateway.url))
        self.assertIsNone(gateway.process.poll())
        go_on.set()
        media_id = upload.result(PATIENCE).media_id
        self.assertEqual(gateway.ended(), 0)
        self.assertLess(watch.seconds(), STOP_BOUND)
        again = self.client(self.serve("--data", "kept").url, "bob")
        self.assertEqual(again.download_media(media_id).result(PATIENCE).to_bytes(), PAYLOAD)

    def test_an_upload_that_does_not_move_is_given_up_after_the_drain(self) -> None:
        gateway = self.serve("--data", "kept", "--drain", 1)
        self.upload_held_up(gateway)
        watch = Stopwatch()
        start = time.monotonic()
        self.assertEqual(gateway.stop(), 0)
        self.assertGreater(time.monotonic() - start, 0.9)
        self.assertLess(watch.seconds(), STOP_BOUND)
        kept = self.home / "kept" / "media"
        # The partial upload stays for the gateway's next start, but it is not a medium.
        self.assertEqual({path.suffix for path in kept.glob("*/*")}, {".part", ".note"})

    def test_ctrl_c_ends_it_quietly(self) -> None:
        gateway = self.serve(*APP)
        gateway.signal(signal.SIGINT)
        self.assertEqual(gateway.ended(STOP_BOUND), 0)
        self.assertEqual(gateway.complaints, "")

    def test_a_second_signal_does_not_cut_the_first_ones_drain_short(self) -> None:
        gateway = self.serve("--data", "kept")
        upload, go_on = self.upload_held_up(gateway)
        gateway.signal(signal.SIGINT)
        wait_until(lambda: not is_listening(gateway.url))
        gateway.signal(signal.SIGINT)
        gateway.signal(signal.SIGTERM)
        go_on.set()
        self.assertEqual(upload.result(PATIENCE).size, len(PAYLOAD))
        self.assertEqual(gateway.ended(), 0)

    def test_clients_that_are_logged_in_do_not_hold_it_up(self) -> None:
        gateway = self.serve()
        for number in range(3):
            self.client(gateway.url, f"user-{number}")
        watch = Stopwatch()
        self.assertEqual(gateway.stop(), 0)
        self.assertLess(watch.seconds(), STOP_BOUND / 2)

    def test_the_same_port_is_free_again_at_once(self) -> None:
        first = self.serve()
        self.assert_serves(first.url)
        port = urlsplit(first.url).port
        self.assertEqual(first.stop(), 0)
        second = self.serve("--port", port)
        self.assertEqual(second.url, first.url)
        self.assertEqual(Path(second.data), Path("rtm-data"))
