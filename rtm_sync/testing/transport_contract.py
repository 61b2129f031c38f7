"""The contract of every transport, as a test case to mix in."""

from __future__ import annotations

from .transport.channels import ChannelTests
from .transport.history import HistoryTests
from .transport.login import LoginTests
from .transport.media import MediaTests
from .transport.messages import MessageTests
from .transport.races import RaceTests


class TransportContract(
    LoginTests, RaceTests, MessageTests, HistoryTests, ChannelTests, MediaTests
):
    """Mix into a `RtmTestCase` and say where the hub is:

        class MyTransportTest(TransportContract, RtmTestCase):
            def url(self) -> str:
                return "mine://…"

    All clients of one test must meet at one hub, and no other test's clients there. A class
    attribute switches off what the transport's broker or protocol cannot do.

    Attributes:
        keeps_history: messages sent with `enable_historical_messaging` can be read back. Where
            false, sending and reading them must be refused.
    """
