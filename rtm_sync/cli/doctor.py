"""`doctor`: checks everything between this machine and a gateway, and yields one finding a check.

The findings can go into a bug report: they contain no token, secret, proxy password or home folder.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import json
import os
import platform
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests

from ..blob import MEDIA_LIMIT
from ..errors import LoginError, RtmError
from ..plugins.loader import PluginManager, plugin_manager
from ..plugins.report import PluginStatus
from ..portable import has_memory_limits, is_readable_by_others
from ..rules.limits import MAX_TRANSFERS
from ..rules.timing import Deadline
from ..thumbnails.contract import CannotThumbnail
from ..thumbnails.subprocess import protection
from ..transports.gateway.happy_eyeballs import open_socket, resolve
from ..transports.gateway.proxy_settings import (
    find_proxy_settings,
    gateway_url_problem,
    without_credentials,
)
from ..transports.gateway.wire import http_session
from ..version import __version__
from .output import FAILED_PLUGINS, plugin_record
from .profiles import Profile, default_file

_TIMEOUT = 5.0
_ADDRESS_TIMEOUT = 2.0  # seconds for one address of several
_MAX_SKEW = 30.0  # seconds; the default tolerance of token verifiers
_LIBRARIES = ("requests", "websocket-client", "pluggy", "tenacity", "aiohttp", "PyJWT", "Pillow")


class Verdict(str, Enum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and its result.

    Attributes:
        check: the check's name.
        verdict: its result.
        detail: the facts for people and, for a problem, its solution.
        seen: the facts for programs.
    """

    check: str
    verdict: Verdict
    detail: str
    seen: Mapping[str, object]


def diagnose(
    profile: Profile,
    *,
    log_in: bool = False,
    profiles: Path | None = None,
    plugins: PluginManager = plugin_manager,
) -> Iterator[Finding]:
    """Run all checks. Yields each finding, redacted, as soon as its check is done.

    Args:
        profile: the settings to check.
        log_in: whether to log in as the profile's user, which ends that user's other session.
            Otherwise a temporary user is logged in, if the profile can make a token for it.
        profiles: the profiles file; None for the default one.
        plugins: the plugins to check.
    """
    redact = _Redaction(profile)
    for finding in _findings(profile, log_in, profiles, plugins):
        yield replace(finding, detail=redact(finding.detail), seen=redact.record(finding.seen))


def _findings(
    profile: Profile, log_in: bool, profiles: Path | None, plugins: PluginManager
) -> Iterator[Finding]:
    yield _versions()
    yield _profile(profile, profiles)
    scheme = profile.url.partition(":")[0]
    if scheme in ("ws", "wss", "http", "https"):
        yield from _network(profile)
    else:
        yield _skipped(
            "reachability", f"{scheme if '@' not in scheme else '?'}:// is not a gateway's URL"
        )
    token = _token(profile)
    yield token
    yield _login(profile, log_in, token.verdict is Verdict.FAILED)
    yield _plugins(plugins)
    yield _thumbnails()
    yield from _disk()


def _skipped(check: str, reason: str) -> Finding:
    return Finding(check, Verdict.SKIPPED, reason, {})


def _versions() -> Finding:
    found = {}
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    seen = {"rtm_sync": __version__, "python": platform.python_version()}
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return Finding(
        "versions",
        Verdict.OK,
        f"rtm_sync {__version__}, Python {seen['python']} ({sys.implementation.name}), {system}; "
        f"{listed}",
        {**seen, "system": system, "libraries": found},
    )


def _profile(profile: Profile, profiles: Path | None) -> Finding:
    seen = {
        "url": without_credentials(profile.url),
        "app_id": profile.app_id,
        "uid": profile.uid,
        "token": "given" if profile.token else "none",
        "app_secret": "given" if profile.app_secret else "none",
    }
    detail = ", ".join(f"{name} {value or 'none'}" for name, value in seen.items())
    file = profiles or default_file()
    if file.exists() and is_readable_by_others(file):
        return Finding(
            "profile",
            Verdict.WARNING,
            f"{detail}; others can read {file}: chmod 600 {file}",
            {**seen, "file": str(file)},
        )
    return Finding("profile", Verdict.OK, detail, seen)


