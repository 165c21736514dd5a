"""How far sums of discrete noise lie from their shifts, and from a Gaussian: theorems as functions.

For a variance c let θ_c(t) = 1 + 2 Σ_{k ≥ 1} exp(−2π²ck²) cos(2πkt). By Poisson summation

    Σ_{x ∈ Z} exp(−(x − t)²/2c) = √(2πc) θ_c(t),    θ_c(1/2) ≤ θ_c(t) ≤ θ_c(0),

so the discrete Gaussian of variance c has the normaliser √(2πc) θ_c(0). The sum of two of variances
a and b is not one, but completing the square leaves, with c = ab/(a + b),

    P[X + Y = z] = P[W = z] · θ_c(za/(a + b)) θ_{a+b}(0) / (θ_a(0) θ_b(0)),

W of variance a + b. The logarithm of that ratio lies in an interval that is known exactly, and
intervals add up as further terms are folded in: `fold_discrete_gaussians`. Variances may differ.
Source: specs/58-accounting.md sections 3 to 5; Kairouz, Liu and Steinke 2021; Agarwal, Kairouz and
Liu 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NearGaussian",
    "fold_discrete_gaussians",
    "log_theta",
    "renyi_discrete_gaussians",
    "renyi_skellam",
    "smoothing_variance",
]

_ROUND_UP: Final = 1 + 1e-9
"""Float errors of a bound are some 1e-13 of it; it is stretched by far more."""
_TERMS: Final = 12
"""Of either series, at variances where the next one is below e^-200 of the first."""
_DIRECT_BELOW: Final = 1 / (2 * math.pi)
"""Variance below which the Gaussians themselves fall off faster than their transform."""


@dataclass(frozen=True, slots=True)
class NearGaussian:
    """A distribution on Z whose logarithm differs from a discrete Gaussian's by `low` to `high`."""

    variance: float
    """Variance parameter of that discrete Gaussian."""
    low: float
    """At most 0."""
    high: float
    """At least 0."""

    @property
    def span(self) -> float:
        """Return by how much a ratio of two probabilities can exceed the discrete Gaussian's."""
        return self.high - self.low

    @property
    def off(self) -> float:
        """Return the max divergence to the discrete Gaussian, in the worse direction."""
        return max(self.high, -self.low)


def log_theta(variance: NDArray[np.float64], at: float) -> NDArray[np.float64]:
    """Return log θ_c(at) for every c in `variance`, with a relative error below 1e-13.

    Args:
        variance: c > 0.
        at: 0 or 1/2, where θ_c is greatest and least.
    """
    k = np.arange(1, _TERMS + 1)
    c = np.asarray(variance, dtype=np.float64)
    wide = np.maximum(c, _DIRECT_BELOW)
    signs = np.cos(2 * np.pi * at * k)
    waves: NDArray[np.float64] = np.log1p(
        2 * np.exp(-2 * np.pi**2 * np.multiply.outer(wide, k * k)) @ signs
    )
    if np.all(c >= _DIRECT_BELOW):
        return waves
    x = np.arange(-_TERMS, _TERMS + 1) - at
    direct = np.logaddexp.reduce(-np.multiply.outer(0.5 / c, x * x), axis=-1)
    both: NDArray[np.float64] = np.where(
        c >= _DIRECT_BELOW, waves, direct - np.log(2 * np.pi * c) / 2
    )
    return both


