"""Keystream to ring vector: a pseudo-random generator with 256-bit seeds."""

from __future__ import annotations

import platform
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB, GCM

from secagg.errors import LocalProtocolError
from secagg.types import RingVector

__all__ = ["SEED_SIZE", "accumulate"]

SEED_SIZE: Final = 32
_BLOCK: Final = 1 << 16  # coordinates at a time: zeros, keystream and sum stay in a 1 MB cache
_ZEROS: Final = memoryview(bytes(4 * _BLOCK))
_SLACK: Final = 15  # bytes that `update_into` wants beyond its output

# OpenSSL runs GCM on the wide vector units of x86 and CTR not: the same keystream at 2.5 times the
# rate where the processor has VAES. Elsewhere the authentication only costs.
_THROUGH_GCM: Final = platform.machine().lower() in {"x86_64", "amd64"}
_GCM_SKIPS: Final = 8  # coordinates of counters 0 and 1; under a zero nonce GCM encrypts from 2
_FIRST_COUNTERS: Final = bytes(16) + (1).to_bytes(16, "big")


def accumulate(total: RingVector, seed: bytes, *, negative: bool = False) -> None:
    """Add to `total`, in place and modulo 2^32, the mask that `seed` stands for.

    The mask is the AES-256-CTR keystream under `seed` from counter 0, read as little-endian
    uint32. Its low bits are uniform, so the caller may reduce modulo any smaller power of two.

    Args:
        total: Shape (dim,), dtype uint32, C-contiguous, below 2^34 coordinates.
        seed: 32 bytes from HKDF, used for this mask only (so the fixed counter is safe).
        negative: Subtract instead.

    Raises:
        LocalProtocolError: the seed is not 32 bytes.

    Source: specs/30-masking.md section 5; Bonawitz et al. 2017 section 3.3. NIST SP 800-38D
    section 6.5: GCM encrypts in counter mode.
    """
    if len(seed) != SEED_SIZE:
        raise LocalProtocolError(f"a mask seed has {SEED_SIZE} bytes, not {len(seed)}")
    apply = np.subtract if negative else np.add
    rest = total
    if _THROUGH_GCM:
        first, rest = total[:_GCM_SKIPS], total[_GCM_SKIPS:]
        blocks = Cipher(AES256(seed), ECB()).encryptor().update(_FIRST_COUNTERS)  # noqa: S305
        apply(first, np.frombuffer(blocks, "<u4", len(first)), first)
    stream = Cipher(AES256(seed), GCM(bytes(12)) if _THROUGH_GCM else CTR(bytes(16))).encryptor()
    size = min(_BLOCK, len(rest))
    buffer = np.empty(4 * size + _SLACK, dtype=np.uint8).data
    mask = np.frombuffer(buffer, "<u4", size)  # M-17
    for start in range(0, len(rest), _BLOCK):
        part = rest[start : start + _BLOCK]
        stream.update_into(_ZEROS[: 4 * len(part)], buffer)
        apply(part, mask[: len(part)], part)
