"""Uploads: every byte at its offset or refused, resumable, and nothing left of ended uploads."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from rtm_sync.errors import DownloadMediaError, UploadMediaError
from rtm_sync.hub.local.engine import LocalEngine
from rtm_sync.hub.media.disk import DiskMediaStore
from rtm_sync.hub.media.store import MediaWriter
from rtm_sync.hub.media.upload import Checksum, ChecksumMismatch, Upload
from rtm_sync.hub.node import Hub
from rtm_sync.protocol.events import CancelUpload
from rtm_sync.protocol.requests import Logout
from rtm_sync.protocol.values import MediaInfo
from rtm_sync.rules.limits import Limits
from tests.support import PATIENCE

from ..support import HubCase, User, chunks, eventually, spec, upload_whole

DATA = bytes(range(256)) * 4


class UploadCase(HubCase):
    """One hub with a disk store, and the user alice."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.data = self.folder()
        self.blobs = self.data / "media"
        self.made = await self.started(DiskMediaStore(self.blobs))
        self.alice = await self.user(self.made)

    async def started(self, store: DiskMediaStore, engine: LocalEngine | None = None) -> Hub:
        database = self.data / "rtm.sqlite3"
        return await self.hub(
            engine=engine or LocalEngine(database, now=lambda: self.wall), store=store
        )

    async def begin(self, size: int = len(DATA), *, key: str | None = None) -> Upload:
        return await self.made.media.begin_upload(self.alice.session, spec(size, key=key))

    async def forgotten(self, media_id: str) -> None:
        """Wait until the medium has no record; its file is deleted before that."""
        with contextlib.suppress(DownloadMediaError):
            while await self.made.media.stored_media(self.alice.session, media_id):
                await asyncio.sleep(0.001)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.blobs.glob("*/*"))

    def assert_stored(self, info: MediaInfo, data: bytes = DATA) -> None:
        path = self.blobs / info.media_id[:2] / info.media_id
        self.assertEqual(path.read_bytes(), data)
        self.assertEqual((info.size, info.sha256), (len(data), hashlib.sha256(data).hexdigest()))


class AppendTest(UploadCase):
    async def test_pieces_make_the_whole_whatever_their_size(self) -> None:
        data = DATA * 700  # more than one buffer
        upload = await self.begin(len(data))
        for start in range(0, len(data), 300_000):
            piece = data[start : start + 300_000]
            self.assertEqual(await upload.current_offset(), start)
            await upload.append(start, chunks(piece[:1], piece[1:]), len(piece))
        self.assert_stored(await self.made.media.complete_upload(upload), data)
        self.assertEqual(self.files(), [upload.media_id])

    async def test_bytes_before_a_break_are_kept(self) -> None:
        upload = await self.begin()
        with self.assertRaises(ConnectionError):
            await upload.append(0, chunks(DATA[:100], ConnectionError("gone")), len(DATA))
        self.assertEqual(await upload.current_offset(), 100)
        await upload.append(100, chunks(DATA[100:]), len(DATA) - 100)
        self.assert_stored(await self.made.media.complete_upload(upload))

    async def test_more_than_announced_is_refused(self) -> None:
        upload = await self.begin()
        too_much = upload.append(0, chunks(DATA[:9], DATA), len(DATA))
        await self.refused("UPLOAD_MEDIA_ERR_INVALID_ARGUMENT", too_much)
        self.assertLess(await upload.current_offset(), len(DATA))

    async def test_a_chunk_with_a_wrong_checksum_leaves_what_was_before(self) -> None:
        upload = await self.begin()
        await upload.append(0, chunks(DATA[:10]), 10)
        wrong = Checksum("sha256", b"\0" * 32)
        with self.assertRaises(ChecksumMismatch):
            await upload.append(10, chunks(b"damaged"), 7, wrong)
        self.assertEqual(await upload.current_offset(), 10)
        right = Checksum("sha1", hashlib.sha1(DATA[10:]).digest())
        await upload.append(10, chunks(DATA[10:]), len(DATA) - 10, right)
        self.assert_stored(await self.made.media.complete_upload(upload))

    async def test_a_chunk_with_a_checksum_counts_whole_or_not_at_all(self) -> None:
        upload = await self.begin()
        checksum = Checksum("sha256", hashlib.sha256(DATA).digest())
        with self.assertRaises(ConnectionError):
            await upload.append(0, chunks(DATA[:500], ConnectionError()), len(DATA), checksum)
        self.assertEqual(await upload.current_offset(), 0)

    async def test_checksum_headers_that_say_nothing_are_refused(self) -> None:
        for header in ("", "md5 AAAA", "SHA256 AAAA", "sha256 !", "sha256 AAA"):
            with self.subTest(header=header), self.assertRaises(ValueError):
                Checksum.parse(header)

    async def test_a_new_connection_takes_over_from_one_that_hangs(self) -> None:
        upload, gate = await self.begin(), asyncio.Event()
        started = asyncio.Event()

        late = chunks(b"late bytes")

        async def hangs() -> bytes:
            started.set()
            await gate.wait()
            return await late()

        old = asyncio.ensure_future(upload.append(0, hangs, len(DATA)))
        await started.wait()
        self.assertEqual(await upload.current_offset(), 0)
        await upload.append(0, chunks(DATA), len(DATA))
        gate.set()
        await self.refused("UPLOAD_MEDIA_ERR_FAILURE", old)
        self.assert_stored(await self.made.media.complete_upload(upload))

    async def test_a_cancelled_request_keeps_the_upload_in_order(self) -> None:
        upload, started = await self.begin(), asyncio.Event()
        parts = [DATA[:100]]

        async def then_hangs() -> bytes:
            if parts:
                return parts.pop()
            started.set()
            await asyncio.Event().wait()
            return b""

        request = asyncio.ensure_future(upload.append(0, then_hangs, len(DATA)))
        await started.wait()
        request.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await request
        offset = await upload.current_offset()
        await upload.append(offset, chunks(DATA[offset:]), len(DATA) - offset)
        self.assert_stored(await self.made.media.complete_upload(upload))


