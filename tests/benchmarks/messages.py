"""A peer message with its receipt against two raw TCP echo round trips.

And against what its parts cost with nothing of ours in them: two echoes between the same WebSocket
client and the same server library. And the throughput of messages that are stored before they are
offered, against messages that are not, both from eight threads of one client.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import websocket

from rtm_sync import RtmClient
from tests.benchmarks.processes import gateway_process
from tests.benchmarks.table import Row, at_least, at_most, for_comparison

SIZE = 200
MESSAGES = 3000
WARM_UP = 300
THREADS = 8
ROUNDS = 9
BURST = 1200  # messages; below the limit of 1,500 in 3 seconds
_WINDOW = 3.1  # seconds until the limit has forgotten a burst

_ECHO = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
connection, _ = server.accept()
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while data := connection.recv(4096):
    connection.sendall(data)
"""

_WEBSOCKET_ECHO = """
from aiohttp import web
from rtm_sync.gateway.app import run_loop
import asyncio

async def echo(request):
    socket = web.WebSocketResponse(compress=False, autoping=False)
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data)
    return socket

async def main():
    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()

run_loop(main())
"""

_RECEIVER = """
import sys
from rtm_sync import RtmClient
with RtmClient("benchmark", url=sys.argv[1]) as bob:
    bob.on("MessageFromPeer", lambda message, peer, props: None)
    bob.login("bob")
    print("ready", flush=True)
    sys.stdin.read()
"""


def run() -> list[Row]:
    text = "x" * SIZE
    times: list[float] = []
    echoes: list[float] = []
    websocket_echoes: list[float] = []
    with gateway_process() as gateway, RtmClient("benchmark", url=gateway.url) as alice:
        alice.login("alice")
        receiver = [sys.executable, "-c", _RECEIVER, gateway.url]
        with (
            subprocess.Popen(receiver, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bob,
            _server(_ECHO) as port,
            _server(_WEBSOCKET_ECHO) as websocket_port,
        ):
            assert bob.stdout is not None
            assert bob.stdin is not None
            bob.stdout.readline()
            with (
                socket.create_connection(("127.0.0.1", port)) as raw,
                contextlib.closing(_websocket(websocket_port)) as framed,
            ):
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
                    for _ in range(2):
                        framed.send(text)
                        framed.recv()
                    last = time.perf_counter()
                    if number >= WARM_UP:
                        times.append(middle - start)
                        echoes.append(end - middle)
                        websocket_echoes.append(last - end)
                    if number % 400 == 399:
                        time.sleep(1.0)  # stay below the limit of 1,500 messages in 3 seconds
            rates = _rates(alice)
            bob.stdin.close()
    return [
        at_most(
            "peer message with receipt, median ms (against two TCP echoes)",
            1000 * statistics.median(times),
            1000 * statistics.median(echoes),
            2.5,
            "ms",
        ),
        for_comparison(
            "two bare WebSocket echoes, median ms (against two TCP echoes)",
            1000 * statistics.median(websocket_echoes),
            1000 * statistics.median(echoes),
            "ms",
        ),
        at_least(
            "messages a second with enable_offline_messaging, eight threads (against without)",
            statistics.median(rates[True]),
            statistics.median(rates[False]),
            0.7,
            "/s",
        ),
    ]


def _rates(alice: RtmClient) -> dict[bool, list[float]]:
    """Messages a second, stored and not stored, in bursts that take turns."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    with ThreadPoolExecutor(THREADS) as threads:
        for number in range(2 * (ROUNDS + 1)):
            is_stored = bool(number % 2)
            time.sleep(_WINDOW)
            start = time.perf_counter()
            bursts = [threads.submit(_burst, alice, is_stored) for _ in range(THREADS)]
            for burst in bursts:
                burst.result()
            if number >= 2:  # the first burst of each kind warms up
                rates[is_stored].append(BURST / (time.perf_counter() - start))
    return rates


def _burst(alice: RtmClient, is_stored: bool) -> None:
    """Send one thread's share of a burst, each message when the one before was received."""
    for _ in range(BURST // THREADS):
        sent = alice.send_message_to_peer("x" * SIZE, "bob", enable_offline_messaging=is_stored)
        assert sent.has_peer_received


@contextlib.contextmanager
def _server(script: str) -> Iterator[int]:
    """Run a script that prints its port."""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def _websocket(port: int) -> websocket.WebSocket:
    return websocket.create_connection(f"ws://127.0.0.1:{port}/", skip_utf8_validation=True)
