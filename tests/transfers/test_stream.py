"""Reading a medium during its download."""

from __future__ import annotations

import io
import os
import random
import threading
from collections.abc import Callable

from rtm_sync import DownloadMediaError, RtmClient, hookimpl
from rtm_sync.protocol.values import MediaInfo
from rtm_sync.testing import FaultProxy
from rtm_sync.transports.base import Transport, TransportOptions
from rtm_sync.transports.embedded import EmbeddedTransport
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

    def test_a_part_begins_where_it_was_asked_to(self) -> None:
        with self.client.open_media(self.media_id, start=1_000_000, stop=2_000_000) as stream:
            self.assertEqual((stream.tell(), stream.info.size), (1_000_000, len(DATA)))
            self.assertEqual(stream.seek(1_500_000), 1_500_000)
            self.assertEqual(stream.read(10), DATA[1_500_000:1_500_010])
            self.assertEqual(stream.seek(1_000_000), 1_000_000)
            self.assertEqual(stream.read(), DATA[1_000_000:2_000_000])
            with self.assertRaisesRegex(io.UnsupportedOperation, "begins at byte 1,000,000"):
                stream.seek(999_999)
            stream.seek(2_500_000)
            self.assertEqual(stream.read(), b"")

    def test_a_part_that_cannot_be_is_refused(self) -> None:
        for start, stop in ((-1, None), (5, 5), (5, 4), (0, 0), (1.5, None), (0, "9")):
            with (
                self.subTest(start=start, stop=stop),
                self.assertRaisesRegex(DownloadMediaError, "INVALID_ARGUMENT"),
            ):
                self.client.open_media(self.media_id, start=start, stop=stop)  # type: ignore[arg-type]

    def test_a_record_is_asked_for_while_nine_streams_are_open(self) -> None:
        streams = [self.client.open_media(self.media_id) for _ in range(9)]
        self.assertEqual(self.client.get_media_info(self.media_id).file_name, "film.mp4")
        for stream in streams:
            stream.close()
        with self.assertRaisesRegex(DownloadMediaError, "NOT_EXIST"):
            self.client.get_media_info("A" * 32)

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


class FewBytesTest(RtmTestCase):
    """Over a connection whose bytes are counted."""

    def setUp(self) -> None:
        self.proxy = self.entered(FaultProxy(self.entered(local_gateway(self.folder()))))
        self.client = self.entered(RtmClient("app", url=self.proxy.url))
        self.client.login("alice")
        upload = self.client.create_media_message_by_uploading(DATA)
        self.media_id = upload.result(PATIENCE).media_id

    def received(self, call: Callable[[], object]) -> int:
        before = self.proxy.bytes_received
        call()
        return self.proxy.bytes_received - before

    def test_a_record_and_a_part_cost_what_they_are(self) -> None:
        def part(start: int, stop: int | None) -> bytes:
            with self.client.open_media(self.media_id, start=start, stop=stop) as stream:
                return stream.read()

        for call in (
            lambda: self.client.get_media_info(self.media_id),
            lambda: self.assertEqual(part(2_000_000, 2_000_001), DATA[2_000_000:2_000_001]),
            lambda: self.assertEqual(part(len(DATA) - 1, None), DATA[-1:]),
        ):
            self.assertLess(self.received(call), 10_000)

    def test_a_part_goes_on_after_a_lost_connection(self) -> None:
        self.proxy.truncate(received=200_000)  # of each new connection
        self.proxy.drop()
        before = self.proxy.accepted
        with self.client.open_media(self.media_id, start=1_000_000, stop=1_900_000) as stream:
            self.assertEqual(stream.read(), DATA[1_000_000:1_900_000])
        self.assertGreaterEqual(self.proxy.accepted - before, 5)


class WithoutPartsTest(RtmTestCase):
    """With a transport that knows whole media only, such as one from before there were parts."""

    def test_the_part_is_cut_out_of_the_whole(self) -> None:
        class Plain(EmbeddedTransport):
            media_info = Transport.media_info
            download_part = Transport.download_part

        class Plugin:
            @hookimpl
            def transport(self, url: str, options: TransportOptions) -> Transport | None:
                plain = url.startswith("plain://")
                return Plain(url.replace("plain", "memory"), options) if plain else None

        client = self.entered(RtmClient("app", url="plain://x", plugins=(Plugin(),)))
        client.login("alice")
        upload = client.create_media_message_by_uploading(DATA)
        media_id = upload.result(PATIENCE).media_id
        for start, stop in ((0, 1), (700_000, 700_001), (1, 600_000), (len(DATA) - 1, None)):
            with client.open_media(media_id, start=start, stop=stop) as stream:
                self.assertEqual(stream.read(), DATA[start:stop])
        with self.assertRaisesRegex(DownloadMediaError, "Plain cannot ask for a medium's record"):
            client.get_media_info(media_id)


class SlowTest(RtmTestCase):
    """With a store that sends a piece when the test allows it."""

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
            self.assertFalse(sink.restart())  # bytes may have been read, so it cannot restart
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
