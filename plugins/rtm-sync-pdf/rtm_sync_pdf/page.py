"""A decoder of PDF, run by `rtm_sync.thumbnails.subprocess` in a process of its own."""

from __future__ import annotations

import math

import pypdfium2

OVERSAMPLING = 2  # small letters look better when they are drawn larger and shrunk
_MARKER, _MARKER_WITHIN = b"%PDF-", 1024  # where readers look for it, as junk may come first


def decode(content: bytes, side: int) -> tuple[int, int, bytes]:
    """Width, height and RGB bytes of the first page, `OVERSAMPLING` times as large as `side`.

    Raises:
        ValueError: not a PDF, damaged (a document without pages is, too) or locked; says which.
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
    # Rows of the bitmap may be longer than the picture is wide.
    data, row = bytes(drawn.buffer), 3 * drawn.width
    starts = range(0, drawn.height * drawn.stride, drawn.stride)
    return drawn.width, drawn.height, b"".join(data[start : start + row] for start in starts)
