"""The example is found as an installed plugin, makes thumbnails that fit, and refuses bad files."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rtm_sync_example_netpbm import NetpbmGenerator

from rtm_sync import Blob, CannotThumbnail, RtmClient, RtmImageMessage
from rtm_sync.plugins import plugin_manager
from rtm_sync.testing import RtmTestCase, ThumbnailContract
from rtm_sync.testing.pictures import quarters

PATIENCE = 10.0
PPM = "image/x-portable-pixmap"


def picture(width: int, height: int, pixels: bytes) -> Blob:
    header = b"P6\n%d %d\n255\n" % (width, height)
    return Blob.from_bytes(header + pixels, name="picture.ppm", content_type=PPM)


class ContractTest(ThumbnailContract, RtmTestCase):
    generator_class = NetpbmGenerator

    def samples(self) -> Mapping[str, bytes]:
        return {PPM: b"P6 600 400 255\n" + quarters(600, 400).tobytes()}

    def more_hostile(self) -> Mapping[str, tuple[str, bytes]]:
        return {"a header that promises": (PPM, b"P6 99999 99999 255\n" + bytes(1_000_000))}

    def test_colours_stay_where_they_are(self) -> None:
        self.assert_quarters(self.made(self.samples()[PPM], PPM))


class NetpbmTest(RtmTestCase):
    def setUp(self) -> None:
        found = plugin_manager.thumbnail_generators()
        (self.generator,) = [generator for generator in found if generator.name == "netpbm"]

    def test_an_upload_gets_its_preview_from_the_installed_plugin(self) -> None:
        blob = picture(640, 480, b"\xff\x80\x00" * (640 * 480))
        with RtmClient("example") as client:
            client.login("alice")
            upload = client.create_media_message_by_uploading(
                blob, message_type="IMAGE", thumbnail="auto"
            )
            message = upload.result(PATIENCE)
        assert isinstance(message, RtmImageMessage)
        preview = Blob.from_bytes(message.thumbnail)
        self.assertEqual(preview.dimensions(), (214, 160))
        self.assertEqual((message.thumbnail_width, message.thumbnail_height), (214, 160))

    def test_what_compresses_badly_gets_smaller_until_it_fits(self) -> None:
        blob = picture(300, 200, os.urandom(300 * 200 * 3))
        for room in (20_000, 2_000, 100):
            made = self.generator.generate(blob, room)
            self.assertLessEqual(len(made.data), room)
            self.assertEqual(Blob.from_bytes(made.data).dimensions(), (made.width, made.height))

    def test_bad_pictures_are_refused_with_the_reason(self) -> None:
        for blob, why in (
            (picture(10, 10, b"\0" * 299), "cut off"),
            (picture(0, 10, b""), "0 x 10 pixels"),
            (picture(99_999, 99_999, b""), "99,999 x 99,999"),
            (Blob.from_bytes(b"P3 1 1 255 0 0 0", content_type=PPM), "not a binary PPM"),
            (Blob.from_bytes(b"\x89PNG", content_type=PPM), "not a binary PPM"),
            (picture(1, 1, b"\0\0\0"), "fits 10 bytes"),
        ):
            with self.subTest(why), self.assertRaisesRegex(CannotThumbnail, why):
                self.generator.generate(blob, 10)
