"""The four message types and the 32 KB rule, at its exact edge."""

from __future__ import annotations

import dataclasses
import unittest
from collections.abc import Callable

from rtm_sync.blob import Blob
from rtm_sync.messages import (
    MESSAGE_LIMIT,
    MessageTooLarge,
    MessageType,
    RtmFileMessage,
    RtmImageMessage,
    RtmRawMessage,
    RtmTextMessage,
    as_message,
    check_media_message,
    thumbnail_room,
)
from tests.support import RtmTestCase

LIMIT = 32_768

# Each function makes a message whose counted parts have that many bytes together.
BY_SIZE: dict[str, Callable[[int], object]] = {
    "text alone": lambda size: RtmTextMessage("x" * size),
    "text and description": lambda size: RtmTextMessage("x" * 1000, "d" * (size - 1000)),
    "raw alone": lambda size: RtmRawMessage(b"\0" * size),
    "raw and description": lambda size: RtmRawMessage(b"\0" * 1000, "d" * (size - 1000)),
    "file, thumbnail alone": lambda size: RtmFileMessage("id", thumbnail=b"t" * size),
    "file, name alone": lambda size: RtmFileMessage("id", file_name="n" * size),
    "file, all three": lambda size: RtmFileMessage(
        "id", "n" * 100, "d" * 200, 0, b"t" * (size - 300)
    ),
    "image, all three": lambda size: RtmImageMessage(
        "id", "n" * 100, "d" * 200, 9, b"t" * (size - 300), width=4000, height=3000
    ),
}


class SizeRuleTest(unittest.TestCase):
    def test_the_limit_is_32_kb(self) -> None:
        self.assertEqual(MESSAGE_LIMIT, LIMIT)

    def test_one_byte_less_and_the_limit_itself_are_accepted(self) -> None:
        for name, make in BY_SIZE.items():
            for size in (LIMIT - 1, LIMIT):
                with self.subTest(name, size=size):
                    make(size)

    def test_one_byte_more_is_refused_with_both_numbers(self) -> None:
        for name, make in BY_SIZE.items():
            with self.subTest(name):
                with self.assertRaises(MessageTooLarge) as caught:
                    make(LIMIT + 1)
                self.assertIn("32,769", str(caught.exception))
                self.assertIn("32,768", str(caught.exception))

    def test_bytes_of_utf_8_count_and_not_characters(self) -> None:
        for character, width in (("é", 2), ("猫", 3), ("🐈", 4)):
            fits = LIMIT // width
            padding = "x" * (LIMIT - fits * width)
            with self.subTest(character):
                RtmTextMessage(character * fits + padding)
                with self.assertRaises(MessageTooLarge):
                    RtmTextMessage(character * fits + padding + "x")

    def test_multi_byte_descriptions_and_file_names_count_too(self) -> None:
        RtmFileMessage("id", "猫" * 1000, "犬" * 1000, 0, b"t" * (LIMIT - 6000))
        with self.assertRaises(MessageTooLarge):
            RtmFileMessage("id", "猫" * 1000, "犬" * 1000, 0, b"t" * (LIMIT - 5999))

    def test_the_error_names_the_parts_that_are_there_and_the_way_out(self) -> None:
        with self.assertRaises(MessageTooLarge) as caught:
            RtmFileMessage("id", "cat.jpg", "", 0, b"t" * 33_000)
        self.assertEqual(
            str(caught.exception),
            "thumbnail + file_name is 33,007 bytes; the limit is 32,768 bytes. "
            'Pass a smaller thumbnail or thumbnail="auto".',
        )

    def test_what_is_not_sent_in_the_sum_does_not_count(self) -> None:
        message = RtmImageMessage("m" * 256, thumbnail=b"t" * LIMIT, width=1, height=1)
        self.assertEqual(len(message.thumbnail), LIMIT)

    def test_a_media_id_has_a_bound_of_its_own(self) -> None:
        with self.assertRaisesRegex(ValueError, "media_id has 257 characters; the limit is 256"):
            RtmFileMessage("m" * 257)

    def test_the_room_for_a_thumbnail_is_exactly_what_is_accepted(self) -> None:
        room = thumbnail_room("猫.jpg", "my cat")
        self.assertEqual(room, LIMIT - 7 - 6)
        check_media_message("猫.jpg", "my cat", room)
        with self.assertRaises(MessageTooLarge):
            check_media_message("猫.jpg", "my cat", room + 1)


