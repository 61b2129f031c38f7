"""A decoder of video, which `rtm_sync.thumbnails.subprocess` runs in a separate process.

FFmpeg has formats that make it open other files and addresses (playlists). So FFmpeg gets only two
families of containers, recognised by their first bytes, and the process cannot open any more files.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from fractions import Fraction

import av
import av.subtitles.stream  # which av.open would import later, when nothing can be opened
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

MAX_PIXELS = 7680 * 4320  # 8K; a frame takes some hundred megabytes to decode
PLACES = (Fraction(1, 10), Fraction(1, 3))  # of the duration, tried when the first frame is plain
PLAIN = 6  # of 255 levels: a frame with a smaller range of grey levels is plain

_MAX_PACKETS = 300  # packets to read for a key frame, after a seek
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # first boxes of QuickTime


def decode(content: bytes, side: int) -> tuple[int, int, bytes]:
    """Width, height and RGB bytes of the frame that represents the video.

    Raises:
        ValueError: the content is not a known video format, is damaged or is too large. The message
            says which.
        MemoryError: decoding exceeds the memory limit.
    """
    kind = _container(content)
    with contextlib.suppress(ImportError):  # on Windows only FFmpeg's own whitelist protects
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    try:
        return _poster(content, kind, side)
    except MemoryError:
        raise
    except av.FFmpegError as error:
        raise ValueError(f"It is damaged: {error.strerror}") from error


def _poster(content: bytes, kind: str, side: int) -> tuple[int, int, bytes]:
    options = {"protocol_whitelist": ""}
    with av.open(io.BytesIO(content), format=kind, options=options) as container:
        if not container.streams.video:
            raise ValueError("It has no video stream, only sound")
        stream = container.streams.best("video")
        assert isinstance(stream, VideoStream)
        _check_size(stream.codec_context.width, stream.codec_context.height)
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # of each frame
        stream.codec_context.thread_count = 1  # each thread would keep its own frames
        first: VideoFrame | None = None
        for frame in _candidates(container, stream):
            first = first or frame
            if not _is_plain(frame):
                return _pixels(frame, stream, side)
        if first is None:
            raise ValueError("No frame of it can be decoded")
        return _pixels(first, stream, side)


def _container(content: bytes) -> str:
    """FFmpeg's name of the container format."""
    if content[4:8] in _BOXES:
        return "mov"
    if content.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    raise ValueError("It does not begin like a video that we read (MP4, QuickTime, WebM, Matroska)")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"It claims {width:,} × {height:,} pixels; the limit is {MAX_PIXELS:,} in all"
        )


def _candidates(
    container: av.container.InputContainer, stream: VideoStream
) -> Iterator[VideoFrame]:
    """The first frame, and then the key frames at `PLACES`."""
    frame = _next_frame(container, stream)
    if frame is None:
        return
    yield frame
    for place in PLACES:
        if not container.duration:
            return
        try:
            container.seek(int(container.duration * place))
            frame = _next_frame(container, stream)
        except (av.FFmpegError, ValueError):  # the first frame must suffice
            return
        if frame is not None:
            yield frame


def _next_frame(container: av.container.InputContainer, stream: VideoStream) -> VideoFrame | None:
    """The next frame that can be decoded; damaged frames before it are skipped."""
    failure: Exception | None = None
    for number, packet in enumerate(container.demux(stream)):
        if number > _MAX_PACKETS:
            break
        try:
            for frame in packet.decode():
                if isinstance(frame, VideoFrame):
                    _check_size(frame.width, frame.height)  # it may differ from the header
                    return frame
        except av.FFmpegError as error:
            failure = error
    if failure is not None:
        raise failure
    return None


def _is_plain(frame: VideoFrame) -> bool:
    """Whether the frame has only one colour, as before a video fades in."""
    levels = _rows(frame.reformat(32, 32, "gray"), 1)
    return max(levels) - min(levels) <= PLAIN


def _pixels(frame: VideoFrame, stream: VideoStream, side: int) -> tuple[int, int, bytes]:
    """The frame with square pixels, reduced to `side`, and rotated as the file says."""
    shape = float(stream.sample_aspect_ratio or 1)  # of a pixel
    if not 0.25 <= shape <= 4:  # certainly an error in the file
        shape = 1.0
    width, height = frame.width * max(shape, 1.0), frame.height / min(shape, 1.0)
    scale = min(1.0, side / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = frame.reformat(*size, "rgb24", interpolation="LANCZOS")
    return _turned(*size, _rows(small, 3), round(frame.rotation / 90) % 4)


def _rows(frame: VideoFrame, depth: int) -> bytes:
    """The bytes of a frame with one plane, without the padding of its lines."""
    plane = frame.planes[0]
    data, width = bytes(plane), frame.width * depth
    starts = range(0, frame.height * plane.line_size, plane.line_size)
    return b"".join(data[start : start + width] for start in starts)


def _turned(width: int, height: int, data: bytes, quarters: int) -> tuple[int, int, bytes]:
    """The picture rotated counter-clockwise by so many quarter turns."""
    for _ in range(quarters):
        rows = []
        for column in reversed(range(width)):  # each column, from the right, becomes a row
            row = bytearray(3 * height)
            for colour in range(3):
                row[colour::3] = data[3 * column + colour :: 3 * width]
            rows.append(row)
        data = b"".join(rows)
        width, height = height, width
    return width, height, data
