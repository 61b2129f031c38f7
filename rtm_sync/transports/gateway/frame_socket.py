"""A WebSocket on which no caller waits for room: a thread sends what the socket does not take.

websocket-client sends a frame while it holds a lock, and waits in between until the socket takes
more. With a gateway that reads nothing, every thread that sends would wait, the reader with its
pings included. Therefore `send_frame`, through which websocket-client sends messages, pings and
pongs, is overridden. `tests/transports/test_frame_socket.py` fails with websocket-client's version
when it no longer does so.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import websocket

from ...portable import wait_until_writable
from ...protocol.ids import FRAME_LIMIT
from ...rules.timing import Deadline
from ...supervision import BackgroundThread
from .happy_eyeballs import open_socket, resolve
from .proxy_settings import ProxySettings

_PIECE = 16 * 1024  # bytes: a record of TLS, which a socket that is writable takes without waiting
_LOOK_AGAIN = 1.0  # seconds; a waiting thread then sees that the socket was closed
_JOIN_TIMEOUT = 2.0

logger = logging.getLogger(__name__)


class _BoundedFrames(websocket.frame_buffer):
    """Refuses a frame by the length in its header, before it is read into memory."""

    def recv_length(self) -> None:
        super().recv_length()
        _check_size(self.length or 0)


def _check_size(size: int) -> None:
    if size > FRAME_LIMIT:
        raise websocket.WebSocketPayloadException(
            f"the gateway sent {size:,} bytes in one message; the limit is {FRAME_LIMIT:,}"
        )


class FrameSocket(websocket.WebSocket):
    """A WebSocket whose `send` never waits for the socket. Thread-safe for sending.

    Frames go out in the order of the calls. Each is sent on its caller's thread, as far as the
    socket takes it at once. The rest is sent by a thread, which runs only while there is a rest.

    Args:
        patience: seconds without progress after which the thread gives the connection up.
        on_room: called on the thread when it has sent everything.
        options: the options of `websocket.WebSocket`.
    """

    def __init__(
        self, patience: float, on_room: Callable[[], object] = lambda: None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.frame_buffer = _BoundedFrames(self._recv, skip_utf8_validation=True)
        self._message_size = 0
        self._patience = patience
        self._on_room = on_room
        self._writing = threading.Lock()  # guards all below, and closing; nobody waits under it
        self._unsent: deque[memoryview] = deque()
        self._is_broken = False
        self._is_called = False
        self._thread = BackgroundThread("rtm-sync-sender", self._send_the_rest)

    def open(
        self, url: str, settings: ProxySettings, timeout: float, is_ended: Callable[[], bool]
    ) -> None:
        """Connect, through the proxy if there is one, and make the WebSocket's handshake.

        websocket-client's own `connect` would try a name's addresses one after the other, each for
        the whole time-out, and would keep its socket from `hang_up` until TLS is done.

        Args:
            url: a `ws://` or `wss://` URL.
            timeout: seconds for all addresses, and then for each wait.
            is_ended: asked while it connects; True ends it.

        Raises:
            OSError, WebSocketException: no connection; the caller calls `shutdown`.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        is_secure = parts.scheme == "wss"
        port = parts.port or (443 if is_secure else 80)
        addresses = resolve(*settings.first_hop(host, port))
        sock = open_socket(addresses, timeout, is_ended, websocket.DEFAULT_SOCKET_OPTION)
        self.sock = sock
        if settings.proxy is not None:
            settings.open_tunnel(sock, host, port)
        if is_secure:
            # Wrapped before the handshake, so that `hang_up` can end it.
            secure = settings.tls_context().wrap_socket(
                sock, server_hostname=host, do_handshake_on_connect=False
            )
            self.sock = secure
            secure.do_handshake()
        self.connect(  # type: ignore[no-untyped-call]
            url, socket=self.sock, timeout=timeout, suppress_origin=True, redirect_limit=0
        )

    @property
    def is_full(self) -> bool:
        """Whether the thread still has to send a part of the frames."""
        return bool(self._unsent)

    def recv_frame(self) -> websocket.ABNF:
        """Receive a frame.

        Raises:
            WebSocketPayloadException: it is, or the frames of one message together are, larger than
                a hub may send: 262,144 bytes.
        """
        frame: websocket.ABNF = super().recv_frame()  # type: ignore[no-untyped-call]
        if frame.opcode == websocket.ABNF.OPCODE_CONT:
            self._message_size += len(frame.data)
        elif frame.opcode in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY):
            self._message_size = len(frame.data)
        _check_size(self._message_size)
        return frame

    def send_frame(self, frame: websocket.ABNF) -> int:
        """Send a frame as far as the socket takes it, and leave the rest to the thread.

        Raises:
            OSError, WebSocketException: the connection is lost, or an interruption (Ctrl-C) left a
                part of an earlier frame behind.
        """
        data = frame.format()
        with self._writing:
            self._unsent.append(memoryview(data))
            self._send_now()
            is_full = self.is_full
        if is_full:
            self.call_thread()
        return len(data)

    def call_thread(self) -> None:
        """Have the thread call `on_room`, after it has sent the rest if there is one."""
        with self._writing:
            self._is_called = True
        try:
            self._thread.start()
        except RuntimeError as error:  # the system allows no more threads
            self._break()
            raise ConnectionAbortedError(f"sending needs a thread: {error}") from error

    def wait_until_sent(self, timeout: float) -> None:
        """Wait until all frames are sent.

        Raises:
            WebSocketTimeoutException: the socket took nothing for `timeout` seconds.
            OSError, WebSocketException: the connection is lost.
        """
        deadline = Deadline(timeout)
        while True:
            with self._writing:
                if self._send_now():
                    deadline = Deadline(timeout)
                carrier = self.sock
                if not self._unsent or carrier is None:
                    return
            if deadline.has_passed:
                raise websocket.WebSocketTimeoutException(
                    f"the gateway read nothing for {timeout:g} seconds"
                )
            with contextlib.suppress(ValueError):  # closed in the meantime
                wait_until_writable(carrier.fileno(), min(deadline.left, _LOOK_AGAIN))

    def hang_up(self) -> None:
        """Shut the connection down from any thread; this wakes every thread that waits for it.

        The socket stays open, until its reader calls `shutdown`. If another thread closed the
        descriptor just before the reader waits for it, its number might already belong to another
        file.
        """
        carrier = self.sock
        if carrier is not None:
            with contextlib.suppress(OSError):  # not connected yet, or no longer
                # Not the TLS socket's method, which drops the TLS state that the reader uses.
                socket.socket.shutdown(carrier, socket.SHUT_RDWR)

    def shutdown(self) -> None:
        """Close the socket, and wait until the thread has ended. Called by the reader."""
        self.hang_up()
        with self._writing:
            self._is_broken = True
            super().shutdown()  # type: ignore[no-untyped-call]
        self._thread.join(_JOIN_TIMEOUT)

    # -- inside --

    def _send_now(self) -> bool:
        """Send what the socket takes without waiting. Called with the lock.

        Returns:
            Whether it took anything.
        """
        if self._is_broken:
            raise websocket.WebSocketConnectionClosedException("the connection was given up")
        has_sent = False
        while self._unsent:
            carrier = self.sock
            if carrier is None:
                raise websocket.WebSocketConnectionClosedException("the connection is closed")
            if not wait_until_writable(carrier.fileno(), 0.0):
                break
            rest = self._unsent[0]
            self._is_broken = True  # after an exception nobody knows how much was sent
            sent = carrier.send(rest[:_PIECE])
            if sent == len(rest):
                self._unsent.popleft()
            else:
                self._unsent[0] = rest[sent:]
            self._is_broken = False
            has_sent = True
        return has_sent

    def _break(self) -> None:
        with self._writing:
            self._is_broken = True
        self.hang_up()

    def _send_the_rest(self) -> None:
        try:
            while True:
                self.wait_until_sent(self._patience)
                with self._writing:
                    self._is_called = False
                self._on_room()
                with self._writing:
                    if not self._unsent and not self._is_called:
                        self._thread.retire()
                        return
        except (OSError, websocket.WebSocketException) as error:
            logger.info("sending has ended: %s", error)
            self._break()
        except BaseException:
            self._break()
            raise
