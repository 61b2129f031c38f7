"""Fuzzing of everything that decodes what strangers send.

    python -m tests.faults.fuzz_decoders frames        guided by coverage; needs atheris
    python -m tests.faults.fuzz_decoders --runs 100000  all targets, random changes of good examples

A target takes any bytes and raises nothing: it knows the errors its decoder may answer with, and
asserts what holds when there is none. A crash prints the bytes; the fallback also takes a seed.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import copy
import io
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict, CIMultiDictProxy

from rtm_sync.blob import Blob, BlobTooLarge
from rtm_sync.errors import LoginError
from rtm_sync.gateway import downloads, tus
from rtm_sync.hub.auth.tokens import JwtVerifier, make_token
from rtm_sync.hub.media.upload import Checksum
from rtm_sync.image_header import image_dimensions, sniff_content_type
from rtm_sync.messages import RtmImageMessage, RtmTextMessage
from rtm_sync.protocol.codec import decode_result
from rtm_sync.protocol.errors import ProtocolError
from rtm_sync.protocol.frames import (
    Call,
    Notice,
    Reply,
    decode,
    encode_call,
    encode_notice,
    encode_reply,
)
from rtm_sync.protocol.requests import Login, SendMessageToPeer
from rtm_sync.protocol.values import LoginResult, MediaInfo, PeerMessageSendResult

Target = Callable[[bytes], object]

_SECRET = "a secret of tests, 32 bytes or more"
_VERIFIER = JwtVerifier("app", _SECRET)
# Given to it, headers would have to be UTF-8; aiohttp makes surrogates of what else comes.
_REQUEST = make_mocked_request("POST", "/v1/media")
_RESULTS = (LoginResult, PeerMessageSendResult, MediaInfo)
_CAT = Path(__file__).parents[1] / "data" / "cat.jpg"


def frames(data: bytes) -> None:
    """A frame, or a ProtocolError; what was decoded encodes to what decodes to the same."""
    try:
        frame = decode(data)
    except ProtocolError:
        return
    if isinstance(frame, Call):
        assert decode(encode_call(frame.id, frame.request)) == frame
    elif isinstance(frame, Notice):
        assert decode(encode_notice(frame.event)) == frame
    elif isinstance(frame, Reply):
        for kind in _RESULTS:
            with contextlib.suppress(ProtocolError):
                assert isinstance(decode_result(kind, frame.result), kind)


def tus_headers(data: bytes) -> None:
    """An upload's specification and a range, or a refusal that names the header."""
    parts = data.split(b"\n")
    values = [_header(parts[at]) if at < len(parts) else "" for at in range(5)]
    names = ("Upload-Length", "Upload-Metadata", "Idempotency-Key", "Upload-Checksum", "Range")
    headers = {name: value for name, value in zip(names, values, strict=True) if value}
    request = copy.copy(_REQUEST)
    request._cache = {}
    request._headers = CIMultiDictProxy(CIMultiDict(headers))
    try:
        spec = tus._upload_spec(request)
    except tus._TusError as error:
        assert 400 <= error.status < 500
    else:
        assert 0 <= spec.size < 10**18
        assert len(spec.file_name) <= 255
        assert not set("/\\\0\r\n") & set(spec.file_name)
        assert spec.key is None or 1 <= len(spec.key) <= 128
    wanted = downloads._requested_range(request)
    assert wanted is None or isinstance(wanted, slice)
    try:
        checksum = Checksum.parse(headers.get("Upload-Checksum", ""))
    except ValueError:
        pass
    else:
        assert checksum.algorithm in ("sha1", "sha256")


