"""Frames of videos: the contract, and the special cases of video. PyAV makes the videos."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction

import av
import rtm_sync_video
from PIL import Image
from rtm_sync_video import VideoGenerator

from rtm_sync import CannotThumbnail, RtmClient, RtmFileMessage
from rtm_sync.testing import RtmTestCase, ThumbnailContract
from rtm_sync.testing.pictures import quarters

PATIENCE = 30.0
IDENTITY = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
QUIETLY = {"libx265": {"x265-params": "log-level=none"}, "libaom-av1": {"cpu-used": "8"}}
# The matrices that phones write, by the degrees of clockwise rotation.
TURNS = {
    90: struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000),
    180: struct.pack(">9i", -0x10000, 0, 0, 0, -0x10000, 0, 0, 0, 0x40000000),
    270: struct.pack(">9i", 0, -0x10000, 0, 0x10000, 0, 0, 0, 0, 0x40000000),
}


def film(
    frames: Sequence[Image.Image], container: str = "mp4", codec: str = "libx264", shape: int = 1
) -> bytes:
    """A video of ten frames a second, which all are key frames."""
    output = io.BytesIO()
    with av.open(output, "w", format=container) as file:
        stream = file.add_stream(codec, rate=10, options=QUIETLY.get(codec, {}))
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 1
        stream.codec_context.sample_aspect_ratio = Fraction(shape)
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_image(frame)))
        file.mux(stream.encode())
    return output.getvalue()


def sound() -> bytes:
    output = io.BytesIO()
    with av.open(output, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        frame.sample_rate = 44_100
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return output.getvalue()


def claiming(side: int) -> bytes:
    """A WebM whose header claims so many pixels on each side, at most 16,383."""
    data = film([quarters()], "webm", "libvpx")
    at = data.index(b"\x9d\x01\x2a") + 3  # the key frame's width and height
    return data[:at] + struct.pack("<HH", side, side) + data[at + 4 :]


class VideoTest(ThumbnailContract, RtmTestCase):
    generator_class = VideoGenerator
    damaged = 12

    def samples(self) -> Mapping[str, bytes]:
        return {
            "video/mp4": film([quarters()]),
            "video/webm": film([quarters()], "webm", "libvpx"),
        }

    def more_hostile(self) -> Mapping[str, tuple[str, bytes]]:
        boxes = struct.pack(">I4s", 8, b"free") * 3_000_000
        nested = b"".join(
            struct.pack(">I4s", 8 * (100_000 - level), b"moov") for level in range(100_000)
        )
        return {
            "a film that claims 16,383 × 16,383": ("video/webm", claiming(16_383)),
            "a film that claims 5,700 × 5,700": ("video/webm", claiming(5_700)),
            "an MP4 of three million boxes": ("video/mp4", boxes),
            "an MP4 whose boxes are nested": ("video/mp4", nested),
            "a film of 8K": ("video/mp4", film([Image.new("RGB", (7680, 4320))], codec="mpeg4")),
            "a film of 2 × 4,000 pixels": (
                "video/x-matroska",
                film([Image.new("RGB", (2, 4_000))], "matroska", "mpeg4"),
            ),
            "a playlist": ("video/mp4", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"),
        }

    def test_common_containers_and_codecs_keep_their_colours(self) -> None:
        for content_type, container, codec in (
            ("video/mp4", "mp4", "libx264"),
            ("video/mp4", "mp4", "libx265"),
            ("video/mp4", "mp4", "libaom-av1"),
            ("video/quicktime", "mov", "mpeg4"),
            ("video/webm", "webm", "libvpx"),
            ("video/webm", "webm", "libvpx-vp9"),
            ("video/x-matroska", "matroska", "libx264"),
        ):
            if codec not in av.codecs_available:
                continue
            with self.subTest(content_type, codec=codec):
                made = self.made(film([quarters()] * 3, container, codec), content_type)
                self.assertEqual((made.width, made.height), (480, 320))
                self.assert_quarters(made)

    def test_turned_films_are_upright(self) -> None:
        for degrees, matrix in TURNS.items():
            with self.subTest(degrees):
                stored = quarters().rotate(degrees, expand=True)  # counter-clockwise
                data = film([stored])
                self.assertEqual(data.count(IDENTITY), 2)
                film_s, track_s = data.index(IDENTITY), data.rindex(IDENTITY)
                self.assertLess(film_s, track_s)
                turned = data[:track_s] + matrix + data[track_s + len(matrix) :]
                made = self.made(turned, "video/mp4")
                self.assertEqual((made.width, made.height), (480, 320))
                self.assert_quarters(made)

    def test_a_film_that_begins_in_the_dark_is_shown_further_on(self) -> None:
        dark = Image.new("RGB", (600, 400))
        self.assert_quarters(self.made(film([dark] * 2 + [quarters()] * 18), "video/mp4"))
        self.assert_quarters(self.made(film([dark] * 5 + [quarters()] * 15), "video/mp4"))

    def test_a_film_of_nothing_but_darkness_is_dark(self) -> None:
        made = self.made(film([Image.new("RGB", (600, 400))] * 10), "video/mp4")
        self.assertLess(max(self.shown(made).convert("L").getextrema()), 20)

    def test_pixels_that_are_not_square_are_stretched(self) -> None:
        narrow = quarters().resize((300, 400))
        made = self.made(film([narrow], shape=2), "video/mp4")
        self.assertEqual((made.width, made.height), (480, 320))
        self.assert_quarters(made)

    def test_a_small_film_is_not_enlarged(self) -> None:
        made = self.made(film([quarters(90, 60)]), "video/mp4")
        self.assertEqual((made.width, made.height), (90, 60))

    def test_the_reason_of_a_refusal_is_told(self) -> None:
        avi = film([quarters()], "avi", "mpeg4")
        for data, why in (
            (sound(), "no video stream, only sound"),
            (avi, "does not begin like a video that we read"),
            (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "does not begin like a video"),
        ):
            with self.subTest(why), self.assertRaisesRegex(CannotThumbnail, why):
                self.made(data, "video/mp4")

    def test_a_file_message_gets_its_poster(self) -> None:
        path = self.folder() / "film.mp4"
        path.write_bytes(film([quarters()] * 10))
        with RtmClient("example", plugins=[rtm_sync_video]) as client:
            client.login("alice")
            message = client.create_media_message_by_uploading(path, thumbnail="video").result(
                PATIENCE
            )
        assert isinstance(message, RtmFileMessage)
        with Image.open(io.BytesIO(message.thumbnail)) as poster:
            self.assertEqual((poster.format, poster.size), ("JPEG", (480, 320)))
