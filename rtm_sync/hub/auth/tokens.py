"""Tokens and privileges: the TokenVerifier contract, and the built-in verifier for JWT."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...errors import LoginError, LoginErrorCode
from .keys import Key, key_source, signing_key

CLOCK_SKEW = 30.0
"""Seconds by which the clocks of a token's signer and of a hub may differ."""

PRIVILEGES_CLAIM = "rtm"
_MAX_TOKEN_CHARACTERS = 8 * 1024
_MAX_PATTERNS = 100


@dataclass(frozen=True, slots=True)
class Privileges:
    """The privileges of a token's user. By default everything is allowed.

    Attributes:
        join: patterns of the channels that the user may join; `*` matches any text. None is all.
        publish: patterns of the channels to which the user may send, and whose attributes the user
            may change. None is all.
        upload, download: whether the user may upload and download media.
    """

    join: tuple[str, ...] | None = None
    publish: tuple[str, ...] | None = None
    upload: bool = True
    download: bool = True

    def may_join(self, channel_id: str) -> bool:
        """Whether the user may join the channel."""
        return self.join is None or any(matches(one, channel_id) for one in self.join)

    def may_publish(self, channel_id: str) -> bool:
        """Whether the user may send to the channel."""
        return self.publish is None or any(matches(one, channel_id) for one in self.publish)

    def to_claim(self) -> dict[str, object]:
        """The token claim for these privileges."""
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
        """The privileges of a token claim. A member that is missing allows everything.

        Raises:
            ValueError: the claim is malformed. Ignoring it would allow too much.
        """
        if not isinstance(claim, Mapping):
            raise _invalid_claim("", "is not an object")
        unknown = claim.keys() - {"join", "publish", "upload", "download"}
        if unknown:
            raise _invalid_claim("", f"has the unknown member {min(unknown)[:40]!r}")
        return cls(
            _patterns(claim, "join"),
            _patterns(claim, "publish"),
            _flag(claim, "upload"),
            _flag(claim, "download"),
        )


class NotPrivileged(Exception):
    """The cause of an error that means: the user's token does not allow the action."""


def matches(pattern: str, text: str) -> bool:
    """Whether a text matches a pattern, in which `*` matches any text. Takes linear time."""
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
    if name not in claim:
        return None
    given = claim[name]
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise _invalid_claim(name, "is not a list of patterns")
    if len(given) > _MAX_PATTERNS:
        raise _invalid_claim(name, f"has more than {_MAX_PATTERNS} patterns")
    return tuple(given)


def _flag(claim: Mapping[str, Any], name: str) -> bool:
    given = claim.get(name, True)
    if not isinstance(given, bool):
        raise _invalid_claim(name, "is neither true nor false")
    return given


def _invalid_claim(name: str, why: str) -> ValueError:
    where = f"{name} in its" if name else "its"
    return ValueError(f"{where} {PRIVILEGES_CLAIM} claim {why}")


@dataclass(frozen=True, slots=True)
class Grant:
    """The content of a valid token.

    Attributes:
        expires_at: when the token expires, seconds since the epoch.
        privileges: the privileges of its user.
        issued_at: when the token was issued, seconds since the epoch; None when unknown. Any
            revocation of the user's tokens revokes a token of unknown age too.
        key: names the key that made the token, for `TokenVerifier.has_key`; not secret.
    """

    expires_at: float
    privileges: Privileges = Privileges()
    issued_at: float | None = None
    key: str = ""


class TokenVerifier(ABC):
    """Verifies the tokens of one app. Called on the hub's thread; must not block. Thread-safe."""

    @abstractmethod
    def verify(self, token: str, uid: str) -> Grant:
        """Verify a token for this user, and return its grant.

        Raises:
            LoginError: INVALID_TOKEN, TOKEN_EXPIRED, INVALID_APP_ID or NOT_AUTHORIZED. The client
                sees the message: it may say what is wrong, but never contain the expected value.
        """

    def has_key(self, key: str) -> bool:
        """Whether a key that was named in a grant still makes valid tokens.

        When it no longer does, the sessions that were made from its tokens end. A verifier with one
        key that never changes need not override it.
        """
        return True


