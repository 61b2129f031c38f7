"""A hub on the test's own loop, connections that record frames, and a clock that can be moved."""

from __future__ import annotations

import asyncio
import time
import unittest
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from rtm_sync.errors import RtmError
from rtm_sync.hub.auth.tokens import TokenVerifier
from rtm_sync.hub.engine.contract import Engine
from rtm_sync.hub.local.engine import LocalEngine
from rtm_sync.hub.media.memory import MemoryMediaStore
from rtm_sync.hub.media.store import MediaStore
from rtm_sync.hub.media.upload import Upload, UploadSpec
from rtm_sync.hub.node import Hub
from rtm_sync.hub.session import Session
from rtm_sync.protocol.codec import decode_result
from rtm_sync.protocol.events import Acknowledge, Event, MessagesHandled
from rtm_sync.protocol.frames import (
    Call,
    Failure,
    Notice,
    Reply,
    decode,
    encode_call,
    encode_notice,
    encode_reply,
)
from rtm_sync.protocol.requests import Login, Request
from rtm_sync.protocol.values import LoginResult, MediaInfo
from rtm_sync.rules.limits import Limits
from tests.support import PATIENCE, RtmTestCase

DAY = 24 * 3600.0
APP = "app"


async def eventually(predicate: Callable[[], object], message: str = "it did not happen") -> None:
    """Run the loop until the predicate is true, or fail after a deadline."""
    deadline = time.monotonic() + PATIENCE
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(message)
        await asyncio.sleep(0.001)


class User:
    """A client that speaks frames; as a `Connection` it records the frames that it gets.

    Attributes:
        received: requests and events that arrived, in order, except acknowledgements.
        acknowledged: how many of its frames the hub has acknowledged.
        closed: the code and reason it was closed with.
        answers: it confirms what arrives.
        handles: it reports stored messages as handled when they arrive.
        acknowledges: it tells the hub what it has dealt with.
    """

    def __init__(
        self, hub: Hub, *, answers: bool = True, handles: bool = True, acknowledges: bool = True
    ) -> None:
        self.hub = hub
        self.answers = answers
        self.handles = handles
        self.acknowledges = acknowledges
        self.received: list[Request[Any] | Event] = []
        self.acknowledged = 0
        self.counted = 0  # received numbered frames
        self.closed: tuple[int, str] | None = None
        self.silence = 0.0
        self.session: Session
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._next_call = 1

    # -- Connection --

    def wake(self) -> None:
        asyncio.get_running_loop().call_soon(self._take)

    def send_now(self, frame: str) -> None:
        self._arrive(frame)

    def close(self, code: int, reason: str) -> None:
        if self.closed is None:
            self.closed = (code, reason)

    # -- client --

    async def login(self, uid: str = "alice", app_id: str = APP, **more: Any) -> LoginResult:
        """Log in, and attach to the session."""
        self.session, result = await self.hub.login(Login(app_id, uid, **more), self)
        self.hub.attach(self.session, self)
        return result

    async def call(self, request: Request[Any]) -> Any:
        """Make a call as a client does. Returns the result or raises the error."""
        call_id, self._next_call = self._next_call, self._next_call + 1
        future = self._calls[call_id] = asyncio.get_running_loop().create_future()
        self.hub.receive(self.session, self, encode_call(call_id, request))
        await eventually(future.done, f"{request.METHOD} is not answered")
        answer = future.result()
        if isinstance(answer, Failure):
            raise answer.error
        return decode_result(request.RESULT, answer.result)

    def tell(self, event: Event) -> None:
        self.hub.receive(self.session, self, encode_notice(event))

    def lose_connection(self) -> None:
        self.hub.detach(self.session, self)

    def texts(self) -> list[str]:
        """The texts of the received messages."""
        return [item.message.text for item in self.received if hasattr(item, "message")]

    def _take(self) -> None:
        taken = 0
        while self.closed is None and self.session.connection is self:
            frame = self.session.outbox.take()
            if frame is None:
                break
            taken += 1
            self._arrive(frame)
        self.counted += taken
        if taken and self.acknowledges:
            self.tell(Acknowledge(self.counted))

    def _soon(self, frame: str) -> None:
        asyncio.get_running_loop().call_soon(self.hub.receive, self.session, self, frame)

    def _arrive(self, text: str) -> None:
        frame = decode(text)
        if isinstance(frame, Call):
            self.received.append(frame.request)
            if self.answers:
                reply = encode_reply(frame.id, frame.request.RESULT())
                self._soon(reply)
            if self.handles and getattr(frame.request, "key", None) is not None:
                self._soon(encode_notice(MessagesHandled((frame.request.key,))))
        elif isinstance(frame, Notice) and isinstance(frame.event, Acknowledge):
            self.acknowledged = frame.event.received
        elif isinstance(frame, Notice):
            self.received.append(frame.event)
        elif isinstance(frame, Reply | Failure) and frame.id in self._calls:
            self._calls.pop(frame.id).set_result(frame)


class HubCase(RtmTestCase, unittest.IsolatedAsyncioTestCase):
    """Creates hubs, and stops them after the test.

    Attributes:
        wall: what the hubs take for the time of day; move it.
    """

    async def asyncSetUp(self) -> None:
        self.wall = 1_700_000_000.0
        self._skipped = 0.0
        loop = asyncio.get_running_loop()
        real = loop.time
        loop.slow_callback_duration = float("inf")  # a moved clock looks like a slow callback
        loop.time = lambda: real() + self._skipped  # type: ignore[method-assign]

    async def skip(self, seconds: float) -> None:
        """Move the loop's clock forward, and run the callbacks that are due."""
        self._skipped += seconds
        for _ in range(3):
            await asyncio.sleep(0)

    async def hub(
        self,
        *,
        engine: Engine | None = None,
        store: MediaStore | None = None,
        limits: Limits | None = None,
        verifiers: Mapping[str, TokenVerifier] | None = None,
        observe: Callable[[str, str, dict[str, Any]], object] = lambda *_: None,
    ) -> Hub:
        hub = Hub(
            engine or LocalEngine(now=lambda: self.wall),
            store or MemoryMediaStore(),
            limits=limits,
            verifiers=verifiers,
            now=lambda: self.wall,
            observe=observe,
        )
        await hub.start()
        self.addAsyncCleanup(hub.stop)
        return hub

    async def user(self, hub: Hub, uid: str = "alice", **options: bool) -> User:
        """A logged-in user who has received the offline messages."""
        user = User(hub, **options)
        await user.login(uid)
        return user

    async def refused(self, name: str, work: Awaitable[object]) -> RtmError:
        """Assert that the work raises the error with that code name, and return the error."""
        with self.assertRaises(RtmError) as caught:
            await work
        self.assertEqual(caught.exception.code.name, name)
        return caught.exception


def spec(size: int, *, key: str | None = None, keep: bool = False) -> UploadSpec:
    return UploadSpec(size, "file.bin", "application/octet-stream", key, keep)


def chunks(*parts: bytes | BaseException) -> Callable[[], Awaitable[bytes]]:
    """A `read` of a request's body: returns the parts, then b"". An exception is raised."""
    waiting = list(parts)

    async def read() -> bytes:
        part = waiting.pop(0) if waiting else b""
        if isinstance(part, BaseException):
            raise part
        return part

    return read


async def upload_whole(hub: Hub, user: User, data: bytes) -> MediaInfo:
    """Upload a medium with one `append`."""
    upload: Upload = await hub.media.begin_upload(user.session, spec(len(data)))
    await upload.append(0, chunks(data), len(data))
    return await hub.media.complete_upload(upload)
