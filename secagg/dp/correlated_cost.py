"""What correlated noise costs and what error it leaves: the arithmetic behind `correlated`.

Over an epoch of T rounds the sum's noise is N = A·Z + E in every coordinate, A lower triangular
Toeplitz with integer entries, Z and E integers of variances σ² and σ_e². Up to a gap that is
computed here N is the discrete Gaussian on ℤ^T with covariance Σ = σ²·A·Aᵀ + σ_e²·I, and that costs
what a real Gaussian would. Source: specs/54-correlated-noise.md sections 3 to 5, with the proofs.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secagg.errors import ConfigError

__all__ = [
    "MAX_ROUNDS",
    "concentrated",
    "covariance",
    "joint_gap",
    "pattern_costs",
    "prefix_variances",
    "sum_gap",
    "toeplitz",
]

MAX_ROUNDS: Final = 1024
"""Longest epoch: a T by T matrix is inverted once for it."""

_WORST_CONDITION: Final = 1e8
_FLOAT_MARGIN: Final = 1 + 1e-6
"""Above the relative error of inverting a matrix of that condition in float64."""

_Matrix = NDArray[np.float64]


def toeplitz(band: tuple[int, ...], rounds: int) -> _Matrix:
    """Return A, shape (rounds, rounds): entry (t, t - k) is band[k], others are 0."""
    matrix = np.zeros((rounds, rounds))
    for k, coefficient in enumerate(band[:rounds]):
        matrix += np.diag(np.full(rounds - k, float(coefficient)), -k)
    return matrix


def covariance(band: tuple[int, ...], rounds: int, *, sigma: float, smoothing: float) -> _Matrix:
    """Return Σ = σ²·A·Aᵀ + σ_e²·I, shape (rounds, rounds), in squared steps."""
    a = toeplitz(band, rounds)
    sigmas: _Matrix = sigma * sigma * (a @ a.T) + smoothing * smoothing * np.eye(rounds)
    return sigmas


def prefix_variances(sigmas: _Matrix) -> NDArray[np.float64]:
    """Return the variance of N_0 + … + N_t for every t: the error of a model after t + 1 rounds."""
    return np.diagonal(sigmas.cumsum(axis=0).cumsum(axis=1)).copy()


def pattern_costs(sigmas: _Matrix, separation: int) -> NDArray[np.float64]:
    """Return what contributing costs, by slot and round.

    Entry (j, t) bounds Σ (Σ⁻¹)_{s,s'}·⟨δ_s, δ_s'⟩ over the rounds s, s' ≤ t with s ≡ j modulo
    `separation`, for any vectors δ of length at most 1, however chosen. Σ⁻¹ is the one of the
    *whole* epoch, not of its first rounds: later rounds tell of the noise in earlier ones, also
    after the node has left (C-08).

    Args:
        sigmas: Σ, shape (rounds, rounds).
        separation: b, rounds from one contribution of a node to its next.

    Returns:
        Shape (separation, rounds), never falling along a row.

    Raises:
        ConfigError: Σ is so ill-conditioned that its inverse in float64 says nothing.
    """
    low, *_, high = np.linalg.eigvalsh(sigmas)
    if not low > high / _WORST_CONDITION:
        raise ConfigError(
            "these coefficients nearly cancel the noise of some combination of rounds",
            hint="use a band of secagg.dp.correlated, or more smoothing",
        )
    weights = np.abs(np.linalg.inv(sigmas)) * _FLOAT_MARGIN
    rounds = len(weights)
    costs = np.zeros((separation, rounds))
    for slot in range(min(separation, rounds)):
        times = np.arange(slot, rounds, separation)
        leading = np.diagonal(weights[np.ix_(times, times)].cumsum(axis=0).cumsum(axis=1))
        costs[slot, times] = np.diff(leading, prepend=0.0)  # nonnegative: weights are
    return np.cumsum(costs, axis=1)


def sum_gap(variance: float, shares: int) -> float:
    """Bound |ln(P/G)|, P the sum of `shares` discrete Gaussians, G the one of the same variance.

    Adds one after the other: the sum of the first j and the next one differ from a discrete
    Gaussian by the theta series at variance v·j/(j + 1), v that of a share (as Kairouz, Liu and
    Steinke 2021, Theorem 1, whose τ it is).

    Args:
        variance: Of the sum.
        shares: Summands, of variance/shares each.
    """
    return sum(
        _log_ratio(_theta(variance / shares * j / (j + 1)), count) for j, count in _runs(shares - 1)
    )


def joint_gap(
    band: tuple[int, ...], rounds: int, shares: int, *, sigma: float, smoothing: float
) -> float:
    """Return Λ of one coordinate: how far the noise of an epoch is from the ideal one (C-05).

    It is three terms: the sums over nodes, of Z and of E in every round; A·Z + E against the
    discrete Gaussian of covariance Σ; and the sums of that Gaussian over lines of ℤ^T with shifted
    centres, which the proof for adaptively chosen contributions needs.

    Args:
        band: First column of A; A·Aᵀ has no eigenvalue above (Σ|band|)².
        rounds: T.
        shares: Honest nodes that share the noise.
        sigma: Standard deviation of Z, in steps.
        smoothing: Standard deviation of E, in steps.

    Returns:
        Infinity where the theta series are of no use.
    """
    z, e = sigma * sigma, smoothing * smoothing
    norm = float(sum(abs(coefficient) for coefficient in band))
    narrowest = 1 / (1 / z + norm * norm / e)
    one = _theta(narrowest)
    lattice = math.expm1(rounds * math.log1p(one)) if one < 1 else math.inf
    return (
        rounds * (sum_gap(z, shares) + sum_gap(e, shares))
        + _log_ratio(lattice)
        + _log_ratio(_theta(e), rounds)
    )


def concentrated(rho: float, gap: float) -> float:
    """Return ρ' for which noise that is `gap` from ideal is ρ'-zCDP where ideal noise is ρ-zCDP.

    (α - 1)·D_α ≤ ρ·α·(α - 1) + (2α - 1)·Λ for every α > 1. Above α = 1 + √(Λ/ρ) divide by it; below
    take D_α at that α, which it cannot exceed. Both give D_α ≤ α·(ρ + 2√(ρΛ) + 2Λ).
    """
    return rho + 2 * math.sqrt(rho * gap) + 2 * gap if rho > 0 else 0.0


def _theta(variance: float) -> float:
    """Bound 2·Σ_{m ≥ 1} exp(-2π²·variance·m²), by a geometric series (m² ≥ 3m - 2)."""
    q = math.exp(-2 * math.pi**2 * variance)
    return 2 * q / (1 - q**3) if q < 1 else math.inf


def _log_ratio(error: float, count: int = 1) -> float:
    """Return count·ln((1 + ε)/(1 - ε)): sums within 1 ± ε, divided by such sums."""
    return count * (math.log1p(error) - math.log1p(-error)) if error < 1 else math.inf


def _runs(last: int) -> list[tuple[int, int]]:
    """Return (j, how many summands up to `last` it stands for): each j, then powers of two.

    A summand falls as j grows, so the first of a run bounds all of it.
    """
    runs = [(j, 1) for j in range(1, min(last, 63) + 1)]
    start = 64
    while start <= last:
        runs.append((start, min(start, last - start + 1)))
        start *= 2
    return runs