def _network(profile: Profile) -> Iterator[Finding]:
    """Proxy and certificates, the gateway's answer, and its clock."""
    problem = gateway_url_problem(profile.url)
    if problem is not None:
        yield Finding("network", Verdict.FAILED, problem, {})
        return
    parts = urlsplit(profile.url)
    scheme = "https" if parts.scheme in ("wss", "https") else "http"
    path = f"{parts.path.rstrip('/')}/healthz"
    url = urlunsplit((scheme, parts.netloc, path, "", ""))
    try:
        route = find_proxy_settings(url, profile.client_proxy, profile.ca_file or None)
    except ValueError as error:
        yield Finding("network", Verdict.FAILED, str(error), {})
        return
    proxy = without_credentials(route.proxy) if route.proxy else "none"
    yield Finding(
        "network",
        Verdict.OK,
        f"proxy {proxy}, certificates {route.ca_file if scheme == 'https' else 'not needed'}",
        {"proxy": proxy, "ca_file": route.ca_file},
    )
    hop = route.first_hop(parts.hostname or "", parts.port or (443 if scheme == "https" else 80))
    yield from _addresses(*hop)
    with http_session(route, 1) as session:
        started = time.time()
        try:
            response = session.get(url, timeout=_TIMEOUT, allow_redirects=False)
        except (requests.RequestException, ValueError) as error:
            yield Finding("reachability", Verdict.FAILED, f"{profile.url}: {error}", {})
            return
        took = time.time() - started
    seen = {"status": response.status_code, "milliseconds": round(1000 * took, 1)}
    if response.status_code != requests.codes.ok:
        yield Finding(
            "reachability",
            Verdict.FAILED,
            f"{url} answers {response.status_code} {response.reason}; a gateway answers 200 OK",
            seen,
        )
        return
    yield Finding(
        "reachability",
        Verdict.OK,
        f"{profile.url} answers in {seen['milliseconds']} ms",
        seen,
    )
    yield _clock(response.headers.get("Date", ""), started + took / 2)


def _addresses(host: str, port: int) -> Iterator[Finding]:
    """The addresses of the gateway's name, or of the proxy's, and which of them answer."""
    try:
        found = resolve(host, port)
    except OSError as error:
        yield Finding("addresses", Verdict.FAILED, f"{host}: {error.strerror or error}", {})
        return
    deadline = Deadline(_TIMEOUT)
    results: list[tuple[str, str | None]] = []  # each address, and why it failed
    for address in found:
        try:
            with open_socket([address], min(_ADDRESS_TIMEOUT, max(0.1, deadline.left))):
                results.append((str(address), None))
        except OSError as error:
            results.append((str(address), error.strerror or str(error)))
    listed = ", ".join(f"{name} {failure or 'answers'}" for name, failure in results)
    failures = [failure for _, failure in results]
    verdict, advice = Verdict.OK, ""
    if all(failures):
        verdict = Verdict.FAILED
    elif any(failures):
        verdict, advice = Verdict.WARNING, "; connections take an address that answers"
    yield Finding(
        "addresses",
        verdict,
        f"{host}: {listed}{advice}",
        {"addresses": [{"address": name, "failure": failure} for name, failure in results]},
    )


def _clock(date: str, at: float) -> Finding:
    try:
        theirs = email.utils.parsedate_to_datetime(date).timestamp()
    except ValueError:
        return _skipped("clock", "the answer has no date")
    # The date has whole seconds; half a second is the best estimate of its fraction.
    skew = at - (theirs + 0.5)
    seen = {"skew_seconds": round(skew, 1)}
    if abs(skew) > _MAX_SKEW:
        relation = "ahead of" if skew > 0 else "behind"
        return Finding(
            "clock",
            Verdict.WARNING,
            f"this machine is {abs(skew):.0f} s {relation} the gateway; above {_MAX_SKEW:.0f} s "
            "tokens count as expired or not yet valid: set the clock",
            seen,
        )
    return Finding("clock", Verdict.OK, f"within {abs(skew) + 0.5:.0f} s of the gateway's", seen)


def _token(profile: Profile) -> Finding:
    if not profile.token:
        if profile.app_secret:
            return Finding("token", Verdict.OK, "made from the app secret", {"source": "secret"})
        return _skipped("token", "no token is given")
    claims = _claims(profile.token)
    if claims is None:
        size = len(profile.token)
        return _skipped("token", f"not a JWT ({size:,} characters); only --login can check it")
    problems = []
    expires = claims.get("exp")
    left = expires - time.time() if isinstance(expires, (int, float)) else None
    if left is None:
        problems.append("it has no exp claim")
    elif left <= 0:
        problems.append(f"it expired {-left:,.0f} s ago")
    for claim, name in (("sub", "uid"), ("app", "app_id")):
        mine = getattr(profile, name)
        if mine and claims.get(claim) != mine:
            problems.append(f"its {claim} is {claims.get(claim)!r}, but the {name} is {mine!r}")
    seen = {
        "source": "given",
        "expires_in": None if left is None else round(left),
        "problems": problems,
    }
    if problems:
        return Finding("token", Verdict.FAILED, f"{'; '.join(problems)}: get a new token", seen)
    return Finding("token", Verdict.OK, f"valid for {left:,.0f} s more", seen)


