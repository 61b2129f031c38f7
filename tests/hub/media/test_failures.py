"""Stores that fail, hang and recover: one error, nothing left, and no byte out of place."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import BinaryIO

from rtm_sync.errors import DownloadMediaError, UploadMediaError
from rtm_sync.hub.local.engine import LocalEngine
from rtm_sync.hub.media.disk import DiskMediaStore
from rtm_sync.hub.media.memory import MemoryMediaStore
from rtm_sync.hub.media.store import MediaStore, MediaWriter
from rtm_sync.hub.media.upload import Checksum, Upload, UploadConflict
from rtm_sync.hub.node import Hub
from rtm_sync.protocol.requests import Logout
from rtm_sync.protocol.values import MediaInfo
from rtm_sync.rules.limits import Limits
from tests.support import PATIENCE

from ..support import DAY, chunks, eventually, spec, upload_whole
from .test_upload import DATA, UploadCase

SECRET = "/srv/secret on 10.9.8.7"


class Gate:
    """A place on a storage thread where a test stops the store."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        if not self.open.wait(PATIENCE):
            raise AssertionError("the gate stayed shut")


class TroubledStore(MediaStore):
    """A store in front of a real one, which calls a test's function before an operation.

    Attributes:
        before: the functions by the operation's name.
        calls: the operations, in order.
    """

    def __init__(self, inner: MediaStore) -> None:
        self.inner = inner
        self.before: dict[str, Callable[[], object]] = {}
        self.calls: list[str] = []

    def comes(self, operation: str) -> None:
        self.calls.append(operation)
        self.before.get(operation, lambda: None)()

    def create(self, media_id: str, metadata: str) -> MediaWriter:
        return TroubledWriter(self, self.inner.create(media_id, metadata))

    def open(self, media_id: str) -> BinaryIO:
        self.comes("open")
        return self.inner.open(media_id)

    def delete(self, media_id: str) -> None:
        self.comes("delete")
        self.inner.delete(media_id)

    def finalize(self, media_id: str) -> None:
        self.comes("finalize")
        self.inner.finalize(media_id)

    def close(self) -> None:
        self.inner.close()


class TroubledWriter(MediaWriter):
    def __init__(self, store: TroubledStore, inner: MediaWriter) -> None:
        self.store, self.inner = store, inner

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.store.comes("write")
        half = len(data) // 2
        self.inner.write(data[:half])
        self.store.comes("write on")
        self.inner.write(data[half:])

    def truncate(self, size: int) -> None:
        self.store.comes("truncate")
        self.inner.truncate(size)

    def commit(self) -> None:
        self.store.comes("commit")
        self.inner.commit()
        self.store.comes("committed")

    def abort(self) -> None:
        try:
            self.store.comes("abort")
        finally:
            self.inner.abort()


def failing(error: Exception) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


