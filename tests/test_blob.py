"""Blobs: every conversion from and to other forms, and the sources that are refused."""

from __future__ import annotations

import contextlib
import gc
import gzip
import io
import os
import socket
import tempfile
import threading
import unittest
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rtm_sync.blob import MEDIA_LIMIT, Blob, BlobTooLarge, atomic_write
from rtm_sync.blob.sources import SourceChanged
from tests.support import PATIENCE, RtmTestCase, Stopwatch, wait_until

DATA = bytes(range(256)) * 40


def png(width: int = 30, height: int = 20) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, "PNG")
    return file.getvalue()


class Pipe(io.RawIOBase):
    """An unseekable source that returns a few bytes for each read."""

    def __init__(self, data: bytes, step: int = 1000) -> None:
        self._source = io.BytesIO(data)
        self._step = step
        self.given = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(min(self._step, size) if size >= 0 else self._step)
        self.given += len(data)
        return data


class FromPathTest(RtmTestCase):
    def test_a_path_gives_name_size_type_and_bytes(self) -> None:
        path = self.folder() / "cat.png"
        path.write_bytes(png())
        for given_path in (path, str(path)):
            blob = Blob.from_path(given_path)
            self.assertEqual(
                (blob.name, blob.size, blob.content_type), ("cat.png", len(png()), "image/png")
            )
            self.assertEqual(blob.to_bytes(), png())

    def test_name_and_type_can_be_given(self) -> None:
        path = self.folder() / "cat.png"
        path.write_bytes(png())
        blob = Blob.from_path(path, name="dog.jpg", content_type="image/x-dog")
        self.assertEqual((blob.name, blob.content_type), ("dog.jpg", "image/x-dog"))
        self.assertEqual(Blob.from_path(path, name="").content_type, "image/png")

    def test_an_empty_file_is_a_blob_of_no_bytes(self) -> None:
        path = self.folder() / "empty"
        path.touch()
        blob = Blob.from_path(path)
        self.assertEqual((blob.size, blob.to_bytes()), (0, b""))
        self.assertEqual(blob.content_type, "application/octet-stream")

    def test_what_cannot_be_read_is_refused_at_once(self) -> None:
        folder = self.folder()
        secret = folder / "secret"
        secret.touch(mode=0o000)
        with self.assertRaises(FileNotFoundError):
            Blob.from_path(folder / "missing")
        with self.assertRaises(IsADirectoryError):
            Blob.from_path(folder)
        if os.geteuid() != 0:  # root may read anything
            with self.assertRaises(PermissionError):
                Blob.from_path(secret)

    def test_no_file_stays_open_between_reads(self) -> None:
        path = self.folder() / "file"
        path.write_bytes(DATA)
        blob = Blob.from_path(path)
        with blob.open() as one, blob.open() as two:
            self.assertEqual((one.read(3), two.read(5)), (DATA[:3], DATA[:5]))
        moved = path.rename(path.with_name("elsewhere"))
        with self.assertRaises(FileNotFoundError):
            blob.open()
        moved.unlink()


