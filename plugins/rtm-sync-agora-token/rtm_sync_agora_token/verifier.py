"""The verifier of AccessToken 006 and 007 of the reference's vendor, for RTM logins."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
import zlib
from collections.abc import Callable

from rtm_sync import LoginError
from rtm_sync.errors import LoginErrorCode
from rtm_sync.hub.auth.tokens import CLOCK_SKEW, Grant, TokenVerifier

from .parsing import BadToken, Token006, Token007, parse

DAY = 24 * 3600
"""The longest validity of a token in seconds, even if it claims more (the vendor's rule)."""

_HEX = re.compile(r"[0-9a-fA-F]{32}")
_LOGIN_006 = 1000  # kRtmLogin
_LOGIN_007 = 1

logger = logging.getLogger(__name__)


class AgoraTokenVerifier(TokenVerifier):
    """Verifies an app's tokens of versions 006 and 007. Thread-safe; it has no state.

    Args:
        app_id: the app, 32 hexadecimal digits.
        certificate: the app's certificate, 32 hexadecimal digits.
        now: the wall clock, in seconds since the epoch.
        clock_skew: seconds by which the clocks of token server and gateway may differ.

    Raises:
        ValueError: app id or certificate is not 32 hexadecimal digits.
    """

    def __init__(
        self,
        app_id: str,
        certificate: str,
        now: Callable[[], float] = time.time,
        clock_skew: float = CLOCK_SKEW,
    ) -> None:
        if not _HEX.fullmatch(app_id):
            raise ValueError(f"The app id {app_id!r} is not 32 hexadecimal digits.")
        if not _HEX.fullmatch(certificate):
            raise ValueError("The app's certificate is not 32 hexadecimal digits.")
        self._app_id = app_id
        self._certificate = certificate.encode()
        self._now = now
        self._clock_skew = clock_skew

    def verify(self, token: str, uid: str) -> Grant:
        """Verify that a token has the privilege to log in to RTM as this user.

        Raises:
            LoginError: INVALID_TOKEN for a malformed token, another certificate or another user;
                INVALID_APP_ID for another app; TOKEN_EXPIRED; NOT_AUTHORIZED without the privilege.
        """
        try:
            parsed = parse(token)
            if parsed.app_id != self._app_id:
                raise _refused(
                    LoginErrorCode.LOGIN_ERR_INVALID_APP_ID, "The token belongs to another app."
                )
            if isinstance(parsed, Token006):
                ends_at = self._check_006(parsed, uid.encode())
                issued_at = parsed.ends_at - DAY  # the vendor's builders add a day
            else:
                ends_at = self._check_007(parsed, uid.encode())
                issued_at = parsed.issued_at
            if ends_at <= self._now() - self._clock_skew:
                raise _refused(
                    LoginErrorCode.LOGIN_ERR_TOKEN_EXPIRED,
                    "The token has expired; get a new one.",
                )
        except BadToken as error:
            refusal = _refused(
                LoginErrorCode.LOGIN_ERR_INVALID_TOKEN, f"The token is not valid: {error}."
            )
            logger.info("a token of %r was refused: %s", uid, error)
            raise refusal from None
        except LoginError as error:
            logger.info("a token of %r was refused: %s", uid, error.message)
            raise
        return Grant(float(ends_at), issued_at=float(issued_at))

    def _check_006(self, token: Token006, user: bytes) -> int:
        message = token.app_id.encode() + user + token.message
        expected = hmac.new(self._certificate, message, hashlib.sha256).digest()
        if not hmac.compare_digest(expected, token.signature):
            raise BadToken("it was not signed for this user with this app's certificate")
        if token.account_checksum != zlib.crc32(user):
            raise BadToken("its checksum is of another user")
        if token.ends_at > self._now() + DAY + self._clock_skew:
            raise BadToken("it was made in the future")
        if _LOGIN_006 not in token.privileges:
            raise _not_authorized()
        return min(token.ends_at, token.privileges[_LOGIN_006] or token.ends_at)

    def _check_007(self, token: Token007, user: bytes) -> int:
        key = _digest(token.issued_at.to_bytes(4, "little"), self._certificate)
        key = _digest(token.salt.to_bytes(4, "little"), key)
        if not hmac.compare_digest(_digest(key, token.message), token.signature):
            raise BadToken("it was not signed with this app's certificate")
        if token.issued_at > self._now() + self._clock_skew:
            raise BadToken("it was made in the future")
        if token.user is None:
            raise _not_authorized()
        if token.user != user:
            raise BadToken("it is for another user")
        if _LOGIN_007 not in token.privileges:
            raise _not_authorized()
        return token.issued_at + min(token.lifetime, token.privileges[_LOGIN_007], DAY)


def _digest(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def _refused(code: LoginErrorCode, message: str) -> LoginError:
    return LoginError(code, message)


def _not_authorized() -> LoginError:
    return _refused(
        LoginErrorCode.LOGIN_ERR_NOT_AUTHORIZED, "The token has no privilege to log in to RTM."
    )
