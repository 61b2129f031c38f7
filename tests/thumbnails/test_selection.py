"""Thumbnails of uploads: the choice of their generator, their size limit, and their errors."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

from rtm_sync import (
    Blob,
    CannotThumbnail,
    RtmClient,
    RtmFileMessage,
    RtmImageMessage,
    Thumbnail,
    ThumbnailGenerator,
    UploadCancelled,
    UploadMediaError,
    hookimpl,
)
from rtm_sync.messages import MESSAGE_LIMIT
from rtm_sync.thumbnails.contract import ThumbnailSource
from tests.support import PATIENCE, RtmTestCase, wait_until

PNG = (  # the header of a picture of 640 × 480, up to its size
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (640).to_bytes(4, "big") + (480).to_bytes(4, "big")
) + b"\x08\x02\x00\x00\x00"


class Shrinker(ThumbnailGenerator):
    """A generator for PNG that calls a function of the test."""

    def __init__(self, name: str = "shrinker", priority: int = 200, made: Any = None) -> None:
        self.name = name
        self.priority = priority
        self.made = made or (lambda blob, room: Thumbnail(b"small", 40, 30, "image/png"))
        self.asked: list[tuple[str, int]] = []

    def can_handle(self, content_type: str) -> bool:
        return content_type == "image/png"

    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        self.asked.append((blob.name, max_bytes))
        made: Thumbnail = self.made(blob, max_bytes)
        return made

    @hookimpl
    def thumbnail(self) -> ThumbnailGenerator:
        return self


class ThumbnailTest(RtmTestCase):
    def client(self, *plugins: object, **options: Any) -> RtmClient:
        client = self.entered(RtmClient("thumbnails", plugins=plugins, **options))
        client.login("alice")
        return client

    def upload(
        self, client: RtmClient, thumbnail: ThumbnailSource | None, **options: Any
    ) -> RtmImageMessage:
        blob = Blob.from_bytes(PNG, name="cat.png", content_type="image/png")
        return client.create_media_message_by_uploading(
            blob, message_type="IMAGE", thumbnail=thumbnail, **options
        ).result(PATIENCE)

    def refused(self, reason: str, message: str, client: RtmClient, thumbnail: Any) -> None:
        with self.assertRaisesRegex(UploadMediaError, message) as caught:
            self.upload(client, thumbnail)
        self.assertEqual(caught.exception.reason, reason)


class GeneratorTest(ThumbnailTest):
    def test_auto_takes_the_capable_generator_of_the_highest_priority(self) -> None:
        best, low = Shrinker("best", 300), Shrinker("low", 200)
        message = self.upload(self.client(low, best), "auto")
        self.assertEqual(message.thumbnail, b"small")
        self.assertEqual((message.thumbnail_width, message.thumbnail_height), (40, 30))
        self.assertEqual((message.width, message.height), (640, 480))
        self.assertEqual((len(best.asked), len(low.asked)), (1, 0))

    def test_a_generator_is_asked_for_by_its_name(self) -> None:
        best, low = Shrinker("best", 300), Shrinker("low", 200)
        self.upload(self.client(low, best), "low")
        self.assertEqual((len(best.asked), len(low.asked)), (0, 1))

    def test_it_is_told_what_is_left_of_the_32_kb(self) -> None:
        shrinker = Shrinker()
        self.upload(self.client(shrinker), "auto", description="d" * 1000)
        self.assertEqual(shrinker.asked, [("cat.png", MESSAGE_LIMIT - 1000 - len("cat.png"))])

    def test_the_callers_sizes_win(self) -> None:
        message = self.upload(
            self.client(Shrinker()),
            "auto",
            width=1,
            height=2,
            thumbnail_width=3,
            thumbnail_height=4,
        )
        self.assertEqual((message.width, message.height), (1, 2))
        self.assertEqual((message.thumbnail_width, message.thumbnail_height), (3, 4))

    def test_it_tells_the_size_of_a_picture_whose_header_is_not_read(self) -> None:
        def made(blob: Blob, room: int) -> Thumbnail:
            return Thumbnail(b"small", 40, 30, "image/png", 4000, 3000)

        client = self.client(Shrinker(made=made))
        for data, size in ((b"\0\0\0\x20ftypheic", (4000, 3000)), (PNG, (640, 480))):
            blob = Blob.from_bytes(data, name="cat.heic", content_type="image/png")
            message = client.create_media_message_by_uploading(
                blob, message_type="IMAGE", thumbnail="auto"
            ).result(PATIENCE)
            self.assertEqual((message.width, message.height), size)
            self.assertEqual((message.thumbnail_width, message.thumbnail_height), (40, 30))

    def test_a_file_may_have_one_too(self) -> None:
        blob = Blob.from_bytes(PNG, name="cat.png", content_type="image/png")
        upload = self.client(Shrinker()).create_media_message_by_uploading(blob, thumbnail="auto")
        message = upload.result(PATIENCE)
        self.assertIsInstance(message, RtmFileMessage)
        self.assertEqual(message.thumbnail, b"small")

    def test_without_a_capable_one_auto_says_what_to_install(self) -> None:
        blob = Blob.from_bytes(b"x", name="x.zip", content_type="application/zip")
        client = self.client(Shrinker())
        with self.assertRaisesRegex(
            UploadMediaError, "application/zip; installed: .*shrinker.* pip install rtm-sync-pillow"
        ) as caught:
            client.create_media_message_by_uploading(blob, thumbnail="auto")
        self.assertEqual(caught.exception.reason, "INVALID_ARGUMENT")

    def test_an_unknown_name_says_which_are_installed(self) -> None:
        self.refused(
            "INVALID_ARGUMENT", "'nobody'; installed: .*shrinker", self.client(Shrinker()), "nobody"
        )

    def test_what_it_cannot_do_is_the_arguments_fault(self) -> None:
        def cannot(blob: Blob, room: int) -> Thumbnail:
            raise CannotThumbnail("The picture is damaged.")

        self.refused(
            "INVALID_ARGUMENT",
            "shrinker makes no thumbnail: The picture is damaged",
            self.client(Shrinker(made=cannot)),
            "auto",
        )

    def test_a_generator_that_breaks_or_makes_nonsense_is_named(self) -> None:
        shrinker = Shrinker(made=lambda blob, room: 1 / 0)
        client = self.client(shrinker)
        self.refused("FAILURE", "generator shrinker failed: ZeroDivisionError", client, "auto")
        textual: Any = "text"
        for nonsense in ("text", None, b"bytes", Thumbnail(textual, 1, 1, "image/png")):
            shrinker.made = lambda blob, room, answer=nonsense: answer
            with self.subTest(type(nonsense).__name__):
                self.refused("FAILURE", "shrinker failed: it returned a", client, "auto")

    def test_a_thumbnail_over_the_budget_is_not_sent(self) -> None:
        client = self.client(
            Shrinker(made=lambda blob, room: Thumbnail(b"t" * (room + 1), 1, 1, "image/png"))
        )
        self.refused("FAILURE", "has 32,762 bytes; at most 32,761 fit", client, "auto")

    def hanging(self, *, time_limit: float) -> tuple[Shrinker, threading.Event, threading.Event]:
        """A generator that hangs, the event of its call, and the event that ends the hang."""
        asked, gate = threading.Event(), threading.Event()
        self.addCleanup(gate.set)

        def hang(blob: Blob, room: int) -> Thumbnail:
            asked.set()
            gate.wait(PATIENCE)
            return Thumbnail(b"late", 1, 1, "image/png")

        shrinker = Shrinker(made=hang)
        shrinker.time_limit = time_limit
        return shrinker, asked, gate

    def test_a_generator_that_hangs_does_not_keep_its_transfer_from_being_cancelled(self) -> None:
        shrinker, asked, gate = self.hanging(time_limit=PATIENCE)
        blob = Blob.from_bytes(PNG, name="cat.png", content_type="image/png")
        upload = self.client(shrinker).create_media_message_by_uploading(blob, thumbnail="auto")
        self.assertTrue(asked.wait(PATIENCE))
        upload.cancel()
        with self.assertRaises(UploadCancelled):
            upload.result(1)
        gate.set()

    def test_a_generator_that_hangs_is_given_up_and_left_alone_until_it_is_back(self) -> None:
        shrinker, _, gate = self.hanging(time_limit=0.05)
        client = self.client(shrinker)
        self.refused("FAILURE", "shrinker failed: .* not done within 0.05 s", client, "auto")
        self.refused("FAILURE", "failed: an earlier call of it still hangs", client, "auto")
        self.assertEqual(len(shrinker.asked), 1)
        gate.set()
        shrinker.time_limit = PATIENCE
        wait_until(lambda: "rtm-sync-thumbnail" not in {t.name for t in threading.enumerate()})
        self.assertEqual(self.upload(client, "auto").thumbnail, b"late")

    def test_one_that_hangs_costs_an_automatic_thumbnail_and_not_the_upload(self) -> None:
        shrinker, _, gate = self.hanging(time_limit=0.05)
        client = self.client(shrinker, auto_thumbnails=True)
        with self.assertLogs("rtm_sync.transfers.upload", "WARNING") as logged:
            self.assertEqual(self.upload(client, None).thumbnail, b"")
        self.assertIn("shrinker", logged.output[0])
        gate.set()

    def test_one_that_breaks_costs_an_automatic_thumbnail_and_not_the_upload(self) -> None:
        client = self.client(Shrinker(made=lambda blob, room: 1 / 0), auto_thumbnails=True)
        with self.assertLogs("rtm_sync.transfers.upload", "WARNING") as logged:
            self.assertEqual(self.upload(client, None).thumbnail, b"")
        self.assertIn("ZeroDivisionError", logged.output[0])

    def test_generators_run_on_threads_of_their_own_and_under_no_lock_of_ours(self) -> None:
        """Each generator uploads with another client during its call."""
        threads: list[str] = []

        def busy(blob: Blob, room: int) -> Thumbnail:
            threads.append(threading.current_thread().name)
            if blob.name == "cat.png":
                inner = client.create_media_message_by_uploading(
                    Blob.from_bytes(PNG, name="inner.png", content_type="image/png"),
                    thumbnail="auto",
                )
                return Thumbnail(inner.result(PATIENCE).thumbnail, 1, 1, "image/png")
            return Thumbnail(b"inner", 1, 1, "image/png")

        client = self.client(Shrinker(made=busy))
        self.assertEqual(self.upload(client, "auto").thumbnail, b"inner")
        self.assertEqual(threads, ["rtm-sync-thumbnail"] * 2)

    def test_auto_thumbnails_are_made_where_a_generator_can_and_silently_not_elsewhere(
        self,
    ) -> None:
        def cannot(blob: Blob, room: int) -> Thumbnail:
            raise CannotThumbnail("The picture is damaged.")

        with_one = self.client(Shrinker(), auto_thumbnails=True)
        self.assertEqual(self.upload(with_one, None).thumbnail, b"small")
        zipped = with_one.create_media_message_by_uploading(b"x", file_name="x.zip")
        self.assertEqual(zipped.result(PATIENCE).thumbnail, b"")
        with_one.logout()
        damaged = self.client(Shrinker(made=cannot), auto_thumbnails=True)
        self.assertEqual(self.upload(damaged, None).thumbnail, b"")


class GivenTest(ThumbnailTest):
    def test_a_callable_that_breaks_is_named(self) -> None:
        def preview(blob: Blob, room: int) -> bytes:
            raise KeyError("colour")

        self.refused("FAILURE", "preview failed: KeyError: 'colour'", self.client(), preview)

    def test_bytes_a_path_and_a_callable_are_thumbnails_as_well(self) -> None:
        path = self.folder() / "small.png"
        path.write_bytes(PNG)
        client = self.client()
        given: tuple[ThumbnailSource, ...] = (PNG, Path(path), lambda blob, room: PNG)
        for thumbnail in given:
            with self.subTest(type(thumbnail).__name__):
                message = self.upload(client, thumbnail)
                self.assertEqual(message.thumbnail, PNG)
                # The size comes from the thumbnail's header.
                self.assertEqual((message.thumbnail_width, message.thumbnail_height), (640, 480))

    def test_one_byte_too_many_is_refused_before_anything_is_sent(self) -> None:
        room = MESSAGE_LIMIT - len("cat.png")
        client = self.client()
        self.assertEqual(len(self.upload(client, b"t" * room).thumbnail), room)
        self.refused(
            "INVALID_ARGUMENT", "is 32,769 bytes; the limit is 32,768", client, b"t" * (room + 1)
        )


class SameThingsTest(ThumbnailTest):
    """Every call that takes a thumbnail takes the same things."""

    def test_uploads_and_messages_take_the_same(self) -> None:
        client = self.client()
        path = self.folder() / "small.png"
        path.write_bytes(PNG)
        with path.open("rb") as file:
            for given in (
                PNG,
                bytearray(PNG),
                memoryview(PNG),
                path,
                file,
                io.BytesIO(PNG),
                Blob.from_bytes(PNG),
                Thumbnail(PNG, 640, 480, "image/png"),
            ):
                made = client.create_message(media_id="id", message_type="IMAGE", thumbnail=given)
                if hasattr(given, "seek"):
                    given.seek(0)
                for message in (made, self.upload(client, given)):
                    with self.subTest(type(given).__name__):
                        assert isinstance(message, RtmImageMessage)
                        self.assertEqual(message.thumbnail, PNG)
                        size = (message.thumbnail_width, message.thumbnail_height)
                        self.assertEqual(size, (640, 480))

    def test_a_callable_may_return_the_same(self) -> None:
        client = self.client()
        path = self.folder() / "small.png"
        path.write_bytes(PNG)
        for made in (PNG, bytearray(PNG), path, Blob.from_bytes(PNG), io.BytesIO(PNG)):
            with self.subTest(type(made).__name__):
                message = self.upload(client, lambda blob, room, made=made: made)
                self.assertEqual((message.thumbnail, message.thumbnail_width), (PNG, 640))

    def test_a_message_without_an_upload_cannot_have_one_made(self) -> None:
        client = self.client()
        for given, words in (
            ("auto", "not the name 'auto', which makes one of the content of an upload"),
            (lambda blob, room: PNG, "not a callable, which makes one"),
            (7, "not int"),
        ):
            with self.assertRaisesRegex(TypeError, words):
                client.create_message(media_id="id", thumbnail=given)
        self.assertEqual(client.create_message(media_id="id", thumbnail=None), RtmFileMessage("id"))

    def test_one_that_is_too_large_is_refused_before_it_is_read(self) -> None:
        path = self.folder() / "large.png"
        path.write_bytes(PNG + bytes(MESSAGE_LIMIT))
        client = self.client()
        with self.assertRaisesRegex(ValueError, r"thumbnail is 32,7\d\d bytes"):
            client.create_message(media_id="id", thumbnail=path)
        self.refused("INVALID_ARGUMENT", r"thumbnail is 32,7\d\d bytes", client, path)
