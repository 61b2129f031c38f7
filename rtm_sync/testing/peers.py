"""Other users for tests of an application: clients that note what arrives, and answer as told."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from ..client import RtmClient
from ..messages import RtmMessage
from ..protocol import ReceivedMessageProperties

PATIENCE = 10.0
"""Seconds that an expected event may take."""

Answer = Callable[[RtmMessage], "RtmMessage | str | bytes | None"]


class ScriptedPeer:
    """A logged-in user whose part a test plays; a context manager.

    Args:
        client: of its own, not logged in yet; it is closed with the peer.
        uid: who it is.
        token: where the hub wants one.

    Attributes:
        client: for all that is not here.
        uid: who it is.
    """

    def __init__(self, client: RtmClient, uid: str, token: str | None = None) -> None:
        self.client = client
        self.uid = uid
        self._messages = client.events("MessageFromPeer")
        try:
            client.login(uid, token)
        except BaseException:
            client.close()
            raise

    def __enter__(self) -> ScriptedPeer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Log out. Idempotent."""
        self._messages.close()
        self.client.close()

    def answers(self, answer: Answer) -> None:
        """Answer each message from now on with what `answer` makes of it; None is no answer."""

        def reply(message: RtmMessage, peer_id: str, _: ReceivedMessageProperties) -> None:
            made = answer(message)
            if made is not None:
                self.client.send_message_to_peer(made, peer_id)

        self.client.on("MessageFromPeer", reply)

    def expect(self, sender: str | None = None, timeout: float = PATIENCE) -> RtmMessage:
        """The next message that arrived and was not expected yet; waits for it.

        Args:
            sender: only from this user; others' messages before it are passed over.
            timeout: seconds.

        Raises:
            AssertionError: there is none in time; says what came instead.
        """
        others = []
        for event in self._messages.until(timeout):
            message: RtmMessage = event.args[0]
            if sender is None or event.args[1] == sender:
                return message
            others.append(f"{message!r} from {event.args[1]!r}")
        whose = "" if sender is None else f" from {sender!r}"
        raise AssertionError(
            f"{self.uid!r} got no message{whose} within {timeout:g} seconds"
            + (f", but {'; '.join(others)}." if others else ".")
        )