class LifeTest(UploadCase):
    async def test_a_key_names_no_second_upload_of_another_size(self) -> None:
        upload = await self.begin(5, key="mine")
        await self.refused("UPLOAD_MEDIA_ERR_INVALID_ARGUMENT", self.begin(6, key="mine"))
        await upload.append(0, chunks(b"hello"), 5)
        await self.made.media.complete_upload(upload)
        await self.refused("UPLOAD_MEDIA_ERR_INVALID_ARGUMENT", self.begin(6, key="mine"))
        self.assertIs(await self.begin(5, key="mine"), upload)

    async def test_the_same_key_is_the_same_upload_of_this_user_only(self) -> None:
        upload = await self.begin(key="mine")
        self.assertIs(await self.begin(key="mine"), upload)
        bob = await self.user(self.made, "bob")
        other = await self.made.media.begin_upload(bob.session, spec(5, key="mine"))
        self.assertIsNot(other, upload)
        self.assertIsNone(self.made.media.upload(bob.session, upload.media_id))

    async def test_a_lost_answer_is_given_again_and_not_for_ever(self) -> None:
        upload = await self.begin(key="mine")
        await upload.append(0, chunks(DATA), len(DATA))
        info = await self.made.media.complete_upload(upload)
        self.assertIs(await self.made.media.complete_upload(await self.begin(key="mine")), info)
        await self.skip(self.made.limits.session_grace + 1)
        self.assertIsNot(await self.begin(key="mine"), upload)

    async def test_a_cancelled_upload_leaves_nothing_at_any_moment(self) -> None:
        for sent, complete in ((0, False), (100, False), (len(DATA), False), (len(DATA), True)):
            with self.subTest(sent=sent, complete=complete):
                upload = await self.begin(key=f"key-{sent}-{complete}")
                await upload.append(0, chunks(DATA[:sent]), sent)
                if complete:
                    await self.made.media.complete_upload(upload)
                self.alice.tell(CancelUpload(f"key-{sent}-{complete}"))
                await eventually(lambda: self.files() == [])
                await asyncio.wait_for(self.forgotten(upload.media_id), PATIENCE)
                gone = self.made.media.stored_media(self.alice.session, upload.media_id)
                await self.refused("DOWNLOAD_MEDIA_ERR_NOT_EXIST", gone)

    async def test_a_cancellation_may_overtake_its_upload(self) -> None:
        self.alice.tell(CancelUpload("early"))
        await asyncio.sleep(0)
        await self.refused("UPLOAD_MEDIA_ERR_FAILURE", self.begin(key="early"))

    async def test_bytes_for_an_upload_that_was_given_up_are_refused(self) -> None:
        upload = await self.begin()
        await upload.append(0, chunks(DATA[:100]), 100)
        await self.made.media.drop_upload(upload)
        await self.refused("UPLOAD_MEDIA_ERR_FAILURE", upload.append(100, chunks(b"x"), 1))
        await self.refused("UPLOAD_MEDIA_ERR_FAILURE", self.made.media.complete_upload(upload))
        self.assertEqual(self.files(), [])

    async def test_logging_out_forgets_what_was_not_to_be_kept(self) -> None:
        upload = await self.begin()
        await upload.append(0, chunks(DATA[:100]), 100)
        kept = await self.made.media.begin_upload(self.alice.session, spec(9, key="k", keep=True))
        await self.alice.call(Logout())
        await eventually(lambda: self.files() == [])
        again = await self.user(self.made)
        self.assertIsNone(self.made.media.upload(again.session, upload.media_id))
        self.assertIs(self.made.media.upload(again.session, kept.media_id), kept)

    async def test_one_without_a_byte_for_ten_minutes_ends(self) -> None:
        upload = await self.begin()
        await upload.append(0, chunks(DATA[:100]), 100)
        await self.skip(599)
        await self.made.media.sweep_uploads()
        self.assertEqual(len(self.files()), 2)
        self.assertAlmostEqual(self.made.media.expires_at(upload), self.wall + 1, delta=0.9)
        await self.skip(2)
        await self.made.media.sweep_uploads()
        self.assertEqual(self.files(), [])

    async def test_the_hundred_and_first_unfinished_is_refused_until_one_ends(self) -> None:
        uploads = [await self.begin() for _ in range(100)]
        await self.refused("UPLOAD_MEDIA_ERR_CONCURRENCY_LIMIT_EXCEEDED", self.begin())
        await uploads[0].append(0, chunks(DATA), len(DATA))
        await self.made.media.complete_upload(uploads[0])
        await self.made.media.drop_upload(uploads[1])
        for _ in range(2):
            await self.begin()
        await self.refused("UPLOAD_MEDIA_ERR_CONCURRENCY_LIMIT_EXCEEDED", self.begin())

    async def test_the_tenth_transfer_at_once_is_refused_after_a_while(self) -> None:
        media = self.made.media
        slots = [media.slot(self.alice.session, UploadMediaError) for _ in range(9)]
        for slot in slots:
            await slot.__aenter__()
        tenth = asyncio.ensure_future(media.slot(self.alice.session, UploadMediaError).__aenter__())
        await self.skip(0)
        self.assertFalse(tenth.done())
        await self.skip(4)
        error = await self.refused("UPLOAD_MEDIA_ERR_CONCURRENCY_LIMIT_EXCEEDED", tenth)
        self.assertIn("9 transfers", str(error))
        for slot in slots:
            await slot.__aexit__(None, None, None)


