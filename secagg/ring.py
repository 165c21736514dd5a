"""Integers modulo 2^b as uint32 vectors, and their b-bit packed bytes.

Coordinate i occupies bits ``i*b .. i*b + b - 1`` of the little-endian bit string, so eight
coordinates fill exactly b bytes. The last byte is padded with zero bits (E-07).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.types import RingVector

__all__ = ["from_signed", "pack", "packed_size", "reduce", "to_signed", "unpack"]


def reduce(vector: RingVector, bits: int) -> RingVector:
    """Reduce `vector` modulo 2^bits in place and return it."""
    if bits < 32:
        vector &= np.uint32((1 << bits) - 1)
    return vector


def from_signed(values: NDArray[np.int64], bits: int) -> RingVector:
    """Map signed integers, shape (dim,), to their residues modulo 2^bits."""
    return reduce(values.astype(np.uint32), bits)


def to_signed(vector: RingVector, bits: int) -> NDArray[np.int64]:
    """Return the representatives of least magnitude, in [-2^(bits-1), 2^(bits-1)); int64."""
    lifted = vector.astype(np.int64)
    lifted[lifted >= 1 << (bits - 1)] -= 1 << bits
    return lifted


def packed_size(dim: int, bits: int) -> int:
    """Return the bytes that `dim` coordinates of `bits` bits take."""
    return -(-dim * bits // 8)


def pack(vector: RingVector, bits: int) -> bytes:
    """Pack `vector`, values below 2^bits, into `packed_size` bytes.

    One pass over the vector for each of the `bits` output bytes of a group of eight coordinates:
    no Python loop over coordinates.
    """
    dim = len(vector)
    groups = np.zeros((-(-dim // 8), 8), dtype=np.uint32)
    groups.reshape(-1)[:dim] = vector
    out = np.zeros((len(groups), bits), dtype=np.uint8)
    for column, (lane, shift) in _pieces(bits):
        piece = groups[:, lane] >> shift if shift >= 0 else groups[:, lane] << -shift
        out[:, column] |= piece.astype(np.uint8)
    return out.tobytes()[: packed_size(dim, bits)]


def unpack(data: bytes, dim: int, bits: int) -> RingVector | None:
    """Invert `pack`; None if the length is wrong or a padding bit is set (E-07)."""
    if len(data) != packed_size(dim, bits):
        return None
    n_groups = -(-dim // 8)
    raw = np.frombuffer(data.ljust(n_groups * bits, b"\0"), dtype=np.uint8).reshape(n_groups, bits)
    groups = np.zeros((n_groups, 8), dtype=np.uint32)
    for column, (lane, shift) in _pieces(bits):
        byte = raw[:, column].astype(np.uint32)
        groups[:, lane] |= byte << shift if shift >= 0 else byte >> -shift
    flat = reduce(groups.reshape(-1), bits)
    used = dim * bits % 8
    return None if used and data[-1] >> used else flat[:dim]


def _pieces(bits: int) -> list[tuple[int, tuple[int, int]]]:
    """List (output byte, (coordinate, right shift of that coordinate)) for a group of eight."""
    pieces = []
    for column in range(bits):
        first, last = 8 * column // bits, (8 * column + 7) // bits
        pieces += [(column, (lane, 8 * column - lane * bits)) for lane in range(first, last + 1)]
    return pieces