class AnyOf(TokenVerifier):
    """Accepts a token that at least one of several verifiers accepts; for the change of keys.

    Args:
        verifiers: the verifiers by the names of their secrets, see `fingerprint`.
    """

    def __init__(self, verifiers: Mapping[str, TokenVerifier]) -> None:
        self._verifiers = dict(verifiers)

    def verify(self, token: str, uid: str) -> Grant:
        best: LoginError | None = None
        for name, verifier in self._verifiers.items():
            try:
                grant = verifier.verify(token, uid)
                return replace(grant, key=f"{name}/{grant.key}")
            except LoginError as error:
                # "Expired" by the right key is more helpful than "invalid" by another key.
                if best is None or best.reason == "INVALID_TOKEN":
                    best = error
        raise best or _invalid("the app has no key")

    def has_key(self, key: str) -> bool:
        name, _, inner = key.partition("/")
        verifier = self._verifiers.get(name)
        return verifier is not None and (not inner or verifier.has_key(inner))


class JwtVerifier(TokenVerifier):
    """Verifies JSON Web Tokens.

    `sub` is the uid, `app` is the app id, `exp` is required, `rtm` may limit the privileges.

    Args:
        app_id: the app that the tokens must name.
        secret: a shared secret for HS256; `file:PATH` of a public key in PEM (Ed25519 for EdDSA,
            RSA for RS256, P-256 for ES256); or `jwks:PATH` of a set of such keys. Files are read
            again when they change. A token with a `kid` is verified by the key of that name; a
            key without a name verifies every token.
        clock_skew: seconds by which the clocks may differ.

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
            claims, key = self._claims(token)
            expires_at = float(claims["exp"])
            issued_at = None if claims.get("iat") is None else float(claims["iat"])
            # A claim that is null is malformed, and not the same as no claim.
            privileges = (
                Privileges.from_claim(claims[PRIVILEGES_CLAIM])
                if PRIVILEGES_CLAIM in claims
                else Privileges()
            )
        except jwt.ExpiredSignatureError:
            raise LoginError(
                LoginErrorCode.LOGIN_ERR_TOKEN_EXPIRED, "The token has expired; get a fresh one."
            ) from None
        except (jwt.PyJWTError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise _invalid(f"{error}") from None
        if claims.get("app") != self._app_id:
            raise LoginError(
                LoginErrorCode.LOGIN_ERR_INVALID_APP_ID, "The token belongs to another app."
            )
        if claims["sub"] != uid:
            raise _invalid("its sub is not the uid that logs in")
        return Grant(expires_at, privileges, issued_at, key.fingerprint)

    def has_key(self, key: str) -> bool:
        return any(one.fingerprint == key for one in self._source.current())

    def _claims(self, token: str) -> tuple[dict[str, Any], Key]:
        import jwt

        name = jwt.get_unverified_header(token).get("kid")
        keys = self._source.current()
        if name is not None:
            # A public key without a name checks tokens of every kid, because issuers give each
            # token one. A shared secret is the app's own: a token that names a key was not made
            # with it.
            keys = tuple(
                key for key in keys if key.name == name or (key.name is None and not key.is_secret)
            )
            if not keys:
                raise jwt.InvalidKeyError(f"its kid {name[:64]!r} is unknown")
        for key in keys:
            try:
                return self._decode(token, key), key
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                continue  # another key has signed it
        raise jwt.InvalidSignatureError("Signature verification failed")

    def _decode(self, token: str, key: Key) -> dict[str, Any]:
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
        app_id: the app.
        uid: the user.
        secret: the app's secret (HS256), or a private key in PEM (Ed25519, RSA or P-256).
        ttl: seconds from now until the token expires.
        privileges: the privileges of the user; None allows everything.
        key_id: the `kid` of the key in the gateway's JWKS.

    Raises:
        ValueError: the secret is too short, or the key is of an unsupported kind.
    """
    import jwt

    key = signing_key(secret)
    now = time.time()
    claims: dict[str, object] = {
        "app": app_id,
        "sub": uid,
        "iat": math.floor(now * 1000) / 1000,  # fractions: a revocation spares later tokens
        "exp": int(now + ttl),
    }
    if privileges is not None and privileges != Privileges():
        claims[PRIVILEGES_CLAIM] = privileges.to_claim()
    headers = None if key_id is None else {"kid": key_id}
    return jwt.encode(claims, key.material, algorithm=key.algorithm, headers=headers)


def _invalid(why: str) -> LoginError:
    return LoginError(LoginErrorCode.LOGIN_ERR_INVALID_TOKEN, f"The token is not valid: {why}.")
