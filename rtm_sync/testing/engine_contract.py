"""The contract of every `Engine`: one object with all five parts. A test case to mix in."""

from __future__ import annotations

from ..hub.engine.archive import Archive
from ..hub.engine.bus import Bus
from ..hub.engine.contract import Engine
from ..hub.engine.directory import Directory
from ..hub.engine.mailbox import Mailbox
from ..hub.engine.media_index import MediaIndex
from ..hub.engine.node import Delivery
from ..protocol.values import PeerOnlineState
from .archive_contract import ArchiveContract
from .bus_contract import BusContract
from .directory_contract import DirectoryContract
from .engine_kit import APP, peer_message
from .mailbox_contract import MailboxContract
from .media_index_contract import MediaIndexContract


class EngineContract(
    DirectoryContract, BusContract, MailboxContract, ArchiveContract, MediaIndexContract
):
    """Mix into a `RtmTestCase` and an `IsolatedAsyncioTestCase` and make the engine:

        class MyEngineTest(EngineContract, RtmTestCase, unittest.IsolatedAsyncioTestCase):
            def make_engine(self) -> Engine:
                return MyEngine(…)

    It has the tests of all five kits. An object that implements only some of the contracts mixes
    in the kits of those.

    Attributes:
        outlives_process: durably stored data is kept over a restart.
        wall: the tests' wall-clock time, seconds since the epoch; an engine that takes a clock
            may be given `lambda: self.wall`.
        patience: seconds within which a change must reach the node.
        node: a node that records every call.
    """

    def make_engine(self) -> Engine:
        """An engine of this test's world, not started.

        A second call, after the first engine was stopped, returns the engine after a restart.
        """
        raise NotImplementedError

    def make_part(self) -> Engine:
        return self.make_engine()

    @property
    def engine(self) -> Engine:
        """The engine under test, started."""
        assert isinstance(self.part, Engine), f"{self.part!r} is not an Engine."
        return self.part

    async def test_one_object_serves_all_five_contracts(self) -> None:
        for contract in (Directory, Bus, Mailbox, Archive, MediaIndex):
            self.assertIsInstance(self.engine, contract)

    async def test_a_user_can_be_reached_from_the_claim_to_the_release(self) -> None:
        async def sent() -> Delivery:
            return await self.engine.send_to_peer(APP, "bob", peer_message("hi"))

        self.assertIs(await sent(), Delivery.OFFLINE)
        await self.log_in("bob")
        self.assertIs(await sent(), Delivery.RECEIVED)
        self.assertIs(await self.state_of("bob"), PeerOnlineState.ONLINE)
        self.node.here.clear()
        await self.engine.release(APP, "bob", "session of bob")
        self.assertIs(await sent(), Delivery.OFFLINE)
        self.assertIs(await self.state_of("bob"), PeerOnlineState.OFFLINE)
