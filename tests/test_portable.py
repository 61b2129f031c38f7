"""Systems without the functions of POSIX, such as Windows: the main job, locks, signals, names."""

from __future__ import annotations

import ast
import ntpath
import signal
import subprocess
import sys
import unittest
from pathlib import Path, PurePosixPath, PureWindowsPath

from hypothesis import example, given
from hypothesis import strategies as st

import rtm_sync
from rtm_sync.blob.file_names import safe_file_name
from rtm_sync.errors import PluginError
from rtm_sync.plugins.loader import plugin_manager
from rtm_sync.portable import folder_in_url, folder_url
from tests.support import RtmTestCase

PATIENCE = 60

WITHOUT_POSIX = str(Path(__file__).with_name("without_posix.py"))
HIDDEN = f"import runpy\nrunpy.run_path({WITHOUT_POSIX!r})['hide']()\n"

MAIN_JOB = """
import contextlib, hashlib, os, sys
from pathlib import Path

import rtm_sync
from rtm_sync import RtmClient
from rtm_sync.errors import DownloadMediaError
from rtm_sync.transfers.partial_file import PartialDownload
from rtm_sync.protocol import MediaInfo
from rtm_sync.testing import local_gateway

DATA = bytes(range(256)) * 8_000
WHOLE = hashlib.sha256(DATA).hexdigest()


def main_job(url, home):
    source = home / "cat.jpg"
    source.write_bytes(DATA)
    with RtmClient("app", url=url) as alice, RtmClient("app", url=url) as bob:
        alice.login("alice")
        with bob.events("MessageFromPeer") as arriving:
            bob.login("bob")
            journal = home / "journal"
            upload = alice.create_media_message_by_uploading(source, resume_from=journal)
            sent = alice.send_message_to_peer(upload.result(60), "bob")
            assert sent.has_peer_received, sent
            message, peer_id, _ = next(iter(arriving)).args
        assert (peer_id, message.file_name, message.size) == ("alice", "cat.jpg", len(DATA))
        assert not journal.exists()

        target = home / "copy.jpg"
        target.write_bytes(b"an older file")
        def download(to):
            return bob.download_media(message.media_id, to=to).result(60)

        assert download(target) == target and target.read_bytes() == DATA
        folder = home / "inbox"
        folder.mkdir()
        for name in ("cat.jpg", "cat (1).jpg"):
            assert download(folder) == folder / name
            assert (folder / name).read_bytes() == DATA
        assert download(None).to_bytes() == DATA

        # A later download resumes an interrupted one, but not one of other bytes.
        info = MediaInfo(message.media_id, len(DATA), WHOLE, "cat.jpg", "image/jpeg", 0.0)
        for beginning in (DATA[:1_000_000], b"x" * 1_000_000):
            with (
                contextlib.suppress(DownloadMediaError),
                PartialDownload(home, message.media_id) as partial,
            ):
                partial.begin(info)
                partial.write(beginning)
                raise DownloadMediaError.named("TIMEOUT", "it broke off")
            [left] = home.glob("*.part")
            assert left.stat().st_size == 1_000_000
            assert download(target).read_bytes() == DATA
            assert not list(home.glob("*.part"))

        # A second download at the same time gets its own partial file.
        with PartialDownload(home, message.media_id) as first:
            first.begin(info)
            first.write(DATA[:1000])
            with PartialDownload(home, message.media_id) as second:
                assert (first.size, second.size) == (1000, 0)
            assert download(target).read_bytes() == DATA
        assert not list(home.glob("*.part"))


home = Path(sys.argv[1])
"""

OVER_MEMORY = """
main_job("memory://", home)
print("done")
"""

OVER_A_GATEWAY = """
from rtm_sync.gateway.app import BackgroundGateway
from rtm_sync.gateway.config import ConfigError, GatewayConfig

data = home / "data"
with local_gateway(data) as url:
    main_job(url, home)
    stored = sorted(path.suffix for path in (data / "media").glob("*/*"))
    assert stored == [""], stored  # one whole blob, no fragment and no metadata
    assert (data / "rtm.sqlite3").stat().st_size > 0
    try:
        BackgroundGateway(GatewayConfig(port=0, data=str(data))).start()
    except ConfigError as error:
        assert "another gateway" in str(error), error
    else:
        raise AssertionError("two gateways have one folder")
with local_gateway(data):  # the lock is free again
    print("done")
"""

