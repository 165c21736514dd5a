"""Random rotation of a whole vector: signs from a public seed and fast Walsh-Hadamard transforms.

A rotation spreads a vector evenly over its coordinates, so that few bits hold each of them. Lengths
that are no power of two need no padding: one transform runs over the first P coordinates, one over
the last P, P the greatest power of two that fits.

Between the two stands a second set of signs. Without it the transforms partly undo each other where
they overlap: for a dim of P + 1 the product of both is nearly the identity.

Source: specs/50-dp.md section 5; Ailon and Chazelle 2009 section 2 (signs, then the transform);
Kairouz, Liu and Steinke 2021 section 5 (under distributed noise).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secagg.errors import LocalProtocolError
from secagg.primitives.prg import SEED_SIZE, accumulate

__all__ = ["rotate", "transform_length", "unrotate"]

_FACTOR_BITS: Final = 5
"""Bits of a factor: products with 32 by 32 matrices are quickest; 64 as good, 128 half as fast."""
_COLUMNS: Final = 128
"""Columns that one product takes: so small that the library does it in one thread. Threads that
wait for each other cost many times what they save where other nodes share the processors."""


def transform_length(dim: int) -> int:
    """Return P, the greatest power of two up to `dim`."""
    return 1 << (dim.bit_length() - 1)


def rotate(vector: NDArray[np.float64], seed: bytes) -> NDArray[np.float64]:
    """Return `vector` rotated as `seed` says.

    With independent signs each coordinate of the result is sub-Gaussian with the variance proxy
    ‖vector‖²/P at most, whatever the vector, as long as it does not depend on the signs.

    Args:
        vector: Shape (dim,), dtype float64; left as it is.
        seed: 32 public bytes, used for nothing else.

    Returns:
        Shape (dim,), dtype float64; off by less than 2^-18 of the L2 norm, since the products are
        taken in float32: three times as fast, and far below a step of any noise that protects. No
        guarantee rests on it: lengths are checked on the integers that come after (D-07).

    Raises:
        LocalProtocolError: the seed is not 32 bytes, or the vector is not a flat one.
    """
    first, second = _signs(seed, vector)
    size, start = transform_length(len(vector)), len(vector) - transform_length(len(vector))
    rotated: NDArray[np.float32] = np.multiply(vector, first, dtype=np.float32)
    rotated[:size] = _transform(rotated[:size])
    if start:  # over all coordinates twice would be once and back
        rotated[start:] *= second
        rotated[start:] = _transform(rotated[start:])
    return rotated.astype(np.float64)


def unrotate(rotated: NDArray[np.float64], seed: bytes) -> NDArray[np.float64]:
    """Invert `rotate`; the same arguments and errors."""
    first, second = _signs(seed, rotated)
    size, start = transform_length(len(rotated)), len(rotated) - transform_length(len(rotated))
    vector = rotated.astype(np.float32)
    if start:
        vector[start:] = _transform(vector[start:])
        vector[start:] *= second
    vector[:size] = _transform(vector[:size])
    vector *= first
    return vector.astype(np.float64)


def _signs(
    seed: bytes, vector: NDArray[np.float64]
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:  # D-06
    """Return the signs, ±1, of all coordinates and of the last P ones before their transform."""
    if len(seed) != SEED_SIZE:
        raise LocalProtocolError(f"a seed of signs has {SEED_SIZE} bytes, not {len(seed)}")
    if vector.ndim != 1 or not len(vector):
        raise LocalProtocolError(f"a vector of shape {vector.shape} cannot be rotated")
    dims = (len(vector), transform_length(len(vector)))
    sizes = [-(-dim // 8) for dim in dims]
    words = np.zeros(-(-sum(sizes) // 4), dtype=np.uint32)
    accumulate(words, seed)
    stream = words.astype("<u4", copy=False).view(np.uint8)
    parts = (stream[: sizes[0]], stream[sizes[0] : sum(sizes)])
    first, second = (
        1 - 2 * np.unpackbits(part, count=dim, bitorder="little").view(np.int8)
        for part, dim in zip(parts, dims, strict=True)
    )
    return first, second


def _transform(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the orthonormal Walsh-Hadamard transform of 2^j values; it is its own inverse.

    A Sylvester matrix is the Kronecker product of small ones: each is applied along an axis of its
    own by matrix products, which is much quicker here than log2 P passes of sums and differences.
    """
    log = len(vector).bit_length() - 1
    right = len(vector)
    for index in range(passes := -(-log // _FACTOR_BITS)):
        bits = log // passes + (index < log % passes)
        right >>= bits
        factor = _sylvester(bits)
        if right == 1:
            rows = min(len(vector) >> bits, _COLUMNS)
            vector = np.matmul(vector.reshape(-1, rows, 1 << bits), factor)  # symmetric
        else:
            shape = (-1, 1 << bits, -(-right // _COLUMNS), min(right, _COLUMNS))
            product = np.empty_like(vector)
            pieces = product.reshape(shape).transpose(0, 2, 1, 3)
            np.matmul(factor, vector.reshape(shape).transpose(0, 2, 1, 3), out=pieces)
            vector = product
        vector = vector.reshape(-1)
    return vector


@lru_cache(maxsize=8)
def _sylvester(bits: int) -> NDArray[np.float32]:
    """Return the orthonormal Walsh-Hadamard matrix of size 2^bits in Sylvester's order."""
    signs = np.ones((1, 1))
    for _ in range(bits):
        signs = np.block([[signs, signs], [signs, -signs]])
    matrix: NDArray[np.float32] = (signs / np.sqrt(len(signs))).astype(np.float32)
    matrix.flags.writeable = False
    return matrix
