"""Who may log in: the TokenVerifier contract and the built-in one, JWT with HS256."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

from ..errors import LoginError, LoginErrorCode

MIN_SECRET_BYTES = 32
"""HS256 needs a key at least as long as its digest (RFC 7518, section 3.2)."""

_CLOCK_SKEW = 30.0
_MAX_TOKEN_CHARACTERS = 8 * 1024


@dataclass(frozen=True, slots=True)
class Grant:
    """What a valid token allows.

    Attributes:
        expires_at: when it ends, seconds since the epoch.
    """

    expires_at: float


class TokenVerifier(ABC):
    """Checks the tokens of one app. Called on the hub's thread; must not block. Thread-safe."""

    @abstractmethod
    def verify(self, token: str, uid: str) -> Grant:
        """Accept a token for this user.

        Raises:
            LoginError: INVALID_TOKEN, TOKEN_EXPIRED, INVALID_APP_ID or NOT_AUTHORIZED. The message
                reaches the client: it says what is wrong with the token, never what would be right.
        """


class JwtVerifier(TokenVerifier):
    """JSON Web Tokens signed with HS256: `sub` is the uid, `app` the app id, `exp` is required."""

    def __init__(self, app_id: str, secret: str) -> None:
        check_secret(secret)
        self._app_id = app_id
        self._secret = secret

    def verify(self, token: str, uid: str) -> Grant:
        import jwt

        if len(token) > _MAX_TOKEN_CHARACTERS:
            raise _invalid(f"it has {len(token):,} characters; at most {_MAX_TOKEN_CHARACTERS:,}")
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=["HS256"],
                leeway=_CLOCK_SKEW,
                options={"require": ["exp", "sub"], "verify_aud": False},
            )
            expires_at = float(claims["exp"])
        except jwt.ExpiredSignatureError:
            raise LoginError(
                LoginErrorCode.LOGIN_ERR_TOKEN_EXPIRED, "The token has expired; get a fresh one."
            ) from None
        except (jwt.InvalidTokenError, UnicodeError, OverflowError, RecursionError) as error:
            raise _invalid(f"{error}") from None
        if claims.get("app") != self._app_id:
            raise LoginError(
                LoginErrorCode.LOGIN_ERR_INVALID_APP_ID, "The token belongs to another app."
            )
        if claims["sub"] != uid:
            raise _invalid("its sub is not the uid that logs in")
        return Grant(expires_at)


def make_token(app_id: str, uid: str, secret: str, *, ttl: float = 3600.0) -> str:
    """Sign a token that `JwtVerifier` accepts. For an app's own server, and for tests.

    Args:
        ttl: seconds it is valid from now.

    Raises:
        ValueError: the secret is too short.
    """
    import jwt

    check_secret(secret)
    now = time.time()
    return jwt.encode(
        {"app": app_id, "sub": uid, "iat": int(now), "exp": int(now + ttl)},
        secret,
        algorithm="HS256",
    )


def check_secret(secret: str) -> None:
    """Refuse a secret that is too short for HS256."""
    size = len(secret.encode())
    if size < MIN_SECRET_BYTES:
        raise ValueError(
            f"The app secret has {size} bytes; HS256 needs at least {MIN_SECRET_BYTES}. Make one "
            'with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )


def _invalid(why: str) -> LoginError:
    return LoginError(LoginErrorCode.LOGIN_ERR_INVALID_TOKEN, f"The token is not valid: {why}.")