def fold_discrete_gaussians(variances: Sequence[float]) -> NearGaussian:
    """Return how near the sum of independent discrete Gaussians is to a single one.

    Generalises the convolution lemma of Kairouz, Liu and Steinke 2021 (section 3, which has equal
    variances) to any. Their τ = 10 Σ exp(−2π²σ²k/(k+1)) bounds twice the span from above.

    Args:
        variances: Variance parameter of each term, all positive, at least one.
    """
    # Largest first: then ab/(a + b) is large in every step. Any order is sound.
    b = np.sort(np.asarray(variances, dtype=np.float64))[::-1]
    sums = np.cumsum(b)
    total = math.fsum(variances)
    if len(b) == 1:
        return NearGaussian(total, 0.0, 0.0)
    middle = 1 / (1 / sums[:-1] + 1 / b[1:])
    normal, across, between = log_theta(b, 0.0), log_theta(middle, 0.0), log_theta(middle, 0.5)
    whole = float(log_theta(np.array([total]), 0.0)[0]) - float(normal.sum())
    high, low = float(across.sum()) + whole, float(between.sum()) + whole
    # What rounding can do to sums of logarithms, each exact to 1e-15 of itself.
    error = 1e-12 * float(normal.sum() + across.sum() - between.sum())
    return NearGaussian(total, min(low, 0.0) - error, max(high, 0.0) + error)  # Z-04


def renyi_discrete_gaussians(
    orders: NDArray[np.float64], noise: NearGaussian, *, l2: float, l1: float, dim: int
) -> NDArray[np.float64]:
    """Bound the Rényi divergence between the noise and any integer shift of it.

    With s² = `noise.variance` and c = min(dim, l1, l2²), the most coordinates in which the shift is
    not 0: the lesser of α l2²/2s² + c·span and α/2 · (l2²/s² + 4·off·l1/s + 4·off²·c). These are
    the terms of Kairouz, Liu and Steinke 2021 (proposition 14) with exact constants.

    Args:
        orders: α > 1, real, shape (n,).
        noise: Distribution of every coordinate, independent; of a sum with mean 0.
        l2: Greatest L2 norm of the shift.
        l1: Its greatest L1 norm.
        dim: Its coordinates.

    Returns:
        Shape (n,), dtype float64.
    """
    deviation = math.sqrt(noise.variance)
    shifted = min(dim, math.floor(l1), math.floor(l2 * l2 * _ROUND_UP))
    plain = (l2 / deviation) ** 2
    added = orders * plain / 2 + shifted * noise.span
    off = noise.off
    scaled = orders / 2 * (plain + 4 * off * l1 / deviation + 4 * off * off * shifted)
    bound: NDArray[np.float64] = np.minimum(added, scaled) * _ROUND_UP  # Z-05
    return bound


def renyi_skellam(
    orders: NDArray[np.float64], variance: float, *, l2: float, l1: float
) -> NDArray[np.float64]:
    """Bound the Rényi divergence between Skellam noise and any integer shift of it.

    Agarwal, Kairouz and Liu 2021, section 3, with μ = `variance`, proved for whole α > 1. As
    divergences grow with the order, the others get the bound of the next whole one.

    Args:
        orders: α > 1, shape (n,).
        variance: Of the noise in each coordinate, independent.
        l2: Greatest L2 norm of the shift.
        l1: Its greatest L1 norm.

    Returns:
        Shape (n,), dtype float64.
    """
    whole = np.maximum(np.ceil(orders), 2.0)
    excess = np.minimum(
        ((2 * whole - 1) * l2 * l2 + 6 * l1) / (4 * variance**2), 1.5 * l1 / variance
    )
    bound: NDArray[np.float64] = (whole * l2 * l2 / (2 * variance) + excess) * _ROUND_UP  # Z-06
    return bound


def smoothing_variance(coordinates: float, loss: float) -> float:
    """Return r²: how much narrower a continuous Gaussian makes discrete ones by rounding it.

    Let y be Gaussian of variance s² around an integer, and x an integer drawn with a probability in
    proportion to exp(−(x − y)²/2r²). With c = r², the probabilities of x are those of the Gaussian
    density of variance s² + r² times something between 1/θ_c(0) and 1/θ_c(1/2). r² is such that a
    ratio of these factors over all `coordinates` is exp(`loss`) at most.

    Args:
        coordinates: Draws of one coordinate, over all rounds.
        loss: Privacy loss to be spent on it, at most 1.
    """
    # The span is log(θ(0)/θ(1/2)) ≤ 5·exp(−2π²r²) where r² ≥ 1/5, at which it is 0.08.
    return max(0.2, math.log(5 * coordinates / loss) / (2 * math.pi**2))
