"""What others notice of an attack: the memory that strangers take, and another app's logins.

An app with 600,000 messages in its history asks for all of them at once, again and again, from
eight connections, while users of another app log in. Both share one gateway, and this machine.
"""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import statistics
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import requests

from rtm_sync import RtmClient
from rtm_sync.hub.auth.tokens import make_token
from rtm_sync.testing import GatewayProcess
from tests.benchmarks.processes import resident
from tests.benchmarks.table import Row, at_most

SECRETS = {
    "shop": "the shop's secret, 32 bytes or more",
    "game": "the game's secret, 32 bytes or more",
}
MESSAGES = 600_000
LOGINS = 30
ATTACKERS = 8
STRANGERS = 900
_COUNT = "/dev/v2/project/shop/rtm/message/history/count"


def run() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="rtm-sync-benchmark-") as name:
        folder = Path(name)
        config = folder / "gateway.toml"
        config.write_text(
            "".join(f"[apps.{app_id}]\nsecrets = [{SECRETS[app_id]!r}]\n" for app_id in SECRETS)
        )
        with GatewayProcess(folder / "data", {"config": config}) as gateway:
            gateway.stop()
            _fill(folder / "data" / "rtm.sqlite3")
            gateway.start()
            memory = _of_strangers(gateway)
            alone = [_login(gateway.url, number) for number in range(LOGINS)]
            with _attacked(gateway.url.replace("ws", "http", 1)):
                attacked = [_login(gateway.url, LOGINS + number) for number in range(LOGINS)]
    return [
        at_most(
            "memory of a connection before its login, of 900 with 16 KB of an unfinished frame, KB "
            "(against 16 KB)",
            memory,
            16.0,
            4.0,
            "KB",
        ),
        at_most(
            "login while another app reads its 600,000 messages, median ms (against alone)",
            1000 * statistics.median(attacked),
            1000 * statistics.median(alone),
            2.0,
            "ms",
        ),
    ]


def _fill(database: Path) -> None:
    """Give the shop a history."""
    now = int(time.time() * 1000)
    rows = (
        ("shop", "mallory", "nobody", 0, now - number, now / 1000 + 86_400, f"m{number}", "{}")
        for number in range(MESSAGES)
    )
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(
            "INSERT INTO history (app_id, source, destination, is_channel, ms, expires_at, "
            "message_id, message) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )


def _of_strangers(gateway: GatewayProcess) -> float:
    """KB of the gateway's memory for each connection that sends no login."""
    parts = urlsplit(gateway.url)
    frame = b"\x81\xff" + struct.pack("!Q", 262_144) + b"mask" + b"x" * (16 * 1024 - 14)
    upgrade = (
        f"GET /v1/signalling HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()
    before = resident(gateway.pid)
    with contextlib.ExitStack() as opened:
        for _ in range(STRANGERS):
            stranger = socket.create_connection((parts.hostname, parts.port))
            opened.enter_context(stranger)
            stranger.sendall(upgrade)
            stranger.recv(1000)
            stranger.sendall(frame)
        return 1024 * (resident(gateway.pid) - before) / STRANGERS


def _login(url: str, number: int) -> float:
    """Seconds of a login of the other app."""
    uid = f"user-{number}"
    token = make_token("game", uid, SECRETS["game"])
    with RtmClient("game", url=url) as client:
        start = time.perf_counter()
        client.login(uid, token)
        return time.perf_counter() - start


@contextlib.contextmanager
def _attacked(http: str) -> Iterator[None]:
    """While the block runs, the shop counts its history from eight connections."""
    over = threading.Event()
    period = {"start_time": "2020-01-01T00:00:00Z", "end_time": "2100-01-01T00:00:00Z"}

    def count() -> None:
        with requests.Session() as session:
            while not over.is_set():
                session.get(
                    http + _COUNT,
                    params=period | {"source": "mallory"},
                    auth=("shop", SECRETS["shop"]),
                    timeout=60,
                )

    threads = [threading.Thread(target=count) for _ in range(ATTACKERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
