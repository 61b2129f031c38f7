"""First pages: the contract, and the special cases of PDF. The documents are written by hand."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping

import rtm_sync_pdf
from PIL import Image
from rtm_sync_pdf import PdfGenerator

from rtm_sync import CannotThumbnail, RtmClient, RtmFileMessage
from rtm_sync.testing import RtmTestCase, ThumbnailContract
from rtm_sync.testing.pictures import BLUE, GREEN, RED, WHITE, Colour

PATIENCE = 30.0
PDF = "application/pdf"


def fill(colour: Colour, x: int, y: int, width: int, height: int) -> bytes:
    """The operators that draw a rectangle; y increases upwards."""
    red, green, blue = (level / 255 for level in colour)
    return f"{red:.3f} {green:.3f} {blue:.3f} rg {x} {y} {width} {height} re f\n".encode()


QUARTERS = (
    fill(RED, 0, 200, 300, 200)
    + fill(GREEN, 300, 200, 300, 200)
    + fill(BLUE, 0, 0, 300, 200)
    + fill(WHITE, 300, 0, 300, 200)
)


def document(
    drawing: bytes = QUARTERS,
    page: bytes = b"/MediaBox [0 0 600 400]",
    more: tuple[bytes, ...] = (),
) -> bytes:
    """A PDF of one page; `more` are its objects from number 5 on."""
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R " + page + b" >>",
        stream(drawing),
        *more,
    )
    output = io.BytesIO()
    output.write(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(output.tell())
        output.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = output.tell()
    output.write(b"xref\n0 %d\n0000000000 65535 f \n" % (1 + len(objects)))
    output.writelines(b"%010d 00000 n \n" % place for place in places)
    output.write(b"trailer << /Size %d /Root 1 0 R >>\n" % (1 + len(objects)))
    output.write(b"startxref\n%d\n%%%%EOF\n" % start)
    return output.getvalue()


def stream(data: bytes, entries: bytes = b"") -> bytes:
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(data), entries, data)


def with_picture(side: int) -> bytes:
    """A page with a black picture of so many pixels on each side, which compresses well."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(side)) for _ in range(side)) + packer.flush()
    image = stream(
        packed,
        b"/Type /XObject /Subtype /Image /ColorSpace /DeviceGray /BitsPerComponent 8 "
        b"/Filter /FlateDecode /Width %d /Height %d" % (side, side),
    )
    page = b"/MediaBox [0 0 600 400] /Resources << /XObject << /X 5 0 R >> >>"
    return document(b"600 0 0 400 0 0 cm /X Do\n", page, (image,))


def calling_itself() -> bytes:
    """A page of forms, each of which draws the next a hundred times."""
    forms = tuple(
        stream(
            b"/F Do\n" * 100,
            b"/Type /XObject /Subtype /Form /BBox [0 0 600 400] "
            b"/Resources << /XObject << /F %d 0 R >> >>" % min(level + 1, 12),
        )
        for level in range(5, 13)
    )
    page = b"/MediaBox [0 0 600 400] /Resources << /XObject << /F 5 0 R >> >>"
    return document(b"/F Do\n", page, forms)


class PdfTest(ThumbnailContract, RtmTestCase):
    generator_class = PdfGenerator
    damaged = 30

    def samples(self) -> Mapping[str, bytes]:
        return {PDF: document()}

    def more_hostile(self) -> Mapping[str, tuple[str, bytes]]:
        bomb = zlib.compress(zlib.compress(bytes(300_000_000), 9), 9)
        unpacking = document(more=(stream(bomb, b"/Filter [/FlateDecode /FlateDecode]"),))
        return {
            "a picture of 400 megapixels": (PDF, with_picture(20_000)),
            "contents that unpack to 300 MB": (
                PDF,
                unpacking.replace(b"/Contents 4 0 R", b"/Contents 5 0 R"),
            ),
            "forms that draw each other for ever": (PDF, calling_itself()),
            "800,000 rectangles": (PDF, document(fill(RED, 0, 0, 600, 400) * 800_000)),
            "deep arrays": (PDF, document(page=b"/MediaBox " + b"[" * 1_000_000)),
            "a page of 1 × 100,000 points": (PDF, document(page=b"/MediaBox [0 0 1 100000]")),
            "a page of 100,000 × 1 points": (PDF, document(page=b"/MediaBox [0 0 100000 1]")),
            "a page larger than numbers go": (PDF, document(page=b"/MediaBox [0 0 1e38 1e38]")),
        }

    def test_the_first_page_is_shown(self) -> None:
        made = self.made(document(), PDF)
        self.assertEqual((made.width, made.height, made.content_type), (480, 320, "image/jpeg"))
        self.assert_quarters(made)

    def test_a_turned_page_is_upright(self) -> None:
        # The content is rotated by 90 degrees, and /Rotate rotates it back.
        page = b"/MediaBox [0 0 400 600] /Rotate 90"
        made = self.made(document(b"0 1 -1 0 400 0 cm\n" + QUARTERS, page), PDF)
        self.assertEqual((made.width, made.height), (480, 320))
        self.assert_quarters(made)

    def test_only_what_the_crop_box_leaves_is_shown(self) -> None:
        page = b"/MediaBox [0 0 1000 1000] /CropBox [0 0 600 400]"
        self.assert_quarters(self.made(document(page=page), PDF))

    def test_paper_is_white(self) -> None:
        shown = self.shown(self.made(document(b""), PDF)).convert("L")
        self.assertGreater(min(shown.getextrema()), 250)

    def test_letters_are_drawn(self) -> None:
        font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
        page = b"/MediaBox [0 0 600 400] /Resources << /Font << /F 5 0 R >> >>"
        text = b"BT /F 100 Tf 50 150 Td (Hello) Tj ET\n"
        shown = self.shown(self.made(document(text, page, (font,)), PDF)).convert("L")
        dark = sum(shown.histogram()[:100]) / (shown.width * shown.height)
        self.assertGreater(dark, 0.02)
        self.assertLess(dark, 0.3)

    def test_junk_before_the_document_is_passed_over(self) -> None:
        self.assert_quarters(self.made(b"\r\n" * 100 + document(), PDF))

    def test_the_reason_of_a_refusal_is_told(self) -> None:
        no_pages = document().replace(b"/Kids [3 0 R] /Count 1", b"/Kids [     ] /Count 0")
        for data, why in (
            (b"hello " * 100, "does not begin like a PDF"),
            (b"%PDF-1.7\n" + bytes(1000), "is damaged: "),
            (no_pages, "is damaged: "),
            (locked(), "locked by a password"),
        ):
            with self.subTest(why), self.assertRaisesRegex(CannotThumbnail, why):
                self.made(data, PDF)

    def test_a_file_message_gets_its_first_page(self) -> None:
        path = self.folder() / "report.pdf"
        path.write_bytes(document())
        with RtmClient("example", plugins=[rtm_sync_pdf]) as client:
            client.login("alice")
            message = client.create_media_message_by_uploading(path, thumbnail="pdf").result(
                PATIENCE
            )
        assert isinstance(message, RtmFileMessage)
        with Image.open(io.BytesIO(message.thumbnail)) as page:
            self.assertEqual((page.format, page.size), ("JPEG", (480, 320)))


def locked() -> bytes:
    """A document whose user password is not empty (security handler 2, RC4)."""
    encryption = (
        b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <" + b"5a" * 32 + b"> /U <" + b"a5" * 32 + b"> >>"
    )
    data = document(more=(encryption,))
    return data.replace(b"/Root 1 0 R >>", b"/Root 1 0 R /Encrypt 5 0 R /ID [<00> <00>] >>")