class RestartTest(UploadCase):
    async def restarted(self) -> tuple[Hub, User]:
        """A second hub on the same folder, while the first one has not been stopped."""
        hub = await self.started(DiskMediaStore(self.blobs))
        return hub, await self.user(hub)

    async def test_a_fragment_goes_on_where_it_was(self) -> None:
        upload = await self.begin(key="mine")
        await upload.append(0, chunks(DATA[:100]), 100)
        hub, alice = await self.restarted()
        again = await hub.media.begin_upload(alice.session, spec(len(DATA), key="mine"))
        self.assertEqual((again.media_id, again.offset), (upload.media_id, 100))
        await again.append(100, chunks(DATA[100:]), len(DATA) - 100)
        self.assert_stored(await hub.media.complete_upload(again))

    async def test_a_fragment_nobody_goes_on_with_ends(self) -> None:
        upload = await self.begin(key="mine")
        await upload.append(0, chunks(DATA[:100]), 100)
        hub, _ = await self.restarted()
        await self.skip(601)
        await hub.media.sweep_uploads()
        await eventually(lambda: self.files() == [])  # the hub's own sweep may be the first one

    async def test_a_fragment_whose_note_is_damaged_is_removed(self) -> None:
        upload = await self.begin()
        await upload.append(0, chunks(DATA[:100]), 100)
        self.note_of(upload).write_text('{"half":')
        await self.restarted()
        self.assertEqual(self.files(), [])

    async def test_a_recorded_medium_is_kept_though_its_note_is_damaged(self) -> None:
        info = await upload_whole(self.made, self.alice, DATA)
        metadata = self.blobs / info.media_id[:2] / f"{info.media_id}.note"
        metadata.write_text("")  # a power cut undid the removal and lost the text
        hub, alice = await self.restarted()
        self.assert_stored(await hub.media.stored_media(alice.session, info.media_id))

    async def test_a_recorded_medium_is_kept_though_the_engine_is_away(self) -> None:
        upload = await self.begin()
        await upload.append(0, chunks(DATA), len(DATA))
        text = self.note_of(upload).read_text()
        info = await self.made.media.complete_upload(upload)
        self.note_of(upload).write_text(text)  # killed before it was finalized

        class Away(LocalEngine):
            async def media(self, app_id: str, media_id: str) -> MediaInfo | None:
                raise OSError("the cluster is away")

        await self.started(DiskMediaStore(self.blobs), Away())
        self.assert_stored(info)
        await self.restarted()
        self.assertEqual(self.files(), [info.media_id])

    async def test_a_blob_that_was_never_recorded_is_removed(self) -> None:
        upload = await self.begin()
        await upload.append(0, chunks(DATA), len(DATA))
        await upload.finish()
        await self.restarted()
        self.assertEqual(self.files(), [])

    def note_of(self, upload: Upload) -> Path:
        return self.blobs / upload.media_id[:2] / f"{upload.media_id}.note"


