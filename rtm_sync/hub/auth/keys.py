"""What tokens are signed with: secrets, and public keys in files that may change meanwhile."""

from __future__ import annotations

import json
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIN_SECRET_BYTES = 32
"""HS256 needs a key at least as long as its digest (RFC 7518, section 3.2)."""

MIN_RSA_BITS = 2048
PEM, JWKS = "file:", "jwks:"
"""In front of a path in place of a secret: a public key (PEM), or a set of them (RFC 7517)."""

_LOOK_INTERVAL = 5.0  # seconds between looks whether a file has changed
_MAX_FILE_BYTES = 1024 * 1024

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """One key, and the one algorithm it is for: a token does not choose.

    Attributes:
        material: what PyJWT takes.
        name: the `kid` of a token that it signed; None when nobody said.
    """

    material: Any
    algorithm: str
    name: str | None = None


class KeySource(ABC):
    """Where an app's keys are."""

    @abstractmethod
    def current(self) -> tuple[Key, ...]:
        """The keys of the moment. Thread-safe."""


class Secret(KeySource):
    """A shared secret, for HS256. Raises ValueError when it is too short."""

    def __init__(self, secret: str) -> None:
        check_secret(secret)
        self._keys = (Key(secret, "HS256"),)

    def current(self) -> tuple[Key, ...]:
        return self._keys


class KeyFile(KeySource):
    """Public keys in a file, which is read again when it changes; a bad one changes nothing.

    Args:
        parse: what makes keys of its content.
        look_interval: seconds between looks whether it has changed.

    Raises:
        ValueError: it cannot be read, or has no usable key.
    """

    def __init__(
        self, path: Path, parse: Callable[[bytes], tuple[Key, ...]], look_interval: float
    ) -> None:
        self._path = path
        self._parse = parse
        self._look_interval = look_interval
        self._lock = threading.Lock()  # guards what follows
        self._looked_at = time.monotonic()
        try:
            self._stamp = self._present_stamp()
            self._keys = parse(self._content())
        except (OSError, ValueError) as error:
            raise ValueError(f"The key file {path} cannot be used: {error}.") from error

    def current(self) -> tuple[Key, ...]:
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at >= self._look_interval:
                self._looked_at = now
                self._look()
            return self._keys

    def _look(self) -> None:
        try:
            stamp = self._present_stamp()
            if stamp != self._stamp:
                self._stamp = stamp
                self._keys = self._parse(self._content())
                logger.info("the key file %s was read again", self._path)
        except (OSError, ValueError) as error:
            logger.error("the key file %s cannot be used: %s", self._path, error)  # noqa: TRY400

    def _present_stamp(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _content(self) -> bytes:
        with self._path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES)


def key_source(secret: str, look_interval: float = _LOOK_INTERVAL) -> KeySource:
    """The keys that a secret stands for: itself, `file:PATH` or `jwks:PATH`.

    Args:
        secret: 32 bytes or more, or where public keys are.
        look_interval: seconds between looks whether a file has changed.

    Raises:
        ValueError: too short, or the file cannot be used.
    """
    if secret.startswith(PEM):
        return KeyFile(Path(secret.removeprefix(PEM)), _pem_keys, look_interval)
    if secret.startswith(JWKS):
        return KeyFile(Path(secret.removeprefix(JWKS)), _jwks_keys, look_interval)
    return Secret(secret)


def is_shared(secret: str) -> bool:
    """Whether it is a secret that both sides know, and not where public keys are."""
    return not secret.startswith((PEM, JWKS))


def check_secret(secret: str) -> None:
    """Refuse a secret that is too short for HS256."""
    size = len(secret.encode())
    if is_shared(secret) and size < MIN_SECRET_BYTES:
        raise ValueError(
            f"The app secret has {size} bytes; HS256 needs at least {MIN_SECRET_BYTES}. Make one "
            'with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )


def signing_key(secret: str) -> Key:
    """What a token is signed with: a shared secret, or a private key in PEM.

    Raises:
        ValueError: too short, no key, or of a kind that is not supported.
    """
    if not secret.lstrip().startswith("-----BEGIN"):
        check_secret(secret)
        return Key(secret, "HS256")
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(secret.encode(), None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise ValueError(f"The private key cannot be used: {error}") from error
    return Key(private, _algorithm(private.public_key()))


def _pem_keys(content: bytes) -> tuple[Key, ...]:
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise ValueError("public keys need cryptography: pip install rtm-sync[keys]") from None
    public = load_pem_public_key(content)
    return (Key(public, _algorithm(public)),)


def _jwks_keys(content: bytes) -> tuple[Key, ...]:
    import jwt

    try:
        found = jwt.PyJWKSet.from_dict(json.loads(content)).keys
    except (jwt.PyJWTError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"{error}") from error
    return tuple(Key(one.key, _algorithm(one.key), one.key_id) for one in found)


def _algorithm(public: object) -> str:
    """The one algorithm of a public key: with several, a token could choose a weaker one."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ec import (
            SECP256R1,
            EllipticCurvePublicKey,
        )
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    except ImportError:
        raise ValueError("public keys need cryptography: pip install rtm-sync[keys]") from None
    if isinstance(public, Ed25519PublicKey):
        return "EdDSA"
    if isinstance(public, RSAPublicKey):
        if public.key_size < MIN_RSA_BITS:
            raise ValueError(
                f"the RSA key has {public.key_size} bits; it must have {MIN_RSA_BITS} or more"
            )
        return "RS256"
    if isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP256R1):
        return "ES256"
    raise ValueError(
        f"{type(public).__name__.lstrip('_')} is not a public key of Ed25519, RSA or P-256"
    )
