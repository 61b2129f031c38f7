"""Who may log in and what for: the TokenVerifier contract, and the built-in one, for JWT."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import LoginError, LoginErrorCode
from .keys import Key, key_source, signing_key

CLOCK_SKEW = 30.0
"""Seconds that the clocks of whoever signs tokens and of a hub may differ."""

PRIVILEGES_CLAIM = "rtm"
_MAX_TOKEN_CHARACTERS = 8 * 1024
_MAX_PATTERNS = 100


@dataclass(frozen=True, slots=True)
class Privileges:
    """What a token's user may do. What is not limited is allowed.

    Attributes:
        join: patterns of the channels that may be joined; `*` stands for any text. None is all.
        publish: patterns of the channels that may be sent to, and whose attributes may be changed.
        upload, download: media.
    """

    join: tuple[str, ...] | None = None
    publish: tuple[str, ...] | None = None
    upload: bool = True
    download: bool = True

    def may_join(self, channel_id: str) -> bool:
        """Whether the channel may be joined."""
        return self.join is None or any(matches(one, channel_id) for one in self.join)

    def may_publish(self, channel_id: str) -> bool:
        """Whether the channel may be sent to."""
        return self.publish is None or any(matches(one, channel_id) for one in self.publish)

    def to_claim(self) -> dict[str, object]:
        """The claim of a token that says so."""
        claim: dict[str, object] = {}
        if self.join is not None:
            claim["join"] = list(self.join)
        if self.publish is not None:
            claim["publish"] = list(self.publish)
        if not self.upload:
            claim["upload"] = False
        if not self.download:
            claim["download"] = False
        return claim

    @classmethod
    def from_claim(cls, claim: object) -> Privileges:
        """Read a claim. Raises ValueError: one that is not understood must not allow everything."""
        if claim is None:
            return cls()
        if not isinstance(claim, Mapping):
            raise _misunderstood("", "is no object")
        unknown = claim.keys() - {"join", "publish", "upload", "download"}
        if unknown:
            raise _misunderstood("", f"has the unknown {min(unknown)[:40]!r}")
        return cls(
            _patterns(claim, "join"),
            _patterns(claim, "publish"),
            _flag(claim, "upload"),
            _flag(claim, "download"),
        )


class NotPrivileged(Exception):
    """The cause of an error: the user's token does not allow it."""


def matches(pattern: str, text: str) -> bool:
    """Whether a text is of a pattern, in which `*` stands for any text. Linear in both."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *middle, last = rest
    if not (text.startswith(first) and text.endswith(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return at <= end


def _patterns(claim: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    given = claim.get(name)
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise _misunderstood(name, "is no list of patterns")
    if len(given) > _MAX_PATTERNS:
        raise _misunderstood(name, f"has more than {_MAX_PATTERNS} patterns")
    return tuple(given)


def _flag(claim: Mapping[str, Any], name: str) -> bool:
    given = claim.get(name, True)
    if not isinstance(given, bool):
        raise _misunderstood(name, "is neither true nor false")
    return given


def _misunderstood(name: str, why: str) -> ValueError:
    where = f"{name} in its" if name else "its"
    return ValueError(f"{where} {PRIVILEGES_CLAIM} claim {why}")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a valid token allows.

    Attributes:
        expires_at: when it ends, seconds since the epoch.
        privileges: what its user may do meanwhile.
        issued_at: when it was made, seconds since the epoch; None when it does not say. One that
            does not say cannot be told from those that a revocation means, and ends with them.
    """

    expires_at: float
    privileges: Privileges = Privileges()
    issued_at: float | None = None


class TokenVerifier(ABC):
    """Checks the tokens of one app. Called on the hub's thread; must not block. Thread-safe."""

    @abstractmethod
    def verify(self, token: str, uid: str) -> Grant:
        """Accept a token for this user.

        Raises:
            LoginError: INVALID_TOKEN, TOKEN_EXPIRED, INVALID_APP_ID or NOT_AUTHORIZED. The message
                reaches the client: it says what is wrong with the token, never what would be right.
        """


