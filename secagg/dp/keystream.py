"""AES-256 in counter mode as a stream of bytes. Source: specs/51-sampler.md section 4."""

from __future__ import annotations

import platform
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB, GCM
from numpy.typing import NDArray

from secagg.errors import LocalProtocolError

__all__ = ["KEY_SIZE", "SLACK", "Keystream", "side_stream"]

KEY_SIZE: Final = 32
SLACK: Final = 15
"""Bytes that a buffer for `Keystream.fill` has beyond those that are wanted."""
_MOST: Final = (1 << 36) - 64
"""Bytes of one stream: what the 32-bit counter of GCM reaches."""
_ZEROS: Final = memoryview(bytes(1 << 18))

# As in secagg/primitives/prg.py: on x86 OpenSSL runs GCM on wider vector units than CTR, and under
# a zero nonce GCM encrypts with the counters from 2. Counters 0 and 1 are then encrypted by hand.
_THROUGH_GCM: Final = platform.machine().lower() in {"x86_64", "amd64"}
_FIRST_COUNTERS: Final = bytes(16) + (1).to_bytes(16, "big")


class Keystream:
    """The AES-256-CTR keystream under one key, from counter 0, handed out in order.

    An instance is an `Rng`: called with n, it returns the next n bytes. It is not safe for use by
    several threads at once.

    Args:
        key: 32 uniform bytes, used for this stream only (so the fixed counter is safe).

    Raises:
        LocalProtocolError: the key is not 32 bytes, or more than 2^36 - 64 bytes are asked for.

    Source: NIST SP 800-38A section 6.5, SP 800-38D section 6.5.
    """

    __slots__ = ("_cipher", "_first", "_left")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise LocalProtocolError(f"a keystream has a key of {KEY_SIZE} bytes, not {len(key)}")
        self._first = b""
        mode: GCM | CTR = CTR(bytes(16))
        if _THROUGH_GCM:
            self._first = Cipher(AES256(key), ECB()).encryptor().update(_FIRST_COUNTERS)  # noqa: S305
            mode = GCM(bytes(12))
        self._cipher = Cipher(AES256(key), mode).encryptor()
        self._left = _MOST

    def __call__(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        buffer = np.empty(size + SLACK, dtype=np.uint8)
        self.fill(buffer)
        return buffer[:size].tobytes()

    def fill(self, buffer: NDArray[np.uint8]) -> None:
        """Write the next len(buffer) - 15 bytes to the front of `buffer`; its end is overwritten.

        Args:
            buffer: Shape (wanted + SLACK,), dtype uint8, contiguous.
        """
        wanted = len(buffer) - SLACK
        if not 0 <= wanted <= self._left:
            raise LocalProtocolError(f"{wanted} bytes of a keystream that has {self._left} left")
        self._left -= wanted
        start = min(wanted, len(self._first))
        if start:
            buffer[:start] = np.frombuffer(self._first, np.uint8, start)
            self._first = self._first[start:]
        while start < wanted:
            size = min(wanted - start, len(_ZEROS))
            self._cipher.update_into(_ZEROS[:size], buffer[start:].data)
            start += size


def side_stream(key: bytes, index: int) -> Keystream:
    """Return stream number `index` under `key`: unrelated ones, no matter how long each gets.

    Args:
        key: 32 uniform bytes, for such streams only.
        index: 0 to 2^64 - 1.
    """
    block = index.to_bytes(16, "big")
    cipher = Cipher(AES256(key), ECB()).encryptor()  # noqa: S305 - a pseudo-random permutation
    return Keystream(cipher.update(block) + cipher.update((index | 1 << 64).to_bytes(16, "big")))
