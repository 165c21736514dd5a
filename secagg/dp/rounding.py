"""Floats to integers at random, under a bound on the L2 norm of the integers that always holds.

Rounding each coordinate up or down at random could lengthen a vector by √dim. It nearly never does,
so vectors that come out too long are drawn again. The bound is checked on the integers, exactly: no
float error of what came before (scaling, clipping, rotation) can void it.

Source: specs/50-dp.md section 6; Kairouz, Liu and Steinke 2021 section 4 (conditional rounding).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secagg.errors import ConfigError, LocalProtocolError
from secagg.primitives.prg import SEED_SIZE, accumulate
from secagg.types import Rng

__all__ = ["MAX_DRAWS", "Sensitivity", "round_bounded", "sensitivity", "squares_of"]

MAX_DRAWS: Final = 128
"""Each is accepted with a probability of 1 - e^(-1/2) at least: all fail with e^-64 at most."""
_UNIFORM_BITS: Final = 32
_BLOCK: Final = 1 << 15  # coordinates at a time: the float64 temporaries stay in the cache
_SLACK: Final = 1 + 1e-9  # float error of a norm is far below, and M·1e-9 far below one step
_MOST: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How long the integer vector of one node can be; in steps."""

    squared: int
    """Greatest squared L2 norm, exact."""
    l2: float
    """Its root, rounded up."""
    l1: float
    """Greatest L1 norm, an integer."""


def sensitivity(scale: int, dim: int) -> Sensitivity:
    """Return what `round_bounded` promises for `dim` coordinates of a length up to `scale`.

    The squared norm is ⌊M² + dim/4 + M + √dim/2⌋: the bound of Kairouz, Liu and Steinke 2021,
    section 4, for β = e^(-1/2), under which their other one, (M + √dim)², is never the smaller.
    Integers satisfy |z| ≤ z², so the L1 norm is at most that too, and √dim times the L2 norm.

    Raises:
        ConfigError: scale or dim is not positive, or beyond 2^31.
    """
    if not (1 <= scale <= _MOST and 1 <= dim <= _MOST):
        raise ConfigError(
            f"{dim} coordinates of a length up to {scale} steps",
            hint=f"use 1 to {_MOST} of both",
        )
    squared = scale * scale + scale + (dim + math.isqrt(4 * dim)) // 4  # D-07
    l2 = math.sqrt(squared)
    while Fraction(l2) ** 2 < squared:
        l2 = math.nextafter(l2, math.inf)
    l1 = float(min(squared, math.isqrt(dim * squared)))  # D-08
    return Sensitivity(squared, min(l2, l1), l1)  # for dim 1 the L1 norm is the shorter bound


def round_bounded(vector: NDArray[np.float64], scale: int, rng: Rng) -> NDArray[np.int64]:
    """Round `vector` at random to integers whose squared norm is within `sensitivity(scale, dim)`.

    Each coordinate goes to one of its two neighbours, its expectation exact to 2^-32 before vectors
    are thrown away. That some are moves the expected vector by less than one step in all (L2).

    Args:
        vector: Shape (dim,), dtype float64, L2 norm at most `scale` but for float error.
        scale: M, in steps.
        rng: Randomness; 32 bytes a draw, which AES-256-CTR stretches.

    Returns:
        Shape (dim,), dtype int64.

    Raises:
        LocalProtocolError: the vector is longer than `scale` or not finite; nothing was drawn.
    """
    if not math.sqrt(squares_of(vector)) <= scale * _SLACK:
        raise LocalProtocolError("the vector was not clipped before it was rounded")
    squared = sensitivity(scale, len(vector)).squared
    for _ in range(MAX_DRAWS):
        integers = _round(vector, rng(SEED_SIZE))
        if _squared_norm(integers) <= squared:  # D-07
            return integers
    integers = np.trunc(vector).astype(np.int64)  # no longer than the vector itself
    if _squared_norm(integers) > squared:
        raise LocalProtocolError("the vector was not clipped before it was rounded")
    return integers


def squares_of(vector: NDArray[np.float64]) -> float:
    """Return the sum of squares of a float64 vector; infinite or no number where it overflows.

    In this thread: a product by BLAS would wake others, which then spin for longer than it takes.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.einsum("i,i->", vector, vector))


def _squared_norm(integers: NDArray[np.int64]) -> int:
    """Return the exact sum of squares, which is below (M + √dim)² · (1 + 1e-8) < 2^63."""
    return int(np.dot(integers, integers))


def _round(vector: NDArray[np.float64], seed: bytes) -> NDArray[np.int64]:
    """Return ⌊x + U⌋ for every coordinate x, U uniform on the multiples of 2^-32 in [0, 1)."""
    uniform = np.zeros(len(vector), dtype=np.uint32)
    accumulate(uniform, seed)
    integers = np.empty(len(vector), dtype=np.int64)
    for start in range(0, len(vector), _BLOCK):
        part = slice(start, start + _BLOCK)
        x = uniform[part] * 2.0**-_UNIFORM_BITS
        x += vector[part]
        integers[part] = np.floor(x, out=x)
    return integers
