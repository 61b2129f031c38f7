"""The contract kits find what is wrong: back ends with one fault each fail them."""

from __future__ import annotations

import io
import unittest
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from rtm_sync.hub.disk import DiskMediaStore
from rtm_sync.hub.engine import Delivery, Engine, OfflineMessage
from rtm_sync.hub.local import LocalEngine
from rtm_sync.hub.media import Fragment, MediaStore, MediaWriter
from rtm_sync.protocol import MemberJoined, MessageFromPeer, PeerCall, PeerOnlineState
from rtm_sync.testing import EngineContract, MediaStoreContract
from tests.support import RtmTestCase


class _Store(DiskMediaStore):
    """The good one, to be spoilt."""


class _ShowsHalfBlobs(_Store):
    def open(self, media_id: str) -> BinaryIO:
        path = self._path(media_id)
        part = path.with_name(f"{path.name}.part")
        return (part if part.exists() else path).open("rb")


class _ForgetsToCut(_Store):
    def create(self, media_id: str, note: str) -> MediaWriter:
        writer = super().create(media_id, note)
        writer.truncate = lambda size: None  # type: ignore[method-assign]
        return writer


class _HoldsAllInMemory(_Store):
    def open(self, media_id: str) -> BinaryIO:
        with super().open(media_id) as file:
            return io.BytesIO(file.read())


class _DeletesNothing(_Store):
    def delete(self, media_id: str) -> None:
        self.open(media_id).close()


class _LosesNotes(_Store):
    def fragments(self) -> list[Fragment]:
        return [Fragment(one.media_id, "", one.size, one.is_whole) for one in super().fragments()]


class _MixesCases(_Store):
    def _path(self, media_id: str) -> Path:
        return super()._path(media_id.upper())


class _RaisesItsOwnErrors(_Store):
    def open(self, media_id: str) -> BinaryIO:
        try:
            return super().open(media_id)
        except OSError as error:
            raise KeyError(media_id) from error


class _Engine(LocalEngine):
    """The good one, to be spoilt."""


class _NeverEvicts(_Engine):
    async def claim(self, app_id: str, uid: str, session_id: str) -> None:
        self._claims.pop((app_id, uid), None)
        await super().claim(app_id, uid, session_id)


class _ReleasesForAnybody(_Engine):
    async def release(self, app_id: str, uid: str, session_id: str) -> None:
        claim = self._claims.get((app_id, uid))
        await super().release(app_id, uid, claim.session_id if claim else session_id)


class _AlwaysReceived(_Engine):
    async def send_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        await super().send_to_peer(app_id, uid, message)
        return Delivery.RECEIVED


class _KeepsCopies(_Engine):
    async def store_offline(
        self, app_id: str, uid: str, message: MessageFromPeer, keep: int, retention: float
    ) -> None:
        self.copies = getattr(self, "copies", 0) + 1
        object.__setattr__(message, "message_id", f"{message.message_id} {self.copies}")
        await super().store_offline(app_id, uid, message, keep, retention)


class _KeepsForEver(_Engine):
    async def offline(self, app_id: str, uid: str, now: float) -> list[OfflineMessage]:
        return await super().offline(app_id, uid, 0)


class _JoinsInSilence(_Engine):
    async def publish(self, app_id: str, event: object) -> None:
        if not isinstance(event, MemberJoined):
            await super().publish(app_id, event)  # type: ignore[arg-type]


class _ForgetsWhoIsUnreachable(_Engine):
    async def presence(self, app_id: str, uids: object) -> dict[str, PeerOnlineState]:
        found = await super().presence(app_id, uids)  # type: ignore[arg-type]
        unreachable = PeerOnlineState.UNREACHABLE
        return {
            uid: PeerOnlineState.OFFLINE if state is unreachable else state
            for uid, state in found.items()
        }


def fails(case: type[unittest.TestCase], name: str) -> bool:
    """Whether that test of a case does."""
    result = unittest.TestResult()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a test that fails closes no files
        case(name).run(result)
    return not result.wasSuccessful()


def store_case(make: Callable[[Path], MediaStore]) -> type[unittest.TestCase]:
    class Case(MediaStoreContract, RtmTestCase):
        keeps_fragments = True
        memory_limit = 2 * 1024 * 1024

        def setUp(self) -> None:
            self.root = self.folder()

        def store(self) -> MediaStore:
            return make(self.root)

    return Case


def engine_case(make: Callable[[Path], Engine]) -> type[unittest.TestCase]:
    class Case(EngineContract, RtmTestCase, unittest.IsolatedAsyncioTestCase):
        patience = 0.1

        async def asyncSetUp(self) -> None:
            self.path = self.folder() / "rtm.sqlite3"
            await super().asyncSetUp()

        def make_engine(self) -> Engine:
            return make(self.path)

    return Case


class MediaStoreContractTest(unittest.TestCase):
    def test_each_fault_of_a_store_is_found(self) -> None:
        for faulty, name in (
            (_ShowsHalfBlobs, "test_a_partial_blob_is_never_seen"),
            (_ForgetsToCut, "test_what_was_cut_off_is_not_in_the_blob"),
            (_HoldsAllInMemory, "test_the_largest_blob_passes_in_bounded_memory"),
            (_DeletesNothing, "test_deleting_what_is_not_there_is_no_matter"),
            (_LosesNotes, "test_what_was_begun_is_known_after_a_restart_where_the_store_keeps_it"),
            (_MixesCases, "test_blobs_with_nearly_the_same_id_are_apart"),
            (_RaisesItsOwnErrors, "test_what_is_no_id_is_unknown"),
        ):
            with self.subTest(faulty.__name__):
                self.assertFalse(fails(store_case(_Store), name))
                self.assertTrue(fails(store_case(faulty), name))


class EngineContractTest(unittest.TestCase):
    def test_each_fault_of_an_engine_is_found(self) -> None:
        for faulty, name in (
            (_NeverEvicts, "test_a_claim_evicts_whoever_held_the_user"),
            (_ReleasesForAnybody, "test_only_the_holder_can_give_a_claim_up"),
            (_AlwaysReceived, "test_a_user_of_another_app_is_not_there"),
            (_KeepsCopies, "test_a_copy_changes_nothing_but_another_senders_is_no_copy"),
            (_KeepsForEver, "test_after_seven_days_messages_are_gone"),
            (_JoinsInSilence, "test_joins_and_leaves_are_told_once_and_the_count_before"),
            (_ForgetsWhoIsUnreachable, "test_presence_is_answered_for_each_asked_in_order"),
        ):
            with self.subTest(faulty.__name__):
                self.assertFalse(fails(engine_case(_Engine), name))
                self.assertTrue(fails(engine_case(faulty), name))
