"""Thumbnails by libvips: the contract, and the special cases of libvips."""

from __future__ import annotations

import io
import subprocess
import sys

import pyvips
import rtm_sync_vips
from PIL import Image
from rtm_sync_vips import VipsGenerator

from rtm_sync import CannotThumbnail, RtmClient, RtmImageMessage
from rtm_sync.testing import RtmTestCase, ThumbnailContract
from rtm_sync.testing.pictures import encoded, photograph, png_of

PATIENCE = 30.0


class VipsTest(ThumbnailContract, RtmTestCase):
    generator_class = VipsGenerator

    def test_an_upload_gets_its_preview_from_it(self) -> None:
        photo = encoded(photograph(1600, 1200), "JPEG")
        with RtmClient("example", plugins=[rtm_sync_vips]) as client:
            client.login("alice")
            message = client.create_media_message_by_uploading(
                photo, file_name="photo.jpg", message_type="IMAGE", thumbnail="vips"
            ).result(PATIENCE)
        assert isinstance(message, RtmImageMessage)
        with Image.open(io.BytesIO(message.thumbnail)) as preview:
            self.assertEqual(preview.size, (480, 360))

    def test_it_is_asked_before_pillow(self) -> None:
        self.assertGreater(VipsGenerator.priority, 100)

    def test_formats_that_libvips_reads_by_other_libraries_are_refused(self) -> None:
        svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
        self.assertTrue(pyvips.Image.new_from_buffer(svg, "").width)  # libvips itself reads it
        for data in (svg, b"%PDF-1.7\n", b"8BPS\0\1", b"P6 1 1 255 abc"):
            with self.assertRaisesRegex(CannotThumbnail, "does not begin like a picture"):
                self.made(data, "image/png")

    def test_what_is_decoded_as_a_whole_has_a_smaller_limit(self) -> None:
        whole = png_of(8_000, 8_000)
        self.assertEqual(self.made(whole, "image/png").width, 480)
        interlaced = whole[:28] + b"\1" + whole[29:]  # its checksum is not checked
        with self.assertRaisesRegex(CannotThumbnail, "takes 256,000,000 bytes to decode"):
            self.made(interlaced, "image/png")

    def test_memory_does_not_grow_with_use(self) -> None:
        script = """
import resource
from rtm_sync import Blob
from rtm_sync.testing.pictures import encoded, photograph
from rtm_sync_vips import VipsGenerator

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

photo = Blob.from_bytes(encoded(photograph(3000, 2000), "JPEG"))
for _ in range(10):
    VipsGenerator().generate(photo, 30_000)
before = peak()
for _ in range(40):
    VipsGenerator().generate(photo, 30_000)
print(peak() - before)
"""
        grown = int(subprocess.check_output([sys.executable, "-c", script], timeout=60))
        self.assertLess(grown, 50)
