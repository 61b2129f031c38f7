"""The bucket's lifecycle rule: it is set once, keeps other rules, or a warning is logged."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

from rtm_sync_s3.store import S3MediaStore

from .support import S3Case

OTHERS = {
    "ID": "of somebody else",
    "Filter": {"Prefix": "logs/"},
    "Status": "Enabled",
    "Expiration": {"Days": 90},
}


class LifecycleTest(S3Case):
    def open_store(self, options: str = "") -> None:
        S3MediaStore.from_url(self.url(options)).close()

    def rules(self) -> list[Any]:
        found = self.s3.get_bucket_lifecycle_configuration(Bucket=self.bucket)
        return list(found["Rules"])

    def test_media_end_after_seven_days_and_unfinished_uploads_after_one(self) -> None:
        self.open_store()
        (rule,) = self.rules()
        self.assertEqual(rule["Filter"], {"Prefix": "rtm-media/"})
        self.assertEqual(rule["Status"], "Enabled")
        self.assertEqual(rule["Expiration"], {"Days": 7})
        self.assertEqual(rule["AbortIncompleteMultipartUpload"], {"DaysAfterInitiation": 1})

    def test_other_rules_stay_and_ours_is_brought_up_to_date(self) -> None:
        self.s3.put_bucket_lifecycle_configuration(
            Bucket=self.bucket, LifecycleConfiguration={"Rules": [OTHERS]}
        )
        for days in (7, 7, 30):
            self.open_store(f"&days={days}")
            other, ours = self.rules()
            self.assertEqual(other, OTHERS)
            self.assertEqual(ours["Expiration"], {"Days": days})

    def test_the_rules_are_left_alone_when_asked(self) -> None:
        self.open_store("&days=0")
        with self.assertRaisesRegex(Exception, "NoSuchLifecycleConfiguration"):
            self.rules()

    def test_a_bucket_that_does_not_exist_is_an_error_that_names_it(self) -> None:
        self.remove_bucket()
        for options in ("", "&days=0"):
            with self.assertRaisesRegex(OSError, f"{self.bucket}"):
                self.open_store(options)

    def test_where_it_is_not_permitted_a_warning_says_what_to_do(self) -> None:
        rights = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject")
        with (
            self.own_server().user(*rights),
            self.assertLogs("rtm_sync_s3", "WARNING") as logged,
        ):
            self.open_store()
        (warning,) = logged.output
        self.assertIn(self.bucket, warning)
        self.assertIn("AccessDenied", warning)
        self.assertIn("days=0", warning)

    def test_a_key_that_nobody_knows_is_an_error_and_no_warning(self) -> None:
        with (
            self.own_server().user("s3:*"),
            mock.patch.dict(os.environ, {"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN"}),
            self.assertRaisesRegex(OSError, "InvalidAccessKeyId"),
        ):
            self.open_store()
