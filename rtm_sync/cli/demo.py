"""`rtm-sync demo`: the main use from login to checksum, one step on each line."""

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

_STEP_TIMEOUT = 30.0  # seconds


class DemoFailed(Exception):
    """A step did not have the expected result."""


def run_demo(photo: Path | None, transport: str, output: Output) -> None:
    """Run the demo, and print a result for each step.

    Args:
        photo: the picture to send; None makes one.
        transport: "gateway" or "memory".
        output: the command's output.

    Raises:
        DemoFailed: a step did not have the expected result; the message names the step.
        OSError: there is no space for temporary files.
        ImportError: Pillow, which makes the photo, is missing.
    """
    demo = _Demo(output)
    with tempfile.TemporaryDirectory(prefix="rtm-sync-demo-") as name:
        folder = Path(name)
        photo = photo or _make_photo(folder, demo)
        with _hub(transport, folder, demo) as url:
            demo.run(url, photo, folder)
    output.result({"worked": True}, "All steps worked.")


@contextlib.contextmanager
def _hub(transport: str, folder: Path, demo: _Demo) -> Iterator[str]:
    if transport == "memory":
        yield "memory://demo"
        return
    from ..gateway.app import BackgroundGateway
    from ..gateway.config import GatewayConfig

    with demo.step("start a gateway") as note:
        gateway = BackgroundGateway(GatewayConfig(port=0, data=str(folder / "data"))).start()
        note(gateway.url)
    try:
        yield gateway.url
    finally:
        gateway.stop()


class _Demo:
    """Runs the steps, and prints each step with its result and its time."""

    def __init__(self, output: Output) -> None:
        self._output = output

    @contextlib.contextmanager
    def step(self, action: str) -> Iterator[_Note]:
        """Run a block as one step, and print it when it is done.

        Args:
            action: a verb with its object; in errors it follows "Could not".
        """
        note = _Note()
        start = time.perf_counter()
        try:
            yield note
        except FutureTimeoutError as error:  # an OSError since 3.11
            raise DemoFailed(f"Could not {action} within {_STEP_TIMEOUT:g} seconds.") from error
        except (DemoFailed, RtmError, OSError) as error:
            raise DemoFailed(f"Could not {action}: {error}") from error
        milliseconds = 1000 * (time.perf_counter() - start)
        self._output.result(
            {"step": action, "result": note.text, "milliseconds": round(milliseconds, 1)},
            f"{milliseconds:8.1f} ms  {action}: {note.text}",
        )

    def run(self, url: str, photo: Path, folder: Path) -> None:
        """Run all steps with two clients of the hub at `url`."""
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
                    ).result(_STEP_TIMEOUT)
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
            received = next(arriving.until(_STEP_TIMEOUT), None)
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
                received = next(arriving.until(_STEP_TIMEOUT), None)
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
            ).result(_STEP_TIMEOUT)
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
                upload.result(_STEP_TIMEOUT)
            except TransferCancelled as error:
                sent = upload.progress.current_size
                note(f"{error.code.name} after {sent:,} bytes")
            else:
                raise DemoFailed("the upload was not cancelled")


class _Note:
    """The result of a step, as text."""

    def __init__(self) -> None:
        self.text = "done"

    def __call__(self, text: str) -> None:
        self.text = text


def _require(condition: bool, failure: str) -> None:
    if not condition:
        raise DemoFailed(failure)


def _make_photo(folder: Path, demo: _Demo) -> Path:
    """A JPEG that looks like a photograph: sky, hills, sun, and grain that makes it large."""
    try:
        from PIL import Image, ImageChops, ImageDraw
    except ImportError as error:
        raise ImportError(
            "Making a photo needs Pillow: pip install rtm-sync[thumbnails]. Or pass a PHOTO."
        ) from error
    with demo.step("make a photo") as note:
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
