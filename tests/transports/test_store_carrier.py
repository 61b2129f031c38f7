"""StoreCarrier over real media stores, and over stores that fail at every step."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from rtm_sync import (
    Blob,
    DownloadCancelled,
    DownloadMediaError,
    MediaInfo,
    RtmClient,
    RtmError,
    UploadCancelled,
    UploadMediaError,
)
from rtm_sync.blob import CHUNK
from rtm_sync.hub.media import MediaStore, MediaWriter, new_media_id
from rtm_sync.hub.media.disk import DiskMediaStore
from rtm_sync.hub.media.memory import MemoryMediaStore
from rtm_sync.plugins.hookspecs import hookimpl
from rtm_sync.transfers import TransferControl, TransferKind
from rtm_sync.transfers.sink import PartSink, Sink
from rtm_sync.transports.store_carrier import DirectAccess, MediaReader, StoreCarrier, UploadWriter
from tests.support import PATIENCE, RtmTestCase, wait_until
from tests.transports.support import pattern

DATA = pattern(3 * CHUNK + 1000)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Records:
    """Media records in a dictionary, which fail when a test says so.

    Attributes:
        failure: what `keep` raises after it has stored the record.
    """

    def __init__(self) -> None:
        self.kept: dict[str, MediaInfo] = {}
        self.failure: BaseException | None = None
        self.forgets_badly = False

    def keep(self, info: MediaInfo, control: TransferControl) -> None:
        self.kept[info.media_id] = info
        if self.failure is not None:
            raise self.failure

    def find(self, media_id: str, control: TransferControl) -> MediaInfo | None:
        return self.kept.get(media_id)

    def forget(self, media_id: str) -> None:
        self.kept.pop(media_id, None)
        if self.forgets_badly:
            raise OSError("forgetting failed")


class FaultyStore(MediaStore):
    """A store that raises `failure` in the operations that `failing` names, after doing them."""

    def __init__(self, store: MediaStore, failing: str, failure: BaseException) -> None:
        self.store = store
        self.failing = failing.split()
        self.failure = failure

    def fail(self, operation: str) -> None:
        if operation in self.failing:
            raise self.failure

    def create(self, media_id: str, metadata: str) -> MediaWriter:
        writer = self.store.create(media_id, metadata)
        if "create" in self.failing:
            writer.suspend()
        self.fail("create")
        return _FaultyWriter(self, writer)

    def open(self, media_id: str) -> BinaryIO:
        self.fail("open")
        return _FaultyFile(self, self.store.open(media_id))

    def delete(self, media_id: str) -> None:
        self.store.delete(media_id)
        self.fail("delete")

    def finalize(self, media_id: str) -> None:
        self.fail("finalize")
        self.store.finalize(media_id)


class _FaultyWriter(MediaWriter):
    def __init__(self, store: FaultyStore, writer: MediaWriter) -> None:
        self._store, self._writer = store, writer

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._writer.write(data)
        self._store.fail("write")

    def truncate(self, size: int) -> None:
        self._writer.truncate(size)

    def commit(self) -> None:
        self._writer.commit()
        self._store.fail("commit")

    def abort(self) -> None:
        self._writer.abort()
        self._store.fail("abort")


class _FaultyFile(io.BufferedIOBase):
    def __init__(self, store: FaultyStore, file: BinaryIO) -> None:
        super().__init__()
        self._store, self._file = store, file

    def read(self, size: int | None = -1, /) -> bytes:
        self._store.fail("read")
        return self._file.read(size)  # type: ignore[arg-type]

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def close(self) -> None:
        self._file.close()
        super().close()
        self._store.fail("close")


def control(kind: TransferKind, **options: Any) -> TransferControl:
    return TransferControl(kind, **options)


def upload_control(**options: Any) -> TransferControl:
    return control(TransferKind.UPLOAD, **options)


def download_control(**options: Any) -> TransferControl:
    return control(TransferKind.DOWNLOAD, **options)


class CarrierCase(RtmTestCase):
    def setUp(self) -> None:
        self.folder_of_media = self.folder()
        self.records = Records()

    def disk(self) -> DiskMediaStore:
        return DiskMediaStore(self.folder_of_media)

    def files(self) -> list[str]:
        return [path.name for path in self.folder_of_media.glob("*/*")]

    def carrier(self, store: MediaStore | None = None, **options: Any) -> StoreCarrier:
        return StoreCarrier(DirectAccess(store or self.disk(), self.records, **options))

    def raises(self, family: type[RtmError], reason: str, call: Callable[[], object]) -> RtmError:
        with self.assertRaises(family) as caught:
            call()
        self.assertEqual(caught.exception.reason, reason, caught.exception)
        return caught.exception


class GoodStoreTest(CarrierCase):
    def test_what_is_uploaded_can_be_downloaded(self) -> None:
        for store in (self.disk(), MemoryMediaStore()):
            with self.subTest(type(store).__name__):
                carrier = self.carrier(store, retention=60.0)
                blob = Blob.from_bytes(DATA, name="a.bin", content_type="x/y")
                info = carrier.upload(blob, upload_control(), "a key")
                self.assertEqual(
                    (info.size, info.sha256, info.file_name, info.content_type),
                    (len(DATA), SHA256, "a.bin", "x/y"),
                )
                self.assertAlmostEqual(info.expires_at, time.time() + 60.0, delta=30.0)
                target = io.BytesIO()
                found = carrier.download(info.media_id, Sink(target), download_control())
                self.assertEqual((found, target.getvalue()), (info, DATA))
        self.assertEqual(len(self.files()), 1)  # no metadata beside the blob

    def test_progress_is_told_of_both_and_ends_at_the_size(self) -> None:
        carrier = self.carrier()
        up, down = upload_control(), download_control()
        info = carrier.upload(Blob.from_bytes(DATA), up)
        carrier.download(info.media_id, Sink(io.BytesIO()), down)
        for one in (up, down):
            self.assertEqual((one.progress.current_size, one.progress.total_size), (len(DATA),) * 2)

    def test_unknown_expired_and_malformed_ids_are_told_apart(self) -> None:
        carrier = self.carrier()
        info = carrier.upload(Blob.from_bytes(DATA), upload_control())
        late = self.carrier(now=lambda: info.expires_at)

        def downloading(one: StoreCarrier, media_id: str) -> Callable[[], object]:
            return lambda: one.download(media_id, Sink(io.BytesIO()), download_control())

        for one, media_id, reason, words in (
            (carrier, new_media_id(), "NOT_EXIST", "does not exist"),
            (late, info.media_id, "NOT_EXIST", "has expired"),
            (carrier, "../../etc/passwd", "INVALID_ARGUMENT", "is not a media id"),
        ):
            error = self.raises(DownloadMediaError, reason, downloading(one, media_id))
            self.assertIn(words, error.message)

    def test_a_source_that_has_shrunk_fails_and_leaves_nothing(self) -> None:
        path = self.folder() / "log"
        path.write_bytes(DATA)
        blob = Blob.from_path(path)
        path.write_bytes(DATA[:-10])
        upload = self.carrier().upload
        error = self.raises(UploadMediaError, "FAILURE", lambda: upload(blob, upload_control()))
        self.assertIn(f"had {len(DATA):,} bytes when its blob was made", error.message)
        path.unlink()
        error = self.raises(UploadMediaError, "FAILURE", lambda: upload(blob, upload_control()))
        self.assertIn("The source cannot be read", error.message)
        self.assertEqual(self.files(), [])

    def test_a_source_that_changes_fails_and_leaves_nothing(self) -> None:
        path = self.folder() / "log"
        for content in (DATA + b"more", DATA[::-1]):
            path.write_bytes(DATA)
            blob = Blob.from_path(path)
            path.write_bytes(content)
            os.utime(path, (1, 1))
            with self.subTest(size=len(content)):
                error = self.raises(
                    UploadMediaError,
                    "FAILURE",
                    lambda blob=blob: self.carrier().upload(blob, upload_control()),  # type: ignore[misc]
                )
                self.assertIn("it was changed while it was uploaded", error.message)
                self.assertEqual(self.files(), [])


class ResumeTest(CarrierCase):
    """What becomes of bytes that a sink has already."""

    def setUp(self) -> None:
        super().setUp()
        self.read: list[int] = []
        store = self.disk()
        case = self

        class CountingAccess(DirectAccess):
            @contextlib.contextmanager
            def reading(
                self, info: MediaInfo, offset: int, control: TransferControl
            ) -> Iterator[MediaReader]:
                case.read.append(offset)
                with super().reading(info, offset, control) as reader:
                    yield reader

        self.resuming = StoreCarrier(CountingAccess(store, self.records))
        self.info = self.resuming.upload(Blob.from_bytes(DATA), upload_control())

    def download_part(self, part: PartSink) -> object:
        return self.resuming.download_part(self.info.media_id, part, download_control())

    def download(self, sink: Sink) -> object:
        return self.resuming.download(self.info.media_id, sink, download_control())

    def begun(self, data: bytes, whole: str) -> tuple[Sink, io.BytesIO]:
        file = io.BytesIO()
        sink = Sink(file)
        sink.write(data)
        sink.whole = whole
        return sink, file

    def test_the_beginning_of_the_same_medium_is_gone_on_with(self) -> None:
        sink, file = self.begun(DATA[:1000], SHA256)
        self.download(sink)
        self.assertEqual((file.getvalue(), self.read), (DATA, [1000]))

    def test_a_sink_that_has_everything_reads_nothing(self) -> None:
        sink, file = self.begun(DATA, SHA256)
        self.download(sink)
        self.assertEqual((file.getvalue(), self.read), (DATA, []))

    def test_the_beginning_of_another_medium_is_dropped(self) -> None:
        for whole in ("0" * 64, ""):
            sink, file = self.begun(b"another", whole)
            self.download(sink)
            self.assertEqual((file.getvalue(), self.read), (DATA, [0]))
            self.read.clear()

    def test_a_damaged_beginning_is_read_anew(self) -> None:
        for damaged in (b"?" * 1000, b"?" * len(DATA), b"?" * (len(DATA) + 1)):
            sink, file = self.begun(damaged, SHA256)
            self.download(sink)
            self.assertEqual(file.getvalue(), DATA)
            self.assertEqual(self.read[-1], 0)

    def test_damaged_stored_bytes_are_not_handed_out(self) -> None:
        (path,) = self.folder_of_media.glob("*/*")
        for stored in (DATA[:-1] + b"?", DATA[:-1], DATA + b"?", b""):
            path.write_bytes(stored)
            sink = Sink(io.BytesIO())
            error = self.raises(
                DownloadMediaError, "FAILURE", lambda sink=sink: self.download(sink)
            )
            self.assertIn("damaged", error.message)
            self.assertEqual(sink.size, 0)

    def test_a_part_that_the_store_has_no_more_is_an_error(self) -> None:
        (path,) = self.folder_of_media.glob("*/*")
        path.write_bytes(DATA[:1000])
        part = PartSink(io.BytesIO(), 500, 2000, "The part")
        error = self.raises(DownloadMediaError, "FAILURE", lambda: self.download_part(part))
        self.assertIn("cut off", error.message)

    def test_a_destination_that_cannot_go_back_says_so(self) -> None:
        class Pipe(io.BytesIO):
            def seekable(self) -> bool:
                return False

        pipe = Pipe()
        sink = Sink(pipe)
        sink.write(b"another")
        error = self.raises(DownloadMediaError, "FAILURE", lambda: self.download(sink))
        self.assertIn("cannot go back", error.message)
        self.assertEqual(pipe.getvalue(), b"another")


class FaultTest(CarrierCase):
    """Every step of a store fails with every kind of error, and the clean-up after it too."""

    def failures(self) -> list[Exception]:
        return [OSError("disk on fire"), FileNotFoundError("gone"), ZeroDivisionError("a bug")]

    def upload(self, store: MediaStore) -> RtmError:
        upload = self.carrier(store).upload
        blob = Blob.from_bytes(DATA)
        return self.raises(UploadMediaError, "FAILURE", lambda: upload(blob, upload_control()))

    def test_an_upload_that_the_store_fails_leaves_nothing(self) -> None:
        for step in ("create", "write", "commit", "finalize"):
            for failure in self.failures():
                with self.subTest(step=step, failure=failure):
                    error = self.upload(FaultyStore(self.disk(), step, failure))
                    self.assertIs(error.cause, failure)
                    self.assertIn("The media store failed", error.message)
                    self.assertEqual((self.files(), self.records.kept), ([], {}))

    def test_a_failing_clean_up_does_not_hide_why_it_was_necessary(self) -> None:
        self.records.failure = OSError("the broker is away")
        self.records.forgets_badly = True
        store = FaultyStore(self.disk(), "abort delete", RuntimeError("the clean-up failed"))
        with self.assertLogs("rtm_sync.transports.store_carrier", "WARNING") as logs:
            error = self.upload(store)
        self.assertIs(error.cause, self.records.failure)
        self.assertEqual(len(logs.output), 3)
        self.assertEqual((self.files(), self.records.kept), ([], {}))

    def test_errors_of_the_family_pass_as_they_are(self) -> None:
        self.records.failure = UploadMediaError.named("TIMEOUT", "no answer")
        upload = self.carrier().upload
        with self.assertRaises(UploadMediaError) as caught:
            upload(Blob.from_bytes(DATA), upload_control())
        self.assertIs(caught.exception, self.records.failure)
        self.assertEqual(self.files(), [])

    def test_a_download_from_a_store_that_fails_has_the_familys_error(self) -> None:
        info = self.carrier().upload(Blob.from_bytes(DATA), upload_control())
        for step in ("open", "read"):
            for failure in self.failures():
                with self.subTest(step=step, failure=failure):
                    store = FaultyStore(self.disk(), step, failure)
                    download = self.carrier(store).download
                    sink = Sink(io.BytesIO())
                    is_gone = isinstance(failure, FileNotFoundError)
                    error = self.raises(
                        DownloadMediaError,
                        "NOT_EXIST" if is_gone else "FAILURE",
                        lambda d=download, s=sink: d(info.media_id, s, download_control()),
                    )
                    self.assertIs(error.cause, failure)

    def test_a_store_that_fails_to_close_does_not_fail_what_is_complete(self) -> None:
        info = self.carrier().upload(Blob.from_bytes(DATA), upload_control())
        carrier = self.carrier(FaultyStore(self.disk(), "close", OSError("too late")))
        target = io.BytesIO()
        with self.assertLogs("rtm_sync.transports.store_carrier", "WARNING"):
            carrier.download(info.media_id, Sink(target), download_control())
        self.assertEqual(target.getvalue(), DATA)


class CancelTest(CarrierCase):
    def test_an_upload_cancelled_at_any_moment_leaves_nothing(self) -> None:
        blob = Blob.from_bytes(DATA)
        for step in ("create", "write", "commit", "finalize"):
            with self.subTest(step):
                running = upload_control()
                store = _CancellingStore(self.disk(), step, running)
                upload = self.carrier(store).upload
                if step in ("commit", "finalize"):  # too late for the carrier, not for its owner
                    upload(blob, running)
                    continue
                self.raises(UploadCancelled, "INTERRUPTED", lambda u=upload, c=running: u(blob, c))
                self.assertEqual((self.files(), self.records.kept), ([], {}))

    def test_the_last_byte_is_not_the_last_moment_to_cancel(self) -> None:
        signal = threading.Event()
        running = upload_control(cancel_signal=signal)

        committed: list[str] = []

        class Store(MemoryMediaStore):
            def create(self, media_id: str, metadata: str) -> MediaWriter:
                writer = super().create(media_id, metadata)
                commit = writer.commit

                def note() -> None:
                    committed.append(media_id)
                    commit()

                writer.commit = note  # type: ignore[method-assign]
                return writer

        advance = running.advance

        def cancelled_after(size: int, total: int) -> None:
            advance(size, total)
            if size == total:
                signal.set()

        running.advance = cancelled_after  # type: ignore[method-assign]
        upload = self.carrier(Store()).upload
        self.raises(UploadCancelled, "INTERRUPTED", lambda: upload(Blob.from_bytes(DATA), running))
        self.assertEqual((committed, self.records.kept), ([], {}))

    def test_whatever_an_interrupted_store_raises_the_transfers_end_is_told(self) -> None:
        info = self.carrier().upload(Blob.from_bytes(DATA), upload_control())
        running = download_control()
        store = _CancellingStore(self.disk(), "read", running, OSError("closed under the reader"))
        download = self.carrier(store).download
        self.raises(
            DownloadCancelled,
            "INTERRUPTED",
            lambda: download(info.media_id, Sink(io.BytesIO()), running),
        )


class _CancellingStore(FaultyStore):
    """A store during whose `step` the transfer is cancelled."""

    def __init__(
        self,
        store: MediaStore,
        step: str,
        running: TransferControl,
        failure: Exception | None = None,
    ) -> None:
        super().__init__(store, step, failure or AssertionError())
        self._raises = failure is not None
        self._running = running

    def fail(self, operation: str) -> None:
        if operation in self.failing:
            self._running.cancel()
            if self._raises:
                raise self.failure

    def create(self, media_id: str, metadata: str) -> MediaWriter:
        writer = self.store.create(media_id, metadata)
        self.fail("create")
        return _FaultyWriter(self, writer)


class AccessTest(CarrierCase):
    """What a foreign access may get wrong."""

    def test_an_access_that_cannot_even_begin_is_a_failing_store(self) -> None:
        class Broken:
            def uploading(self, blob: Blob, control: TransferControl) -> Any:
                raise ConnectionError("no way")

            find = reading = uploading

        carrier = StoreCarrier(Broken())
        blob = Blob.from_bytes(b"x")
        self.raises(UploadMediaError, "FAILURE", lambda: carrier.upload(blob, upload_control()))

    def test_an_exit_that_raises_is_logged_and_hides_nothing(self) -> None:
        class Rude(DirectAccess):
            @contextlib.contextmanager
            def uploading(self, blob: Blob, control: TransferControl) -> Iterator[UploadWriter]:
                try:
                    with super().uploading(blob, control) as writer:
                        yield writer
                finally:
                    raise ValueError("the slot is lost")

        store = FaultyStore(self.disk(), "write", OSError("disk on fire"))
        carrier = StoreCarrier(Rude(store, self.records))
        blob = Blob.from_bytes(b"x")
        with self.assertLogs("rtm_sync.transports.store_carrier", "WARNING"):
            error = self.raises(
                UploadMediaError, "FAILURE", lambda: carrier.upload(blob, upload_control())
            )
        self.assertIs(error.cause, store.failure)
        carrier = StoreCarrier(Rude(self.disk(), self.records))
        with self.assertLogs("rtm_sync.transports.store_carrier", "WARNING"):
            self.assertEqual(carrier.upload(blob, upload_control()).size, 1)


class SlowCommitStore(MemoryMediaStore):
    """A store whose commits wait."""

    def __init__(self) -> None:
        super().__init__()
        self.is_committing = threading.Event()
        self.may_commit = threading.Event()

    def create(self, media_id: str, metadata: str) -> MediaWriter:
        writer = super().create(media_id, metadata)
        commit = writer.commit

        def wait_and_commit() -> None:
            self.is_committing.set()
            self.may_commit.wait(PATIENCE)
            commit()

        writer.commit = wait_and_commit  # type: ignore[method-assign]
        return writer

    def count(self) -> int:
        return len(self._blobs)


class StorePlugin:
    def __init__(self, store: MediaStore) -> None:
        self._store = store

    @hookimpl
    def media_store(self, url: str) -> MediaStore | None:
        return self._store if url == "slow:" else None


class EmbeddedTest(RtmTestCase):
    """The embedded hub as an access."""

    def client(self, store: MediaStore) -> RtmClient:
        plugins = (StorePlugin(store),)
        client = RtmClient("app", url=f"memory://{id(self)}", media="slow:", plugins=plugins)
        self.addCleanup(client.close)
        client.login("alice")
        return client

    def test_an_upload_cancelled_in_its_commit_leaves_nothing(self) -> None:
        store = SlowCommitStore()
        self.addCleanup(store.may_commit.set)
        client = self.client(store)
        hub = client._transport._connection.home.hub  # type: ignore[attr-defined]
        with self.assertNoLogs("asyncio"):
            upload = client.create_media_message_by_uploading(DATA)
            self.assertTrue(store.is_committing.wait(PATIENCE))
            upload.cancel()
            self.assertIsInstance(upload.exception(PATIENCE), UploadCancelled)
            store.may_commit.set()
            wait_until(lambda: store.count() == 0 and hub.media.unfinished_count == 0, PATIENCE)
            gc.collect()
        message = client.create_media_message_by_uploading(DATA).result(PATIENCE)
        self.assertEqual(client.download_media(message.media_id).result(PATIENCE).to_bytes(), DATA)
