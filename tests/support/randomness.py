"""A deterministic stand-in for the operating system's randomness. Never outside tests."""

from __future__ import annotations

import hashlib


class InsecureLabelledRng:
    """Bytes from SHA-256(seed ‖ label ‖ counter): the same label gives the same stream."""

    def __init__(self, seed: int, label: str) -> None:
        self._prefix = f"{seed}/{label}/".encode()
        self._counter = 0

    def __call__(self, size: int) -> bytes:
        out = b""
        while len(out) < size:
            out += hashlib.sha256(self._prefix + str(self._counter).encode()).digest()
            self._counter += 1
        return out[:size]
