"""A web server that loads the application before it forks: gunicorn --preload."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from rtm_sync import RtmClient
from tests.support import PATIENCE, RtmTestCase, local_gateway, wait_until

APP = """
import os, threading
from rtm_sync import RtmClient, RtmError

URL = {url!r}
before_the_fork = RtmClient("app", url=URL)
before_the_fork.login("master")
lock, clients = threading.Lock(), {{}}


def mine():
    with lock:
        client = clients.get(os.getpid())
        if client is None:
            client = clients[os.getpid()] = RtmClient("app", url=URL)
            client.login(f"worker-{{os.getpid()}}")
        return client


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/master":
        try:
            before_the_fork.send_message_to_peer("hi", "watcher")
        except RtmError as error:
            return [str(error).encode()]
    number = environ["QUERY_STRING"]
    result = mine().send_message_to_peer(number, "watcher", timeout=60)
    return [f"{{os.getpid()}} {{result.has_peer_received}}".encode()]
"""


class PreforkedTest(RtmTestCase):
    def test_each_worker_has_its_own_client_and_the_masters_is_refused_clearly(self) -> None:
        url = self.entered(local_gateway(self.folder()))
        watcher = RtmClient("app", url=url)
        self.addCleanup(watcher.close)
        watcher.login("watcher")
        arrived: list[str] = []
        watcher.on("MessageFromPeer", lambda message, *_: arrived.append(message.text))
        folder = self.folder()
        (folder / "preforked.py").write_text(APP.format(url=url))
        command = [
            *(sys.executable, "-m", "gunicorn", "--preload", "-w", "4", "--threads", "4"),
            *("-b", "127.0.0.1:0", "--chdir", str(folder), "--worker-tmp-dir", str(folder)),
            *("--control-socket", str(folder / "control"), "preforked:app"),
        ]
        log = (folder / "log").open("w")
        self.addCleanup(log.close)
        with subprocess.Popen(command, stderr=log) as server:
            try:
                address = self.address(folder / "log")
                self.use(address, watcher, arrived)
            finally:
                server.send_signal(signal.SIGTERM)
                self.assertEqual(server.wait(PATIENCE), 0)
        self.assertNotIn("Traceback", (folder / "log").read_text())

    def address(self, log: Path) -> str:
        found: list[str] = []

        def is_listening() -> bool:
            found[:] = re.findall(r"Listening at: (\S+)", log.read_text())
            return bool(found)

        wait_until(is_listening, PATIENCE)
        return found[0]

    def use(self, address: str, watcher: RtmClient, arrived: list[str]) -> None:
        refused = requests.get(f"{address}/master", timeout=PATIENCE)
        self.assertIn("make a new one in each process", refused.text)

        def ask(number: int) -> str:
            return requests.get(f"{address}/?{number}", timeout=PATIENCE).text

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(100)))
        self.assertEqual({answer.partition(" ")[2] for answer in answers}, {"True"})
        workers = {answer.partition(" ")[0] for answer in answers}
        wait_until(lambda: len(arrived) == 100)
        self.assertEqual(sorted(arrived, key=int), [str(number) for number in range(100)])
        online = watcher.query_peers_online_status(["master", *(f"worker-{w}" for w in workers)])
        self.assertEqual(set(online.values()), {True})