@unittest.skipUnless(hasattr(os, "mkfifo"), "Windows has no FIFOs among its files")
class SpecialPathTest(RtmTestCase):
    """Paths that are no regular files, or whose size is not what the system says."""

    def fifo(self) -> Path:
        path = self.folder() / "fifo"
        os.mkfifo(path)
        return path

    def test_a_fifo_is_read_to_its_end(self) -> None:
        path = self.fifo()

        def write() -> None:
            with path.open("wb") as file:
                file.write(DATA)
                file.flush()
                file.write(DATA)

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            blob = Blob.from_path(path, timeout=PATIENCE)
            writing.result(PATIENCE)
        self.assertEqual((blob.size, blob.name), (2 * len(DATA), "fifo"))
        self.assertEqual([blob.to_bytes() for _ in range(2)], [DATA * 2] * 2)

    def test_a_fifo_without_a_writer_or_without_an_end_is_given_up_in_time(self) -> None:
        path = self.fifo()
        watch = Stopwatch()
        with self.assertRaisesRegex(TimeoutError, "within 0.1 seconds. Write its bytes to a file"):
            Blob.from_path(path, timeout=0.1)
        with (
            open(os.open(path, os.O_RDWR), "wb", buffering=0) as writer,
            self.assertRaisesRegex(TimeoutError, "did not come to its end"),
        ):
            writer.write(b"some")
            Blob.from_path(path, timeout=0.1)
        self.assertLess(watch.seconds(), 5)

    def test_a_fifo_has_the_limit_of_media(self) -> None:
        path = self.fifo()
        with (
            open(os.open(path, os.O_RDWR), "wb", buffering=0) as writer,
            self.assertRaisesRegex(BlobTooLarge, "the limit is 100 bytes"),
        ):
            writer.write(b"x" * 101)
            Blob.from_path(path, max_bytes=100, timeout=PATIENCE)

    @unittest.skipUnless(Path("/dev/fd").exists(), "there is no /dev/fd")
    def test_a_process_substitution_is_read_to_its_end(self) -> None:
        reading, writing = os.pipe()
        with open(writing, "wb") as file:
            file.write(DATA)
        try:
            self.assertEqual(Blob.from_path(f"/dev/fd/{reading}").to_bytes(), DATA)
        finally:
            os.close(reading)

    @unittest.skipUnless(Path("/proc/self/status").exists(), "there is no /proc")
    def test_a_file_whose_stated_size_is_wrong_is_read_to_its_end(self) -> None:
        for path in ("/proc/cpuinfo", "/sys/kernel/mm/transparent_hugepage/enabled"):
            if os.path.exists(path):
                with self.subTest(path), open(path, "rb") as file:
                    wanted = file.read()
                    blob = Blob.from_path(path)
                    self.assertGreater(blob.size, 0)
                    self.assertEqual(len(blob.to_bytes()), blob.size)
                    if path.startswith("/sys"):
                        self.assertEqual(blob.to_bytes(), wanted)
                    file.seek(0)
                    self.assertGreater(Blob.from_file(file).size, 0)

    def test_devices_sockets_and_folders_are_refused_in_words(self) -> None:
        folder = self.folder()
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "s"))
            for path, words in (
                ("/dev/null", "is a device, which has no end"),
                ("/dev/zero", "is a device, which has no end"),
                (folder / "s", "is a socket, which has no end"),
                (folder, "is a folder"),
            ):
                with self.subTest(path), self.assertRaisesRegex(OSError, words):
                    Blob.from_path(path)

    def test_a_file_that_became_a_fifo_blocks_no_reader(self) -> None:
        path = self.folder() / "file"
        path.write_bytes(DATA)
        blob = Blob.from_path(path)
        path.unlink()
        os.mkfifo(path)
        with self.assertRaisesRegex(OSError, "has 0 now"):
            blob.open()


class ChangedFileTest(RtmTestCase):
    def test_no_reader_gets_all_bytes_of_a_file_that_changes_meanwhile(self) -> None:
        def grow(path: Path) -> None:
            with path.open("ab") as file:
                file.write(b"more")

        def rewrite(path: Path) -> None:
            with path.open("r+b") as file:
                file.write(b"other")
            os.utime(path, (1, 1))

        for change in (grow, rewrite, lambda path: os.truncate(path, 300_000)):
            for of_file in (False, True):
                path = self.folder() / "log"
                path.write_bytes(DATA * 100)
                with path.open("rb") as file:
                    blob = Blob.from_file(file) if of_file else Blob.from_path(path)
                    with blob.open() as reader:
                        self.assertEqual(reader.read(1000), DATA[:1000])
                        change(path)
                        with self.assertRaises(SourceChanged):
                            while reader.read(100_000):
                                pass

    def test_who_reads_exactly_the_size_is_told_too(self) -> None:
        path = self.folder() / "log"
        path.write_bytes(DATA)
        with path.open("rb") as file:
            for make in (lambda: Blob.from_path(path), lambda: Blob.from_file(file)):
                with make().open() as reader:
                    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000))
                    with self.assertRaises(SourceChanged):
                        reader.read(len(DATA))

    def test_a_file_that_is_written_before_the_blob_is_made_is_fine(self) -> None:
        with tempfile.NamedTemporaryFile("w+b") as file:
            file.write(DATA)
            file.seek(0)
            self.assertEqual(Blob.from_file(file).to_bytes(), DATA)  # type: ignore[arg-type]


class FromBytesTest(RtmTestCase):
    def test_any_bytes_like_becomes_a_blob_of_its_own(self) -> None:
        source = bytearray(b"before")
        blobs = [Blob.from_bytes(source), Blob.from_bytes(memoryview(source)), Blob.of(source)]
        source[:] = b"after!"
        for blob in blobs:
            self.assertEqual((blob.to_bytes(), blob.size, blob.name), (b"before", 6, ""))

    def test_the_type_is_guessed_by_the_name_and_else_by_the_first_bytes(self) -> None:
        for blob, content_type in (
            (Blob.from_bytes(png()), "image/png"),
            (Blob.from_bytes(png(), name="notes.txt"), "text/plain"),
            (Blob.from_bytes(png(), name="no extension"), "image/png"),
            (Blob.from_bytes(b"\xff\xd8\xff\xe0rest"), "image/jpeg"),
            (Blob.from_bytes(b"words"), "application/octet-stream"),
            (Blob.from_bytes(b""), "application/octet-stream"),
            (Blob.from_bytes(png(), content_type="x/y"), "x/y"),
        ):
            with self.subTest(repr(blob)):
                self.assertEqual(blob.content_type, content_type)


