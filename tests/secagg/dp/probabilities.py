"""Probabilities of the two laws up to a factor, by formulas that the code does not use."""

from __future__ import annotations

import mpmath

from secagg.dp.laws import DiscreteGaussian, Law

__all__ = ["debye", "reference"]


def gaussian(x: int, variance: float) -> mpmath.mpf:
    return mpmath.exp(-(mpmath.mpf(x) ** 2) / (2 * mpmath.mpf(variance)))


def skellam(x: int, mean: float) -> mpmath.mpf:
    """By mpmath's power series of the Bessel function, which knows nothing of our sums."""
    return mpmath.exp(-mpmath.mpf(mean)) * mpmath.besseli(abs(x), mpmath.mpf(mean))


def debye(x: int, mean: float) -> mpmath.mpf:
    """The same for large means, to about mean^-4: DLMF 10.41.3 with U_1 to U_3 of 10.41.10."""
    v, z = mpmath.mpf(abs(x)), mpmath.mpf(mean)
    r = mpmath.sqrt(v * v + z * z)
    q = (v / r) ** 2  # U_k(p)/v^k = p^k·(…)/v^k = (…)/r^k
    series = (
        1
        + (3 - 5 * q) / 24 / r
        + (81 - 462 * q + 385 * q**2) / 1152 / r**2
        + (30375 - 369603 * q + 765765 * q**2 - 425425 * q**3) / 414720 / r**3
    )
    return mpmath.exp(r - z - v * mpmath.asinh(v / z)) / mpmath.sqrt(2 * mpmath.pi * r) * series


def reference(law: Law, x: int) -> mpmath.mpf:
    """Return what `law.scaled` encloses, at mpmath's working precision."""
    if isinstance(law, DiscreteGaussian):
        return gaussian(x, law.variance)
    return (skellam if law.variance < 1e5 else debye)(x, law.variance)