def tokens(data: bytes) -> None:
    """A LoginError, unless it is a token of ours."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        _VERIFIER.verify(text, "alice")
    except LoginError:
        return
    header, _, _ = text.partition(".")
    assert json.loads(base64.urlsafe_b64decode(header + "=="))["alg"] == "HS256"


def image_headers(data: bytes) -> None:
    """Never raises; a size is positive, and only pictures have one."""
    kind = sniff_content_type(data[:16])
    size = image_dimensions(io.BytesIO(data))
    if size is not None:
        assert kind is not None
        assert kind.startswith("image/")
        assert min(size) > 0


def data_urls(data: bytes) -> None:
    """A blob that comes back as it is, or a ValueError."""
    try:
        blob = Blob.from_data_url(data.decode("utf-8", "surrogateescape"), max_bytes=10_000)
    except (ValueError, BlobTooLarge):
        return
    content = blob.to_bytes()
    assert blob.size == len(content) <= 10_000
    assert Blob.from_data_url(blob.to_data_url()).to_bytes() == content


def _header(value: bytes) -> str:
    """As a header of HTTP can be: one line."""
    return value.decode("utf-8", "surrogateescape").replace("\r", "").replace("\0", "").strip()


def examples() -> dict[str, tuple[Target, list[bytes]]]:
    """Each target with good inputs, from which the changed ones are made."""
    text = RtmTextMessage("hello", "description")
    image = RtmImageMessage("m" * 32, "cat.jpg", "", 7, b"\xff\xd8", width=1, height=2)
    info = MediaInfo("m" * 32, 7, "0" * 64, "f.bin", "image/png", 1.5)
    good_frames = [
        encode_call(1, Login("app", "alice", token="t", session="s", received=3)),
        encode_call(2, SendMessageToPeer("bob", text, "m1", True, False)),
        encode_call(3, SendMessageToPeer("bob", image, "m2", False, True)),
        encode_reply(4, LoginResult("s", True, 3, 2048)),
        encode_reply(5, info),
        '{"jsonrpc":"2.0","method":"acknowledge","params":{"received":7}}',
        '{"jsonrpc":"2.0","id":6,"error":{"code":2,"message":"late"}}',
    ]
    metadata = (
        b"filename " + base64.b64encode(b"cat.jpg") + b",filetype " + base64.b64encode(b"a/b")
    )
    return {
        "frames": (frames, [frame.encode() for frame in good_frames]),
        "tus_headers": (
            tus_headers,
            [
                b"\n".join(
                    [b"1000", metadata, b"key-1", b"sha1 Lve95gjOVATpfV8EL5X4nxwjKHE=", b""]
                ),
                b"\n".join([b"1", metadata + b",keep", b"", b"sha256 AAAA", b"bytes=0-9"]),
            ],
        ),
        "tokens": (tokens, [make_token("app", "alice", _SECRET).encode()]),
        "image_headers": (
            image_headers,
            [
                _CAT.read_bytes()[:4096],
                b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0",
                b"GIF89a\1\0\1\0\0\0\0",
                b"BM" + bytes(12) + b"\x28\0\0\0" + b"\1\0\0\0" * 2 + bytes(8),
                b"RIFF\x20\0\0\0WEBPVP8X" + bytes(4) + bytes(10),
                b"RIFF\x20\0\0\0WEBPVP8L" + bytes(4) + b"\x2f\1\1\1\1",
            ],
        ),
        "data_urls": (
            data_urls,
            [b"data:image/png;base64,aGVsbG8=", b"data:,a%20b", b"data:text/plain;charset=utf-8,x"],
        ),
    }


def changed(data: bytes, chance: random.Random) -> bytes:
    """A good example with something wrong: bytes flipped, cut, doubled, put in."""
    changed_data = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        at = chance.randint(0, len(changed_data))
        kind = chance.randrange(5)
        if kind == 0 and at < len(changed_data):
            changed_data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed_data[at:at] = chance.randbytes(chance.choice([1, 2, 100]))
        elif kind == 2:
            del changed_data[at : at + chance.choice([1, 4, 50])]
        elif kind == 3:
            changed_data[at:at] = changed_data[at : at + 40] * chance.choice([1, 2, 50])
        else:
            signs = (b'"', b"{", b"[", b",", b":", b"\\u0000", b"9" * 30, b"-1", b"null", b"\xff")
            changed_data[at:at] = chance.choice(signs)
    return bytes(changed_data)


def at_random(
    runs: int,
    seed: int,
    targets: dict[str, tuple[Target, list[bytes]]] | None = None,
    say: Callable[[str], object] = print,
) -> None:
    """So many changed examples for each target. Raises AssertionError with the bytes that fail."""
    for name, (target, good) in (targets or examples()).items():
        chance = random.Random(f"{seed} {name}")
        began = time.monotonic()
        for number in range(len(good) + runs):
            data = good[number] if number < len(good) else changed(chance.choice(good), chance)
            try:
                target(data)
            except BaseException as error:
                raise AssertionError(
                    f"{name} fails with {error!r} (seed {seed}): {data!r}"
                ) from error
        say(f"{name}: {runs:,} inputs in {time.monotonic() - began:.1f} s, nothing found")


def guided(name: str, arguments: list[str]) -> None:
    """Let atheris look for inputs that reach new code; it ends with the first failure."""
    import atheris

    target, good = examples()[name]
    chance = random.Random(1)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        """Half of the inputs come from good examples, half from what libFuzzer found."""
        if seed % 2:
            return changed(good[seed % len(good)], chance)[:max_size]
        mutated: bytes = atheris.Mutate(data, max_size)
        return mutated

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *arguments], target, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz_decoders")
    parser.add_argument("target", nargs="?", choices=list(examples()), help="for atheris")
    parser.add_argument("--runs", type=int, help="without atheris: inputs for each target")
    parser.add_argument("--seed", type=int, default=1, help="of --runs [default: 1]")
    chosen, rest = parser.parse_known_args()  # the rest is libFuzzer's: -max_total_time=60
    if chosen.runs is not None:
        at_random(chosen.runs, chosen.seed)
    elif chosen.target is not None:
        guided(chosen.target, rest)
    else:
        parser.error("name a target for atheris, or give --runs")


if __name__ == "__main__":
    main()
