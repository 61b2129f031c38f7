"""A user sends a real photograph with its thumbnail to another user, over both transports."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import rtm_sync_pillow
from PIL import Image, ImageChops, ImageStat

from rtm_sync import RtmClient, RtmImageMessage
from rtm_sync.testing import RtmTestCase, local_gateway

CAT = Path(__file__).parents[3] / "tests/data/cat.jpg"
PATIENCE = 10.0
SIDEWAYS = 6  # EXIF orientation of a camera that was held sideways


class EndToEndTest(RtmTestCase):
    def sideways_cat(self) -> Path:
        """The photograph as a phone that is held upright stores it."""
        path = self.folder() / "cat.jpg"
        exif = Image.Exif()
        exif[0x0112] = SIDEWAYS
        with Image.open(CAT) as cat:
            cat.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
        return path

    def received(self, url: str, photo: Path) -> tuple[RtmImageMessage, bytes]:
        with contextlib.ExitStack() as stack:
            alice, bob = (
                stack.enter_context(RtmClient("photos", url=url, plugins=(rtm_sync_pillow,)))
                for _ in range(2)
            )
            alice.login("alice")
            bob.login("bob")
            with bob.events("MessageFromPeer") as arriving:
                upload = alice.create_media_message_by_uploading(
                    photo, message_type="IMAGE", thumbnail="auto"
                )
                sent = alice.send_message_to_peer(upload.result(PATIENCE), "bob")
                self.assertTrue(sent.has_peer_received)
                message, uid, _ = next(arriving.until(PATIENCE)).args
            self.assertEqual(uid, "alice")
            assert isinstance(message, RtmImageMessage)
            return message, bob.download_media(message.media_id).result(PATIENCE).to_bytes()

    def test_the_other_user_sees_the_cat_upright_and_gets_its_very_bytes(self) -> None:
        photo = self.sideways_cat()
        with Image.open(CAT) as cat:
            upright = cat.convert("RGB")
        for url in ("memory://", self.entered(local_gateway())):
            with self.subTest(url.partition(":")[0]):
                message, data = self.received(url, photo)
                self.assertEqual(data, photo.read_bytes())
                self.assertEqual((message.width, message.height), upright.size)
                with Image.open(io.BytesIO(message.thumbnail)) as preview:
                    self.assertEqual(preview.size, upright.size)
                    self.assertEqual(
                        preview.size, (message.thumbnail_width, message.thumbnail_height)
                    )
                    difference = ImageChops.difference(preview.convert("RGB"), upright)
                self.assertLess(max(ImageStat.Stat(difference).mean), 10)
