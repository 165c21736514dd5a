"""Parameter vectors as digests and bounded chunks, on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from secagg.errors import RemoteProtocolError
from secagg.wire.messages import MODEL_CHUNK, ModelChunk

__all__ = ["ModelReceiver", "from_bytes", "model_chunks", "model_digest", "to_bytes"]


def to_bytes(vector: NDArray[np.float32]) -> bytes:
    """Return the little-endian float32 bytes of `vector`."""
    return vector.astype("<f4").tobytes()


def from_bytes(data: bytes) -> NDArray[np.float32]:
    """Invert `to_bytes`."""
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def model_digest(params: NDArray[np.float32]) -> bytes:
    """Return the SHA-256 of the parameter bytes."""
    return hashlib.sha256(to_bytes(params)).digest()


def model_chunks(round_id: int, params: NDArray[np.float32]) -> Iterator[ModelChunk]:
    """Cut the parameters into messages."""
    data = to_bytes(params)
    for index, start in enumerate(range(0, len(data), MODEL_CHUNK)):
        yield ModelChunk(round_id, index, data[start : start + MODEL_CHUNK])


class ModelReceiver:
    """Puts the chunks of one model together and checks them against its digest."""

    def __init__(self, round_id: int, dim: int, digest: bytes, sender: str) -> None:
        self._round_id, self._digest, self._sender = round_id, digest, sender
        self._size = 4 * dim
        self._buffer = bytearray()
        self._next = 0

    def take(self, chunk: ModelChunk) -> NDArray[np.float32] | None:
        """Add a chunk; return the model when it is complete.

        Raises:
            RemoteProtocolError: a chunk is out of order or too long, the digest does not match, or
                a parameter is not finite (S-08).
        """
        due = min(MODEL_CHUNK, self._size - len(self._buffer))
        if chunk.round_id != self._round_id or chunk.index != self._next or len(chunk.data) != due:
            raise RemoteProtocolError(self._sender, f"model chunk {chunk.index} was not due")
        self._buffer += chunk.data
        self._next += 1
        if len(self._buffer) < self._size:
            return None
        data = bytes(self._buffer)
        if hashlib.sha256(data).digest() != self._digest:
            raise RemoteProtocolError(self._sender, "the model does not match its digest")
        params = from_bytes(data)
        if not np.isfinite(params).all():
            raise RemoteProtocolError(self._sender, "the model has parameters that are not finite")
        return params
