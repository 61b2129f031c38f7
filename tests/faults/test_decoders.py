"""What strangers send is decoded or refused; nothing else happens. The rest of these properties are
beside their decoders: test_protocol, test_image_header, test_blob, hub/test_tokens."""

from __future__ import annotations

import base64
import json
import time
import unittest

import jwt
from hypothesis import given, settings
from hypothesis import strategies as st

from rtm_sync.errors import LoginError
from rtm_sync.hub.auth.tokens import JwtVerifier
from tests.faults import fuzz_decoders

SECRET = "a secret of tests, 32 bytes or more"
VERIFIER = JwtVerifier("app", SECRET)
RUNS = 1_000

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
base64_text = st.binary(max_size=60).map(base64.b64encode)
pairs = st.tuples(
    st.sampled_from([b"filename", b"name", b"filetype", b"type", b"keep", b"", b"\xff"]),
    st.sampled_from([b" ", b"", b"  ", b"="]),
    base64_text | st.binary(max_size=10),
).map(b"".join)
numbers = st.sampled_from([b"", b"0", b"-1", b"1", b"31457280", b"9" * 40, b"1e3", b"\xd9\xa1"])
tus_headers = st.tuples(
    numbers,
    st.lists(pairs, max_size=4).map(b",".join),
    st.binary(max_size=140),
    st.tuples(st.sampled_from([b"sha1 ", b"sha256 ", b"md5 ", b""]), base64_text).map(b"".join),
    st.sampled_from([b"", b"bytes=0-", b"bytes=-5", b"bytes=5-1", b"bytes=1-2,3-4", b"x=\xff"]),
).map(b"\n".join)


class DecoderTest(unittest.TestCase):
    def test_changed_examples_harm_no_decoder(self) -> None:
        fuzz_decoders.at_random(RUNS, seed=1, say=lambda line: None)

    def test_a_decoder_that_fails_is_shown_with_the_bytes_and_the_seed(self) -> None:
        def fragile(data: bytes) -> None:
            raise RuntimeError("broken")

        with self.assertRaisesRegex(AssertionError, r"frames fails .*broken.*seed 7.*: b'"):
            fuzz_decoders.at_random(1, 7, {"frames": (fragile, [b"{}"])}, say=lambda line: None)

    @given(tus_headers)
    def test_any_headers_of_an_upload_are_a_specification_or_refused(self, data: bytes) -> None:
        fuzz_decoders.tus_headers(data)

    @given(st.binary(max_size=200) | st.tuples(*[base64_text] * 3).map(b".".join))
    def test_any_text_as_a_token_is_refused(self, data: bytes) -> None:
        with self.assertRaises(LoginError):
            VERIFIER.verify(data.decode("utf-8", "surrogateescape"), "alice")

    @settings(max_examples=200)
    @given(
        st.dictionaries(st.sampled_from(["exp", "sub", "app", "iat", "nbf", "iss"]), json_values)
    )
    def test_signed_claims_of_any_kind_are_accepted_or_refused(
        self, claims: dict[str, object]
    ) -> None:
        token = jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, algorithm="HS256")
        try:
            grant = VERIFIER.verify(token, "alice")
        except LoginError as error:
            self.assertNotEqual(error.message, "")
        else:
            self.assertEqual((claims["app"], claims["sub"]), ("app", "alice"))
            self.assertGreater(grant.expires_at, time.time() - 60)

    @given(
        st.sampled_from([b"data:", b"data:;base64,", b"data:a/b;x=y,", b"data:a/b;base64;c,", b""]),
        st.binary(max_size=100) | base64_text,
    )
    def test_any_data_url_is_a_blob_or_a_value_error(self, head: bytes, body: bytes) -> None:
        fuzz_decoders.data_urls(head + body)