class TroubledCase(UploadCase):
    """A hub with a disk store in trouble, and a quota."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.store = TroubledStore(DiskMediaStore(self.blobs))
        self.made = await self.hub(store=self.store, limits=Limits(user_bytes=len(DATA)))
        self.alice = await self.user(self.made)

    async def recorded(self, media_id: str) -> bool:
        with contextlib.suppress(DownloadMediaError):
            await self.made.media.stored_media(self.alice.session, media_id)
            return True
        return False

    async def reached(self, gate: Gate) -> None:
        self.addCleanup(gate.open.set)
        await eventually(gate.reached.is_set, "the store was not asked")


class FailureTest(TroubledCase):
    async def test_a_store_that_fails_everywhere_is_one_error_without_its_texts(self) -> None:
        errors = (
            OSError(f"cannot reach {SECRET}"),
            OSError(5, f"cannot reach {SECRET}", SECRET),
            ValueError(f"a bug of a plugin at {SECRET}"),
            KeyError(SECRET),
        )
        for error in errors:
            for operation in ("write", "commit", "committed", "finalize"):
                with self.subTest(error=repr(error), operation=operation):
                    self.store.calls.clear()
                    for name in (operation, "truncate", "abort", "delete"):
                        self.store.before[name] = failing(error)
                    with self.assertLogs("rtm_sync", "WARNING") as logged:
                        upload = await self.begin()
                        refusal = await self.refused("UPLOAD_MEDIA_ERR_FAILURE", self.whole(upload))
                        self.assertTrue(refusal.message.startswith("The media store failed"))
                        for secret in (SECRET, upload.media_id):
                            self.assertNotIn(secret, refusal.message)
                        await self.made.media.drop_upload(upload)
                    self.assertIn(SECRET, logged.output[0])
                    self.assertIn(upload.media_id, logged.output[0])
                    self.assertEqual(self.store.calls.count(operation), 1)
                    self.assertFalse(await self.recorded(upload.media_id))
                    self.store.before.clear()
        await upload_whole(self.made, self.alice, DATA)  # nothing takes of the quota

    async def whole(self, upload: Upload) -> MediaInfo:
        await upload.append(0, chunks(DATA), len(DATA))
        return await self.made.media.complete_upload(upload)

    async def test_when_finalizing_fails_the_record_the_bytes_and_the_quota_are_back(self) -> None:
        self.store.before["finalize"] = failing(OSError(5, "cannot"))
        upload = await self.begin()
        error = await self.refused("UPLOAD_MEDIA_ERR_FAILURE", self.whole(upload))
        self.assertEqual(error.message, "The media store failed: Input/output error.")
        self.assertFalse(await self.recorded(upload.media_id))
        self.assertEqual(self.files(), [])
        self.store.before.clear()
        await upload_whole(self.made, self.alice, DATA)

    async def test_an_index_that_fails_leaves_no_bytes_and_tells_no_texts(self) -> None:
        class Away(LocalEngine):
            async def put_media(self, app_id: str, uid: str, info: MediaInfo) -> None:
                raise OSError(f"the cluster {SECRET} is away")

            async def media(self, app_id: str, media_id: str) -> MediaInfo | None:
                raise OSError(f"the cluster {SECRET} is away")

        hub = await self.hub(engine=Away(), store=DiskMediaStore(self.blobs))
        alice = await self.user(hub)
        for name, work in (
            ("UPLOAD_MEDIA_ERR_FAILURE", upload_whole(hub, alice, DATA)),
            ("DOWNLOAD_MEDIA_ERR_FAILURE", hub.media.stored_media(alice.session, "A" * 32)),
        ):
            error = await self.refused(name, work)
            self.assertNotIn(SECRET, error.message)
        self.assertEqual(self.files(), [])

    async def test_a_write_that_broke_off_is_mended_before_the_next(self) -> None:
        upload = await self.begin()
        await upload.append(0, chunks(DATA[:100]), 100)
        self.store.before["write on"] = failing(OSError(28, "full"))
        self.store.before["truncate"] = failing(OSError(5, "worse"))
        rest = len(DATA) - 100
        for _ in range(2):
            error = await self.refused(
                "UPLOAD_MEDIA_ERR_FAILURE", upload.append(100, chunks(DATA[100:]), rest)
            )
            self.store.before.pop("write on", None)
        self.assertIn("Input/output error", error.message)  # it could not be mended yet
        self.store.before.clear()
        await upload.append(100, chunks(DATA[100:]), rest)
        self.assert_stored(await self.made.media.complete_upload(upload))

    async def test_one_medium_that_cannot_be_deleted_keeps_no_other(self) -> None:
        hub = await self.hub(store=self.store)
        alice = await self.user(hub)
        for number in range(5):
            await upload_whole(hub, alice, bytes([number]))
        self.wall += 8 * DAY
        self.store.before["delete"] = self.first_fails()
        self.assertEqual(await hub.media.sweep_media(), 4)
        self.assertEqual(len(self.files()), 1)
        self.assertEqual(await hub.media.sweep_media(), 1)
        self.assertEqual(self.files(), [])

    def first_fails(self) -> Callable[[], object]:
        left = [OSError("in use")]

        def fail() -> None:
            if left:
                raise left.pop()

        return fail


class GivenUpTest(TroubledCase):
    """Whatever gives an upload up while the store commits, nothing of it stays."""

    async def test_cancelling_while_a_slow_store_commits_leaves_nothing(self) -> None:
        memory = MemoryMediaStore()
        for inner in (DiskMediaStore(self.blobs), memory):
            for operation in ("commit", "committed", "finalize"):
                for cancels_request in (False, True):
                    with self.subTest(
                        store=type(inner).__name__, operation=operation, both=cancels_request
                    ):
                        await self.cancelled_at(TroubledStore(inner), operation, cancels_request)
                        self.assertEqual(self.files(), [])
                        self.assertEqual(memory._blobs, {})

    async def cancelled_at(
        self, store: TroubledStore, operation: str, cancels_request: bool
    ) -> None:
        hub = await self.hub(store=store, limits=Limits(user_bytes=len(DATA)))
        alice = await self.user(hub)
        upload = await hub.media.begin_upload(alice.session, spec(len(DATA), key="k"))
        await upload.append(0, chunks(DATA), len(DATA))
        gate = store.before[operation] = Gate()
        completing = asyncio.ensure_future(hub.media.complete_upload(upload))
        await self.reached(gate)
        if cancels_request:
            completing.cancel()
        cancelling = asyncio.ensure_future(hub.media.cancel_upload(alice.session, "k"))
        await asyncio.sleep(0)
        self.assertFalse(cancelling.done())
        gate.open.set()
        await asyncio.wait_for(cancelling, PATIENCE)
        if not cancels_request:
            await self.refused("UPLOAD_MEDIA_ERR_FAILURE", completing)
        gone = hub.media.stored_media(alice.session, upload.media_id)
        await self.refused("DOWNLOAD_MEDIA_ERR_NOT_EXIST", gone)
        store.before.clear()
        info = await upload_whole(hub, alice, DATA)  # the quota is free
        store.inner.delete(info.media_id)

    async def test_a_logout_while_a_slow_store_commits_leaves_nothing(self) -> None:
        gate = self.store.before["commit"] = Gate()
        upload = await self.begin()
        await upload.append(0, chunks(DATA), len(DATA))
        completing = asyncio.ensure_future(self.made.media.complete_upload(upload))
        await self.reached(gate)
        await self.alice.call(Logout())
        gate.open.set()
        await self.refused("UPLOAD_MEDIA_ERR_FAILURE", completing)
        self.assertEqual(self.files(), [])

    async def test_a_cancelled_clean_up_goes_on(self) -> None:
        gate = self.store.before["abort"] = Gate()
        upload = await self.begin()
        await upload.append(0, chunks(DATA[:9]), 9)
        dropping = asyncio.ensure_future(self.made.media.drop_upload(upload))
        await self.reached(gate)
        dropping.cancel()
        gate.open.set()
        await eventually(lambda: self.files() == [])

    async def test_a_hub_that_stops_while_the_store_commits_publishes(self) -> None:
        gate = self.store.before["commit"] = Gate()
        upload = await self.begin()
        await upload.append(0, chunks(DATA), len(DATA))
        completing = asyncio.ensure_future(self.made.media.complete_upload(upload))
        await self.reached(gate)
        stopping = asyncio.ensure_future(self.made.media.stop())
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.wait_for(stopping, PATIENCE)
        self.assert_stored(await completing)


class OrderTest(TroubledCase):
    """What was true before a wait is asked again after it."""

    async def test_a_request_that_is_cancelled_while_it_writes_counts_what_it_wrote(self) -> None:
        gate = self.store.before["write"] = Gate()
        upload = await self.begin()
        request = asyncio.ensure_future(upload.append(0, chunks(DATA[:100]), 100))
        await self.reached(gate)
        request.cancel()
        await asyncio.sleep(0)
        request.cancel()  # twice: the lock is not released while the thread writes
        await asyncio.sleep(0)
        offset = asyncio.ensure_future(upload.current_offset())
        await asyncio.sleep(0)
        self.assertFalse(offset.done())
        gate.open.set()
        self.assertEqual(await offset, 100)
        await upload.append(100, chunks(DATA[100:]), len(DATA) - 100)
        self.assert_stored(await self.made.media.complete_upload(upload))

    async def test_the_offset_is_compared_when_the_store_has_written(self) -> None:
        gate = self.store.before["write"] = Gate()
        upload = await self.begin()
        one = asyncio.ensure_future(upload.append(0, chunks(DATA), len(DATA)))
        await self.reached(gate)
        two = asyncio.ensure_future(upload.append(0, chunks(DATA), len(DATA)))
        await asyncio.sleep(0)
        gate.open.set()
        error = await self.refused("UPLOAD_MEDIA_ERR_FAILURE", two)
        self.assertIsInstance(error.cause, UploadConflict)
        self.assertEqual(await one, len(DATA))
        self.assert_stored(await self.made.media.complete_upload(upload))

    async def test_bytes_of_a_checksum_that_was_never_verified_do_not_count(self) -> None:
        self.made = await self.hub(store=self.store)  # without a quota
        self.alice = await self.user(self.made)
        upload, waits = await self.begin(300_000), asyncio.Event()
        await upload.append(0, chunks(b"1" * 10), 10)
        parts = [b"2" * 262_144]

        async def then_hangs() -> bytes:
            if parts:
                return parts.pop()
            await waits.wait()
            return b""

        request = asyncio.ensure_future(
            upload.append(10, then_hangs, 299_990, Checksum("sha256", b"\0" * 32))
        )
        await eventually(lambda: upload.offset > 10)
        self.assertEqual(await upload.current_offset(), 10)
        error = await self.refused("UPLOAD_MEDIA_ERR_FAILURE", request)
        self.assertIsInstance(error.cause, UploadConflict)
        await upload.append(10, chunks(b"3" * 299_990), 299_990)
        info = await self.made.media.complete_upload(upload)
        self.assert_stored(info, b"1" * 10 + b"3" * 299_990)

    async def test_a_key_that_is_used_again_outlives_the_first_uploads_memory(self) -> None:
        first = await self.begin(3, key="k")
        await first.append(0, chunks(b"abc"), 3)
        await self.made.media.complete_upload(first)
        await self.made.media.cancel_upload(self.alice.session, "k")
        second = await self.begin(4, key="k")
        await self.skip(self.made.limits.session_grace + 1)
        self.assertIs(await self.begin(4, key="k"), second)

    async def test_a_session_that_ended_while_it_waited_for_a_slot_gets_none(self) -> None:
        media, session = self.made.media, self.alice.session
        slots = [media.slot(session, UploadMediaError) for _ in range(9)]
        for slot in slots:
            await slot.__aenter__()
        tenth = asyncio.ensure_future(media.slot(session, UploadMediaError).__aenter__())
        await asyncio.sleep(0)
        await self.alice.call(Logout())
        for slot in slots:
            await slot.__aexit__(None, None, None)
        await self.refused("UPLOAD_MEDIA_ERR_NOT_LOGGED_IN", tenth)


class FragmentTest(UploadCase):
    async def restarted_with(self, stored: bytes, size: int = len(DATA)) -> Hub:
        """A second hub on the same folder, where a fragment has these bytes."""
        upload = await self.begin(size, key="k")
        await upload.append(0, chunks(b"x"), 1)
        (self.blobs / upload.media_id[:2] / f"{upload.media_id}.part").write_bytes(stored)
        hub = await self.started(DiskMediaStore(self.blobs))
        self.alice = await self.user(hub)
        return hub

    async def test_a_fragment_without_bytes_is_resumed(self) -> None:
        hub = await self.restarted_with(b"")
        upload = await hub.media.begin_upload(self.alice.session, spec(len(DATA), key="k"))
        await upload.append(0, chunks(DATA), len(DATA))
        self.assert_stored(await hub.media.complete_upload(upload))

    async def test_a_fragment_beyond_its_size_is_removed(self) -> None:
        hub = await self.restarted_with(b"x" * 11, size=10)
        self.assertEqual(self.files(), [])
        upload = await hub.media.begin_upload(self.alice.session, spec(10, key="k"))
        self.assertEqual(upload.offset, 0)

    async def test_a_fragment_that_could_not_be_read_is_read_again(self) -> None:
        class BreaksOff(DiskMediaStore):
            breaks = True

            def reopen(self, media_id: str) -> tuple[MediaWriter, BinaryIO]:
                writer, reader = super().reopen(media_id)
                if self.breaks:
                    self.breaks = False
                    reader.seek(50)  # as if reading had broken off
                return writer, reader

        first = await self.begin(key="k")
        await first.append(0, chunks(DATA[:100]), 100)
        hub = await self.started(BreaksOff(self.blobs))
        alice = await self.user(hub)
        upload = await hub.media.begin_upload(alice.session, spec(len(DATA), key="k"))
        unread = upload.append(100, chunks(DATA[100:]), len(DATA) - 100)
        await self.refused("UPLOAD_MEDIA_ERR_FAILURE", unread)
        await upload.append(100, chunks(DATA[100:]), len(DATA) - 100)
        self.assert_stored(await hub.media.complete_upload(upload))
