"""The transport contract: uploads and downloads."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable
from concurrent.futures import wait

from ...errors import (
    DownloadMediaError,
    TransferCancelled,
    UploadMediaError,
)
from ...transfers.control import MediaOperationProgress
from ..case import wait_until
from .kit import SECONDS, TransportKit


class MediaTests(TransportKit):
    """Uploads and downloads: sources, destinations, progress, cancellation."""

    def test_what_is_uploaded_is_what_is_downloaded(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        for size in (1, 1000, 262_144, 3_000_001):
            data = _pattern(size)
            upload = alice.create_media_message_by_uploading(data, file_name="a b/ü.bin")
            message = upload.result(SECONDS)
            self.assertEqual(message.size, size)
            blob = bob.download_media(message.media_id).result(SECONDS)
            self.assertEqual(blob.to_bytes(), data)

    def test_every_source_and_destination_works(self) -> None:
        alice = self.client("alice")
        folder = self.folder()
        data = _pattern(100_000)
        source = folder / "source.txt"
        source.write_bytes(data)
        with source.open("rb") as file:
            for payload in (source, str(source), data, bytearray(data), memoryview(data), file):
                upload = alice.create_media_message_by_uploading(payload)
                message = upload.result(SECONDS)
                self.assertEqual(message.size, len(data))
        written = alice.download_media(message.media_id, to=folder / "copy").result(SECONDS)
        self.assertEqual(written, folder / "copy")
        self.assertEqual(written.read_bytes(), data)
        again = alice.download_media(message.media_id, to=folder).result(SECONDS)
        self.assertEqual(again, folder / "source (1).txt")
        memory = io.BytesIO()
        self.assertIs(alice.download_media(message.media_id, to=memory).result(SECONDS), memory)
        self.assertEqual(memory.getvalue(), data)
        self.assertEqual(
            sorted(path.name for path in folder.iterdir()), ["copy", "source (1).txt", "source.txt"]
        )

    def test_progress_ends_with_exactly_one_full_call(self) -> None:
        alice = self.client("alice")
        calls: list[MediaOperationProgress] = []
        data = _pattern(2_000_000)
        upload = alice.create_media_message_by_uploading(data, on_operation_progress=calls.append)
        message = upload.result(SECONDS)
        self._check_progress(calls, len(data))
        calls.clear()
        alice.download_media(message.media_id, on_operation_progress=calls.append).result(SECONDS)
        self._check_progress(calls, len(data))

    def _check_progress(self, calls: list[MediaOperationProgress], total: int) -> None:
        sizes = [progress.current_size for progress in calls]
        self.assertEqual(sizes, sorted(set(sizes)))
        self.assertEqual(sizes[-1], total)
        self.assertEqual({progress.total_size for progress in calls}, {total})

    def test_unknown_and_malformed_media_are_refused(self) -> None:
        alice = self.client("alice")
        unknown = alice.download_media("A" * 32)
        self.refused("DOWNLOAD_MEDIA_ERR_NOT_EXIST", unknown.result, SECONDS)
        malformed = alice.download_media("short")
        self.refused("DOWNLOAD_MEDIA_ERR_INVALID_ARGUMENT", malformed.result, SECONDS)
        for media_id in ("", "../../etc/passwd", "a b", "x" * 129):
            self.refused("DOWNLOAD_MEDIA_ERR_INVALID_ARGUMENT", alice.download_media, media_id)
        with self.assertRaises(DownloadMediaError):
            alice.download_media("A" * 32, to=self.folder() / "missing" / "file")

    def test_a_mediums_record_is_told_without_its_bytes(self) -> None:
        alice, bob = self.client("alice"), self.client("bob")
        data = _pattern(100_000)
        upload = alice.create_media_message_by_uploading(data, file_name="ü.txt")
        message = upload.result(SECONDS)
        info = bob.get_media_info(message.media_id)
        self.assertEqual((info.media_id, info.size), (message.media_id, len(data)))
        self.assertEqual(info.sha256, hashlib.sha256(data).hexdigest())
        self.assertEqual((info.file_name, info.content_type), ("ü.txt", "text/plain"))
        self.assertAlmostEqual(info.expires_at, message.expires_at, places=3)
        self.refused("DOWNLOAD_MEDIA_ERR_NOT_EXIST", bob.get_media_info, "A" * 32)
        for media_id in ("short", "", "a b"):
            self.refused("DOWNLOAD_MEDIA_ERR_INVALID_ARGUMENT", bob.get_media_info, media_id)

    def test_a_part_of_a_medium_is_downloaded(self) -> None:
        alice = self.client("alice")
        data = _pattern(1_000_000)
        media_id = alice.create_media_message_by_uploading(data).result(SECONDS).media_id
        size = len(data)
        for start, stop in (
            (0, 1),
            (0, None),
            (700_000, 700_001),
            (1, 600_000),
            (size - 1, None),
            (size - 10, size + 10),
            (size, None),
        ):
            with alice.open_media(media_id, start=start, stop=stop) as stream:
                self.assertEqual((stream.tell(), stream.info.size), (start, size))
                self.assertEqual(stream.read(), data[start:stop])
        with alice.open_media(media_id, start=size + 1) as stream:
            self.refused("DOWNLOAD_MEDIA_ERR_INVALID_ARGUMENT", stream.read)

    def test_a_failed_download_leaves_the_old_file(self) -> None:
        alice = self.client("alice")
        target = self.folder() / "kept"
        target.write_bytes(b"old")
        with self.assertRaises(DownloadMediaError):
            alice.download_media("A" * 32, to=target).result(SECONDS)
        self.assertEqual(target.read_bytes(), b"old")
        self.assertEqual(list(target.parent.iterdir()), [target])

    def test_sources_that_cannot_be_are_refused_before_anything_is_sent(self) -> None:
        alice = self.client("alice")
        upload = alice.create_media_message_by_uploading
        folder = self.folder()
        big = folder / "big"
        with big.open("wb") as file:
            file.truncate(30 * 1024 * 1024 + 1)
        self.refused("UPLOAD_MEDIA_ERR_SIZE_OVERFLOW", upload, big)
        self.refused("UPLOAD_MEDIA_ERR_INVALID_ARGUMENT", upload, b"")
        self.refused("UPLOAD_MEDIA_ERR_INVALID_ARGUMENT", upload, 7)
        self.refused("UPLOAD_MEDIA_ERR_FAILURE", upload, folder / "missing")
        self.refused("UPLOAD_MEDIA_ERR_FAILURE", upload, folder)
        self.refused("UPLOAD_MEDIA_ERR_INVALID_ARGUMENT", upload, b"x", message_type="TEXT")
        self.refused("UPLOAD_MEDIA_ERR_INVALID_ARGUMENT", upload, b"x", thumbnail=b"x" * 32769)
        self.refused("UPLOAD_MEDIA_ERR_INVALID_ARGUMENT", upload, b"x", description="d" * 32769)
        self.refused("UPLOAD_MEDIA_ERR_INVALID_ARGUMENT", upload, b"x", thumbnail="no such")

    def test_the_largest_medium_is_accepted(self) -> None:
        alice = self.client("alice")
        path = self.folder() / "limit"
        with path.open("wb") as file:
            file.truncate(30 * 1024 * 1024)
        message = alice.create_media_message_by_uploading(path).result(3 * SECONDS)
        copy = alice.download_media(message.media_id, to=path.with_name("copy"))
        digest = hashlib.sha256(copy.result(3 * SECONDS).read_bytes()).digest()
        self.assertEqual(digest, hashlib.sha256(path.read_bytes()).digest())

    def test_many_transfers_at_once_all_succeed(self) -> None:
        alice = self.client("alice")
        payloads = [_pattern(50_000 + number) for number in range(30)]
        uploads = [alice.create_media_message_by_uploading(data) for data in payloads]
        done, pending = wait(uploads, 3 * SECONDS)
        self.assertEqual((len(done), len(pending)), (30, 0))
        downloads = [alice.download_media(upload.result().media_id) for upload in uploads]
        for data, download in zip(payloads, downloads, strict=True):
            self.assertEqual(download.result(SECONDS).to_bytes(), data)

    def test_a_cancelled_upload_ends_and_frees_its_slot(self) -> None:
        alice = self.client("alice")
        for number in range(15):
            cancel = threading.Event()
            upload = alice.create_media_message_by_uploading(
                _pattern(4_000_000),
                cancel_signal=cancel,
                on_operation_progress=_setter(cancel),
            )
            if number % 2:
                # The signal may have ended the upload already; only the first end returns True.
                self.assertTrue(upload.cancel() or cancel.is_set())
            with self.assertRaises(TransferCancelled) as caught:
                upload.result(SECONDS)
            self.assertIsInstance(caught.exception, UploadMediaError)
            self.assertTrue(upload.cancelled())
        message = alice.create_media_message_by_uploading(b"still works").result(SECONDS)
        self.assertEqual(
            alice.download_media(message.media_id).result(SECONDS).to_bytes(), b"still works"
        )

    def test_a_cancelled_download_leaves_nothing(self) -> None:
        alice = self.client("alice")
        message = alice.create_media_message_by_uploading(_pattern(4_000_000)).result(SECONDS)
        folder = self.folder()
        cancel = threading.Event()
        download = alice.download_media(
            message.media_id,
            to=folder / "file",
            cancel_signal=cancel,
            on_operation_progress=_setter(cancel),
        )
        with self.assertRaises(TransferCancelled):
            download.result(SECONDS)
        wait_until(lambda: not list(folder.iterdir()), message="a part file stays")

    def test_logout_interrupts_transfers(self) -> None:
        alice = self.client("alice")
        started = threading.Event()
        hold = threading.Event()
        self.addCleanup(hold.set)

        def block(progress: MediaOperationProgress) -> None:
            started.set()
            hold.wait(SECONDS)

        upload = alice.create_media_message_by_uploading(
            _pattern(4_000_000), on_operation_progress=block
        )
        self.assertTrue(started.wait(SECONDS))
        alice.logout()
        with self.assertRaises(UploadMediaError) as caught:
            upload.result(SECONDS)
        self.assertEqual(caught.exception.code.name, "UPLOAD_MEDIA_ERR_INTERRUPTED")


def _setter(event: threading.Event) -> Callable[[MediaOperationProgress], None]:
    return lambda progress: event.set()


def _pattern(size: int) -> bytes:
    """Bytes that differ at every place a chunk could go astray."""
    block = hashlib.sha256(str(size).encode()).digest()
    return (block * (size // len(block) + 1))[:size]
