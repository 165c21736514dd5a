"""ML-KEM-768 key encapsulation (FIPS 203).

`encapsulate` draws its randomness inside the `cryptography` package, the one place in `secagg`
that does: FIPS 203 gives implementations no entry that takes it as an argument.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
)

from secagg.errors import AuthenticationError

__all__ = [
    "CAPSULE_SIZE",
    "PUBLIC_SIZE",
    "SEED_SIZE",
    "MLKEM768PrivateKey",
    "check_public",
    "decapsulate",
    "encapsulate",
    "private_key",
    "public_key",
]

SEED_SIZE = 64
PUBLIC_SIZE = 1184
CAPSULE_SIZE = 1088


def private_key(seed: bytes) -> MLKEM768PrivateKey:
    """Return the decapsulation key that a 64-byte seed stands for (FIPS 203 section 7.1)."""
    return MLKEM768PrivateKey.from_seed_bytes(seed)


def public_key(private: MLKEM768PrivateKey) -> bytes:
    """Return the 1184-byte encapsulation key."""
    return private.public_key().public_bytes_raw()


def check_public(peer: str, public: bytes) -> None:
    """Refuse an encapsulation key that FIPS 203 section 7.2 refuses.

    Raises:
        AuthenticationError: blames `peer`.
    """
    _load(peer, public)


def encapsulate(peer: str, public: bytes) -> tuple[bytes, bytes]:
    """Return a fresh 32-byte secret and the 1088-byte capsule that carries it to `peer`.

    Raises:
        AuthenticationError: blames `peer`; its key is malformed.
    """
    return _load(peer, public).encapsulate()


def decapsulate(private: MLKEM768PrivateKey, peer: str, capsule: bytes) -> bytes:
    """Return the 32-byte secret in a capsule; a forged one gives an unrelated secret.

    Raises:
        AuthenticationError: blames `peer`; the capsule has the wrong size.
    """
    try:
        return private.decapsulate(capsule)
    except ValueError:
        raise AuthenticationError(peer, "its ML-KEM capsule is malformed") from None


def _load(peer: str, public: bytes) -> MLKEM768PublicKey:
    try:
        return MLKEM768PublicKey.from_public_bytes(public)
    except ValueError:
        raise AuthenticationError(peer, "its ML-KEM key is not usable") from None
