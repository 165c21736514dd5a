"""X25519 key agreement."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from secagg.errors import AuthenticationError

__all__ = ["KEY_SIZE", "agree", "check_public", "private_key", "public_key"]

KEY_SIZE = 32
_ANY_KEY = X25519PrivateKey.from_private_bytes(bytes(KEY_SIZE))  # clamped; holds no secret


def private_key(seed: bytes) -> X25519PrivateKey:
    """Return the private key whose scalar is `seed` (32 bytes, clamped as RFC 7748 says)."""
    return X25519PrivateKey.from_private_bytes(seed)


def public_key(private: X25519PrivateKey) -> bytes:
    """Return the 32-byte public key."""
    return private.public_key().public_bytes_raw()


def check_public(peer: str, peer_public: bytes) -> None:
    """Refuse a public key with which nobody can agree on a secret.

    A key of small order gives zero with every clamped scalar, so one try with a fixed scalar finds
    it (RFC 7748 section 6.1).

    Raises:
        AuthenticationError: blames `peer`.
    """
    agree(_ANY_KEY, peer, peer_public)


def agree(private: X25519PrivateKey, peer: str, peer_public: bytes) -> bytes:
    """Return the 32-byte shared secret with `peer`.

    Raises:
        AuthenticationError: the peer's key is malformed or of small order (RFC 7748 section 6.1).
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(peer_public))
    except ValueError as error:
        raise AuthenticationError(peer, "its X25519 key is not usable") from error
