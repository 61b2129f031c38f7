"""What the parts of the transport contract share: clients, collected events, refused calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...client.client import RtmClient
from ...client.events import EventStream
from ...errors import RtmError
from ..case import RtmTestCase

SECONDS = 10.0

if TYPE_CHECKING:
    _Base = RtmTestCase
else:
    _Base = object


class TransportKit(_Base):
    """The clients of one test; `TransportContract` says what they must do."""

    keeps_history = True

    def url(self) -> str:
        """The URL for this test's clients; called once for each client."""
        raise NotImplementedError

    def client(self, uid: str | None = None, **options: Any) -> RtmClient:
        """A client of this test, logged in when a uid is given; closed after the test."""
        client = RtmClient("contract", url=self.url(), **options)
        self.addCleanup(client.close)
        if uid is not None:
            client.login(uid)
        return client

    def listen(self, emitter: Any, *names: str) -> EventStream:
        """Collect events from now on."""
        stream: EventStream = emitter.events(*names)
        self.addCleanup(stream.close)
        return stream

    def next_of(self, stream: EventStream) -> tuple[Any, ...]:
        """The next collected event's arguments."""
        for event in stream.until(SECONDS):
            return event.args
        raise AssertionError(f"no event within {SECONDS:g} seconds")

    def refused(self, name: str, call: Callable[..., object], *args: Any, **options: Any) -> None:
        """Assert that the call raises the error with that code name."""
        with self.assertRaises(RtmError) as caught:
            call(*args, **options)
        self.assertEqual(caught.exception.code.name, name)
