"""The URL of the store, parsed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from rtm_sync import PluginError

DEFAULT_PREFIX = "rtm-media"
"""The prefix when a URL has none. The lifecycle rule must not cover other objects of the bucket."""

_DAYS = 7
_MAX_DAYS = 3650
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")  # old buckets may have such names
_MAX_PREFIX = 512
_FORM = "s3://bucket/prefix?endpoint=URL&region=NAME&days=7&redirect=1"
_OPTIONS = ("endpoint", "region", "days", "redirect")


@dataclass(frozen=True, slots=True)
class S3Address:
    """The place of blobs in S3.

    Attributes:
        bucket: the bucket's name.
        prefix: the first part of all keys, before a slash.
        endpoint: the service's URL; None for AWS.
        region: the service's region; None for the region in boto3's own settings.
        days: days after which the bucket's lifecycle rule removes remaining objects; 0 sets no
            rule.
        redirect: whether clients fetch blobs directly from the service.
    """

    bucket: str
    prefix: str = DEFAULT_PREFIX
    endpoint: str | None = None
    region: str | None = None
    days: int = _DAYS
    redirect: bool = False

    @classmethod
    def parse(cls, url: str) -> S3Address:
        """Read `s3://bucket/prefix?endpoint=URL&region=NAME&days=7&redirect=1`.

        Only the bucket is required.

        Raises:
            PluginError: the URL has another form; the message names the wrong part.
        """
        try:
            parts = urlsplit(url)
            options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True))
        except ValueError:
            if urlsplit(url).query:
                raise _wrong("its options are not of the form name=value") from None
            options = {}
        if "@" in parts.netloc:
            raise _wrong("it has credentials; leave them to boto3's own settings")
        if not _BUCKET.fullmatch(parts.netloc):
            raise _wrong(f"{parts.netloc!r} is not a bucket's name")
        prefix = unquote(parts.path).strip("/") or DEFAULT_PREFIX
        if len(prefix.encode("utf-8", "replace")) > _MAX_PREFIX:
            raise _wrong(f"its prefix is longer than {_MAX_PREFIX} bytes")
        for name in options:
            if name not in _OPTIONS:
                raise _wrong(f"{name!r} is not an option; the options are {', '.join(_OPTIONS)}")
        endpoint = options.get("endpoint")
        if endpoint is not None and not re.match(r"https?://[^/]", endpoint):
            raise _wrong(f"endpoint is {endpoint!r}; it must be an http:// or https:// URL")
        days = options.get("days", str(_DAYS))
        if not re.fullmatch(r"[0-9]{1,4}", days) or int(days) > _MAX_DAYS:
            raise _wrong(f"days is {days!r}; it must be 0 to {_MAX_DAYS:,}")
        redirect = options.get("redirect", "0")
        if redirect not in ("0", "1"):
            raise _wrong(f"redirect is {redirect!r}; it must be 0 or 1")
        return cls(
            parts.netloc,
            prefix,
            endpoint,
            options.get("region") or None,
            int(days),
            redirect == "1",
        )


def _wrong(problem: str) -> PluginError:
    # The message does not repeat the URL, which may contain a password.
    return PluginError(f"The media store's URL cannot be used: {problem}. Its form is {_FORM}.")
