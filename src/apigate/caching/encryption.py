"""Stored responses that only whoever has the key can read or make: encryption at rest, with rotation of keys.

Rule: a value is bound to the stage and the digest it lies under, so that none can be moved to another; whatever was not
made with one of the keys, for this very place, is a miss.

Source: NIST SP 800-38D (AES in Galois/Counter Mode), section 8.3.
"""

import os
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, final

from apigate.core.errors import ConfigurationError

__all__ = ["KEY_BYTES", "OVERHEAD", "Encryption"]

KEY_BYTES: Final = 32

_VERSION = b"E\x01"
_ID = 4
_NONCE = 12
_TAG = 16
OVERHEAD: Final = len(_VERSION) + _ID + _NONCE + _TAG
"""Bytes by which a value grows."""


@final
class Encryption:
    """AES-256-GCM under one key; values made with the others can still be read.

    To rotate, put a new key first and keep the old one for as long as its values may live; where several processes
    start one after another, first let all of them know the new key in second place.

    A nonce is 96 random bits: with no more than 2**32 values under one key, the chance that any two share a nonce stays
    below 2**-32. That is 1,000 values a second for 49 days.

    Args:
        keys: The keys, the one to encrypt with first: 32 random bytes each, as `os.urandom(32)` gives, or these in
            Base64.

    Raises:
        ConfigurationError: One of them is no key, or comes twice; or the package `cryptography` is not installed.

    >>> encryption = Encryption([bytes(range(32))])
    >>> encryption.decrypt(b"digest", encryption.encrypt(b"digest", b"secret"))
    b'secret'
    >>> encryption.decrypt(b"another", encryption.encrypt(b"digest", b"secret")) is None
    True
    """

    __slots__ = ("_ciphers", "_first", "_invalid")

    def __init__(self, keys: Sequence[bytes | str]) -> None:
        """Load the ciphers."""
        if isinstance(keys, bytes | str) or not keys:
            raise ConfigurationError(f"Encryption keys: a list of keys of {KEY_BYTES} bytes is needed, at least one")
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise ConfigurationError(
                "Encryption needs the package 'cryptography'; pip install 'apigate[crypto]'"
            ) from error
        checked = [_checked(key, place) for place, key in enumerate(keys)]
        self._invalid = InvalidTag
        self._ciphers: dict[bytes, AESGCM] = {_id_of(key): AESGCM(key) for key in checked}
        if len(self._ciphers) < len(checked):
            raise ConfigurationError("Encryption keys: one of them comes twice")
        self._first = _id_of(checked[0])

    def encrypt(self, key: bytes, value: bytes) -> bytes:
        """A value that `decrypt` gives back under the same key only.

        Args:
            key: Where it is kept: of which stage, under which digest.
            value: What to keep.
        """
        nonce = os.urandom(_NONCE)
        return b"".join((
            _VERSION, self._first, nonce, self._ciphers[self._first].encrypt(nonce, value, _VERSION + key),
        ))  # fmt: skip

    def decrypt(self, key: bytes, raw: bytes) -> bytes | None:
        """What was encrypted; None if it was not, or with no key that is known, or for another place, or changed."""
        if len(raw) < OVERHEAD or not raw.startswith(_VERSION):
            return None
        begin = len(_VERSION) + _ID
        cipher = self._ciphers.get(raw[len(_VERSION) : begin])
        if cipher is None:
            return None
        try:
            return cipher.decrypt(raw[begin : begin + _NONCE], raw[begin + _NONCE :], _VERSION + key)
        except self._invalid:
            return None

    def __repr__(self) -> str:
        """How many keys, and none of them."""
        return f"<Encryption with {len(self._ciphers)} keys>"


def _checked(key: bytes | str, place: int) -> bytes:
    """A key as bytes; no error tells what was given."""
    if isinstance(key, str):
        try:
            key = b64decode(key.translate(str.maketrans("-_", "+/")), validate=True)
        except (Base64Error, ValueError):
            key = b""
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"Encryption keys[{place}] is no key: {KEY_BYTES} random bytes are needed, as os.urandom({KEY_BYTES}) "
            f"gives, or these in Base64"
        )
    return key


def _id_of(key: bytes) -> bytes:
    """What tells a key from the others, and nothing of it."""
    return sha256(b"apigate key\x00" + key).digest()[:_ID]
