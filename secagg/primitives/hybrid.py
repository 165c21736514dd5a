"""Hybrid key encapsulation: X25519 with ML-KEM-768.

Both secrets together go into the caller's key derivation, with the capsule and everything else
that the key is for, so that only an attack on both finds it.

Source: NIST SP 800-227 section 4.6 (composite key agreement).
"""

from __future__ import annotations

from typing import Final

from secagg.primitives import agreement, kem
from secagg.primitives.kdf import derive
from secagg.tags import AGREEMENT_SEED, KEM_SEED

__all__ = ["SUITE_HYBRID", "HybridKeys", "check_public"]

SUITE_HYBRID: Final = 1
"""X25519 with ML-KEM-768, HKDF-SHA256, ChaCha20-Poly1305, AES-256-CTR, Ed25519. Others refused."""


class HybridKeys:
    """A node's two key pairs of one round; neither is ever shared or backed up.

    Args:
        secret: 32 uniform bytes.
    """

    def __init__(self, secret: bytes) -> None:
        # Two derivations, so that whoever finds the X25519 scalar is no nearer to the other key.
        self._agreement = agreement.private_key(derive(secret, AGREEMENT_SEED))
        self._kem = kem.private_key(derive(secret, KEM_SEED, length=kem.SEED_SIZE))

    @property
    def public(self) -> tuple[bytes, bytes]:
        """The X25519 key (32 bytes) and the ML-KEM-768 key (1184 bytes)."""
        return agreement.public_key(self._agreement), kem.public_key(self._kem)

    def encapsulate(self, peer: str, agreement_key: bytes, kem_key: bytes) -> tuple[bytes, bytes]:
        """Return 64 secret bytes to derive keys from, and the capsule (1088 bytes) for `peer`.

        Raises:
            AuthenticationError: blames the peer; one of its keys is not usable.
        """
        secret, capsule = kem.encapsulate(peer, kem_key)
        return agreement.agree(self._agreement, peer, agreement_key) + secret, capsule

    def decapsulate(self, peer: str, agreement_key: bytes, capsule: bytes) -> bytes:
        """Return the same 64 bytes from the capsule of `peer`; a forged one gives others.

        Raises:
            AuthenticationError: blames the peer; the capsule or its X25519 key is malformed.
        """
        secret = kem.decapsulate(self._kem, peer, capsule)
        return agreement.agree(self._agreement, peer, agreement_key) + secret


def check_public(peer: str, agreement_key: bytes, kem_key: bytes) -> None:
    """Refuse public keys with which nobody could agree on a secret.

    Raises:
        AuthenticationError: blames `peer`.
    """
    agreement.check_public(peer, agreement_key)
    kem.check_public(peer, kem_key)
