"""Downloads to a path that go on where an earlier one stopped, and what they leave behind."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from rtm_sync import DownloadCancelled, RtmClient
from rtm_sync.errors import DownloadMediaError
from rtm_sync.protocol.values import MediaInfo
from rtm_sync.transfers.partial_file import PartialDownload
from rtm_sync.transfers.transfer import Transfer
from tests.support import PATIENCE, RtmTestCase, wait_until
from tests.transports.support import GatewayCase, Timing, pattern

DATA = pattern(4_000_000)
PIECE = 1_500_000  # after so many bytes the network fails
SLACK = 300_000  # heads, and what was on the way when it failed

DOWNLOADER = """
import sys
from rtm_sync import RtmClient
with RtmClient("app", url=sys.argv[1]) as client:
    client.login("carol")
    client.download_media(sys.argv[2], to=sys.argv[3]).result()
"""


def medium(sha256: str) -> MediaInfo:
    return MediaInfo("A" * 32, len(DATA), sha256, "file.bin", "application/octet-stream", 0.0)


class PartCase(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        self.home = self.folder()
        self.target = self.home / "photo.jpg"
        self.alice = self.client("alice", plugins=(Timing(retry_timeout=0.0),))
        self.media_id = self.medium(DATA)

    def medium(self, data: bytes) -> str:
        """Have somebody else upload it, not through the proxy."""
        with RtmClient("app", url=self.gateway) as bob:
            bob.login("bob")
            upload = bob.create_media_message_by_uploading(data, file_name="cat.jpg")
            return upload.result(PATIENCE).media_id

    def download(self, to: Path | None = None) -> Transfer[Path]:
        return self.alice.download_media(self.media_id, to=to or self.target)

    def stuck(self) -> Transfer[Path]:
        """A download that stalls after a piece."""
        self.proxy.stall(received=PIECE, only_new=True)
        download = self.download()
        wait_until(lambda: download.progress.current_size > PIECE - SLACK)
        return download

    def broken_off(self) -> Path:
        """The part that a download left which lost its connection, and for good."""
        download = self.stuck()
        self.proxy.drop()
        self.fails("DOWNLOAD_MEDIA_ERR_FAILURE", download.result, PATIENCE)
        self.proxy.restore()
        [part] = self.parts()
        self.assertGreater(part.stat().st_size, PIECE - SLACK)
        return part

    def parts(self) -> list[Path]:
        return [path for path in self.home.iterdir() if path.suffix == ".part"]

    def assert_arrives(self, download: Transfer[Path], target: Path | None = None) -> None:
        path = download.result(PATIENCE)
        self.assertEqual(path, target or self.target)
        self.assertEqual(path.read_bytes(), DATA)
        self.assertEqual(self.parts(), [])

    @contextlib.contextmanager
    def receiving(self, at_least: int, less_than: int) -> Iterator[None]:
        before = self.proxy.bytes_received
        yield
        self.assertGreaterEqual(self.proxy.bytes_received - before, at_least)
        self.assertLess(self.proxy.bytes_received - before, less_than)


class GoingOnTest(PartCase):
    def test_a_killed_process_is_gone_on_from(self) -> None:
        self.proxy.stall(received=PIECE, only_new=True)
        arguments = [self.proxy.url, self.media_id, str(self.target)]
        with subprocess.Popen([sys.executable, "-c", DOWNLOADER, *arguments]) as process:
            wait_until(
                lambda: any(part.stat().st_size > PIECE - SLACK for part in self.parts()),
                PATIENCE,
            )
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
        self.proxy.restore()
        self.assertFalse(self.target.exists())
        with self.receiving(len(DATA) - PIECE, len(DATA) - PIECE + 2 * SLACK):
            self.assert_arrives(self.download())

    def test_a_lost_connection_is_gone_on_from_by_the_next_download(self) -> None:
        self.broken_off()
        self.assertFalse(self.target.exists())
        with self.receiving(len(DATA) - PIECE, len(DATA) - PIECE + 2 * SLACK):
            self.assert_arrives(self.download())

    def test_a_download_into_the_folder_goes_on_as_well(self) -> None:
        self.broken_off()
        with self.receiving(0, len(DATA) - PIECE + 2 * SLACK):
            self.assert_arrives(self.download(self.home), self.home / "cat.jpg")

    def test_an_embedded_hub_goes_on_as_well(self) -> None:
        with RtmClient("app", url="memory://parts") as client:
            client.login("alice")
            media_id = client.create_media_message_by_uploading(DATA).result(PATIENCE).media_id
            for beginning in (DATA[:PIECE], b"x" * PIECE):  # the second is none of the medium's
                self.write_part(media_id, hashlib.sha256(DATA).hexdigest(), beginning)
                self.assert_arrives(client.download_media(media_id, to=self.target))
            self.write_part(media_id, "0" * 64, DATA[:PIECE])
            self.assert_arrives(client.download_media(media_id, to=self.target))

    def write_part(self, media_id: str, whole: str, data: bytes) -> None:
        with contextlib.suppress(DownloadMediaError), PartialDownload(self.home, media_id) as part:
            part.begin(medium(whole))
            part.write(data)
            raise DownloadMediaError.named("TIMEOUT", "left behind")
        self.assertEqual(len(self.parts()), 1)

    def test_a_whole_part_lacks_only_the_confirmation(self) -> None:
        self.write_part(self.media_id, hashlib.sha256(DATA).hexdigest(), DATA)
        with self.receiving(0, SLACK):
            self.assert_arrives(self.download())

    def test_a_part_with_other_bytes_is_fetched_anew(self) -> None:
        self.alice = self.client("alice")  # that is another attempt
        whole = hashlib.sha256(DATA).hexdigest()
        for bad in (b"x" * PIECE, DATA + b"more", b"x" * len(DATA)):
            with self.subTest(size=len(bad)):
                self.write_part(self.media_id, whole, bad)
                self.assert_arrives(self.download())

    def test_a_part_of_another_digest_is_not_asked_to_be_gone_on_with(self) -> None:
        self.write_part(self.media_id, "0" * 64, DATA[:PIECE])
        with self.receiving(len(DATA), len(DATA) + SLACK):
            self.assert_arrives(self.download())

    def test_two_at_once_to_one_path_have_parts_of_their_own(self) -> None:
        first = self.stuck()
        self.proxy.stall(received=PIECE // 2, only_new=True)
        second = self.download()
        wait_until(lambda: second.progress.current_size > PIECE // 2 - SLACK)
        self.assertEqual(len(self.parts()), 2)
        self.proxy.restore()
        for download in (first, second):
            self.assertEqual(download.result(PATIENCE).read_bytes(), DATA)
        self.assertEqual(self.parts(), [])


class WhatStaysTest(PartCase):
    def test_a_cancelled_download_leaves_nothing_not_even_what_it_found(self) -> None:
        self.broken_off()
        self.proxy.stall(received=1000)
        download = self.download()
        wait_until(lambda: not download.cancelled() and self.proxy.held)
        download.cancel()
        self.assertRaises(DownloadCancelled, download.result, PATIENCE)
        wait_until(lambda: not self.parts())

    def test_a_medium_that_has_ended_takes_its_part_along(self) -> None:
        self.broken_off()
        for path in (self.data / "media").glob("*/*"):
            path.unlink()
        self.fails("DOWNLOAD_MEDIA_ERR_NOT_EXIST", self.download().result, PATIENCE)
        self.assertEqual(self.parts(), [])

    def test_a_digest_that_is_wrong_to_the_end_leaves_nothing(self) -> None:
        self.broken_off()
        for path in (self.data / "media").glob("*/*"):
            path.write_bytes(DATA[::-1])
        self.alice = self.client("alice")
        error = self.fails("DOWNLOAD_MEDIA_ERR_FAILURE", self.download().result, PATIENCE)
        self.assertIn("digest", error.message)
        self.assertEqual(list(self.home.iterdir()), [])

    def test_a_file_that_cannot_grow_is_told_and_leaves_nothing(self) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, before)
        resource.setrlimit(resource.RLIMIT_FSIZE, (PIECE, before[1]))
        download = self.download()
        error = self.fails("DOWNLOAD_MEDIA_ERR_FAILURE", download.result, PATIENCE)
        self.assertIn("cannot be written after", error.message)
        self.assertIn(os.strerror(errno.EFBIG), error.message)
        self.assertEqual(list(self.home.iterdir()), [])

    def test_a_full_disk_is_told_and_is_no_lost_connection(self) -> None:
        self.alice = self.client("alice")  # who would retry for long
        with open("/dev/full", "wb", buffering=0) as full:
            download = self.alice.download_media(self.media_id, to=cast(IO[bytes], full))
            error = self.fails("DOWNLOAD_MEDIA_ERR_FAILURE", download.result, PATIENCE)
        self.assertIn("No space left on device. Make room", error.message)

    def test_a_reader_that_has_gone_is_no_lost_connection(self) -> None:
        self.alice = self.client("alice")
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb", buffering=0) as pipe:
            download = self.alice.download_media(self.media_id, to=cast(IO[bytes], pipe))
            error = self.fails("DOWNLOAD_MEDIA_ERR_FAILURE", download.result, PATIENCE)
        self.assertIn("Broken pipe", error.message)

    def test_a_file_that_takes_a_little_at_a_time_gets_every_byte(self) -> None:
        small = _Sips()
        self.alice.download_media(self.media_id, to=cast(IO[bytes], small)).result(PATIENCE)
        self.assertEqual(bytes(small.written), DATA)

    def test_a_pipe_that_would_have_to_be_waited_for_is_told(self) -> None:
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        os.set_blocking(writer, False)
        with open(writer, "wb", buffering=0) as pipe:
            download = self.alice.download_media(self.media_id, to=cast(IO[bytes], pipe))
            error = self.fails("DOWNLOAD_MEDIA_ERR_FAILURE", download.result, PATIENCE)
        self.assertIn("takes no more bytes", error.message)


class _Sips:
    """An unbuffered destination."""

    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, data: Any) -> int:
        self.written += data[:100_000]
        return min(len(data), 100_000)

    def seekable(self) -> bool:
        return False


class PartTest(RtmTestCase):
    """Who gets which file, without a network."""

    WHOLE = "ab" * 32

    def setUp(self) -> None:
        self.home = self.folder()

    def part(self) -> PartialDownload:
        return PartialDownload(self.home, "A" * 32)

    def leave(self, data: bytes = b"beginning") -> Path:
        with contextlib.suppress(DownloadMediaError), self.part() as part:
            part.begin(medium(self.WHOLE))
            part.write(data)
            raise DownloadMediaError.named("TIMEOUT", "left behind")
        [path] = self.home.iterdir()
        return path

    def test_nothing_is_on_the_disk_before_the_first_answer(self) -> None:
        with self.part() as part:
            self.assertEqual(list(self.home.iterdir()), [])
            self.assertEqual((part.size, part.whole), (0, ""))

    def test_what_was_left_is_found_with_its_digest(self) -> None:
        self.leave()
        with self.part() as part:
            self.assertEqual((part.size, part.whole), (9, self.WHOLE))
            self.assertEqual(part.sha256(), hashlib.sha256(b"beginning").hexdigest())
            part.write(b" and end")
            part.publish(self.home / "file")
        self.assertEqual((self.home / "file").read_bytes(), b"beginning and end")
        self.assertEqual(len(list(self.home.iterdir())), 1)

    def test_one_of_another_medium_is_not_touched(self) -> None:
        path = self.leave()
        with PartialDownload(self.home, "B" * 32) as part:
            self.assertEqual(part.size, 0)
        self.assertTrue(path.exists())

    def test_one_that_is_in_use_is_left_to_its_user(self) -> None:
        self.leave()
        with self.part() as first, self.part() as second:
            self.assertEqual((first.size, second.size), (9, 0))
            second.begin(medium(self.WHOLE))
            second.write(b"other")
            second.publish(self.home / "second")
            first.publish(self.home / "first")
        self.assertEqual((self.home / "first").read_bytes(), b"beginning")
        self.assertEqual((self.home / "second").read_bytes(), b"other")

    def test_a_link_that_somebody_laid_is_not_followed(self) -> None:
        path = self.leave()
        precious = self.home / "precious"
        path.rename(precious)
        for lay in (path.symlink_to, path.hardlink_to):
            lay(precious)
            with self.part() as part:
                self.assertEqual(part.size, 0)
            path.unlink()
        self.assertEqual(precious.read_bytes(), b"beginning")

    def test_only_what_may_be_gone_on_with_stays(self) -> None:
        for reason, stays in (
            ("TIMEOUT", True),
            ("FAILURE", True),
            ("NOT_LOGGED_IN", True),
            ("NOT_EXIST", False),
        ):
            with self.subTest(reason):
                with self.assertRaises(DownloadMediaError), self.part() as part:
                    part.begin(medium(self.WHOLE))
                    part.write(b"x")
                    raise DownloadMediaError.named(reason, "it failed")
                self.assertEqual(len(list(self.home.iterdir())), int(stays))
        with contextlib.suppress(KeyboardInterrupt), self.part():
            raise KeyboardInterrupt
        self.assertEqual(list(self.home.iterdir()), [])

    def test_bytes_of_an_unknown_digest_do_not_stay(self) -> None:
        with contextlib.suppress(DownloadMediaError), self.part() as part:
            part.write(b"x")
            raise DownloadMediaError.named("TIMEOUT", "it failed")
        self.assertEqual(list(self.home.iterdir()), [])

    def test_starting_over_empties_the_file_and_it_may_become_another(self) -> None:
        self.leave()
        with self.part() as part:
            self.assertTrue(part.restart())
            part.begin(medium("cd" * 32))
            self.assertEqual(sum(path.stat().st_size for path in self.home.iterdir()), 0)
            part.write(b"new")
            part.publish(self.home / "file")
        self.assertEqual((self.home / "file").read_bytes(), b"new")