class ValueTest(RtmTestCase):
    def test_each_kind_says_its_type(self) -> None:
        self.assertEqual(RtmTextMessage("a").message_type, MessageType.TEXT)
        self.assertEqual(RtmRawMessage(b"a").message_type, MessageType.RAW)
        self.assertEqual(RtmFileMessage("a").message_type, MessageType.FILE)
        self.assertEqual(RtmImageMessage("a").message_type, MessageType.IMAGE)
        self.assertEqual([str(kind) for kind in MessageType], ["TEXT", "RAW", "FILE", "IMAGE"])

    def test_an_empty_text_is_refused_and_empty_raw_bytes_are_not(self) -> None:
        with self.assertRaisesRegex(ValueError, "text is empty"):
            RtmTextMessage("")
        self.assertEqual(RtmRawMessage(b"").raw_message, b"")

    def test_text_that_utf_8_cannot_hold_is_refused_by_name(self) -> None:
        for what, make in {
            "text": lambda: RtmTextMessage("a\ud800"),
            "description": lambda: RtmRawMessage(b"a", "\udfff"),
            "file_name": lambda: RtmFileMessage("id", "\ud800.jpg"),
        }.items():
            with self.subTest(what), self.assertRaisesRegex(ValueError, f"^{what} is not valid"):
                make()

    def test_a_wrong_type_is_refused_by_name(self) -> None:
        for what, make in {
            "text": lambda: RtmTextMessage(b"bytes"),  # type: ignore[arg-type]
            "description": lambda: RtmTextMessage("a", None),  # type: ignore[arg-type]
            "raw_message": lambda: RtmRawMessage("text"),  # type: ignore[arg-type]
            "thumbnail": lambda: RtmFileMessage("id", thumbnail="text"),  # type: ignore[arg-type]
        }.items():
            with self.subTest(what), self.assertRaisesRegex(TypeError, f"^{what} must be"):
                make()

    def test_a_media_message_needs_a_media_id(self) -> None:
        for media_id in ("", None, 7):
            with self.subTest(media_id), self.assertRaisesRegex(ValueError, "media_id"):
                RtmFileMessage(media_id)  # type: ignore[arg-type]

    def test_bytes_likes_are_copied_so_that_later_changes_do_not_show(self) -> None:
        source = bytearray(b"before")
        raw, file = RtmRawMessage(source), RtmFileMessage("id", thumbnail=memoryview(source))  # type: ignore[arg-type]
        source[:] = b"after!"
        self.assertEqual((raw.raw_message, file.thumbnail), (b"before", b"before"))
        self.assertIs(type(raw.raw_message), bytes)

    def test_a_thumbnail_is_read_from_whatever_holds_it(self) -> None:
        path = self.folder() / "t.png"
        path.write_bytes(b"picture")
        with path.open("rb") as file:
            for given in (path, Blob.from_path(path), file, bytearray(b"picture")):
                message = RtmImageMessage("id", thumbnail=given)  # type: ignore[arg-type]
                self.assertEqual(message.thumbnail, b"picture")
        path.write_bytes(bytes(32_769))
        with self.assertRaisesRegex(MessageTooLarge, "thumbnail is 32,769 bytes"):
            RtmFileMessage("id", thumbnail=path)  # type: ignore[arg-type]

    def test_messages_are_equal_by_value_and_cannot_be_changed(self) -> None:
        self.assertEqual(RtmTextMessage("a"), RtmTextMessage("a"))
        self.assertNotEqual(RtmFileMessage("id"), RtmImageMessage("id"))
        with self.assertRaises(dataclasses.FrozenInstanceError):
            RtmTextMessage("a").text = "b"  # type: ignore[misc]

    def test_the_guides_name_for_a_thumbnail_works(self) -> None:
        self.assertEqual(RtmImageMessage("id", thumbnail=b"t").thumbnail_data, b"t")

    def test_a_thumbnail_is_not_printed(self) -> None:
        self.assertNotIn("tttt", repr(RtmImageMessage("id", thumbnail=b"t" * 100)))


class AsMessageTest(unittest.TestCase):
    def test_a_str_is_a_text_and_bytes_are_a_raw_message(self) -> None:
        self.assertEqual(as_message("hi"), RtmTextMessage("hi"))
        for payload in (b"hi", bytearray(b"hi"), memoryview(b"hi")):
            with self.subTest(type(payload).__name__):
                self.assertEqual(as_message(payload), RtmRawMessage(b"hi"))

    def test_a_message_is_passed_through(self) -> None:
        for message in (RtmTextMessage("a"), RtmRawMessage(b"a"), RtmImageMessage("id")):
            self.assertIs(as_message(message), message)

    def test_anything_else_is_refused_by_type(self) -> None:
        with self.assertRaisesRegex(TypeError, "not dict"):
            as_message({"text": "hi"})  # type: ignore[arg-type]