class AnyOf(TokenVerifier):
    """Accepts what one of several verifiers does: keys that are being changed for others."""

    def __init__(self, verifiers: Iterable[TokenVerifier]) -> None:
        self._verifiers = tuple(verifiers)

    def verify(self, token: str, uid: str) -> Grant:
        telling: LoginError | None = None
        for verifier in self._verifiers:
            try:
                return verifier.verify(token, uid)
            except LoginError as error:
                # "Expired" from the key that signed it says more than "invalid" from another.
                if telling is None or telling.reason == "INVALID_TOKEN":
                    telling = error
        raise telling or _invalid("the app has no key")


class JwtVerifier(TokenVerifier):
    """JSON Web Tokens: `sub` is the uid, `app` the app id, `exp` is required, `rtm` may limit them.

    Args:
        secret: a shared secret for HS256; `file:PATH` of a public key in PEM (Ed25519 for EdDSA,
            RSA for RS256, P-256 for ES256); or `jwks:PATH` of a set of such keys. Files are read
            again when they change.
        clock_skew: seconds that clocks may differ.

    Raises:
        ValueError: the secret is too short, or the file cannot be used.
    """

    def __init__(self, app_id: str, secret: str, clock_skew: float = CLOCK_SKEW) -> None:
        self._source = key_source(secret)
        self._app_id = app_id
        self._clock_skew = clock_skew

    def verify(self, token: str, uid: str) -> Grant:
        import jwt

        if len(token) > _MAX_TOKEN_CHARACTERS:
            raise _invalid(f"it has {len(token):,} characters; at most {_MAX_TOKEN_CHARACTERS:,}")
        try:
            claims = self._claims(token)
            expires_at = float(claims["exp"])
            issued_at = None if claims.get("iat") is None else float(claims["iat"])
            privileges = Privileges.from_claim(claims.get(PRIVILEGES_CLAIM))
        except jwt.ExpiredSignatureError:
            raise LoginError(
                LoginErrorCode.LOGIN_ERR_TOKEN_EXPIRED, "The token has expired; get a fresh one."
            ) from None
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
            raise _invalid(f"{error}") from None
        if claims.get("app") != self._app_id:
            raise LoginError(
                LoginErrorCode.LOGIN_ERR_INVALID_APP_ID, "The token belongs to another app."
            )
        if claims["sub"] != uid:
            raise _invalid("its sub is not the uid that logs in")
        return Grant(expires_at, privileges, issued_at)

    def _claims(self, token: str) -> dict[str, Any]:
        import jwt

        name = jwt.get_unverified_header(token).get("kid")
        keys = self._source.current()
        named = [key for key in keys if key.name == name]
        for key in named or keys:
            try:
                return self._decoded(token, key)
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                continue  # another key's
        raise jwt.InvalidSignatureError("Signature verification failed")

    def _decoded(self, token: str, key: Key) -> dict[str, Any]:
        import jwt

        decoded: dict[str, Any] = jwt.decode(
            token,
            key.material,
            algorithms=[key.algorithm],
            leeway=self._clock_skew,
            options={"require": ["exp", "sub"], "verify_aud": False},
        )
        return decoded


def make_token(
    app_id: str,
    uid: str,
    secret: str,
    *,
    ttl: float = 3600.0,
    privileges: Privileges | None = None,
    key_id: str | None = None,
) -> str:
    """Sign a token that `JwtVerifier` accepts. For an app's own server, and for tests.

    Args:
        secret: the app's secret (HS256), or a private key in PEM (Ed25519, RSA or P-256).
        ttl: seconds it is valid from now.
        privileges: what its user may do; everything when not given.
        key_id: the `kid` of the key in the gateway's JWKS.

    Raises:
        ValueError: the secret is too short, or no key that is supported.
    """
    import jwt

    key = signing_key(secret)
    now = time.time()
    claims: dict[str, object] = {
        "app": app_id,
        "sub": uid,
        "iat": math.floor(now * 1000) / 1000,  # a revocation must not mean tokens made after it
        "exp": int(now + ttl),
    }
    if privileges is not None and privileges != Privileges():
        claims[PRIVILEGES_CLAIM] = privileges.to_claim()
    headers = None if key_id is None else {"kid": key_id}
    return jwt.encode(claims, key.material, algorithm=key.algorithm, headers=headers)


def _invalid(why: str) -> LoginError:
    return LoginError(LoginErrorCode.LOGIN_ERR_INVALID_TOKEN, f"The token is not valid: {why}.")
