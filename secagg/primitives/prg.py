"""Keystream to ring vector: a pseudo-random generator with 256-bit seeds."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from secagg.errors import LocalProtocolError
from secagg.types import RingVector

__all__ = ["SEED_SIZE", "accumulate"]

SEED_SIZE = 32
_BLOCK = 1 << 16  # coordinates at a time: 256 kB of keystream stay in the second-level cache
_ZEROS = bytes(4 * _BLOCK)


def accumulate(total: RingVector, seed: bytes, *, negative: bool = False) -> None:
    """Add to `total`, in place and modulo 2^32, the mask that `seed` stands for.

    The mask is the AES-256-CTR keystream under `seed` from counter 0, read as little-endian
    uint32. Its low bits are uniform, so the caller may reduce modulo any smaller power of two.

    Args:
        total: Shape (dim,), dtype uint32, C-contiguous.
        seed: 32 bytes from HKDF, used for this mask only (so the fixed counter is safe).
        negative: Subtract instead.

    Raises:
        LocalProtocolError: the seed is not 32 bytes.

    Source: specs/30-masking.md section 5; Bonawitz et al. 2017 section 3.3.
    """
    if len(seed) != SEED_SIZE:
        raise LocalProtocolError(f"a mask seed has {SEED_SIZE} bytes, not {len(seed)}")
    stream = Cipher(AES256(seed), CTR(bytes(16))).encryptor()
    buffer = bytearray(4 * min(_BLOCK, len(total)) + 15)
    apply = np.subtract if negative else np.add
    for start in range(0, len(total), _BLOCK):
        part = total[start : start + _BLOCK]
        size = stream.update_into(memoryview(_ZEROS)[: 4 * len(part)], buffer)
        mask = np.frombuffer(buffer, dtype="<u4", count=size // 4)
        apply(part, mask, out=part)
