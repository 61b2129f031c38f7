"""Names that other users give to files: what is left of them is a name, and nothing else."""

from __future__ import annotations

import ntpath
import posixpath
import unittest
from pathlib import PurePosixPath, PureWindowsPath

from hypothesis import example, given
from hypothesis import strategies as st

from rtm_sync import MediaInfo, RtmFileMessage, RtmImageMessage
from rtm_sync.blob import Blob
from rtm_sync.blob.file_names import file_name_in, plain_name, reserved_path, safe_file_name
from tests.support import RtmTestCase

ODD = st.text(alphabet=st.sampled_from("/\\:.. abcC1\u202e\u2028\x00\n?*"), max_size=12)


class PlainNameTest(unittest.TestCase):
    def test_the_last_part_is_left(self) -> None:
        for name, plain in (
            ("cat.jpg", "cat.jpg"),
            ("a/b.txt", "b.txt"),
            ("../../etc/passwd", "passwd"),
            ("/etc/passwd", "passwd"),
            ("C:\\Users\\me\\cat.jpg", "cat.jpg"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("C:evil.exe", "evil.exe"),
            ("C:D:evil.exe", "evil.exe"),
            ("\\\\server\\share\\x", "x"),
            ("folder/", "folder"),
            ("12:30.txt", "12:30.txt"),
            ("..", ""),
            (".", ""),
            ("a/..", ""),
            ("...", ""),
            (". .", ""),
            ("/", ""),
            ("C:", ""),
            ("", ""),
            (".gitignore", ".gitignore"),
            ("猫 🐈.jpg", "猫 🐈.jpg"),
        ):
            with self.subTest(name):
                self.assertEqual(plain_name(name), plain)

    def test_what_is_not_seen_or_turns_text_round_is_replaced(self) -> None:
        for code in (
            *(0, 10, 13, 27, 0x7F, 0x85, 0x9F, 0x61C, 0x200E, 0x200F, 0x2028, 0x2029),
            *range(0x202A, 0x202F),
            *range(0x2066, 0x206A),
            0xD800,
        ):
            with self.subTest(hex(code)):
                self.assertEqual(plain_name(f"a{chr(code)}b"), "a_b")

    def test_what_windows_reserves_gets_an_underscore(self) -> None:
        for name in ("con", "NUL.txt", "com1", "LPT³.tar.gz", "aux .x", "conin$", " con", "con:x"):
            with self.subTest(name):
                self.assertEqual(plain_name(name), f"_{name}")
        for name in ("console", "com10", "null"):
            self.assertEqual(plain_name(name), name)

    @given(ODD | st.text(max_size=20))
    @example("1:evil")
    def test_it_stays_in_every_folder_and_is_left_as_it_is(self, name: str) -> None:
        plain = plain_name(name)
        self.assertEqual(plain_name(plain), plain)
        self.assertEqual(Blob.from_bytes(b"x", name=name).name, plain)
        for folder in ("/srv/inbox", "inbox"):
            joined = posixpath.normpath(posixpath.join(folder, plain))
            self.assertIn(joined, (folder, f"{folder}/{plain}"))
        windows = ntpath.normpath(ntpath.join("D:\\inbox", plain))
        self.assertTrue(windows == "D:\\inbox" or windows.startswith("D:\\inbox\\"), windows)
        self.assertNotIn("..", PureWindowsPath(plain).parts)
        self.assertLessEqual(len(PurePosixPath(plain).parts), 1)

    def test_messages_and_records_have_plain_names(self) -> None:
        for made in (
            RtmFileMessage("id", "../../a.txt"),
            RtmImageMessage("id", "C:\\a.txt"),
            MediaInfo("id", 1, "", "/etc/a.txt", "text/plain", 0.0),
        ):
            self.assertEqual(made.file_name, "a.txt")


class SafeNameTest(RtmTestCase):
    def test_an_extension_survives_shortening(self) -> None:
        for name, extension in (
            ("x" * 300 + ".jpg", ".jpg"),
            ("猫" * 100 + ".jpeg", ".jpeg"),
            ("x" * 300 + ".tar.gz", ".tar.gz"),
            ("a." * 200 + "jpg", ".jpg"),
        ):
            safe = safe_file_name(name)
            self.assertTrue(safe.endswith(extension), safe)
            self.assertEqual(safe[0], name[0])
            self.assertLessEqual(len(safe.encode()), 200)
            self.assertGreater(len(safe.encode()), 190)
        self.assertEqual(len(safe_file_name("x" * 300)), 200)
        self.assertEqual(len(safe_file_name("x." + "y" * 300)), 200)

    @given(ODD | st.text(max_size=300))
    def test_it_can_be_created_on_every_system(self, name: str) -> None:
        safe = safe_file_name(name)
        self.assertEqual(safe_file_name(safe), safe)
        self.assertEqual(plain_name(safe), safe)
        self.assertNotRegex(safe, r'[\x00-\x1f/\\:*?"<>|\u2028\u202e]|[ .]$|^\.|^$')

    def test_a_reserved_path_is_new_and_does_not_outlive_an_error(self) -> None:
        folder = self.folder()
        with reserved_path(folder, "a/b.txt") as first, reserved_path(folder, "b.txt") as second:
            self.assertEqual((first.name, second.name), ("b.txt", "b (1).txt"))
            self.assertTrue(first.exists())
        with self.assertRaises(KeyboardInterrupt), reserved_path(folder, "c.txt") as third:
            raise KeyboardInterrupt
        self.assertFalse(third.exists())
        self.assertTrue(second.exists())


class ContentDispositionTest(unittest.TestCase):
    def test_the_forms_of_the_standards_are_read(self) -> None:
        for header, name in (
            ("", ""),
            ("attachment", ""),
            ("attachment; filename=cat.jpg", "cat.jpg"),
            ('attachment; filename="my cat.jpg"', "my cat.jpg"),
            ('ATTACHMENT; FileName = "a;b.txt" ; x=y', "a;b.txt"),
            (r'attachment; filename="a\"b.txt"', 'a"b.txt'),
            ("attachment; filename=my cat.jpg; size=3", "my cat.jpg"),
            ("inline; filename*=UTF-8''na%C3%AFve.txt", "naïve.txt"),
            ("inline; filename*=iso-8859-1'en'na%EFve.txt", "naïve.txt"),
            ("inline; filename=\"a.txt\"; filename*=UTF-8''b.txt", "b.txt"),
            ("inline; filename*=UTF-8''b.txt; filename=a.txt", "b.txt"),
            ("inline; filename*=utf-8''%FF; filename=a.txt", "a.txt"),
            ("inline; filename*=nonsense''b; filename=a.txt", "a.txt"),
            ('inline; name="; filename=evil"; filename=good', "good"),
            ("attachment; filename=" + "猫.txt".encode().decode("latin-1"), "猫.txt"),
            ("attachment; filename=na\xefve.txt", "naïve.txt"),
            ('attachment; filename="../../etc/passwd"', "passwd"),
            (r'attachment; filename="C:\dir\x.txt"', "x.txt"),
            ("attachment; filename*=UTF-8''..%2F..%2Fpasswd", "passwd"),
        ):
            with self.subTest(header):
                self.assertEqual(file_name_in(header), name)
