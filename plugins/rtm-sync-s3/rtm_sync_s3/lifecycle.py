"""The bucket's own rule, which removes what no gateway is left to remove."""

from __future__ import annotations

import logging

from botocore.exceptions import ClientError

from .address import S3Address
from .service import Rule, S3Client, error_code, os_errors

_NONE_YET = "NoSuchLifecycleConfiguration"
_NOT_PERMITTED = frozenset(
    {"AccessDenied", "AllAccessDisabled", "MethodNotAllowed", "NotImplemented", "403", "501"}
)
logger = logging.getLogger(__name__)


def ensure_rule(client: S3Client, address: S3Address) -> None:
    """Set the rule where it is not there; the bucket's other rules stay.

    Blobs end after `address.days`; S3 counts from the following midnight, so never too early.
    Multipart uploads whose gateway was killed end after a day. Where that is not permitted, a
    warning is logged.

    Raises:
        OSError: the bucket does not exist or cannot be reached.
    """
    bucket = address.bucket
    with os_errors(f"looking at the bucket {bucket!r}"):
        if address.days == 0:
            client.head_bucket(Bucket=bucket)
            return
        rule = _rule(address)
        try:
            rules = _rules(client, bucket)
            if not any(rule.items() <= dict(there).items() for there in rules):
                others = [there for there in rules if there.get("ID") != rule["ID"]]
                client.put_bucket_lifecycle_configuration(
                    Bucket=bucket, LifecycleConfiguration={"Rules": [*others, rule]}
                )
        except ClientError as error:
            if error_code(error) not in _NOT_PERMITTED:
                raise
            logger.warning(
                "no lifecycle rule for %s/ in the bucket %s could be set (%s): what a gateway that "
                "is killed leaves there stays. Have the bucket's owner set one of %d days, or say "
                "days=0 in the store's URL.",
                address.prefix,
                bucket,
                error_code(error),
                address.days,
            )


def _rules(client: S3Client, bucket: str) -> list[Rule]:
    try:
        return list(client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"])
    except ClientError as error:
        if error_code(error) == _NONE_YET:
            return []
        raise


def _rule(address: S3Address) -> Rule:
    return {
        "ID": f"rtm-sync {address.prefix}"[:255],
        "Filter": {"Prefix": f"{address.prefix}/"},
        "Status": "Enabled",
        "Expiration": {"Days": address.days},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }
