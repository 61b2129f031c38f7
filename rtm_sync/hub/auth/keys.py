"""Keys that verify tokens: shared secrets, and public keys in files that may change."""

from __future__ import annotations

import hashlib
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
"""Prefixes of a path in place of a secret: a public key (PEM), or a set of them (RFC 7517)."""

_CHECK_INTERVAL = 5.0  # seconds between checks for a changed file
_MAX_FILE_BYTES = 1024 * 1024

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """One key and its only algorithm: a token must not choose the algorithm.

    Attributes:
        material: the key as PyJWT takes it.
        algorithm: the JWT name of the algorithm.
        name: the `kid` of the tokens that it signs; None when the key has no name.
    """

    material: Any
    algorithm: str
    name: str | None = None

    @property
    def fingerprint(self) -> str:
        """Names the key in the grants of its tokens; the key does not follow from it."""
        if isinstance(self.material, str):
            return fingerprint(self.material)
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        return hashlib.sha256(self.material.public_bytes(*form)).hexdigest()

    @property
    def is_secret(self) -> bool:
        """Whether it is a shared secret, and no public key."""
        return self.algorithm.startswith("HS")


class KeySource(ABC):
    """The source of an app's keys."""

    @abstractmethod
    def current(self) -> tuple[Key, ...]:
        """The current keys. Thread-safe."""


class Secret(KeySource):
    """A shared secret for HS256.

    Raises:
        ValueError: the secret is shorter than 32 bytes.
    """

    def __init__(self, secret: str) -> None:
        check_secret(secret)
        self._keys = (Key(secret, "HS256"),)

    def current(self) -> tuple[Key, ...]:
        return self._keys


class KeyFile(KeySource):
    """Public keys in a file. The file is read again when it changes.

    When the changed file cannot be used, the previous keys stay and an error is logged.

    Args:
        path: the file.
        parse: returns the keys in the file's content.
        check_interval: seconds between checks for a change.

    Raises:
        ValueError: the file cannot be read, or has no usable key.
    """

    def __init__(
        self, path: Path, parse: Callable[[bytes], tuple[Key, ...]], check_interval: float
    ) -> None:
        self._path = path
        self._parse = parse
        self._check_interval = check_interval
        self._lock = threading.Lock()  # guards the attributes below
        self._checked_at = time.monotonic()
        try:
            self._stamp = self._file_stamp()
            self._keys = parse(self._content())
        except (OSError, ValueError) as error:
            raise ValueError(f"The key file {path} cannot be used: {error}.") from error

    def current(self) -> tuple[Key, ...]:
        with self._lock:
            now = time.monotonic()
            if now - self._checked_at >= self._check_interval:
                self._checked_at = now
                self._reload_if_changed()
            return self._keys

    def _reload_if_changed(self) -> None:
        try:
            stamp = self._file_stamp()
            if stamp != self._stamp:
                self._stamp = stamp
                self._keys = self._parse(self._content())
                logger.info("the key file %s was read again", self._path)
        except (OSError, ValueError) as error:
            logger.error("the key file %s cannot be used: %s", self._path, error)  # noqa: TRY400

    def _file_stamp(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _content(self) -> bytes:
        with self._path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES)


def key_source(secret: str, check_interval: float = _CHECK_INTERVAL) -> KeySource:
    """The key source of a configured secret.

    Args:
        secret: a shared secret of 32 bytes or more, `file:PATH` or `jwks:PATH`.
        check_interval: seconds between checks for a changed file.

    Raises:
        ValueError: the secret is too short, or the file cannot be used.
    """
    if secret.startswith(PEM):
        return KeyFile(Path(secret.removeprefix(PEM)), _pem_keys, check_interval)
    if secret.startswith(JWKS):
        return KeyFile(Path(secret.removeprefix(JWKS)), _jwks_keys, check_interval)
    return Secret(secret)


def fingerprint(secret: str) -> str:
    """Names a configured secret, which does not follow from it."""
    return hashlib.sha256(secret.encode()).hexdigest()


def is_shared(secret: str) -> bool:
    """Whether the secret is a shared secret, and not the path of public keys."""
    return not secret.startswith((PEM, JWKS))


def check_secret(secret: str) -> None:
    """Raise ValueError for a shared secret that is too short for HS256."""
    size = len(secret.encode())
    if is_shared(secret) and size < MIN_SECRET_BYTES:
        raise ValueError(
            f"The app secret has {size} bytes; HS256 needs at least {MIN_SECRET_BYTES}. Make one "
            'with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )


def signing_key(secret: str) -> Key:
    """The key that signs tokens.

    Args:
        secret: a shared secret, or a private key in PEM.

    Raises:
        ValueError: the secret is too short, or the key is invalid or of an unsupported kind.
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
    return tuple(Key(jwk.key, _algorithm(jwk.key), jwk.key_id) for jwk in found)


def _algorithm(public: object) -> str:
    """The only algorithm of a public key: with several, a token could choose a weaker one."""
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
