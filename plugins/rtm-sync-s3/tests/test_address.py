"""URLs of the store: their parts, and the errors of wrong URLs."""

from __future__ import annotations

import unittest

import rtm_sync_s3
from rtm_sync_s3.address import S3Address

from rtm_sync import PluginError


class AddressTest(unittest.TestCase):
    def test_a_bucket_is_enough(self) -> None:
        self.assertEqual(S3Address.parse("s3://cats"), S3Address("cats", "rtm-media"))

    def test_everything_can_be_said(self) -> None:
        url = (
            "s3://cats.example/chat/media/?endpoint=http%3A//127.0.0.1:9000"
            "&region=eu-west-1&days=30&redirect=1"
        )
        self.assertEqual(
            S3Address.parse(url),
            S3Address("cats.example", "chat/media", "http://127.0.0.1:9000", "eu-west-1", 30, True),
        )

    def test_what_is_wrong_is_named_with_what_would_be_right(self) -> None:
        for url, problem in (
            ("s3:", "'' is not a bucket's name"),
            ("s3:///prefix", "'' is not a bucket's name"),
            ("s3://b", "'b' is not a bucket's name"),
            ("s3://cats:80", "is not a bucket's name"),
            ("s3://KEY:hush@cats", "credentials"),
            ("s3://cats?redirect=yes", "redirect is 'yes'; it must be 0 or 1"),
            ("s3://cats?days=-1", "days is '-1'; it must be 0 to 3,650"),
            ("s3://cats?days=9999", "days is '9999'"),
            ("s3://cats?endpoint=127.0.0.1:9000", "endpoint is '127.0.0.1:9000'"),
            ("s3://cats?prefix=x", "'prefix' is not an option; the options are endpoint, region"),
            ("s3://cats?redirect", "not of the form name=value"),
            ("s3://cats/" + "x" * 513, "longer than 512 bytes"),
        ):
            with self.subTest(url=url[:40]), self.assertRaises(PluginError) as caught:
                S3Address.parse(url)
            self.assertIn(problem, str(caught.exception))
            self.assertIn("s3://bucket/prefix?endpoint=URL", str(caught.exception))
            self.assertNotIn("hush", str(caught.exception))

    def test_other_schemes_are_left_to_others(self) -> None:
        for url in ("disk:///s3:", "s33://cats", "memory://"):
            self.assertIsNone(rtm_sync_s3.media_store(url))
