"""Reading a medium while it arrives."""

from __future__ import annotations

import os
import random
import threading

from rtm_sync import DownloadMediaError, RtmClient
from rtm_sync.protocol.values import MediaInfo
from tests.support import PATIENCE, RtmTestCase, local_gateway, wait_until

DATA = random.Random(7).randbytes(3_000_000)


class StreamCase:
    url: str

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        self.url = self.hub()
        self.client = self.entered(RtmClient("app", url=self.url))  # type: ignore[attr-defined]
        self.client.login("alice")
        upload = self.client.create_media_message_by_uploading(DATA, file_name="film.mp4")
        self.media_id = upload.result(PATIENCE).media_id

    def test_it_is_the_medium_with_what_is_known_of_it(self) -> None:
        with self.client.open_media(self.media_id) as stream:
            self.assertEqual((stream.info.size, stream.info.file_name), (len(DATA), "film.mp4"))
            self.assertEqual(stream.info.content_type, "video/mp4")
            self.assertEqual(stream.read(), DATA)
            self.assertEqual(stream.read(), b"")

    def test_any_part_can_be_read_in_any_order(self) -> None:
        chance = random.Random(1)
        with self.client.open_media(self.media_id) as stream:
            self.assertEqual(stream.seek(-10, os.SEEK_END), len(DATA) - 10)
            self.assertEqual(stream.read(), DATA[-10:])
            for _ in range(50):
                start = chance.randrange(len(DATA))
                stream.seek(start)
                self.assertEqual(stream.read(1000), DATA[start : start + len(stream_part(start))])
            self.assertEqual(stream.seek(5, os.SEEK_CUR), stream.tell())

    def test_who_does_not_read_holds_no_transfer_up(self) -> None:
        streams = [self.entered(self.client.open_media(self.media_id)) for _ in range(20)]
        for stream in reversed(streams):
            stream.seek(2_999_990)
            self.assertEqual(stream.read(), DATA[-10:])

    def test_an_unknown_medium_is_told_to_whoever_asks(self) -> None:
        for ask in (lambda stream: stream.info, lambda stream: stream.read(1)):
            with (
                self.client.open_media("A" * 32) as stream,
                self.assertRaisesRegex(DownloadMediaError, "NOT_EXIST"),
            ):
                ask(stream)

    def test_what_is_no_id_is_refused_at_once(self) -> None:
        for wrong in ("", "a/b", "é", "x" * 200):
            with self.subTest(wrong), self.assertRaisesRegex(DownloadMediaError, "INVALID_ARG"):
                self.client.open_media(wrong)

    def test_a_closed_one_is_no_file_any_more(self) -> None:
        stream = self.client.open_media(self.media_id)
        stream.close()
        stream.close()
        with self.assertRaises(ValueError):
            stream.read(1)

    def test_logging_out_ends_who_waits(self) -> None:
        self.client.logout()
        with self.assertRaisesRegex(DownloadMediaError, "NOT_LOGGED_IN"):
            self.client.open_media(self.media_id)


def stream_part(start: int) -> bytes:
    return DATA[start : start + 1000]


class EmbeddedStreamTest(StreamCase, RtmTestCase):
    def hub(self) -> str:
        return "memory://"


class GatewayStreamTest(StreamCase, RtmTestCase):
    def hub(self) -> str:
        return self.entered(local_gateway(self.folder()))


class SlowTest(RtmTestCase):
    """With a store that gives a piece when it is told to."""

    def test_the_first_bytes_are_read_before_the_last_have_come(self) -> None:
        from rtm_sync.transfers.control import TransferKind
        from rtm_sync.transfers.pool import TransferPool
        from rtm_sync.transfers.stream import MediaStream, StreamSink

        pool = TransferPool()
        self.addCleanup(pool.close)
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        info = MediaInfo("A" * 32, 10, "ab" * 32, "f", "text/plain", 0.0)
        with MediaStream() as stream:
            sink = StreamSink(stream)

            def work(control: object) -> None:
                sink.begin(info)
                sink.write(b"first")
                self.assertTrue(go_on.wait(PATIENCE))
                sink.write(b" last")

            stream.follow(pool.submit(TransferKind.DOWNLOAD, work))
            self.assertEqual(stream.read(100), b"first")
            self.assertFalse(sink.restart())  # it was read: there is no going back
            go_on.set()
            self.assertEqual(stream.read(100), b" last")
            self.assertEqual(stream.read(100), b"")

    def test_closing_ends_the_download(self) -> None:
        from rtm_sync.transfers.control import TransferControl, TransferKind
        from rtm_sync.transfers.pool import TransferPool
        from rtm_sync.transfers.stream import MediaStream, StreamSink

        pool = TransferPool()
        self.addCleanup(pool.close)
        begun, ended = threading.Event(), threading.Event()

        def work(control: TransferControl) -> None:
            StreamSink(stream).write(b"first")
            begun.set()
            try:
                wait_until(control.check, PATIENCE)  # raises once it is cancelled
            finally:
                ended.set()

        with MediaStream() as stream:
            transfer = pool.submit(TransferKind.DOWNLOAD, work)
            stream.follow(transfer)
            self.assertTrue(begun.wait(PATIENCE))
        wait_until(transfer.cancelled)
        self.assertTrue(ended.wait(PATIENCE))
