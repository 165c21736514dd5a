"""Integers modulo 2^b as uint32 vectors, and their b-bit packed bytes.

Packed bytes hold the vector in planes, one for each power of two in b (E-07): 20 bits are a plane
of the low 16 bits of every coordinate and a plane of the 4 bits above. A plane of whole bytes is a
plain little-endian array. In a narrower plane each byte has one coordinate from every half, quarter
or eighth of the vector. So every pass runs over contiguous arrays of a narrow type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from secagg.types import RingVector

__all__ = ["from_signed", "pack", "packed_size", "reduce", "to_signed", "unpack"]

_WHOLE: Final[dict[int, np.dtype[Any]]] = {
    32: np.dtype("<u4"),
    16: np.dtype("<u2"),
    8: np.dtype("u1"),
}
_PARTIAL: Final = (4, 2, 1)
_SHIFTS: Final = {w: np.arange(0, 8, w, dtype=np.uint8)[:, np.newaxis] for w in _PARTIAL}
_FACTORS: Final = {w: np.uint8(1) << _SHIFTS[w] for w in _PARTIAL}
"""Left shifts by multiplication, which numpy does eight times as fast on uint8."""


def reduce(vector: RingVector, bits: int) -> RingVector:
    """Reduce `vector` modulo 2^bits in place and return it."""
    if bits < 32:
        vector &= np.uint32((1 << bits) - 1)
    return vector


def from_signed(values: NDArray[np.signedinteger[Any]], bits: int) -> RingVector:
    """Map signed integers, shape (dim,), to their residues modulo 2^bits."""
    return reduce(values.astype(np.uint32), bits)  # E-08


def to_signed(vector: RingVector, bits: int) -> NDArray[np.int32]:
    """Return the representatives of least magnitude, in [-2^(bits-1), 2^(bits-1)); int32."""
    lifted = (vector << np.uint32(32 - bits)).view(np.int32)
    lifted >>= np.int32(32 - bits)  # E-08: with the sign
    return lifted


def packed_size(dim: int, bits: int) -> int:
    """Return the bytes that `dim` coordinates of `bits` bits take: `bits` for each begun eight."""
    return -(-dim // 8) * bits


def pack(vector: RingVector, bits: int) -> bytes:
    """Pack `vector` modulo 2^bits, shape (dim,), into `packed_size` bytes; `bits` is 8 to 32.

    Values need no `reduce` first: each plane takes its own bits and what lies above them is lost.
    """
    rest: NDArray[Any] = vector
    if len(vector) % 8:
        rest = np.zeros(len(vector) + -len(vector) % 8, dtype=np.uint32)
        rest[: len(vector)] = vector
    planes: list[NDArray[Any]] = []
    for width, dtype in _WHOLE.items():
        if bits & width:
            planes.append(rest.astype(dtype))
            if above := bits % width:
                rest = (rest >> width).astype(np.uint8 if above <= 8 else np.uint16)
    start = 0
    for width in _PARTIAL:
        if bits & width:
            piece = (rest >> start if start else rest) & np.uint8((1 << width) - 1)
            piece = piece.reshape(8 // width, -1) * _FACTORS[width]
            planes.append(np.bitwise_or.reduce(piece, axis=0))
            start += width
    return b"".join(plane.data for plane in planes)


def unpack(data: bytes, dim: int, bits: int) -> RingVector | None:
    """Invert `pack`; None if the length is wrong or a padding bit is set (E-07)."""
    if len(data) != packed_size(dim, bits):
        return None
    planes = _planes_of(data, dim, bits)
    value = _join_partial(planes)
    for width in (8, 16, 32):
        if width in planes:
            wider = np.uint16 if width == 8 else np.uint32
            if value is None:
                value = planes[width].astype(wider)
            else:
                value = value.astype(wider)
                value <<= width
                value |= planes[width]
    if value is None or value[dim:].any():
        return None
    return value[:dim].astype(np.uint32, copy=False)


def _planes_of(data: bytes, dim: int, bits: int) -> dict[int, NDArray[Any]]:
    """Return width to plane, views of `data`, which has the right length."""
    planes: dict[int, NDArray[Any]] = {}
    start = 0
    for width in (*_WHOLE, *_PARTIAL):
        if bits & width:
            dtype, size = _WHOLE.get(width, _WHOLE[8]), -(-dim // 8) * width
            planes[width] = np.frombuffer(data, dtype, size // dtype.itemsize, start)
            start += size
    return planes


def _join_partial(planes: Mapping[int, NDArray[Any]]) -> NDArray[np.uint8] | None:
    """Return the up to 7 bits of each coordinate above the whole bytes; None if there are none."""
    value: NDArray[np.uint8] | None = None
    start = 0
    for width in _PARTIAL:
        if width in planes:
            piece = planes[width] >> _SHIFTS[width]
            piece &= np.uint8((1 << width) - 1)
            if value is None:
                value = piece.reshape(-1)
            else:
                piece *= np.uint8(1 << start)
                value |= piece.reshape(-1)
            start += width
    return value
