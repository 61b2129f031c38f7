"""The contract kits find what is wrong: back ends with one fault each fail them.

The kits of the engine's contracts have `test_engine_contracts.py`.
"""

from __future__ import annotations

import io
import unittest
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import jwt
from PIL import Image, ImageOps

from rtm_sync import Blob, CannotThumbnail, LoginError, Thumbnail, ThumbnailGenerator
from rtm_sync.hub.auth.tokens import Grant, JwtVerifier, TokenVerifier, make_token
from rtm_sync.hub.media.disk import DiskMediaStore
from rtm_sync.hub.media.store import Fragment, MediaStore, MediaWriter
from rtm_sync.testing import MediaStoreContract, ThumbnailContract
from rtm_sync.thumbnails.encoding import bare_type, best_fit, read_content
from tests.hub.auth.test_tokens import APP, SECRET, JwtCase
from tests.support import RtmTestCase


class _Store(DiskMediaStore):
    """The good one, to be spoilt."""


class _ShowsHalfBlobs(_Store):
    def open(self, media_id: str) -> BinaryIO:
        path = self._path(media_id)
        part = path.with_name(f"{path.name}.part")
        return (part if part.exists() else path).open("rb")


class _ForgetsToCut(_Store):
    def create(self, media_id: str, metadata: str) -> MediaWriter:
        writer = super().create(media_id, metadata)
        writer.truncate = lambda size: None  # type: ignore[method-assign]
        return writer


class _HoldsAllInMemory(_Store):
    def open(self, media_id: str) -> BinaryIO:
        with super().open(media_id) as file:
            return io.BytesIO(file.read())


class _DeletesNothing(_Store):
    def delete(self, media_id: str) -> None:
        self.open(media_id).close()


class _LosesNotes(_Store):
    def fragments(self) -> list[Fragment]:
        return [Fragment(one.media_id, "", one.size, one.is_whole) for one in super().fragments()]


class _MixesCases(_Store):
    def _path(self, media_id: str) -> Path:
        return super()._path(media_id.upper())


class _RaisesItsOwnErrors(_Store):
    def open(self, media_id: str) -> BinaryIO:
        try:
            return super().open(media_id)
        except OSError as error:
            raise KeyError(media_id) from error


class GoodGenerator(ThumbnailGenerator):
    """A plain one by Pillow, to be spoilt. (Public: the kit imports it by name.)"""

    name = "good"
    megapixels = 50.0

    def can_handle(self, content_type: str) -> bool:
        return bare_type(content_type) in ("image/jpeg", "image/png")

    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        try:
            picture = self.upright(self.opened(read_content(blob, 4_000_000)))
        except CannotThumbnail:
            raise
        except Exception as error:
            raise CannotThumbnail(f"damaged: {error}") from error
        alpha = picture.convert("RGBA").getchannel("A")
        shown = Image.new("RGB", picture.size, "white")
        shown.paste(picture.convert("RGB"), mask=alpha)

        def encode(side: int, quality: int) -> bytes:
            file = io.BytesIO()
            smaller = shown.copy()
            smaller.thumbnail((side, side))
            smaller.save(file, "JPEG", quality=quality)
            return file.getvalue()

        best = best_fit(encode, max(shown.size), max_bytes)
        with Image.open(io.BytesIO(best.data)) as made:
            return Thumbnail(best.data, *made.size, "image/jpeg")

    def opened(self, data: bytes) -> Image.Image:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(data), formats=["JPEG", "PNG"])
        if picture.width * picture.height > self.megapixels * 1_000_000:
            raise CannotThumbnail("It has too many pixels.")
        return picture

    def upright(self, picture: Image.Image) -> Image.Image:
        upright = ImageOps.exif_transpose(picture)
        return upright if upright.mode == "RGBA" else upright.convert("RGB")


class NeverTurns(GoodGenerator):
    def upright(self, picture: Image.Image) -> Image.Image:
        return picture.convert("RGB")


class OverTheBudget(GoodGenerator):
    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        return super().generate(blob, max(max_bytes, 2_000))


class RaisesWhatItMeets(GoodGenerator):
    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        try:
            return super().generate(blob, max_bytes)
        except CannotThumbnail as error:
            raise error.__cause__ or error from None


class DecodesAnything(GoodGenerator):
    megapixels = 500.0

    def opened(self, data: bytes) -> Image.Image:
        Image.MAX_IMAGE_PIXELS = None  # of the process that the kit starts for it
        return super().opened(data)


class BlackensTransparency(GoodGenerator):
    def upright(self, picture: Image.Image) -> Image.Image:
        return ImageOps.exif_transpose(picture).convert("RGB")


class MistakesItsSize(GoodGenerator):
    def generate(self, blob: Blob, max_bytes: int) -> Thumbnail:
        return replace(super().generate(blob, max_bytes), width=480, height=480)


