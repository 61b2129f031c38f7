"""The extension in common web servers, run as processes against a real gateway."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import requests

from rtm_sync import RtmClient
from rtm_sync.hub.auth.tokens import make_token
from tests.cli.support import REPOSITORY, child_environment
from tests.support import PATIENCE, RtmTestCase, Stopwatch, local_gateway, wait_until

from .test_relay import Sent, parsed

STOP_BOUND = 10.0
SECRET = "a secret of at least thirty-two bytes"
PHOTO = bytes(range(256)) * 4096
FLASK = ("flask", "--app", "tests.flask.served", "run", "--port", "0")
GUNICORN = ("gunicorn", "-b", "127.0.0.1:0", "-w", "2", "tests.flask.served:create_app()")


class Address(NamedTuple):
    """A running server: its address, its requests and its end."""

    url: str
    server: subprocess.Popen[bytes]

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, headers=headers, timeout=PATIENCE)

    @contextlib.contextmanager
    def events(self, last_event_id: str | None = None) -> Iterator[Iterator[Sent]]:
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        with requests.get(
            f"{self.url}/rtm/events", headers=headers, stream=True, timeout=PATIENCE
        ) as response:
            assert response.status_code == 200, response.text
            # The stream yields whole events, and the server sends each part as one HTTP chunk.
            yield parsed(response.raw.stream(decode_content=True))


class ServersTest(RtmTestCase):
    def setUp(self) -> None:
        self.hub = self.entered(local_gateway(self.folder(), app_id="app", app_secret=SECRET))

    @contextlib.contextmanager
    def served(self, *command: str, room: str = "room") -> Iterator[Address]:
        """Run a server, and stop it with a signal. Its log must not have a traceback."""
        folder = self.folder()
        if command[0] == "gunicorn":
            command += ("--worker-tmp-dir", str(folder), "--control-socket", f"{folder}/control")
        environment = child_environment(
            SERVED_RTM_URL=self.hub,
            SERVED_RTM_APP_ID="app",
            SERVED_RTM_SECRET=SECRET,
            SERVED_ROOM=room,
        )
        log = folder / "log"
        with (
            log.open("w") as file,
            subprocess.Popen(
                [sys.executable, "-m", *command],
                stdout=file,
                stderr=file,
                env=environment,
                cwd=REPOSITORY,
            ) as server,
        ):
            try:
                yield Address(self.address(log), server)
            finally:
                server.send_signal(signal.SIGINT if command[0] == "flask" else signal.SIGTERM)
                try:
                    status = server.wait(STOP_BOUND)
                finally:
                    server.kill()
        told = log.read_text()
        self.assertIn(status, (0, -signal.SIGINT, 130), told)
        self.assertNotIn("Traceback", told)

    def address(self, log: Path) -> str:
        found: list[str] = []

        def is_listening() -> bool:
            found[:] = re.findall(r"(?:Listening at:|Running on) (http\S+)", log.read_text())
            return bool(found)

        wait_until(is_listening, PATIENCE)
        return found[0]

    def workers(self, server: Address, count: int) -> dict[int, str]:
        """The pids of the worker processes that answer, with the uid of each."""
        found: dict[int, str] = {}

        def ask(_: int) -> None:
            answer = server.get("/uid").json()
            found[answer["pid"]] = answer["uid"]

        def are_found() -> bool:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(ask, range(16)))
            return len(found) == count

        wait_until(are_found, PATIENCE)
        return found

    def check(self, *commands: tuple[str, ...], workers: int = 2) -> None:
        """Check several servers at once, because they wait most of the time."""
        with ThreadPoolExecutor() as pool:
            checks = [
                pool.submit(self.check_server, self.peer(f"peer {number}"), workers, *command)
                for number, command in enumerate(commands)
            ]
        for check in checks:
            check.result()

    def peer(self, uid: str) -> RtmClient:
        client = self.entered(RtmClient("app", url=self.hub))
        client.login(uid, make_token("app", uid, SECRET))
        return client

    def check_server(self, peer: RtmClient, workers: int, *command: str) -> None:
        room = f"room of {peer.uid}"
        with contextlib.ExitStack() as stack:
            with self.served(*command, room=room) as server:
                self.assertEqual(server.get("/").json()["threads"], [])  # not started yet
                uids = self.workers(server, workers)
                for pid, uid in uids.items():
                    self.assertRegex(uid, rf"^web-.+-{pid}$")
                self.assertNotIn(os.getpid(), uids)
                online = peer.query_peers_online_status(list(uids.values()))
                self.assertEqual(set(online.values()), {True})
                self.check_handlers(peer, list(uids.values()))
                self.check_media(server)
                self.check_events(server, peer, room)
                # This stream stays open: the server must end without waiting for it.
                next(stack.enter_context(server.events()))
            online = peer.query_peers_online_status(list(uids.values()))
            self.assertEqual(set(online.values()), {False})  # logged out, and not only disconnected

    def check_handlers(self, peer: RtmClient, uids: list[str]) -> None:
        with peer.events("MessageFromPeer") as arriving:
            for uid in uids:
                self.assertTrue(peer.send_message_to_peer("hello", uid).has_peer_received)
                message, sender, _ = next(arriving.until(PATIENCE)).args
                self.assertEqual((message.text, sender), ("served got it", uid))

    def check_media(self, server: Address) -> None:
        form = {"photo": ("cat.png", PHOTO, "image/png")}
        answer = requests.post(f"{server.url}/photos", files=form, timeout=PATIENCE)
        self.assertEqual(answer.status_code, 200, answer.text)
        self.assertEqual(answer.json()["type"], "RtmImageMessage")
        path = f"/photos/{answer.json()['media_id']}"
        self.assertEqual(server.get(path).content, PHOTO)
        part = server.get(path, Range="bytes=1000000-1000099")
        self.assertEqual((part.status_code, part.content), (206, PHOTO[1000000:1000100]))

    def check_events(self, server: Address, peer: RtmClient, room_id: str) -> None:
        """A browser that reconnects to the same worker gets the event that it missed."""
        with server.events() as events:
            ready = next(events)
            self.assertEqual((ready.event, ready.data), ("ready", {"recovered": True}))
        room = peer.create_channel(room_id)
        room.join()
        room.send_message("to the room")

        def is_recovered() -> bool:
            with server.events(ready.id) as again:
                if not next(again).data["recovered"]:  # another worker, which cannot recover events
                    return False
                # The photo that was sent before may arrive after `ready` as well.
                messages = (e.data["message"] for e in again if e.event == "ChannelMessage")
                return next(m["text"] for m in messages if "text" in m) == "to the room"

        wait_until(is_recovered, PATIENCE)
        room.leave()

    def test_flasks_own_server(self) -> None:
        self.check(FLASK, workers=1)

    def test_gunicorn_with_sync_workers_preloaded_or_not(self) -> None:
        self.check(GUNICORN, (*GUNICORN, "--preload"))

    def test_gunicorn_with_threads_preloaded_or_not(self) -> None:
        threads = (*GUNICORN, "--threads", "8")
        self.check(threads, (*threads, "--preload"))

    def test_gunicorn_with_gevent_preloaded_or_not(self) -> None:
        gevent = (*GUNICORN, "-k", "gevent")
        self.check(gevent, (*gevent, "--preload"))

    def test_browsers_that_have_left_take_no_threads(self) -> None:
        with self.served(*GUNICORN, "-w", "1", "--threads", "4") as server:
            for _ in range(12):  # reloads of a page; the first heartbeat comes after 15 s
                watch = Stopwatch()
                with server.events() as events:
                    self.assertEqual(next(events).event, "ready")
                self.assertLess(watch.seconds(), 5.0)
