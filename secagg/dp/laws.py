"""The two laws of noise, enclosed to any precision. Source: specs/51-sampler.md section 2.

All is integer arithmetic or mpmath's; mpmath's global precision is neither read nor changed, so
several threads may call at once.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final, Protocol

from mpmath.libmp import (
    from_float,
    from_int,
    from_rational,
    mpf_cos_pi,
    mpf_exp,
    mpf_mul,
    mpf_neg,
    mpf_shift,
    mpf_sin_pi,
    to_fixed,
)

__all__ = ["DiscreteGaussian", "Law", "Skellam"]

_GUARD: Final = 16
"""Bits beyond those asked for: mpmath's functions are within a few units of their last place."""
_NODE_GUARD: Final = 48
"""The same for Skellam's sums of up to 2^9 terms, whose cosines lose up to 2^18 by recurrence."""


class Law(Protocol):
    """A distribution on the integers: symmetric about 0, log-concave, known up to a factor."""

    @property
    def variance(self) -> float:
        """The parameter: the exact real number that this float64 is."""
        ...

    def scaled(self, x: int, bits: int) -> int:
        """Return an integer within 1 of 2^bits·F(x), F proportional to the probability of x.

        Args:
            x: Any integer.
            bits: Of absolute precision, positive; F is 1 at most.
        """
        ...


@dataclass(frozen=True, slots=True)
class DiscreteGaussian:
    """P(x) proportional to F(x) = exp(-x²/(2·variance)).

    Source: Canonne, Kamath and Steinke 2020, Definition 1. `variance` is its parameter σ²; the
    true variance is less by 2e-7 of it at 1, and by much below (0.215 at 1/4).
    """

    variance: float

    def scaled(self, x: int, bits: int) -> int:
        """Return an integer within 1 of 2^bits·F(x)."""
        numerator, denominator = self.variance.as_integer_ratio()
        above, below = x * x * denominator, 2 * numerator
        precision = bits + _GUARD + (above // below).bit_length()
        power = mpf_exp(from_rational(-above, below, precision), precision)
        return _rounded(power, bits)


@dataclass(frozen=True, slots=True)
class Skellam:
    """P(x) = F(x) = exp(-μ)·I_|x|(μ), the difference of two Poisson variables of mean μ/2 each.

    Its characteristic function is exp(μ(cos θ - 1)). Averaging it times cos(xθ) over N angles
    2πm/N gives the sum of F over x + N·Z: F(x) itself but for aliases, which Chernoff's bound
    makes as small as one likes. The terms fall like exp(-μθ²/2), and some 60 to 200 of them matter
    whatever μ is.

    Source: Agarwal, Kairouz and Liu 2021; DLMF 10.32.3.
    """

    variance: float

    def scaled(self, x: int, bits: int) -> int:
        """Return an integer within 1 of 2^bits·F(x)."""
        reach = int(10 * math.sqrt(self.variance)) + 128  # a table's values share their nodes
        if abs(x) > reach:
            reach = 1 << abs(x).bit_length()
        points, scale, weights = _nodes(self.variance, bits, reach)
        precision = scale + _GUARD
        first = _rounded(mpf_cos_pi(from_rational(2 * x, points, precision), precision), scale)
        before, cosine, total = 1 << scale, first, 0
        for weight in weights[1:]:
            total += weight * cosine
            before, cosine = cosine, (first * cosine >> (scale - 1)) - before
        total = (weights[0] << scale) + 2 * total
        divisor = points << (2 * scale - bits)
        return (2 * total + divisor) // (2 * divisor)


@functools.lru_cache(maxsize=256)
def _nodes(mean: float, bits: int, reach: int) -> tuple[int, int, tuple[int, ...]]:
    """Return (N, s, weights): 2^s·exp(μ(cos(2πm/N) - 1)) for m from 0 until it vanishes.

    N is odd, so that the terms m and N - m are one, doubled; it is so large that for |x| <= reach
    the aliases come to less than 2^-(bits + 7).
    """
    points = (reach + _unlikely(mean, bits + 8)) | 1
    scale = bits + _NODE_GUARD
    precision = scale + _GUARD + 16  # an exponent is below 2^16 where its weight is not 0
    mean_ = from_float(mean)
    weights: list[int] = []
    for index in range(points // 2 + 1):
        sine = mpf_sin_pi(from_rational(index, points, precision), precision)
        exponent = mpf_mul(mean_, mpf_mul(sine, sine, precision), precision)
        weight = _rounded(mpf_exp(mpf_neg(mpf_shift(exponent, 1)), precision), scale)
        if not weight:  # the rest are smaller still: their mean is below 2^-scale
            break
        weights.append(weight)
    return points, scale, tuple(weights)


def _unlikely(mean: float, bits: int) -> int:
    """Return some n with P(|X| >= n) <= 2^(1-bits), by Chernoff's bound, within an eighth."""
    n = max(1, math.isqrt(math.ceil(2 * mean * bits * math.log(2))))
    while n * math.asinh(n / mean) - n * n / (math.hypot(n, mean) + mean) < bits * math.log(2):
        n += n // 8 + 1
    return n


def _rounded(number: object, bits: int) -> int:
    """Return 2^bits times an mpmath number, rounded."""
    if number == from_int(0):
        return 0
    return (int(to_fixed(number, bits + 1)) + 1) >> 1