class FromFileTest(RtmTestCase):
    def seekable(self) -> Iterator[io.BufferedIOBase]:
        path = self.folder() / "clip.bin"
        path.write_bytes(DATA)
        yield io.BytesIO(DATA)
        yield self.entered(path.open("rb"))
        yield self.entered(path.open("rb", buffering=0))  # type: ignore[misc]
        with tempfile.SpooledTemporaryFile(max_size=10) as spooled:
            spooled.write(DATA)
            yield spooled  # type: ignore[misc]

    def test_a_seekable_file_is_read_from_its_position_to_its_end(self) -> None:
        for file in self.seekable():
            with self.subTest(type(file).__name__):
                file.seek(100)
                blob = Blob.from_file(file)  # type: ignore[arg-type]
                self.assertEqual(blob.size, len(DATA) - 100)
                self.assertEqual([blob.to_bytes() for _ in range(2)], [DATA[100:]] * 2)

    def test_a_readers_seek_stays_inside_its_window(self) -> None:
        blob = Blob.from_file(self.positioned(100))
        with blob.open() as reader:
            self.assertEqual(reader.seek(-5, io.SEEK_END), len(DATA) - 105)
            self.assertEqual(reader.read(), DATA[-5:])
            self.assertEqual((reader.seek(2), reader.read(3)), (2, DATA[102:105]))
            self.assertEqual(reader.seek(10, io.SEEK_CUR), 15)
            self.assertEqual(reader.read(1), DATA[115:116])
            reader.seek(10**9)
            self.assertEqual(reader.read(), b"")

    def positioned(self, position: int) -> io.BytesIO:
        file = io.BytesIO(DATA)
        file.seek(position)
        return file

    def test_windows_of_one_file_are_read_at_once_without_mixing(self) -> None:
        path = self.folder() / "shared"
        content = os.urandom(1 << 20)
        path.write_bytes(content)
        file = self.entered(path.open("rb", buffering=0))
        blob = Blob.from_file(file)
        ready = threading.Barrier(8)

        def read(step: int) -> bytes:
            pieces = []
            with blob.open() as reader:
                ready.wait(5)
                while piece := reader.read(step):
                    pieces.append(piece)
            return b"".join(pieces)

        with ThreadPoolExecutor(8) as pool:
            for copy in pool.map(read, (777, 1000, 4096, 9999, 30_000, 65_536, 100_000, 1 << 20)):
                self.assertTrue(copy == content)

    def test_the_name_comes_from_the_file_without_its_folders(self) -> None:
        path = self.folder() / "photo.jpg"
        path.write_bytes(DATA)
        file = self.entered(path.open("rb"))
        self.assertEqual(Blob.from_file(file).name, "photo.jpg")
        self.assertEqual(Blob.from_file(file, name="other").name, "other")
        with os.fdopen(os.open(path, os.O_RDONLY), "rb") as nameless:  # its name is a number
            self.assertEqual(Blob.from_file(nameless).name, "")

    def test_an_unseekable_source_is_read_now_whatever_its_size(self) -> None:
        for size in (0, 10, 1 << 20, (1 << 20) + 1, 3 << 20):
            with self.subTest(size):
                content = os.urandom(size)
                pipe = Pipe(content, step=100_000)
                blob = Blob.from_file(pipe)  # type: ignore[arg-type]
                self.assertEqual(pipe.given, size)
                self.assertEqual(blob.size, size)
                self.assertTrue(blob.to_bytes() == content)
                self.assertTrue(blob.to_bytes() == content)

    def test_a_real_pipe_is_read_to_its_end(self) -> None:
        reading, writing = os.pipe()
        with open(reading, "rb") as source, open(writing, "wb") as sink:
            sink.write(DATA)
            sink.close()
            blob = Blob.from_file(source, name="piped")
        self.assertEqual((blob.to_bytes(), blob.name), (DATA, "piped"))

    def test_an_object_with_nothing_but_read_is_enough(self) -> None:
        class Reader:
            def __init__(self) -> None:
                self.read = io.BytesIO(DATA).read

        self.assertEqual(Blob.of(Reader()).to_bytes(), DATA)  # type: ignore[arg-type]

    def test_an_unseekable_source_is_abandoned_once_it_gives_too_much(self) -> None:
        endless = Pipe(b"x" * 100_000, step=1000)
        with self.assertRaisesRegex(BlobTooLarge, "the limit is 5,000 bytes"):
            Blob.from_file(endless, max_bytes=5000)  # type: ignore[arg-type]
        self.assertLessEqual(endless.given, 6000)
        exact = Pipe(b"x" * 5000, step=1000)
        self.assertEqual(Blob.from_file(exact, max_bytes=5000).size, 5000)  # type: ignore[arg-type]

    def test_a_file_in_text_mode_is_refused_with_the_way_out(self) -> None:
        path = self.folder() / "notes.txt"
        path.write_text("words")
        with (
            path.open() as plain,
            tempfile.NamedTemporaryFile("w+") as named,
            tempfile.SpooledTemporaryFile(mode="w+") as spooled,
        ):
            for file in (io.StringIO("words"), plain, named, spooled):
                with self.subTest(type(file).__name__), self.assertRaisesRegex(TypeError, '"rb"'):
                    Blob.from_file(file)  # type: ignore[arg-type]

    def test_a_file_for_writing_only_is_refused_with_the_way_out(self) -> None:
        path = self.folder() / "out"
        with path.open("wb") as buffered, path.open("wb", buffering=0) as raw:
            for file in (buffered, raw):
                with self.assertRaisesRegex(TypeError, 'open for writing only; open it with.*"rb"'):
                    Blob.from_file(file)

    def test_a_position_at_the_end_or_beyond_is_told(self) -> None:
        for file in self.seekable():
            for position in (len(DATA), len(DATA) + 5):
                file.seek(position)
                with self.assertRaisesRegex(
                    ValueError, rf"has 10,240 bytes and its position is {position:,}.*seek\(0\)"
                ):
                    Blob.from_file(file)  # type: ignore[arg-type]
        self.assertEqual(Blob.from_file(io.BytesIO()).size, 0)
        beyond = io.BytesIO()
        beyond.seek(5)
        with self.assertRaisesRegex(ValueError, "has 0 bytes and its position is 5"):
            Blob.from_file(beyond)

    def test_a_non_blocking_source_is_not_cut(self) -> None:
        for buffering in (0, -1):
            reading, writing = os.pipe()
            os.set_blocking(reading, False)
            with open(reading, "rb", buffering=buffering) as source:
                paused = threading.Event()

                def write(writing: int = writing, paused: threading.Event = paused) -> None:
                    with open(writing, "wb", buffering=0) as sink:
                        for _ in range(3):
                            paused.wait(0.02)
                            sink.write(DATA)

                with ThreadPoolExecutor(1) as pool:
                    done = pool.submit(write)
                    self.assertEqual(Blob.from_file(source).to_bytes(), DATA * 3)
                    done.result(PATIENCE)

    def test_a_source_that_cannot_be_waited_for_is_refused_in_words(self) -> None:
        class Empty(Pipe):
            def read(self, size: int = -1) -> bytes:
                return None if size else b""  # type: ignore[return-value]

        with self.assertRaisesRegex(BlockingIOError, "non-blocking.*pass its bytes"):
            Blob.from_file(Empty(DATA))  # type: ignore[arg-type]

    def test_a_reader_keeps_the_bytes_of_a_blob_that_is_gone(self) -> None:
        for size in (1000, 2 << 20):  # in memory, and in a temporary file
            content = os.urandom(size)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                reader = Blob.from_file(Pipe(content, 100_000)).open()  # type: ignore[arg-type]
                gc.collect()
                with reader:
                    self.assertTrue(reader.read() == content)

    def test_a_blob_of_a_pipe_ends_without_a_warning(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Blob.from_file(Pipe(DATA)).to_bytes()  # type: ignore[arg-type]
            Blob.from_file(Pipe(b"x" * (2 << 20), 100_000)).to_bytes()  # type: ignore[arg-type]
            gc.collect()
        self.assertEqual([str(warning.message) for warning in caught], [])

    def test_an_error_while_reading_a_pipe_is_the_callers(self) -> None:
        class Broken(Pipe):
            def read(self, size: int = -1) -> bytes:
                if self.given > 2000:
                    raise ConnectionResetError("the other end went away")
                return super().read(size)

        with self.assertRaises(ConnectionResetError):
            Blob.from_file(Broken(DATA))  # type: ignore[arg-type]


class OfTest(RtmTestCase):
    def test_every_payload_becomes_a_blob(self) -> None:
        path = self.folder() / "file.bin"
        path.write_bytes(DATA)
        blob = Blob.from_bytes(DATA)
        self.assertIs(Blob.of(blob), blob)
        for payload in (str(path), path, DATA, bytearray(DATA), memoryview(DATA), io.BytesIO(DATA)):
            with self.subTest(type(payload).__name__):
                self.assertEqual(Blob.of(payload).to_bytes(), DATA)

    def test_anything_else_is_refused_by_type(self) -> None:
        for payload in (None, 7, ["path"], {"path": 1}):
            with (
                self.subTest(payload),
                self.assertRaisesRegex(TypeError, type(payload).__name__),
            ):
                Blob.of(payload)  # type: ignore[arg-type]


class DataUrlTest(RtmTestCase):
    @given(st.binary(max_size=300))
    def test_any_bytes_survive_the_way_there_and_back(self, data: bytes) -> None:
        blob = Blob.from_bytes(data, content_type="image/png")
        again = Blob.from_data_url(blob.to_data_url())
        self.assertEqual((again.to_bytes(), again.content_type), (data, "image/png"))

    def test_the_forms_of_the_standard_are_read(self) -> None:
        for url, data, content_type in (
            ("data:,hello%20world", b"hello world", "text/plain"),
            ("data:;base64,aGk=", b"hi", "text/plain"),
            ("data:;charset=utf-8,%C3%A9", "é".encode(), "text/plain;charset=utf-8"),
            ("data:text/html;charset=utf-8;base64,aGk=", b"hi", "text/html;charset=utf-8"),
            ("DATA:image/png;BASE64,aGk=", b"hi", "image/png"),
            ("data:image/png;base64,aGk%3D", b"hi", "image/png"),
            ("data:text/plain,a,b;base64,c", b"a,b;base64,c", "text/plain"),
            ("data:,", b"", "text/plain"),
        ):
            with self.subTest(url):
                blob = Blob.from_data_url(url)
                self.assertEqual((blob.to_bytes(), blob.content_type), (data, content_type))

    def test_what_browsers_take_is_taken(self) -> None:
        for url, data, content_type in (
            ("data:image/png;base64,aG\r\nVs\n bG8=", b"hello", "image/png"),
            ("data:image/png;base64,aGVs%0AbG8=", b"hello", "image/png"),
            ("data:;base64,aGk", b"hi", "text/plain"),
            ("data:;base64,aGk%3D", b"hi", "text/plain"),
            ("data:image/png; base64,aGk=", b"hi", "image/png"),
            ("data:image/png;  BASE64,aGk=", b"hi", "image/png"),
            ("data:image/png;base64 ,aGk=", b"hi", "image/png"),
            ("data:base64,aGk=", b"aGk=", "text/plain"),
            ("data: image/png ;base64,aGk=", b"hi", "image/png"),
            (" data:,x\n", b"x", "text/plain"),
            ("data:,a\tb\nc", b"abc", "text/plain"),
            ("data:,a%0Ab", b"a\nb", "text/plain"),
            ("data:,x#fragment", b"x", "text/plain"),
            ("data:,x%23", b"x#", "text/plain"),
            ('data:text/plain;charset="utf-8",x', b"x", "text/plain;charset=utf-8"),
            ('data:text/plain;a="b;c";base64,aGk=', b"hi", 'text/plain;a="b;c"'),
            (r'data:text/plain;a="\"q\"",x', b"x", r'text/plain;a="\"q\""'),
            ("data:Image/PNG;Charset=X;charset=Y,x", b"x", "image/png;charset=X"),
            ("data:image/svg+xml;charset=utf-8;,x", b"x", "image/svg+xml;charset=utf-8"),
            ("data:nonsense,x", b"x", "text/plain"),
            ("data:a/b;c;d=;e=f,x", b"x", "a/b;e=f"),
        ):
            with self.subTest(url):
                blob = Blob.from_data_url(url)
                self.assertEqual((blob.to_bytes(), blob.content_type), (data, content_type))

    def test_a_name_can_be_given(self) -> None:
        self.assertEqual(Blob.from_data_url("data:,x", name="x.txt").name, "x.txt")

    def test_what_is_no_data_url_or_damaged_is_refused(self) -> None:
        for url in (
            "",
            "data:",
            "data:text/plain",
            "http://example.org/",
            "xdata:,",
            "data;base64,aGk=",
        ):
            with self.subTest(url), self.assertRaisesRegex(ValueError, "Not a data URL"):
                Blob.from_data_url(url)
        for url in (
            "data:;base64,aGkgM",  # five characters
            "data:;base64,a*k=",
            "data:;base64,é===",
            "data:;base64,aGk==",
            "data:;base64,a=Gk",
        ):
            with self.subTest(url), self.assertRaisesRegex(ValueError, "base64 is damaged"):
                Blob.from_data_url(url)

    def test_a_long_hostile_url_is_refused_in_linear_time(self) -> None:
        watch = Stopwatch()
        for header in (";a=b" * 200_000, ";" * 500_000, "a" * 500_000, 'a/b;c="' + "\\" * 500_000):
            with self.assertRaises(ValueError):
                Blob.from_data_url(f"data:{header}")
            Blob.from_data_url(f"data:{header},x")
        self.assertLess(watch.seconds(), 2)

    def test_the_size_limit_is_exact(self) -> None:
        url = Blob.from_bytes(b"x" * 1000).to_data_url()
        self.assertEqual(Blob.from_data_url(url, max_bytes=1000).size, 1000)
        for too_long in (url, "data:," + "x" * 1000, "data:," + "x" * 10_000):
            with self.assertRaisesRegex(BlobTooLarge, "the limit is 999 bytes"):
                Blob.from_data_url(too_long, max_bytes=999)


class _Site(BaseHTTPRequestHandler):
    """Serves `self.server.pages`: for each path a function that writes the whole response."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        path = self.path.partition("?")[0]
        with contextlib.suppress(OSError):  # the client may hang up
            self.server.pages[path](self)  # type: ignore[attr-defined]

    def answer(self, body: bytes = b"", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        headers.setdefault("Content_Length", str(len(body)))
        headers.setdefault("Connection", "close")  # otherwise a redirect would use it again
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class FromUrlTest(RtmTestCase):
    def setUp(self) -> None:
        # The client must not use a proxy of the environment.
        self.entered(mock.patch.dict("os.environ", {"no_proxy": "*", "NO_PROXY": "*"}))
        self.gone = threading.Event()  # ends the waits of pages
        self.pages: dict[str, Callable[[_Site], None]] = {}
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
        server.pages = self.pages  # type: ignore[attr-defined]
        server.daemon_threads = False  # so that server_close() waits for its threads
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.addCleanup(thread.join, 5)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.addCleanup(self.gone.set)
        self.base = f"http://127.0.0.1:{server.server_port}"

    def test_a_network_image_becomes_a_blob(self) -> None:
        self.pages["/pictures/my%20cat.png"] = lambda page: page.answer(
            png(), Content_Type="image/png; charset=binary"
        )
        blob = Blob.from_url(f"{self.base}/pictures/my%20cat.png?size=large#top")
        self.assertEqual((blob.name, blob.content_type), ("my cat.png", "image/png;charset=binary"))
        self.assertEqual((blob.to_bytes(), blob.dimensions()), (png(), (30, 20)))

    def test_a_name_can_be_given_and_a_missing_type_is_guessed(self) -> None:
        self.pages["/"] = lambda page: page.answer(png())
        self.assertEqual(Blob.from_url(f"{self.base}/").name, "")
        blob = Blob.from_url(f"{self.base}/", name="cat")
        self.assertEqual((blob.name, blob.content_type), ("cat", "image/png"))

    def test_a_name_in_the_header_wins_over_the_urls(self) -> None:
        self.pages["/get"] = lambda page: page.answer(
            b"x",
            Content_Disposition="attachment; filename=\"a.txt\"; filename*=UTF-8''%e7%8c%ab.txt",
        )
        self.assertEqual(Blob.from_url(f"{self.base}/get").name, "猫.txt")
        self.assertEqual(Blob.from_url(f"{self.base}/get", name="b").name, "b")

    def test_a_name_in_the_url_cannot_leave_a_folder(self) -> None:
        for path, name in (("/..%2F..%2Fpasswd", "passwd"), ("/x/..%5Cy", "y"), ("/..%2F", "")):
            self.pages[path] = lambda page: page.answer(b"x")
            with self.subTest(path):
                self.assertEqual(Blob.from_url(self.base + path).name, name)

    def test_a_redirect_is_followed_and_names_the_blob(self) -> None:
        self.pages["/old"] = lambda page: page.answer(status=302, Location="/new/cat.png")
        self.pages["/new/cat.png"] = lambda page: page.answer(png())
        blob = Blob.from_url(f"{self.base}/old")
        self.assertEqual((blob.name, blob.to_bytes()), ("cat.png", png()))

    def test_compressed_and_chunked_bodies_arrive_as_they_were(self) -> None:
        def chunked(page: _Site) -> None:
            page.send_response(200)
            page.send_header("Transfer-Encoding", "chunked")
            page.end_headers()
            for start in range(0, len(DATA), 1000):
                piece = DATA[start : start + 1000]
                page.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            page.wfile.write(b"0\r\n\r\n")

        self.pages["/gzip"] = lambda page: page.answer(gzip.compress(DATA), Content_Encoding="gzip")
        self.pages["/chunked"] = chunked
        for path in ("/gzip", "/chunked"):
            with self.subTest(path):
                self.assertEqual(Blob.from_url(self.base + path).to_bytes(), DATA)

    def test_only_http_and_https_are_fetched(self) -> None:
        path = self.folder() / "secret"
        path.write_text("secret")
        for url in (path.as_uri(), "ftp://127.0.0.1/x", str(path), "", "data:,x", "gopher://x"):
            with self.subTest(url), self.assertRaisesRegex(ValueError, "http:// or https://"):
                Blob.from_url(url)

    def test_a_redirect_out_of_http_is_not_followed(self) -> None:
        path = self.folder() / "secret"
        path.write_text("secret")
        self.pages["/trap"] = lambda page: page.answer(status=302, Location=path.as_uri())
        with self.assertRaises(OSError):
            Blob.from_url(f"{self.base}/trap")

    def test_a_circle_of_redirects_ends_in_an_error(self) -> None:
        self.pages["/round"] = lambda page: page.answer(status=302, Location="/round")
        with self.assertRaises(OSError):
            Blob.from_url(f"{self.base}/round")

    def test_the_size_limit_is_exact_and_needs_no_honest_header(self) -> None:
        def endless(page: _Site) -> None:
            page.send_response(200)
            page.end_headers()
            while not self.gone.is_set():
                page.wfile.write(b"x" * 10_000)

        bomb = gzip.compress(b"\0" * 5_000_000)
        self.pages["/exact"] = lambda page: page.answer(b"x" * 50_000)
        self.pages["/over"] = lambda page: page.answer(b"x" * 50_001)
        self.pages["/endless"] = endless
        self.pages["/bomb"] = lambda page: page.answer(bomb, Content_Encoding="gzip")
        self.assertEqual(Blob.from_url(f"{self.base}/exact", max_bytes=50_000).size, 50_000)
        for path in ("/over", "/endless", "/bomb"):
            with self.subTest(path), self.assertRaisesRegex(BlobTooLarge, "limit is 50,000 bytes"):
                Blob.from_url(self.base + path, max_bytes=50_000)

    def test_the_standard_limit_is_that_of_media(self) -> None:
        self.assertEqual(MEDIA_LIMIT, 30 * 1024 * 1024)
        self.pages["/over"] = lambda page: page.answer(b"x" * (MEDIA_LIMIT + 1))
        with self.assertRaisesRegex(BlobTooLarge, "31,457,280"):
            Blob.from_url(f"{self.base}/over")

    def test_a_body_that_stalls_or_drips_is_given_up_in_time(self) -> None:
        def stall(page: _Site) -> None:
            page.send_response(200)
            page.send_header("Content-Length", "1000")
            page.end_headers()
            page.wfile.write(b"x")
            self.gone.wait(10)

        def drip(page: _Site) -> None:
            page.send_response(200)
            page.send_header("Content-Length", "100000")
            page.end_headers()
            while not self.gone.wait(0.02):
                page.wfile.write(b"x")

        def headers(page: _Site) -> None:
            page.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not self.gone.wait(0.15):  # 15 seconds until there are too many
                page.wfile.write(b"X-Header: x\r\n")

        def hop(page: _Site) -> None:
            self.gone.wait(0.15)
            page.answer(status=302, Location="/hop")

        self.pages["/headers"] = headers
        self.pages["/hop"] = hop
        self.pages["/silent"] = lambda page: self.gone.wait(10) and None
        self.pages["/stall"] = stall
        self.pages["/drip"] = drip
        for path in ("/silent", "/stall", "/drip", "/headers", "/hop"):
            with self.subTest(path):
                watch = Stopwatch()
                with self.assertRaisesRegex(TimeoutError, "within 0.2 seconds"):
                    Blob.from_url(self.base + path, timeout=0.2)
                self.assertLess(watch.seconds(), 2)
                wait_until(
                    lambda: "rtm-sync-fetch" not in {one.name for one in threading.enumerate()}
                )
                self.assertLess(watch.seconds(), 8)  # the thread is not left to the page

    def test_a_body_that_breaks_off_is_an_error_and_no_short_blob(self) -> None:
        self.pages["/short"] = lambda page: page.answer(b"x" * 500, Content_Length="1000")
        with self.assertRaisesRegex(OSError, "IncompleteRead"):
            Blob.from_url(f"{self.base}/short")

    def test_an_error_page_is_an_error(self) -> None:
        for status in (404, 500):
            self.pages["/page"] = lambda page, status=status: page.answer(b"sorry", status)
            with self.subTest(status), self.assertRaisesRegex(OSError, str(status)):
                Blob.from_url(f"{self.base}/page")

    def test_nobody_at_the_address_is_an_error(self) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        with self.assertRaises(OSError):
            Blob.from_url(f"http://127.0.0.1:{port}/", timeout=2)


class SaveTest(RtmTestCase):
    def test_a_blob_is_saved_under_the_path_that_is_returned(self) -> None:
        folder = self.folder()
        written = Blob.from_bytes(DATA).save(str(folder / "out.bin"))
        self.assertEqual(written, folder / "out.bin")
        self.assertEqual(written.read_bytes(), DATA)
        self.assertEqual([item.name for item in folder.iterdir()], ["out.bin"])

    def test_an_old_file_is_replaced(self) -> None:
        path = self.folder() / "out"
        path.write_bytes(b"old and longer than the new one")
        Blob.from_bytes(b"new").save(path)
        self.assertEqual(path.read_bytes(), b"new")

    def test_a_blob_can_be_saved_over_its_own_source(self) -> None:
        path = self.folder() / "file"
        path.write_bytes(DATA)
        Blob.from_path(path).save(path)
        self.assertEqual(path.read_bytes(), DATA)

    def test_a_failure_midway_leaves_the_old_file_and_nothing_else(self) -> None:
        class Breaking(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if self.tell() > 0:
                    raise OSError("the disk was pulled out")
                return super().read(10)

        folder = self.folder()
        path = folder / "out"
        path.write_bytes(b"old")
        blob = Blob(lambda: Breaking(DATA), len(DATA), "x", "x/y")
        with self.assertRaisesRegex(OSError, "pulled out"):
            blob.save(path)
        self.assertEqual(path.read_bytes(), b"old")
        self.assertEqual(list(folder.iterdir()), [path])

    def test_a_half_written_file_is_never_seen_under_the_final_name(self) -> None:
        folder = self.folder()
        path = folder / "out"
        with atomic_write(path) as file:
            file.write(b"half")
            file.flush()
            self.assertFalse(path.exists())
            file.write(b" and whole")
        self.assertEqual(path.read_bytes(), b"half and whole")

    def test_an_interrupt_leaves_nothing_either(self) -> None:
        folder = self.folder()
        with self.assertRaises(KeyboardInterrupt), atomic_write(folder / "out") as file:
            file.write(b"half")
            raise KeyboardInterrupt
        self.assertEqual(list(folder.iterdir()), [])

    def test_a_target_that_cannot_be_written_is_an_error_that_leaves_nothing(self) -> None:
        folder = self.folder()
        (folder / "taken").mkdir()
        with self.assertRaises(OSError):
            Blob.from_bytes(DATA).save(folder / "missing" / "out")
        self.assertEqual([item.name for item in folder.iterdir()], ["taken"])

    def test_a_folder_gets_a_file_of_the_blobs_name_and_none_is_replaced(self) -> None:
        folder = self.folder()
        for name, saved in (
            ("cat.jpg", "cat.jpg"),
            ("cat.jpg", "cat (1).jpg"),
            ("", "download"),
            ("..", "download (1)"),
            ("../../etc/passwd", "passwd"),
            (".bashrc", "bashrc"),
            ("what?.txt", "what_.txt"),
        ):
            with self.subTest(name):
                written = Blob.from_bytes(name.encode(), name=name).save(folder)
                self.assertEqual(written, folder / saved)
                self.assertEqual(written.read_bytes(), name.encode())

    def test_a_failure_leaves_no_file_in_the_folder(self) -> None:
        def opener() -> io.BytesIO:
            raise OSError("the disk was pulled out")

        folder = self.folder()
        with self.assertRaisesRegex(OSError, "pulled out"):
            Blob(opener, 1, "cat.jpg", "image/jpeg").save(folder)
        self.assertEqual(list(folder.iterdir()), [])

    def test_a_file_that_changed_is_not_saved(self) -> None:
        folder = self.folder()
        path = folder / "log"
        path.write_bytes(DATA)
        blob = Blob.from_path(path)
        os.utime(path, (1, 1))
        with self.assertRaisesRegex(OSError, "was written to after its blob was made"):
            blob.save(folder / "copy")
        self.assertEqual(list(folder.iterdir()), [path])

    def test_a_name_of_the_greatest_length_can_be_saved_in_any_script(self) -> None:
        folder = self.folder()
        for name in ("x" * 255, "图" * 85, "🐈" * 63 + "abc"):
            with self.subTest(name[:3]):
                self.assertEqual(len(os.fsencode(name)), 255)
                self.assertEqual(Blob.from_bytes(b"x").save(folder / name).read_bytes(), b"x")

    def test_two_saves_to_one_path_at_once_leave_one_whole_file(self) -> None:
        path = self.folder() / "out"
        contents = [bytes([number]) * 300_000 for number in range(6)]
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda content: Blob.from_bytes(content).save(path), contents))
        self.assertIn(path.read_bytes(), contents)
        self.assertEqual(list(path.parent.iterdir()), [path])


class ConversionTest(RtmTestCase):
    def test_a_picture_becomes_a_pillow_image_that_needs_no_open_file(self) -> None:
        path = self.folder() / "cat.png"
        path.write_bytes(png(30, 20))
        image = Blob.from_path(path).to_image()
        path.unlink()
        self.assertEqual((image.size, image.getpixel((5, 5))), ((30, 20), (0, 128, 128)))

    def test_what_is_no_picture_is_an_os_error(self) -> None:
        with self.assertRaises(OSError):
            Blob.from_bytes(b"words").to_image()

    def test_without_pillow_the_error_says_what_to_install(self) -> None:
        blob = Blob.from_bytes(png())
        with (
            mock.patch.dict("sys.modules", {"PIL": None}),
            self.assertRaisesRegex(ImportError, r"pip install rtm-sync\[thumbnails\]"),
        ):
            blob.to_image()

    def test_dimensions_are_those_of_the_header_or_none(self) -> None:
        self.assertEqual(Blob.from_bytes(png(7, 9)).dimensions(), (7, 9))
        self.assertIsNone(Blob.from_bytes(b"words").dimensions())

    def test_blobs_are_equal_by_their_bytes(self) -> None:
        path = self.folder() / "file"
        path.write_bytes(DATA)
        self.assertEqual(Blob.from_path(path), Blob.from_bytes(DATA))
        self.assertNotEqual(Blob.from_bytes(DATA), Blob.from_bytes(DATA[::-1]))
        self.assertNotEqual(Blob.from_bytes(DATA), DATA)
        with self.assertRaises(TypeError):
            hash(Blob.from_bytes(DATA))

    def test_a_blob_prints_its_name_type_and_size_and_not_its_bytes(self) -> None:
        blob = Blob.from_bytes(b"x" * 12_345, name="a.txt")
        self.assertEqual(repr(blob), "<Blob 'a.txt' text/plain 12,345 bytes>")
