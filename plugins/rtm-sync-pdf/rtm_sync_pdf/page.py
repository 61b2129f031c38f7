"""A decoder of PDF, which `rtm_sync.thumbnails.subprocess` runs in a separate process."""

from __future__ import annotations

import math

import pypdfium2

OVERSAMPLING = 2  # small letters look better when they are drawn larger and then shrunk
_MARKER, _MARKER_WITHIN = b"%PDF-", 1024  # readers accept up to 1,024 bytes of junk before it


def decode(content: bytes, side: int) -> tuple[int, int, bytes]:
    """Width, height and RGB bytes of the first page, `OVERSAMPLING` times as large as `side`.

    Raises:
        ValueError: the content is not a PDF, is damaged or has no pages, or is locked. The message
            says which.
    """
    if _MARKER not in content[:_MARKER_WITHIN]:
        raise ValueError("It does not begin like a PDF")
    try:
        document = pypdfium2.PdfDocument(content)
        document.init_forms()
        page = document[0]
    except pypdfium2.PdfiumError as error:
        if "password" in f"{error}".lower():
            raise ValueError("It is locked by a password") from error
        raise ValueError(f"It is damaged: {error}") from error
    width, height = page.get_size()
    longest = max(width, height)
    if not (math.isfinite(longest) and min(width, height) > 0):
        raise ValueError(f"Its first page claims {width:g} × {height:g} points")
    drawn = page.render(scale=OVERSAMPLING * side / longest, rev_byteorder=True)
    # The rows of the bitmap may have padding at their ends.
    data, row = bytes(drawn.buffer), 3 * drawn.width
    starts = range(0, drawn.height * drawn.stride, drawn.stride)
    return drawn.width, drawn.height, b"".join(data[start : start + row] for start in starts)
