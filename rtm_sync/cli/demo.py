"""`rtm-sync demo`: the main job from login to checksum, told step by step."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path

from ..blob import MEDIA_LIMIT, Blob
from ..client.client import RtmClient
from ..errors import PluginError, RtmError, TransferCancelled
from ..messages import RtmImageMessage
from ..transfers.control import MediaOperationProgress
from .output import Output

_SECONDS = 30.0


class DemoFailed(Exception):
    """A step did not do what it should."""


def run_demo(photo: Path | None, transport: str, output: Output) -> None:
    """Tell the story: every step is a result.

    Raises:
        DemoFailed: a step did not do what it should; the message says which, and why.
        OSError: there is no room for temporary files.
        ImportError: a library for making the photo is missing.
    """
    story = _Story(output)
    with tempfile.TemporaryDirectory(prefix="rtm-sync-demo-") as name:
        folder = Path(name)
        photo = photo or _make_photo(folder, story)
        with _hub(transport, folder, story) as url:
            story.tell(url, photo, folder)
    output.result({"worked": True}, "All of it worked.")


@contextlib.contextmanager
def _hub(transport: str, folder: Path, story: _Story) -> Iterator[str]:
    if transport == "memory":
        yield "memory://demo"
        return
    from ..gateway.app import BackgroundGateway
    from ..gateway.config import GatewayConfig

    with story.step("start a gateway") as note:
        gateway = BackgroundGateway(GatewayConfig(port=0, data=str(folder / "data"))).start()
        note(gateway.url)
    try:
        yield gateway.url
    finally:
        gateway.stop()


class _Story:
    """Runs the steps, and prints each with what came of it and how long it took."""

    def __init__(self, output: Output) -> None:
        self._output = output

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[_Note]:
        """One step: printed when it is done, with its time. `what` follows "could not"."""
        note = _Note()
        start = time.perf_counter()
        try:
            yield note
        except FutureTimeoutError as error:  # an OSError since 3.11
            raise DemoFailed(f"Could not {what} within {_SECONDS:g} seconds.") from error
        except (DemoFailed, RtmError, OSError) as error:
            raise DemoFailed(f"Could not {what}: {error}") from error
        milliseconds = 1000 * (time.perf_counter() - start)
        self._output.result(
            {"step": what, "result": note.text, "milliseconds": round(milliseconds, 1)},
            f"{milliseconds:8.1f} ms  {what}: {note.text}",
        )

    def tell(self, url: str, photo: Path, folder: Path) -> None:
        """The story, with clients at `url`."""
        with RtmClient("demo", url=url) as alice, RtmClient("demo", url=url) as bob:
            with self.step("log in") as note:
                alice.login("alice")
                bob.login("bob")
                note("alice and bob")
            message = self._upload(alice, photo)
            self._send_to_peer(alice, bob, message)
            self._send_to_channel(alice, bob, message)
            self._download(bob, message, photo, folder)
            self._cancel(alice)

    def _upload(self, alice: RtmClient, photo: Path) -> RtmImageMessage:
        thumbnail: str | None = "auto"
        with self.step("upload the photo") as note, self._output.bars() as bars:
            while True:
                try:
                    message = alice.create_media_message_by_uploading(
                        photo,
                        message_type="IMAGE",
                        description="sent by the demo",
                        thumbnail=thumbnail,
                        on_operation_progress=bars.of(photo.name),
                    ).result(_SECONDS)
                    break
                except RtmError as error:
                    if thumbnail is None or not isinstance(error.cause, PluginError):
                        raise
                    self._output.result(
                        {"step": "no thumbnail", "result": str(error.cause)},
                        f"             no thumbnail: {error.cause}",
                    )
                    thumbnail = None
            note(f"{message.size:,} bytes, {message.width} × {message.height}, {message.media_id}")
        if message.thumbnail:
            with self.step("look at its thumbnail") as note:
                size = f"{message.thumbnail_width} × {message.thumbnail_height}"
                note(f"{len(message.thumbnail):,} bytes, {size}")
        return message

    def _send_to_peer(self, alice: RtmClient, bob: RtmClient, message: RtmImageMessage) -> None:
        with self.step("send it to bob") as note, bob.events("MessageFromPeer") as arriving:
            result = alice.send_message_to_peer(message, "bob")
            received = next(arriving.until(_SECONDS), None)
            _require(result.has_peer_received, "bob did not confirm the message")
            _require(
                received is not None and received.args[:2] == (message, "alice"),
                "bob did not get the message as it was sent",
            )
            note("bob has it" + (", thumbnail and all" if message.thumbnail else ""))

    def _send_to_channel(self, alice: RtmClient, bob: RtmClient, message: RtmImageMessage) -> None:
        with self.step("send it to a channel") as note:
            theirs, ours = bob.create_channel("photos"), alice.create_channel("photos")
            theirs.join()
            ours.join()
            with theirs.events("ChannelMessage") as arriving:
                ours.send_message(message)
                received = next(arriving.until(_SECONDS), None)
            _require(
                received is not None and received.args[:2] == (message, "alice"),
                "the channel did not bring the message as it was sent",
            )
            note("bob has it from the channel photos")

    def _download(
        self, bob: RtmClient, message: RtmImageMessage, photo: Path, folder: Path
    ) -> None:
        with self.step("download it") as note, self._output.bars() as bars:
            copy = bob.download_media(
                message.media_id, to=folder / "copy", on_operation_progress=bars.of("copy")
            ).result(_SECONDS)
            note(f"{copy.stat().st_size:,} bytes")
        with self.step("compare checksums") as note:
            digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (photo, copy)}
            _require(len(digests) == 1, "the copy is not what was sent")
            note(f"the same bytes, sha256 {digests.pop()[:16]}…")

    def _cancel(self, alice: RtmClient) -> None:
        with self.step("cancel a large upload") as note:
            cancelled = threading.Event()

            def cancel(progress: MediaOperationProgress) -> None:
                cancelled.set()

            upload = alice.create_media_message_by_uploading(
                bytes(MEDIA_LIMIT), cancel_signal=cancelled, on_operation_progress=cancel
            )
            try:
                upload.result(_SECONDS)
            except TransferCancelled as error:
                sent = upload.progress.current_size
                note(f"{error.code.name} after {sent:,} bytes")
            else:
                raise DemoFailed("the upload was not cancelled")


class _Note:
    """What a step has to say."""

    def __init__(self) -> None:
        self.text = "done"

    def __call__(self, text: str) -> None:
        self.text = text


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise DemoFailed(otherwise)


def _make_photo(folder: Path, story: _Story) -> Path:
    """A photograph-like JPEG: a sky, hills, a sun, and the grain that makes photographs large."""
    try:
        from PIL import Image, ImageChops, ImageDraw
    except ImportError as error:
        raise ImportError(
            "Making a photo needs Pillow: pip install rtm-sync[thumbnails]; or pass a PHOTO."
        ) from error
    with story.step("make a photo") as note:
        width = 4000
        size = (width, 3000)
        sky = Image.linear_gradient("L").resize(size)
        picture = Image.merge(
            "RGB", (sky, sky.point(lambda v: 90 + v // 2), ImageChops.invert(sky))
        )
        draw = ImageDraw.Draw(picture)
        draw.ellipse((2700, 500, 3200, 1000), fill=(255, 236, 170))
        for number, colour in enumerate(((70, 110, 90), (50, 90, 60), (30, 60, 40))):
            top = 1500 + 400 * number
            for x in range(-800, width, 900):
                shift = 300 * number
                draw.ellipse((x + shift, top, x + shift + 1600, top + 2600), fill=colour)
        grain = Image.effect_noise(size, 24)
        picture = ImageChops.overlay(picture, Image.merge("RGB", (grain, grain, grain)))
        path = folder / "photo.jpg"
        picture.save(path, quality=90)
        note(f"{path.name}, {Blob.from_path(path).size:,} bytes")
    return path
