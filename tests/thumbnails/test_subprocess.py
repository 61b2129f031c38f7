"""Decoders in a separate process: their faults do not harm this process."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from pathlib import Path
from unittest import mock

from rtm_sync import CannotThumbnail
from rtm_sync.thumbnails.subprocess import Pixels, decoded_apart, protection
from tests.support import PATIENCE, RtmTestCase, Stopwatch

GENEROUS = 10.0


class DecodedApartTest(RtmTestCase):
    def decoder(self, *lines: str) -> Path:
        """A decoder file whose function `decode(content, side)` has these lines."""
        path = self.folder() / "decoder.py"
        path.write_text("\n    ".join(("def decode(content, side):", *lines)) + "\n")
        return path

    def test_pixels_come_back_as_they_were_made(self) -> None:
        decoder = self.decoder("return side, 2, content")
        content = bytes(range(18)) + b"\n" + bytes(range(200))
        made = decoded_apart(decoder, content, 3, seconds=int(PATIENCE))
        self.assertEqual(made, Pixels(3, 2, content))

    def test_the_largest_medium_gets_through(self) -> None:
        decoder = self.decoder("return len(content), 1, content[:3]")
        made = decoded_apart(decoder, bytes(30 * 1024 * 1024), 480, seconds=int(PATIENCE))
        self.assertEqual((made.width, made.data), (30 * 1024 * 1024, bytes(3)))

    def test_what_it_prints_is_not_taken_for_pixels(self) -> None:
        decoder = self.decoder(
            "import os", "print('hello')", "os.write(1, b'hello')", "return 1, 1, b'rgb'"
        )
        self.assertEqual(decoded_apart(decoder, b"", 1, seconds=int(PATIENCE)).data, b"rgb")

    def test_what_it_raises_is_the_reason(self) -> None:
        for raised, reason in (
            ("ValueError('It is no picture')", "^It is no picture[.]$"),
            ("RuntimeError('over\\n two lines.')", "^over two lines[.]$"),
            ("KeyError()", "^KeyError[.]$"),
            ("MemoryError()", "^It takes more than 209,715,200 bytes of memory[.]$"),
        ):
            with self.subTest(raised), self.assertRaisesRegex(CannotThumbnail, reason):
                decoded_apart(self.decoder(f"raise {raised}"), b"", 1, seconds=int(PATIENCE))

    def test_a_crash_is_a_refusal_that_says_how(self) -> None:
        for line, how in (
            ("import os; os.abort()", "SIGABRT"),
            ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
            ("import os; os._exit(9)", "status 9"),
        ):
            with self.subTest(how), self.assertRaisesRegex(CannotThumbnail, f"crashed .{how}"):
                decoded_apart(self.decoder(line), b"", 1, seconds=int(PATIENCE))

    def test_a_decoder_that_hangs_is_ended_in_time(self) -> None:
        watch = Stopwatch()
        with self.assertRaisesRegex(CannotThumbnail, "not decoded within 1 seconds"):
            decoded_apart(self.decoder("while True: pass"), b"", 1, seconds=1)
        self.assertLess(watch.seconds(), GENEROUS)

    def test_it_gets_no_more_memory_than_it_may_have(self) -> None:
        hog = self.decoder("return 1, 1, bytes(100_000_000)[:3]")
        self.assertEqual(decoded_apart(hog, b"", 1, seconds=int(PATIENCE)).data, bytes(3))
        with self.assertRaisesRegex(CannotThumbnail, "more than 50,000,000 bytes"):
            decoded_apart(hog, b"", 1, seconds=int(PATIENCE), memory=50_000_000)

    def test_it_writes_no_files(self) -> None:
        path = self.folder() / "written"
        with self.assertRaises(CannotThumbnail):
            decoded_apart(
                self.decoder(f"open({str(path)!r}, 'wb', 0).write(b'x')", "return 1, 1, b''"),
                b"",
                1,
                seconds=int(PATIENCE),
            )
        self.assertEqual(path.read_bytes() if path.exists() else b"", b"")

    def test_a_hostile_decoder_reaches_nothing_that_is_said_to_be_protected(self) -> None:
        own = self.folder() / "secret.txt"
        own.write_text("secret")
        listener = self.entered(socket.create_server(("127.0.0.1", 0)))
        datagrams = self.entered(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagrams.bind(("127.0.0.1", 0))
        inherited = os.open(own, os.O_RDONLY)
        self.addCleanup(os.close, inherited)
        os.set_inheritable(inherited, True)
        self.entered(mock.patch.dict(os.environ, {"APP_SECRET": "c4n4ry"}))
        attacks = {
            "variable": "assert 'APP_SECRET' in os.environ",
            "parent": f"assert b'c4n4ry' in open('/proc/{os.getpid()}/environ', 'rb').read()",
            "descriptor": f"os.fstat({inherited})",
            "own file": f"open({str(own)!r}).read()",
            "passwords": "open('/etc/passwd').read()",
            "listing": f"os.listdir({str(own.parent)!r})",
            "writing": f"open({str(own.with_name('new'))!r}, 'w')",
            "removing": f"os.unlink({str(own)!r})",
            "program": "subprocess.run(['/bin/true'], check=True)",
            "tcp": f"socket.create_connection(('127.0.0.1', {listener.getsockname()[1]}), 1)",
            "udp": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', "
            f"{datagrams.getsockname()!r})",
            "signal": f"os.kill({os.getpid()}, 0)",
        }
        reached = [name for name, attack in attacks.items() if self.succeeds(attack)]
        found = protection()
        allowed = []
        if not found.files:
            allowed += ["parent", "own file", "passwords", "listing", "removing", "program"]
        if not found.network:
            allowed += ["tcp", "udp"]
        self.assertTrue(found.environment)
        self.assertLessEqual(set(reached), {*allowed, "signal"})
        if sys.platform == "linux" and ctypes.CDLL(None).syscall(444, None, 0, 1) > 0:
            self.assertTrue(found.files)  # this Linux has Landlock

    def succeeds(self, attack: str) -> bool:
        decoder = self.folder() / "decoder.py"
        decoder.write_text(
            "import os, socket, subprocess\n"
            f"def decode(content, side):\n    {attack}\n    return 1, 1, b'rgb'\n"
        )
        try:
            decoded_apart(decoder, b"", 1, seconds=int(PATIENCE))
        except CannotThumbnail:
            return False
        return True

    def test_a_missing_decoder_is_a_refusal_and_no_hang(self) -> None:
        with self.assertRaisesRegex(CannotThumbnail, "crashed .status 1"):
            decoded_apart(self.folder() / "none.py", b"x" * 1_000_000, 1, seconds=int(PATIENCE))