def _claims(token: str) -> dict[str, Any] | None:
    """The claims of a JWT, unverified; None for another kind of token."""
    parts = token.split(".")
    try:
        body = parts[1] if len(parts) == 3 else ""
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except ValueError:
        return None
    return claims if isinstance(claims, dict) else None


def _login(profile: Profile, log_in: bool, token_failed: bool) -> Finding:
    if not profile.app_id:
        return _skipped("login", "no app_id is given")
    if not log_in:
        if profile.token:
            return _skipped("login", f"it would end {profile.uid}'s other session; pass --login")
        profile = replace(profile, uid=f"doctor-{secrets.token_hex(4)}")
    elif not profile.uid:
        return _skipped("login", "no uid is given")
    started = time.monotonic()
    try:
        with profile.client(login_timeout=_TIMEOUT) as client:
            client.login(profile.uid)
            took = time.monotonic() - started
    except (RtmError, ValueError) as error:
        code = error.code.name if isinstance(error, RtmError) else type(error).__name__
        needs_token = isinstance(error, LoginError) and error.reason == "INVALID_TOKEN"
        hint = " Pass a token or the app secret." if needs_token and not profile.token else ""
        return Finding("login", Verdict.FAILED, f"{error}{hint}", {"error": code})
    seen = {"uid": profile.uid, "milliseconds": round(1000 * took, 1)}
    return Finding("login", Verdict.OK, f"as {profile.uid} in {seen['milliseconds']} ms", seen)


def _plugins(plugins: PluginManager) -> Finding:
    found = plugins.describe()
    listed = ", ".join(
        f"{plugin.name} {plugin.version}".strip()
        + (f" ({plugin.status})" if plugin.status is not PluginStatus.LOADED else "")
        for plugin in found
    )
    failed = [
        f"{plugin.name}: {plugin.reason}" for plugin in found if plugin.status in FAILED_PLUGINS
    ]
    seen = {"plugins": [plugin_record(plugin) for plugin in found]}
    if failed:
        return Finding("plugins", Verdict.WARNING, f"{listed}; {'; '.join(failed)}", seen)
    return Finding("plugins", Verdict.OK, listed, seen)


def _thumbnails() -> Finding:
    """What protects this user from hostile files in processes that make thumbnails."""
    try:
        found = protection()
    except (CannotThumbnail, OSError) as error:
        return Finding("thumbnails", Verdict.WARNING, f"no process can make them: {error}", {})
    seen = {"memory_limit": has_memory_limits(), **asdict(found)}
    missing = [name.replace("_", " ") for name, holds in seen.items() if not holds]
    detail = "processes of PDF and video decoders reach no variables, files and network"
    if not missing:
        return Finding("thumbnails", Verdict.OK, f"{detail}, and their memory is limited", seen)
    return Finding(
        "thumbnails",
        Verdict.WARNING,
        f"{platform.system()} gives processes of PDF and video decoders no protection of "
        f"{', '.join(missing)}: make no thumbnails of untrusted videos and PDFs here",
        seen,
    )


def _disk() -> Iterator[Finding]:
    """Space in the default folder of downloads, and in that of temporary files."""
    wanted = MAX_TRANSFERS * MEDIA_LIMIT
    for check, folder in (("disk", Path.cwd()), ("temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        seen = {"folder": str(folder), "free": free}
        detail = f"{free / 1e9:,.1f} GB free in {folder}"
        if not os.access(folder, os.W_OK):
            yield Finding(check, Verdict.WARNING, f"{folder} is not writable", seen)
        elif free < wanted:
            yield Finding(
                check,
                Verdict.WARNING,
                f"{detail}; {MAX_TRANSFERS} transfers may need {wanted / 1e9:.1f} GB",
                seen,
            )
        else:
            yield Finding(check, Verdict.OK, detail, seen)


def _password(url: str) -> str | None:
    try:
        return urlsplit(url).password
    except ValueError:  # what is no URL is refused, and not repeated
        return None


class _Redaction:
    """Replaces secrets by ***, and the home folder by ~."""

    def __init__(self, profile: Profile) -> None:
        passwords = [_password(url) for url in (profile.url, profile.proxy)]
        passwords += [
            _password(value)
            for name, value in os.environ.items()
            if name.lower().endswith("_proxy") and "@" in value
        ]
        self._secrets = [text for text in (profile.token, profile.app_secret, *passwords) if text]
        home = str(Path.home())
        self._home = home if len(home) > 1 else ""

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text.replace(self._home, "~") if self._home else text

    def record(self, seen: Mapping[str, object]) -> dict[str, object]:
        """A record with all its texts redacted."""
        return {name: self._value(value) for name, value in seen.items()}

    def _value(self, value: object) -> object:
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return self.record(value)
        if isinstance(value, list):
            return [self._value(item) for item in value]
        return value