LOCKS = """
import msvcrt, sys
from rtm_sync.portable import lock_file, unlock_file

first, second = (open(sys.argv[1], "r+b", buffering=0) for _ in range(2))
assert first.read(5) == b"start"
assert lock_file(first.fileno())
assert first.tell() == 5
assert not lock_file(second.fileno())
# The locked range lies behind the data, because Windows forbids others to read a locked range.
assert msvcrt.locked_bytes(second.fileno()).start > 1_000_000_000
unlock_file(first.fileno())
assert lock_file(second.fileno())
assert not lock_file(first.fileno())
second.close()
assert lock_file(first.fileno())
msvcrt.locking = lambda *_: (_ for _ in ()).throw(OSError(45, "no locks"))
try:
    lock_file(first.fileno())
except OSError as error:
    assert error.errno == 45
else:
    raise AssertionError("a file system without locks gave one")
print("done")
"""

OTHER_PROCESS = """
import sys
from rtm_sync.portable import lock_file
file = open(sys.argv[1], "r+b")
print(lock_file(file.fileno()), flush=True)
sys.stdin.read()
"""

BLOBS = """
import sys
from pathlib import Path
from rtm_sync.hub.media.disk import DiskMediaStore

store, ids = DiskMediaStore(Path(sys.argv[1])), [letter * 32 for letter in "ABC"]
for media_id in ids:
    writer = store.create(media_id, "note")
    writer.write(b"x")
    writer.commit()
    store.finalize(media_id)
left = lambda: sorted(path.name for path in Path(sys.argv[1]).glob("*/*"))
with store.open(ids[0]) as reader:
    store.delete(ids[0])
    assert reader.read() == b"x"
    try:
        store.open(ids[0])
    except FileNotFoundError:
        pass
    else:
        raise AssertionError("a deleted blob is given out")
    assert left() == ids
store.delete(ids[1])
assert left() == ids[2:], left()
with store.open(ids[2]):
    store.delete(ids[2])
store.close()
assert left() == [], left()
print("done")
"""

SERVE = """
import sys
from rtm_sync.cli import main
sys.argv = ["rtm-sync", "serve", "--port", "0", "--data", sys.argv[1]]
main()
"""

DOCTOR = """
import sys
from pathlib import Path
from rtm_sync.cli.doctor import diagnose
from rtm_sync.cli.profiles import Profile

found = {one.check: one for one in diagnose(Profile("memory://doctor"), profiles=Path(sys.argv[1]))}
assert found["thumbnails"].verdict == "warning", found["thumbnails"]
assert "no protection of memory limit" in found["thumbnails"].detail
assert found["profile"].verdict == "ok", found["profile"]
print("done")
"""

THUMBNAIL_CHILD = """
import os, runpy, sys
child = sys.argv[1]
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(child))
runpy.run_path(child, run_name="__main__")
"""


