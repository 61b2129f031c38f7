"""The documented block for nginx, in a real nginx in front of a real gateway."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import unittest
from pathlib import Path

import requests

from rtm_sync import RtmClient
from rtm_sync.gateway.guard.auth_failures import AUTH_FAILURES
from rtm_sync.hub.auth.tokens import make_token
from rtm_sync.testing import GatewayProcess, RtmTestCase
from rtm_sync.testing.ports import free_port
from tests.cli.test_serve import is_listening
from tests.support import PATIENCE, wait_until

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SECRET = "a secret of tests, 32 bytes or more"
PROXY = "127.0.0.3"  # the address from which nginx connects; 127.0.0.1 is a client's
EVENTS = "/dev/v2/project/app/rtm/vendor/user_events"
ALARM = "HANDS ON NO ADDRESSES"


@unittest.skipIf(NGINX is None, "needs nginx (apt install nginx-light)")
class NginxTest(RtmTestCase):
    def serve(self, without: str = "^$") -> str:
        """The URL of nginx with the document's block, without the lines that match."""
        settings = {"app_id": "app", "app_secret": SECRET, "proxies": PROXY}
        self.gateway = self.entered(GatewayProcess(settings=settings))
        found = re.search(r"```text\n(location / \{\n.*?\n\}\n)```", OPERATIONS.read_text(), re.S)
        assert found is not None
        lines = found[1].replace("http://127.0.0.1:8765", self.gateway.url.replace("ws", "http"))
        self.assertIn(self.gateway.url.replace("ws", "http"), lines)
        block = "\n".join(line for line in lines.splitlines() if not re.search(without, line))
        folder, port = self.folder(), free_port()
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {folder};" for kind in kinds)
        configuration = folder / "nginx.conf"
        configuration.write_text(
            ("user root;" if os.geteuid() == 0 else "")
            + f"daemon off; pid {folder}/pid; error_log {folder}/errors; worker_processes 1;"
            f"events {{}} http {{ access_log off; {temporary} server {{"
            f"listen 127.0.0.1:{port}; proxy_bind {PROXY};\n{block}\n}} }}"
        )
        assert NGINX is not None
        process = subprocess.Popen(
            [NGINX, "-p", folder, "-c", configuration, "-e", folder / "errors"],
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.terminate)
        url = f"ws://127.0.0.1:{port}"
        wait_until(lambda: is_listening(url))
        return url

    def ask(self, url: str, secret: str, **headers: str) -> int:
        return requests.get(
            url.replace("ws", "http", 1) + EVENTS,
            auth=("app", secret),
            headers=headers,
            timeout=PATIENCE,
        ).status_code

    def test_messages_and_media_pass_and_addresses_are_handed_on(self) -> None:
        url = self.serve()
        alice = self.entered(RtmClient("app", url=url))
        alice.login("alice", make_token("app", "alice", SECRET))
        self.assertFalse(alice.send_message_to_peer("hi", "bob").has_peer_received)
        data = os.urandom(3_000_000)
        sent = alice.create_media_message_by_uploading(data).result(PATIENCE)
        self.assertEqual(alice.download_media(sent.media_id).result(PATIENCE).to_bytes(), data)
        own = url.replace("ws", "http", 1)  # a page of nginx's own host and port
        answer = requests.get(f"{own}/healthz", headers={"Origin": own}, timeout=PATIENCE)
        self.assertEqual(answer.status_code, 200)
        invented = {"X-Forwarded-For": "203.0.113.9"}
        guesses = [self.ask(url, "wrong", **invented) for _ in range(AUTH_FAILURES.count + 1)]
        self.assertEqual(guesses[-2:], [401, 429])
        alice.logout()
        self.gateway.stop()
        log = self.gateway.log
        self.assertIn("127.0.0.1 alice@app GET /v1/signalling 101", log)
        self.assertIn("127.0.0.1 alice@app POST /v1/media 201", log)
        self.assertNotIn(f" {PROXY} ", log)
        self.assertNotIn("203.0.113.9", log)
        self.assertNotIn(ALARM, log)

    def test_a_proxy_that_hands_on_no_addresses_is_named_once(self) -> None:
        url = self.serve(without="X-Forwarded-For")
        for _ in range(3):
            self.assertEqual(self.ask(url, SECRET), 200)
        self.gateway.stop()
        [line] = [line for line in self.gateway.log.splitlines() if ALARM in line]
        self.assertIn(f"ERROR   THE PROXY {PROXY} ", line)


class QuietTest(RtmTestCase):
    def test_the_machines_own_requests_and_probes_raise_no_alarm(self) -> None:
        with GatewayProcess() as gateway:
            http = gateway.url.replace("ws", "http", 1)
            for headers, path in (
                ({}, "/openapi.json"),
                ({"Host": "localhost"}, "/openapi.json"),
                ({"Host": "rtm.example"}, "/healthz"),
                ({"X-Forwarded-For": "192.0.2.7", "Host": "rtm.example"}, "/openapi.json"),
            ):
                requests.get(http + path, headers=headers, timeout=PATIENCE)
            self.assertNotIn(ALARM, gateway.log)
            for headers in ({"Host": "rtm.example"}, {"Via": "1.1 proxy"}):
                requests.get(http + "/openapi.json", headers=headers, timeout=PATIENCE)
            wait_until(lambda: ALARM in gateway.log)
            gateway.stop()
            self.assertEqual(gateway.log.count(ALARM), 1)
