"""The bucket's lifecycle rule, which removes objects that no gateway removes any more."""

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
    """Set the lifecycle rule unless the bucket has it. The bucket's other rules are kept.

    S3 removes blobs after `address.days` days, counted from the next midnight, so never too early.
    It removes multipart uploads of a killed gateway after a day. When the rule is not permitted, a
    warning is logged.

    Raises:
        OSError: the bucket does not exist, or cannot be reached.
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
                "no lifecycle rule for %s/ in the bucket %s could be set (%s): objects that a "
                "killed gateway leaves there stay. Ask the bucket's owner to set a rule of %d "
                "days, or pass days=0 in the store's URL.",
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
