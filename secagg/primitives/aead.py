"""Authenticated encryption for short secrets under keys that are used once."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from secagg.errors import AuthenticationError

__all__ = ["OVERHEAD", "seal", "unseal"]

OVERHEAD = 16
_NONCE = bytes(12)  # safe because a key seals exactly one message (M-08)


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Encrypt `plaintext` under a 32-byte `key` that is never used again."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, plaintext, associated)


def unseal(key: bytes, box: bytes, associated: bytes, *, sender: str) -> bytes:
    """Decrypt `box`.

    Raises:
        AuthenticationError: blames `sender`; the box was not sealed under this key and context.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, box, associated)
    except InvalidTag:
        raise AuthenticationError(sender, "a sealed share does not open") from None
