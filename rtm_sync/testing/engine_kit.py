"""Shared by the contract kits of an engine's parts: a node, a base class and sample values."""

from __future__ import annotations

import asyncio
import time
import unittest
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..hub.engine.node import ChannelEvent, Delivery
from ..hub.engine.part import EnginePart
from ..messages import RtmTextMessage
from ..protocol.events import ChannelMessage
from ..protocol.requests import MessageFromPeer, PeerCall
from ..protocol.values import (
    ConnectionChangeReason,
    HistoricalMessage,
    MediaInfo,
    PeerOnlineState,
    ReceivedMessageProperties,
)
from .case import RtmTestCase

APP, OTHER_APP = "contract", "other"
KEEP = 200
WEEK = 7 * 24 * 3600.0

if TYPE_CHECKING:

    class _Base(RtmTestCase, unittest.IsolatedAsyncioTestCase):
        pass
else:
    _Base = object


@dataclass
class NotingNode:
    """The hub's side of an engine; records every call, in order.

    Attributes:
        told: `(name of the Node's method, its arguments…)`.
        here: (app id, uid) of the users with a session on this node.
        delivery: the answer to a message for a user who is here.
    """

    told: list[tuple[object, ...]] = field(default_factory=list)
    here: set[tuple[str, str]] = field(default_factory=set)
    delivery: Delivery = Delivery.RECEIVED

    async def deliver_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        if (app_id, uid) not in self.here:
            return Delivery.OFFLINE
        self.told.append(("deliver_to_peer", app_id, uid, message))
        return self.delivery

    def listens(self, app_id: str, uid: str) -> bool:
        return (app_id, uid) in self.here

    def deliver_to_channel(self, app_id: str, event: ChannelEvent) -> None:
        self.told.append(("deliver_to_channel", app_id, event))

    def evict(self, app_id: str, uid: str, session_id: str, reason: ConnectionChangeReason) -> None:
        self.told.append(("evict", app_id, uid, session_id, reason))

    def presence_changed(self, app_id: str, uid: str, state: PeerOnlineState) -> None:
        self.told.append(("presence_changed", app_id, uid, state))

    def count_changed(self, app_id: str, channel_id: str, count: int) -> None:
        self.told.append(("count_changed", app_id, channel_id, count))

    def of(self, name: str) -> list[tuple[object, ...]]:
        """The arguments of each call of that method."""
        return [told[1:] for told in self.told if told[0] == name]

    def events(self, app_id: str = APP) -> list[ChannelEvent]:
        """The events that were delivered to an app's channels."""
        return [told[2] for told in self.told if told[:2] == ("deliver_to_channel", app_id)]  # type: ignore[misc]

    def messages(self) -> list[ChannelMessage]:
        """The messages that were delivered to channels."""
        return [event for event in self.events() if isinstance(event, ChannelMessage)]

    def states(self, uid: str) -> list[PeerOnlineState]:
        """The reported states of a user, without consecutive repetitions."""
        states: list[PeerOnlineState] = []
        for _, told_uid, state in self.of("presence_changed"):
            if told_uid == uid and states[-1:] != [state]:
                states.append(state)  # type: ignore[arg-type]
        return states


class EnginePartContract(_Base):
    """Base class of the kits of the five contracts. Mix in one of the kits, not this class.

    Each test has a world of its own, empty at first, and the object under test in it, started.

    Attributes:
        outlives_process: durably stored data is kept over a restart.
        wall: the tests' wall-clock time, seconds since the epoch; an engine that takes a clock
            may be given `lambda: self.wall`.
        patience: seconds within which a change must reach the node.
        node: a node that records every call.
        part: the object under test.
    """

    outlives_process: bool = True
    patience: float = 10.0

    node: NotingNode
    part: EnginePart

    def make_part(self) -> EnginePart:
        """The object under test, not started. The kits have typed names for it."""
        raise NotImplementedError

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.wall = time.time()
        self.node = NotingNode()
        self.part = await self.started()

    async def started(self) -> EnginePart:
        """Another object in this world, stopped after the test."""
        part = self.make_part()
        await part.start(self.node)
        self.addAsyncCleanup(part.stop)
        return part

    async def restart(self) -> None:
        """Stop the object, and start another in its place."""
        await self.part.stop()
        self.part = await self.started()

    async def test_a_part_that_works_has_no_problem(self) -> None:
        self.assertIsNone(await self.part.problem())

    async def soon(self, expected: object, actual: Callable[[], object]) -> None:
        """Assert that `actual()` becomes the expected value within `patience` seconds."""
        deadline = time.monotonic() + self.patience
        while actual() != expected and time.monotonic() < deadline:  # noqa: ASYNC110  no event
            await asyncio.sleep(0.005)
        self.assertEqual(actual(), expected)

    async def assert_needs_running(self, *calls: Callable[[], Awaitable[object]]) -> None:
        """Assert that each call raises OSError before a start and after a stop."""
        await self.part.stop()
        await self.part.stop()
        for part in (self.part, self.make_part()):
            self.part = part
            for number, call in enumerate(calls):
                with self.subTest(part=part, call=number), self.assertRaises(OSError):
                    await call()


def peer_message(text: str, sender: str = "alice") -> MessageFromPeer:
    """A message to a peer; its id is made of its text."""
    props = ReceivedMessageProperties(1, is_offline_message=True)
    return MessageFromPeer(RtmTextMessage(text), sender, f"id-{text}", props)


def channel_message(text: str, sender: str = "alice", channel_id: str = "room") -> ChannelMessage:
    """A message in a channel, as it is published: without its position."""
    props = ReceivedMessageProperties(1)
    return ChannelMessage(channel_id, RtmTextMessage(text), sender, f"id-{text}", props)


def historical(
    text: str, source: str, destination: str, *, is_channel: bool = False, ms: int
) -> HistoricalMessage:
    """A message of the history, sent at `ms`; its id is `m` and its text."""
    props = ReceivedMessageProperties(ms, is_historical_message=True)
    return HistoricalMessage(
        RtmTextMessage(text), source, destination, is_channel, f"m{text}", props
    )


def medium(media_id: str, expires_at: float) -> MediaInfo:
    """The record of a medium with that expiry time."""
    return MediaInfo(media_id, 3, "ab" * 32, "naïve.txt", "text/plain", expires_at)


def text_of(message: MessageFromPeer | HistoricalMessage) -> str:
    """The text of a text message."""
    assert isinstance(message.message, RtmTextMessage)
    return message.message.text
