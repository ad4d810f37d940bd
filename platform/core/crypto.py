"""Envelope encryption: data keys wrap data, the master key wraps data keys (NIST SP 800-57, 5.3.5).

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce. What a ciphertext belongs to (tenant, purpose,
version) is its associated data, so a value moved to another row, purpose or tenant does not open.
"""

import hashlib
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_FORMAT = b"\x01"
_NONCE = 12


class CannotOpen(Exception):
    """The ciphertext was changed, belongs elsewhere, or was sealed with another key."""


def new_key() -> bytes:
    """32 random bytes."""
    return AESGCM.generate_key(256)


def seal(key: bytes, plaintext: bytes, context: str) -> bytes:
    """Encrypt; the result is `format || nonce || ciphertext || tag`, 29 bytes longer than the input."""
    nonce = os.urandom(_NONCE)
    return _FORMAT + nonce + AESGCM(key).encrypt(nonce, plaintext, context.encode())


def unseal(key: bytes, sealed: bytes, context: str) -> bytes:
    """Decrypt what `seal` made with the same key and context. Raises `CannotOpen`."""
    if sealed[:1] != _FORMAT:
        raise CannotOpen("unknown format")
    try:
        return AESGCM(key).decrypt(sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :], context.encode())
    except (InvalidTag, ValueError) as error:  # ValueError: cut short
        raise CannotOpen("the ciphertext does not belong here") from error


@dataclass(frozen=True, repr=False)
class MasterKey:
    """The key that wraps all others. `kek_id` names it in every wrapped row, so that it can be rotated."""

    secret: bytes

    @property
    def kek_id(self) -> str:
        return hashlib.sha256(b"dermadetect kek" + self.secret).hexdigest()[:16]

    def wrap(self, tenant: str, purpose: str, plaintext: bytes) -> bytes:
        """Seal a key of `tenant` used for `purpose`."""
        return seal(self.secret, plaintext, f"{tenant}|{purpose}")

    def unwrap(self, tenant: str, purpose: str, wrapped: bytes) -> bytes:
        """Open what `wrap` sealed. Raises `CannotOpen`."""
        return unseal(self.secret, wrapped, f"{tenant}|{purpose}")

    def __repr__(self) -> str:
        return f"MasterKey(kek_id={self.kek_id!r})"