class BrokenStore(DiskMediaStore):
    """A disk that becomes full in the middle of a write, after a number of bytes."""

    room = 0
    refuses_commit = False

    def create(self, media_id: str, metadata: str) -> MediaWriter:
        return _BrokenWriter(self, super().create(media_id, metadata))

    def reopen(self, media_id: str) -> tuple[MediaWriter, BinaryIO]:
        raise AssertionError("nothing was restarted")


class _BrokenWriter(MediaWriter):
    def __init__(self, store: BrokenStore, inner: MediaWriter) -> None:
        self._store = store
        self._inner = inner
        self.truncate = inner.truncate  # type: ignore[method-assign]
        self.abort = inner.abort  # type: ignore[method-assign]

    def write(self, data: bytes | bytearray | memoryview) -> None:
        fits = bytes(data[: self._store.room])
        self._store.room -= len(fits)
        self._inner.write(fits)
        if len(fits) < len(data):
            raise OSError(28, os.strerror(28))

    def truncate(self, size: int) -> None:
        raise NotImplementedError

    def commit(self) -> None:
        if self._store.refuses_commit:
            raise OSError(5, os.strerror(5))
        self._inner.commit()

    def abort(self) -> None:
        raise NotImplementedError


class BrokenDiskTest(UploadCase):
    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.store = BrokenStore(self.blobs)
        self.made = await self.hub(store=self.store, limits=Limits())
        self.alice = await self.user(self.made)

    async def test_a_full_disk_is_told_and_the_upload_goes_on_when_there_is_room(self) -> None:
        upload = await self.begin()
        self.store.room = 100
        error = await self.refused(
            "UPLOAD_MEDIA_ERR_FAILURE", upload.append(0, chunks(DATA), len(DATA))
        )
        self.assertIn("No space left on device", str(error))
        self.store.room = 10**6
        offset = await upload.current_offset()
        await upload.append(offset, chunks(DATA[offset:]), len(DATA) - offset)
        self.assert_stored(await self.made.media.complete_upload(upload))

    async def test_a_disk_that_fails_at_the_end_leaves_no_upload_and_no_bytes(self) -> None:
        self.store.room, self.store.refuses_commit = 10**6, True
        upload = await self.begin(key="mine")
        await upload.append(0, chunks(DATA), len(DATA))
        await self.refused("UPLOAD_MEDIA_ERR_FAILURE", self.made.media.complete_upload(upload))
        self.assertEqual(self.files(), [])
        self.store.refuses_commit = False
        again = await self.begin(key="mine")
        await again.append(0, chunks(DATA), len(DATA))
        self.assert_stored(await self.made.media.complete_upload(again))
