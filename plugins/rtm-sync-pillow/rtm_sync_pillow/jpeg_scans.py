"""The cost of decoding a JPEG, read from its markers without decoding it.

The number of pixels does not show the cost. A baseline JPEG is decoded in bands and shrunk at the
same time, so 120 megapixels cost little. A progressive JPEG keeps all coefficients of the picture
in memory, and each scan, even one of a hundred bytes, walks over all of them. So a small file can
take hours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # those are DHT, JPG and DAC
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_NEXT_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # not stuffing, fill or a restart

_BLOCK_BYTES = 64 * 2  # an 8×8 block's coefficients, two bytes each


@dataclass(frozen=True, slots=True)
class JpegScans:
    """The cost of one JPEG.

    Attributes:
        scans: the number of scans of the picture; counted to just above the limit.
        buffered_bytes: bytes of coefficients that the decoder keeps in memory; 0 when it decodes in
            bands.
        steps: the number of markers, and of junk bytes between the markers before the first scan.
            Pillow handles each of them in Python, a million in a second.
    """

    scans: int
    buffered_bytes: int
    steps: int


def read_jpeg_scans(data: bytes, max_scans: int, max_steps: int) -> JpegScans:
    """Read the markers of the first picture in `data`, until its end or above a limit.

    Damaged markers end the reading; the decoder will raise its own error for them.
    """
    scans = steps = 0
    components = 0
    buffered_bytes = 0
    buffered = False
    position = 2  # after the start-of-image marker
    while scans <= max_scans and steps <= max_steps:
        match = _NEXT_MARKER.search(data, position)
        after = match.end() if match else len(data)
        steps += 1 if scans else 1 + max(0, after - position - 2)
        if match is None:
            break
        marker, position = match[1][0], after
        if marker == _END_OF_IMAGE:
            break
        segment = data[position + 2 : position + 2 + _length(data, position)]
        if marker in _START_OF_FRAME and len(segment) >= 6:
            components = segment[5]
            buffered = buffered or marker in _PROGRESSIVE
            buffered_bytes = max(buffered_bytes, _coefficient_bytes(segment))
        elif marker == _START_OF_SCAN and segment:
            scans += 1
            buffered = buffered or segment[0] < components
        position += len(segment) + 2
    return JpegScans(scans, buffered_bytes if buffered else 0, steps)


def _length(data: bytes, position: int) -> int:
    """The number of bytes in the segment at `position`, without its two length bytes."""
    return max(0, int.from_bytes(data[position : position + 2], "big") - 2)


def _coefficient_bytes(frame: bytes) -> int:
    """Bytes of memory for all coefficients of the frame of a start-of-frame segment."""
    height = int.from_bytes(frame[1:3], "big")
    width = int.from_bytes(frame[3:5], "big")
    sampling = [(code >> 4, code & 15) for code in frame[7 : 6 + 3 * frame[5] : 3]]
    widest = max((across for across, _ in sampling), default=0) or 1
    tallest = max((down for _, down in sampling), default=0) or 1
    units = -(-width // (8 * widest)) * -(-height // (8 * tallest))
    blocks: int = units * sum(across * down for across, down in sampling)
    return blocks * _BLOCK_BYTES
