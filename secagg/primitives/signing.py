"""Ed25519 signatures over a tag and framed parts."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from secagg.errors import AuthenticationError
from secagg.primitives.kdf import frame
from secagg.types import Signer

__all__ = ["SIGNATURE_SIZE", "sign", "verify"]

SIGNATURE_SIZE = 64


def sign(signer: Signer, tag: bytes, *parts: bytes) -> bytes:
    """Return `signer`'s signature over `tag` and the framed `parts`."""
    return signer.sign(tag + frame(*parts))


def verify(key: bytes, signature: bytes, tag: bytes, *parts: bytes, signer: str) -> None:
    """Check a signature made by `sign`.

    Raises:
        AuthenticationError: blames `signer`; key or signature is malformed or does not match.
    """
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, tag + frame(*parts))
    except (InvalidSignature, ValueError):
        raise AuthenticationError(signer, "its signature does not verify") from None