class KnowsOneSpelling(GoodGenerator):
    def can_handle(self, content_type: str) -> bool:
        return content_type in ("image/jpeg", "image/png")


class AnybodysTokens(JwtVerifier):
    def verify(self, token: str, uid: str) -> Grant:
        claims = jwt.decode(token, options={"verify_signature": False})
        return super().verify(token, claims["sub"])


class UnsignedTokens(JwtVerifier):
    def verify(self, token: str, uid: str) -> Grant:
        claims = jwt.decode(token, options={"verify_signature": False})
        return super().verify(make_token(claims["app"], claims["sub"], SECRET), uid)


class TellsTheSecret(JwtVerifier):
    def verify(self, token: str, uid: str) -> Grant:
        try:
            return super().verify(token, uid)
        except LoginError as error:
            raise LoginError(error.code, f"{error.message} (not signed with {SECRET})") from None


class RaisesOtherErrors(JwtVerifier):
    def verify(self, token: str, uid: str) -> Grant:
        token.encode("ascii")
        return super().verify(token, uid)


def fails(case: type[unittest.TestCase], name: str) -> bool:
    """Whether that test of a case does."""
    result = unittest.TestResult()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a test that fails closes no files
        case(name).run(result)
    return not result.wasSuccessful()


def store_case(make: Callable[[Path], MediaStore]) -> type[unittest.TestCase]:
    class Case(MediaStoreContract, RtmTestCase):
        keeps_fragments = True
        memory_limit = 2 * 1024 * 1024

        def setUp(self) -> None:
            self.root = self.folder()

        def store(self) -> MediaStore:
            return make(self.root)

    return Case


class MediaStoreContractTest(unittest.TestCase):
    def test_each_fault_of_a_store_is_found(self) -> None:
        for faulty, name in (
            (_ShowsHalfBlobs, "test_a_partial_blob_is_never_seen"),
            (_ForgetsToCut, "test_what_was_cut_off_is_not_in_the_blob"),
            (_HoldsAllInMemory, "test_the_largest_blob_passes_in_bounded_memory"),
            (_DeletesNothing, "test_deleting_what_is_not_there_is_no_matter"),
            (_LosesNotes, "test_what_was_begun_is_known_after_a_restart_where_the_store_keeps_it"),
            (_MixesCases, "test_blobs_with_nearly_the_same_id_are_apart"),
            (_RaisesItsOwnErrors, "test_what_is_no_id_is_unknown"),
        ):
            with self.subTest(faulty.__name__):
                self.assertFalse(fails(store_case(_Store), name))
                self.assertTrue(fails(store_case(faulty), name))


def thumbnail_case(made: type[ThumbnailGenerator]) -> type[unittest.TestCase]:
    class Case(ThumbnailContract, RtmTestCase):
        generator_class = made

    return Case


class ThumbnailContractTest(unittest.TestCase):
    def test_each_fault_of_a_generator_is_found(self) -> None:
        for faulty, name in (
            (NeverTurns, "test_all_eight_orientations_end_upright"),
            (OverTheBudget, "test_the_budget_is_kept_whatever_it_is"),
            (RaisesWhatItMeets, "test_what_is_no_file_of_its_kind_cannot_be_thumbnailed"),
            (DecodesAnything, "test_hostile_files_cost_little_memory_and_time"),
            (BlackensTransparency, "test_what_is_transparent_is_not_black"),
            (MistakesItsSize, "test_every_sample_becomes_a_thumbnail"),
            (KnowsOneSpelling, "test_it_says_what_it_can_handle_whatever_the_spelling"),
        ):
            with self.subTest(faulty.__name__):
                self.assertFalse(fails(thumbnail_case(GoodGenerator), name))
                self.assertTrue(fails(thumbnail_case(faulty), name))


def verifier_case(made: type[JwtVerifier]) -> type[unittest.TestCase]:
    class Case(JwtCase, RtmTestCase):
        def verifier(self) -> TokenVerifier:
            return made(APP, SECRET)

    return Case


class TokenVerifierContractTest(unittest.TestCase):
    def test_each_fault_of_a_verifier_is_found(self) -> None:
        for faulty, name in (
            (AnybodysTokens, "test_another_users_token_is_refused"),
            (UnsignedTokens, "test_a_forged_token_is_refused_whatever_else_is_wrong_with_it"),
            (TellsTheSecret, "test_a_token_that_has_ended_is_expired"),
            (RaisesOtherErrors, "test_what_is_no_token_at_all_is_invalid"),
        ):
            with self.subTest(faulty.__name__):
                self.assertFalse(fails(verifier_case(JwtVerifier), name))
                self.assertTrue(fails(verifier_case(faulty), name))
