"""A client that was written from docs/protocol.md alone: WebSocket, JSON and HTTP, nothing of ours.

It reads and sends on the test's own thread. While it waits for a frame it answers the hub's calls
and acknowledges what arrives, as the document asks.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import struct
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import websocket

Frame = dict[str, Any]
OPCODE_TEXT, OPCODE_CLOSE = websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_CLOSE


class Closed(Exception):
    """The gateway has closed the connection, with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class Stranger:
    """One client, which may connect several times.

    Args:
        url: the gateway, `ws://host:port`.
        patience: seconds to wait for a frame.

    Attributes:
        uid: the user of its newest login.
        session: the secret of its session; None before the first login.
        received: how many numbered frames of the session have arrived.
        acknowledged: how many of its own numbered frames the hub has acknowledged.
        inbox: the calls and notifications of the hub, in order, without acknowledgements.
        refuses: it answers the hub's calls with an error.
        is_deaf: it does not answer the hub's calls.
    """

    def __init__(self, url: str, patience: float) -> None:
        self._url = url
        self._patience = patience
        self._socket: websocket.WebSocket | None = None
        self._answers: dict[int, Frame] = {}
        self._next_id = 1
        self.uid = ""
        self.session: str | None = None
        self.received = 0
        self.sent = 0
        self.acknowledged = 0
        self.inbox: list[Frame] = []
        self.refuses = False
        self.is_deaf = False

    @property
    def socket(self) -> websocket.WebSocket:
        assert self._socket is not None
        return self._socket

    def connect(self) -> None:
        self.disconnect()
        self._socket = websocket.create_connection(
            f"{self._url}/v1/signalling", timeout=self._patience, suppress_origin=True
        )

    def disconnect(self) -> None:
        """Lose the connection: no close frame, as when a cable is pulled."""
        if self._socket is not None:
            self._socket.shutdown()
            self._socket = None

    def login(self, uid: str, *, resume: bool = False, **more: Any) -> Frame:
        """Connect and log in. Returns the answer."""
        self.connect()
        self.uid = uid
        params: dict[str, Any] = {"app_id": "app", "uid": uid, "version": 1, **more}
        if resume:
            params |= {"session": self.session, "received": self.received}
        self.send_frame({"jsonrpc": "2.0", "id": 0, "method": "login", "params": params})
        answer = self.read()
        if "result" in answer:
            self.session = answer["result"]["session"]
            if not answer["result"]["resumed"]:
                self.received = self.sent = self.acknowledged = 0
        return answer

    def send_frame(self, frame: Frame) -> None:
        self.socket.send(json.dumps(frame))

    def start(self, method: str, **params: Any) -> int:
        """Send a call. Returns its id."""
        call_id, self._next_id = self._next_id, self._next_id + 1
        self.sent += 1
        self.send_frame({"jsonrpc": "2.0", "id": call_id, "method": method, "params": params})
        return call_id

    def answer(self, call_id: int) -> Frame:
        """Wait for the answer to a call."""
        self.wait(lambda: call_id in self._answers)
        return self._answers.pop(call_id)

    def call(self, method: str, **params: Any) -> Any:
        """Make a call, and return its result."""
        answer = self.answer(self.start(method, **params))
        assert "error" not in answer, answer
        return answer["result"]

    def refusal(self, method: str, **params: Any) -> tuple[int, str]:
        """Make a call that is refused. Returns the error's code, and its name or nothing."""
        error = self.answer(self.start(method, **params))["error"]
        return error["code"], error.get("data", {}).get("name", "")

    def notify(self, method: str, *, is_numbered: bool = True, **params: Any) -> None:
        self.sent += is_numbered
        self.send_frame({"jsonrpc": "2.0", "method": method, "params": params})

    def wait(self, is_done: Callable[[], object]) -> None:
        """Read frames until the condition is true."""
        deadline = time.monotonic() + self._patience
        while not is_done():
            assert time.monotonic() < deadline, self.inbox
            self._take(self.read())

    def next(self, method: str) -> Frame:
        """Wait for a call or notification of the hub; remove it, and return its parameters."""
        self.wait(lambda: any(frame["method"] == method for frame in self.inbox))
        found = next(frame for frame in self.inbox if frame["method"] == method)
        self.inbox.remove(found)
        params: Frame = found["params"]
        return params

    def close_code(self) -> int:
        """Read until the gateway closes the connection."""
        try:
            self.wait(lambda: False)
        except Closed as closed:
            return closed.code
        raise AssertionError

    def read(self) -> Frame:
        while True:
            received = self.socket.recv_frame()  # type: ignore[no-untyped-call]
            opcode, data = received.opcode, received.data
            if opcode == OPCODE_CLOSE:
                with contextlib.suppress(OSError, websocket.WebSocketException):
                    self.socket.send_close()  # the gateway may be gone already
                raise Closed(struct.unpack("!H", data[:2])[0] if data else 1005)
            if opcode == OPCODE_TEXT:
                assert len(data) <= 262_144
                frame: Frame = json.loads(data)
                assert frame["jsonrpc"] == "2.0"
                return frame

    def _take(self, frame: Frame) -> None:
        if frame.get("method") == "acknowledge":
            self.acknowledged = frame["params"]["received"]
            return
        self.received += 1
        if "method" not in frame:
            self._answers[frame["id"]] = frame
        else:
            self.inbox.append(frame)
            if "id" in frame and not self.is_deaf:
                self._answer(frame["id"])
        if self.received % 32 == 0:
            self.acknowledge()

    def acknowledge(self) -> None:
        self.notify("acknowledge", is_numbered=False, received=self.received)

    def _answer(self, call_id: int) -> None:
        error = {"code": 1, "message": "not taken"}
        outcome: Frame = {"error": error} if self.refuses else {"result": {}}
        self.sent += 1
        self.send_frame({"jsonrpc": "2.0", "id": call_id, **outcome})

    # -- media --

    def http(
        self, method: str, path: str, body: bytes = b"", **headers: Any
    ) -> tuple[int, dict[str, str], bytes]:
        """Make an HTTP request with the session's token. `_` in header names stands for `-`."""
        connection = http.client.HTTPConnection(urlsplit(self._url).netloc, timeout=self._patience)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            named = {"Authorization": f"Bearer {self.session}", "Tus-Resumable": "1.0.0"} | named
            connection.request(method, path, body, named)
            response = connection.getresponse()
            answered = {name.lower(): value for name, value in response.getheaders()}
            return response.status, answered, response.read()
        finally:
            connection.close()


def token(secret: str, uid: str, **claims: Any) -> str:
    """A JSON Web Token (HS256), made by hand."""
    head = {"alg": "HS256", "typ": "JWT"}
    body = {"app": "app", "sub": uid, "iat": time.time(), "exp": time.time() + 3600} | claims
    text = ".".join(_base64url(json.dumps(part).encode()) for part in (head, body))
    mac = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{_base64url(mac)}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
