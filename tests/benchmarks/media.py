"""Uploads and downloads of 30 MB against curl at the same gateway, and nine at once."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from rtm_sync import RtmClient
from tests.benchmarks.processes import Gateway, gateway_process, peak, reset_peak, resident
from tests.benchmarks.table import Row, alternately, at_most

SIZE = 30 * 1024 * 1024
RUNS = 9


def run() -> list[Row]:
    with gateway_process() as gateway, RtmClient("benchmark", url=gateway.url) as client:
        client.login("alice")
        source = gateway.folder / "source.bin"
        source.write_bytes(os.urandom(SIZE))
        token = client._transport._connection.token  # type: ignore[attr-defined]
        media_id = client.create_media_message_by_uploading(source).result().media_id
        return [
            _upload(client, gateway, source, token),
            _download(client, gateway, media_id, token),
            *_nine(client, gateway, source, media_id),
        ]


def _upload(client: RtmClient, gateway: Gateway, source: Path, token: str) -> Row:
    def ours() -> float:
        return _timed(lambda: client.create_media_message_by_uploading(source).result())

    def curl() -> float:
        return _timed(
            lambda: _curl(
                token,
                *("-X", "POST", "-T", str(source), "-H", "Tus-Resumable: 1.0.0"),
                *("-H", f"Upload-Length: {SIZE}", "-H", "Expect:"),
                *("-H", "Content-Type: application/offset+octet-stream"),
                f"{gateway.http}/v1/media",
            )
        )

    return at_most("upload of 30 MB, s (against curl -T)", *alternately(RUNS, ours, curl), 1.0, "s")


def _download(client: RtmClient, gateway: Gateway, media_id: str, token: str) -> Row:
    target = gateway.folder / "target.bin"

    def ours() -> float:
        return _timed(lambda: client.download_media(media_id, to=target).result())

    def curl() -> float:
        address = f"{gateway.http}/v1/media/{media_id}"
        return _timed(lambda: _curl(token, "-o", str(target), address))

    return at_most(
        "download of 30 MB, s (against curl -o)", *alternately(RUNS, ours, curl), 1.0, "s"
    )


def _nine(client: RtmClient, gateway: Gateway, source: Path, media_id: str) -> list[Row]:
    def one_by_one() -> float:
        return _timed(
            lambda: [client.create_media_message_by_uploading(source).result() for _ in range(9)]
        )

    def at_once() -> float:
        def nine() -> None:
            uploads = [client.create_media_message_by_uploading(source) for _ in range(9)]
            for upload in uploads:
                upload.result()

        return _timed(nine)

    before = resident(), resident(gateway.pid)
    reset_peak()
    reset_peak(gateway.pid)
    together, alone = alternately(3, at_once, one_by_one)
    grown = peak() - before[0], peak(gateway.pid) - before[1]
    return [
        at_most("nine uploads at once, s (against one by one)", together, alone, 1.0, "s"),
        at_most("client's memory growth, MB (against 20)", grown[0], 20.0, 1.0, "MB"),
        at_most("gateway's memory growth, MB (against 20)", grown[1], 20.0, 1.0, "MB"),
    ]


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _curl(token: str, *arguments: str) -> None:
    command = ["curl", "-sS", "-f", "-H", f"Authorization: Bearer {token}", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