class WithoutPosixTest(RtmTestCase):
    def run_hidden(self, body: str, *arguments: object) -> None:
        done = subprocess.run(
            [sys.executable, "-c", HIDDEN + body, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        self.assertEqual((done.stdout, done.stderr, done.returncode), ("done\n", "", 0))

    def test_it_is_hidden_indeed(self) -> None:
        self.run_hidden(
            """
import asyncio, os, pathlib, signal, sys, tempfile
for name in ("fcntl", "resource", "uvloop"):
    try:
        __import__(name)
    except ImportError:
        pass
    else:
        raise AssertionError(name)
assert not hasattr(os, "register_at_fork") and not hasattr(os, "O_NOFOLLOW")
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "file"
    path.write_bytes(b"x")
    for act in (path.unlink, lambda: path.rename(path.with_name("other")),
                lambda: path.with_name("more").replace(path)):
        path.with_name("more").write_bytes(b"y")
        with path.open("rb"):
            try:
                act()
            except PermissionError:
                pass
            else:
                raise AssertionError("an open file was moved or removed")
async def main():
    try:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, print)
    except NotImplementedError:
        print("done")
asyncio.run(main())
"""
        )

    def test_every_module_of_the_package_can_be_imported(self) -> None:
        root = Path(rtm_sync.__file__).parent
        names = sorted(
            ".".join(path.relative_to(root.parent).with_suffix("").parts)
            for path in root.rglob("*.py")
            if path.name not in ("__main__.py", "__init__.py")
        )
        self.assertIn("rtm_sync.testing.thumbnail_contract", names)
        self.run_hidden(
            "import importlib\n"
            f"for name in {names}:\n    importlib.import_module(name)\nprint('done')"
        )

    def test_the_main_job_in_memory(self) -> None:
        self.run_hidden(MAIN_JOB + OVER_MEMORY, self.folder())

    def test_the_main_job_over_a_gateway_with_disk_and_sqlite(self) -> None:
        self.run_hidden(MAIN_JOB + OVER_A_GATEWAY, self.folder())

    def test_msvcrt_locks_for_one_descriptor_alone(self) -> None:
        path = self.folder() / "file"
        path.write_bytes(b"start and end")
        self.run_hidden(LOCKS, path)

    def test_a_blob_that_is_read_is_removed_afterwards(self) -> None:
        self.run_hidden(BLOBS, self.folder() / "media")

    def test_serve_starts_and_a_signal_stops_it(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            with (
                self.subTest(number.name),
                subprocess.Popen(
                    [sys.executable, "-c", HIDDEN + SERVE, str(self.folder())],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                ) as process,
            ):
                try:
                    assert process.stdout is not None
                    self.assertIn("Serving ws://", process.stdout.readline())
                    process.send_signal(number)
                    _, said = process.communicate(timeout=PATIENCE)
                finally:
                    process.kill()
                self.assertEqual(process.returncode, 0, said)
                self.assertIn("draining", said)
                self.assertNotIn("Traceback", said)

    def test_doctor_says_which_limit_is_not_in_force_and_asks_for_no_chmod(self) -> None:
        file = self.folder() / "profiles.toml"
        file.touch(0o644)
        self.run_hidden(DOCTOR, file)

    def test_thumbnails_are_made_apart_without_a_limit_of_memory(self) -> None:
        from rtm_sync.thumbnails import child as thumbnail_child

        decoder = self.folder() / "decoder.py"
        decoder.write_text("def decode(content, side):\n    return 1, 1, bytes(content)\n")
        child = [thumbnail_child.__file__, str(decoder), "10", "60", "1000000"]
        done = subprocess.run(
            [sys.executable, "-c", HIDDEN + THUMBNAIL_CHILD, *child],
            input=b"rgb",
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual((done.stdout, done.stderr), (b"1 1\nrgb", b""))

    def test_a_thumbnail_that_hangs_ends_by_itself_without_sigalrm(self) -> None:
        from rtm_sync.thumbnails import child as thumbnail_child

        decoder = self.folder() / "decoder.py"
        decoder.write_text(
            "import threading\ndef decode(content, side):\n    threading.Event().wait()\n"
        )
        child = [thumbnail_child.__file__, str(decoder), "10", "0", "1000000"]
        done = subprocess.run(
            [sys.executable, "-c", HIDDEN + THUMBNAIL_CHILD, *child],
            input=b"rgb",
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout), (1, b""))


class LockTest(RtmTestCase):
    """Locks where `fcntl` exists."""

    def test_a_second_process_is_refused_until_the_first_has_ended(self) -> None:
        path = self.folder() / "file"
        path.touch()

        def start() -> subprocess.Popen[str]:
            return subprocess.Popen(
                [sys.executable, "-c", OTHER_PROCESS, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )

        def answer(process: subprocess.Popen[str]) -> str:
            assert process.stdout is not None
            return process.stdout.readline().strip()

        with start() as first, start() as second:
            self.assertEqual({answer(first), answer(second)}, {"True", "False"})
        with start() as third:
            self.assertEqual(answer(third), "True")


class FolderUrlTest(unittest.TestCase):
    def test_a_folder_survives_its_url(self) -> None:
        for folder, url in (
            (PureWindowsPath(r"C:\Data 1\media"), "disk:///C%3A/Data%201/media"),
            (PureWindowsPath(r"\\server\share\m"), "disk:////server/share/m"),
        ):
            self.assertEqual(folder_url("disk", folder, windows=True), url)
            self.assertEqual(PureWindowsPath(folder_in_url(url, windows=True)), folder)
        odd = PurePosixPath("/srv/C:/a?b#c%20")
        url = folder_url("local", odd, windows=False)
        self.assertEqual(PurePosixPath(folder_in_url(url, windows=False)), odd)

    def test_what_people_write_on_windows(self) -> None:
        for url in ("disk:///C:/media", "disk://C:/media", "disk:C:/media"):
            self.assertEqual(folder_in_url(url, windows=True), "C:/media")
        self.assertEqual(folder_in_url(r"disk:C:\media", windows=True), r"C:\media")
        self.assertEqual(folder_in_url("disk:///media", windows=True), "/media")

    def test_posix_knows_no_drives(self) -> None:
        self.assertEqual(folder_in_url("disk:///C:/media", windows=False), "/C:/media")

    def test_a_host_is_no_folder(self) -> None:
        for url, windows in (
            ("local://C:/data", False),
            ("local://data", False),
            ("disk://d/", True),
        ):
            with self.assertRaisesRegex(ValueError, "three slashes"):
                folder_in_url(url, windows=windows)
        with self.assertRaisesRegex(PluginError, "three slashes"):
            plugin_manager.engine("local://data")  # and does not silently use memory


class SafeNameTest(unittest.TestCase):
    @given(st.text(max_size=260))
    @example("NUL")
    @example("con.txt")
    @example("Lpt1 .tar.gz")
    @example("COM²")
    @example("conout$")
    @example("a" * 199 + ". b")
    def test_a_senders_name_is_none_that_windows_reserves(self, name: str) -> None:
        safe = safe_file_name(name)
        self.assertLessEqual(len(safe.encode()), 204)
        self.assertNotRegex(safe, r'[\x00-\x1f/\\:*?"<>|]|[ .]$|^$')
        device = safe.partition(".")[0].rstrip(" ").upper()
        self.assertNotIn(device, {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"})
        self.assertNotRegex(device, "^(COM|LPT)[0-9¹²³]$")
        if hasattr(ntpath, "isreserved"):  # Python 3.13
            self.assertFalse(ntpath.isreserved(safe), safe)

    def test_other_names_stay(self) -> None:
        for name in ("console.txt", "null", "com10", "photo.nul", "猫.jpg"):
            self.assertEqual(safe_file_name(name), name)


class OnePlaceTest(unittest.TestCase):
    # The decoder process imports nothing of rtm_sync, and the contract kit measures memory.
    ALONE = frozenset({"portable.py", "thumbnails/child.py", "testing/thumbnail_contract.py"})
    MODULES = frozenset({"fcntl", "msvcrt", "resource", "pwd", "grp", "termios"})
    NAMES = frozenset(
        {"register_at_fork", "O_NOFOLLOW", "O_DIRECTORY", "geteuid", "getuid", "SIGHUP"}
    )

    def test_what_systems_differ_in_is_asked_of_one_module(self) -> None:
        root = Path(rtm_sync.__file__).parent
        for path in root.rglob("*.py"):
            name = path.relative_to(root).as_posix()
            if name in self.ALONE:
                continue
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    used = {alias.name for alias in node.names} & self.MODULES
                elif isinstance(node, ast.Attribute):
                    used = {node.attr} & self.NAMES
                else:
                    continue
                self.assertFalse(used, f"{name} uses {used}; ask rtm_sync.portable")
