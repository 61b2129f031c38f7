"""What a URL of the store says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from rtm_sync import PluginError

DEFAULT_PREFIX = "rtm-media"
"""Where a URL names none: the lifecycle rule must not concern what else is in the bucket."""

_DAYS = 7
_MOST_DAYS = 3650
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")  # of old buckets too
_LONGEST_PREFIX = 512
_FORM = "s3://bucket/prefix?endpoint=URL&region=NAME&days=7&redirect=1"
_OPTIONS = ("endpoint", "region", "days", "redirect")


@dataclass(frozen=True, slots=True)
class S3Address:
    """Where blobs live in S3.

    Attributes:
        bucket: its name.
        prefix: what their keys begin with, before a slash.
        endpoint: URL of the service; None for that of AWS.
        region: None for what boto3 finds in its own settings.
        days: after which the bucket's own rule removes what is left; 0 leaves its rules alone.
        redirect: clients fetch blobs from the service themselves.
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

        All but the bucket may be left out.

        Raises:
            PluginError: the URL is of another form; the message names what is wrong.
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
        if len(prefix.encode("utf-8", "replace")) > _LONGEST_PREFIX:
            raise _wrong(f"its prefix is longer than {_LONGEST_PREFIX} bytes")
        for name in options:
            if name not in _OPTIONS:
                raise _wrong(f"{name!r} is no option; there are {', '.join(_OPTIONS)}")
        endpoint = options.get("endpoint")
        if endpoint is not None and not re.match(r"https?://[^/]", endpoint):
            raise _wrong(f"endpoint is {endpoint!r}; it must be an http:// or https:// URL")
        days = options.get("days", str(_DAYS))
        if not re.fullmatch(r"[0-9]{1,4}", days) or int(days) > _MOST_DAYS:
            raise _wrong(f"days is {days!r}; it must be 0 to {_MOST_DAYS:,}")
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


def _wrong(what: str) -> PluginError:
    # Not with the URL itself, which may have a password in it.
    return PluginError(f"The media store's URL cannot be used: {what}. It is like {_FORM}.")
