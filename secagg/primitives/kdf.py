"""Hashing and key derivation with unambiguous input framing."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["derive", "digest", "frame"]


def frame(*parts: bytes) -> bytes:
    """Concatenate `parts`, each behind its length (8 bytes, little-endian): injective (W-09)."""
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def digest(tag: bytes, *parts: bytes) -> bytes:
    """Return SHA-256 over `tag` and the framed `parts` (32 bytes)."""
    return hashlib.sha256(tag + frame(*parts)).digest()


def derive(secret: bytes, tag: bytes, *context: bytes, length: int = 32) -> bytes:
    """Return `length` bytes from HKDF-SHA256 over `secret`, bound to `tag` and `context`.

    Source: RFC 5869, without salt; the info field is `tag` and the framed `context`.
    """
    return HKDF(SHA256(), length=length, salt=None, info=tag + frame(*context)).derive(secret)
