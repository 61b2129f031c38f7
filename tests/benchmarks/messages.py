"""A peer message with its receipt against two raw TCP echo round trips."""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time

from rtm_sync import RtmClient
from tests.benchmarks.processes import gateway_process
from tests.benchmarks.table import Row, at_most

SIZE = 200
MESSAGES = 3000
WARM_UP = 300

_ECHO = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
connection, _ = server.accept()
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while data := connection.recv(4096):
    connection.sendall(data)
"""

_RECEIVER = """
import sys
from rtm_sync import RtmClient
with RtmClient("benchmark", url=sys.argv[1]) as bob:
    bob.login("bob")
    print("ready", flush=True)
    sys.stdin.read()
"""


def run() -> list[Row]:
    text = "x" * SIZE
    times: list[float] = []
    echoes: list[float] = []
    with gateway_process() as gateway, RtmClient("benchmark", url=gateway.url) as alice:
        alice.login("alice")
        receiver = [sys.executable, "-c", _RECEIVER, gateway.url]
        echo = [sys.executable, "-c", _ECHO]
        with (
            subprocess.Popen(receiver, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bob,
            subprocess.Popen(echo, stdout=subprocess.PIPE, text=True) as server,
        ):
            assert bob.stdout is not None
            assert bob.stdin is not None
            assert server.stdout is not None
            bob.stdout.readline()
            with socket.create_connection(("127.0.0.1", int(server.stdout.readline()))) as raw:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                payload = text.encode()
                for number in range(MESSAGES + WARM_UP):
                    start = time.perf_counter()
                    alice.send_message_to_peer(text, "bob")
                    middle = time.perf_counter()
                    for _ in range(2):
                        raw.sendall(payload)
                        raw.recv(4096)
                    end = time.perf_counter()
                    if number >= WARM_UP:
                        times.append(middle - start)
                        echoes.append(end - middle)
                    if number % 400 == 399:
                        time.sleep(1.0)  # stay below the limit of 1,500 messages in 3 seconds
            bob.stdin.close()
    return [
        at_most(
            "peer message with receipt, median ms (against two TCP echoes)",
            1000 * statistics.median(times),
            1000 * statistics.median(echoes),
            2.5,
            "ms",
        )
    ]
