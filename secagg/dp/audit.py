"""What canaries tell of ε: an estimate and lower bounds, from one run and what it released.

A canary gives a vector of greatest length in a random direction, or zeros, by the toss of a coin.
The better the release shows which, the greater ε must be. Scores are cosines with the release,
scaled so that those of zeros are standard normal, whatever was released.

Source: specs/57-privacy-audit.md; Andrew, Kairouz, Oh, Oprea, McMahan and Suriyakumar 2023 (random
canaries, cosines, the estimate); Steinke, Nasr and Jagielski 2023 (coins, one run); Mahloujifar,
Melis and Chaudhuri 2024 (the bound on right guesses).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr, ndtri

from secagg.errors import ConfigError

__all__ = [
    "LEAST_FREEDOM",
    "Audit",
    "AuditRound",
    "audit",
    "delta_between",
    "epsilon_between",
    "noticeable",
    "right_guesses",
    "scores_of",
    "separation_of",
]

LEAST_FREEDOM: Final = 200
"""Directions without canaries in which the noise is measured, at least."""
_TURNS: Final = 60
"""Of a bisection: about what floats resolve."""
_FEW_TURNS: Final = 24
"""Where the cautious end of the interval is taken and 10^-7 is nothing."""
_ROUGH_TURNS: Final = 10
"""Where one part in a thousand is nothing, and every turn takes long."""
_LEAST_SPREAD: Final = 1e-6
_MISSED: Final = 0.05
"""Audits that may miss what `noticeable` says is noticed."""
_MOST_SEPARATION: Final = 1e4
"""In standard deviations; the ε beyond is 10^8 and as good as infinite."""


@dataclass(frozen=True, slots=True, eq=False)
class AuditRound:
    """The canaries of one round.

    Raises:
        ConfigError: the shapes differ, there is no canary, or too few directions are without one.
    """

    scores: NDArray[np.float64] = field(repr=False)
    """Shape (canaries,), of `scores_of`."""
    gave: NDArray[np.bool_] = field(repr=False)
    """Shape (canaries,): whether the coin had the canary give its vector; else it gave zeros."""
    freedom: int
    """Coordinates of the release, less the directions of all canaries."""

    def __post_init__(self) -> None:
        if self.scores.shape != self.gave.shape or self.scores.ndim != 1 or not self.scores.size:
            raise ConfigError(f"scores of shape {self.scores.shape}, coins of {self.gave.shape}")
        if self.freedom < LEAST_FREEDOM:
            raise ConfigError(
                f"{self.freedom} directions are left to measure the noise in",
                hint=f"use a model with {LEAST_FREEDOM} parameters more than canaries, or more",
            )

    @property
    def right(self) -> int:
        """Canaries that are guessed right if those above the mean score are said to have given.

        Guesses are made from the scores alone: the coins only judge them.
        """
        return int(np.sum((self.scores > self.scores.mean()) == self.gave))


@dataclass(frozen=True, slots=True)
class Audit:
    """What the canaries of a run say."""

    rounds: int
    given: int
    """Vectors that canaries gave, in all rounds."""
    zeros: int
    """Zeros that they gave instead."""
    mean: float
    """Mean score of the vectors, in standard deviations of a score of zeros."""
    spread: float
    """Standard deviation of the scores of the vectors."""
    null_mean: float
    """Mean score of the zeros: 0 but for chance."""
    null_spread: float
    """Standard deviation of the scores of the zeros: 1 but for chance."""
    right: int
    """Guesses that are right, of `given` + `zeros`."""
    delta: float
    confidence: float
    """Probability with which both bounds hold."""
    estimate: float
    """ε at δ of a Gaussian mechanism that gives this mean score; no bound."""
    fitted: float
    """The same with the spread fitted as well, as Andrew et al. 2023 have it: far less certain,
    since at a small δ all hangs on the tails. No bound either."""
    additive_bound: float
    """ε at δ, at least, if noise is added whatever the canaries do."""
    guessing_bound: float
    """ε at δ, at least, of any mechanism whose rounds have a Gaussian's trade-off."""

    @property
    def bound(self) -> float:
        """ε at δ, at least: the greater of the bounds."""
        return max(self.additive_bound, self.guessing_bound)  # V-08


def scores_of(release: NDArray[np.float64], frame: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far a release points along each canary's direction, in units of its noise.

    Args:
        release: Shape (dim,): the sum of a round, or any multiple of it.
        frame: Shape (dim, canaries), orthonormal columns: the directions of all canaries, of those
            that gave zeros as well. The noise is measured in all directions orthogonal to them.

    Raises:
        ConfigError: there are as many canaries as coordinates, or there is nothing in the release
            but canaries.
    """
    freedom = len(release) - frame.shape[1]
    if freedom < 1:
        raise ConfigError(f"{frame.shape[1]} canaries in {len(release)} coordinates")
    along = frame.T @ release
    rest = release - frame @ along
    noise = math.sqrt(float(rest @ rest) / freedom)  # V-05
    if not noise > 1e-12 * math.sqrt(float(along @ along)):
        raise ConfigError("the release holds nothing but canaries", hint="add nodes that are none")
    return np.asarray(along / noise)


def audit(rounds: Sequence[AuditRound], *, delta: float = 1e-5, confidence: float = 0.95) -> Audit:
    """Judge a run by its canaries.

    Args:
        rounds: With a result; each round's directions and coins are its own (V-01, V-02).
        delta: δ at which ε is wanted, in (0, 1).
        confidence: With which both bounds shall hold, in (0, 1).

    Raises:
        ConfigError: a number is out of range, or no canary gave a vector, or none gave zeros.
    """
    if not (0 < delta < 1 and 0 < confidence < 1):
        raise ConfigError(f"delta {delta}, confidence {confidence}", hint="use 0 to 1")
    given = np.concatenate([each.scores[each.gave] for each in rounds] or [np.empty(0)])
    zeros = np.concatenate([each.scores[~each.gave] for each in rounds] or [np.empty(0)])
    if min(len(given), len(zeros)) < 2:
        raise ConfigError(
            f"canaries gave {len(given)} vectors and {len(zeros)} zeros",
            hint="use more canaries or more rounds",
        )
    mean, spread = float(given.mean()), max(float(given.std(ddof=1)), _LEAST_SPREAD)
    whole = math.sqrt(len(rounds)) * max(mean, 0.0)  # of a canary that gives in every round
    error = (1 - confidence) / 2  # V-08
    return Audit(
        rounds=len(rounds),
        given=len(given),
        zeros=len(zeros),
        mean=mean,
        spread=spread,
        null_mean=float(zeros.mean()),
        null_spread=float(zeros.std(ddof=1)),
        right=sum(each.right for each in rounds),
        delta=delta,
        confidence=confidence,
        estimate=epsilon_between(whole, 1.0, delta),
        fitted=epsilon_between(whole, spread, delta),  # V-10
        additive_bound=epsilon_between(_least_separation(rounds, error), 1.0, delta),
        guessing_bound=epsilon_between(_least_by_guesses(rounds, error), 1.0, delta),
    )


# --- two Gaussians --------------------------------------------------------------------------------


def delta_between(epsilon: float, mean: float, spread: float) -> float:
    """Return the greater hockey-stick divergence of order e^ε of N(0, 1) and N(mean, spread²).

    That is the least δ with which they are (ε, δ)-close, both ways.

    Args:
        epsilon: 0 or more.
        mean: Of the second, any number.
        spread: Standard deviation of the second, above 0.
    """
    there = _divergence(epsilon, mean, spread)
    return max(there, _divergence(epsilon, -mean / spread, 1 / spread))  # in units of the second


def _divergence(epsilon: float, mean: float, spread: float) -> float:
    """Return P(A) - e^ε·Q(A) for P = N(mean, spread²), Q = N(0, 1), A where log(P/Q) > ε."""
    square = (1 - 1 / spread**2) / 2
    linear = mean / spread**2
    constant = -((mean / spread) ** 2) / 2 - math.log(spread) - epsilon
    pieces = _positive(square, linear, constant)
    inside = sum(math.exp(_log_mass((a - mean) / spread, (b - mean) / spread)) for a, b in pieces)
    logs = [epsilon + _log_mass(a, b) for a, b in pieces]
    return max(0.0, inside - sum(math.exp(min(log, 700.0)) for log in logs))


def _positive(square: float, linear: float, constant: float) -> list[tuple[float, float]]:
    """Return the intervals where square·x² + linear·x + constant > 0."""
    if abs(square) < 1e-12:
        if abs(linear) < 1e-12:
            return [(-math.inf, math.inf)] if constant > 0 else []
        root = -constant / linear
        return [(root, math.inf)] if linear > 0 else [(-math.inf, root)]
    under = linear * linear - 4 * square * constant
    if under <= 0:
        return [(-math.inf, math.inf)] if square > 0 else []
    # Never a difference of nearly equal numbers: one root by the sum, the other by their product.
    half = -(linear + math.copysign(math.sqrt(under), linear)) / 2
    low, high = sorted((half / square, constant / half))
    return [(-math.inf, low), (high, math.inf)] if square > 0 else [(low, high)]


def _log_mass(low: float, high: float) -> float:
    """Return the logarithm of the standard normal mass of an interval."""
    if low > 0:  # the mirror image has the greater precision
        low, high = -high, -low
    upper, lower = float(log_ndtr(high)), float(log_ndtr(low))
    if not lower < upper:
        return -math.inf
    return upper + math.log(-math.expm1(lower - upper))


def epsilon_between(mean: float, spread: float, delta: float) -> float:
    """Return the least ε with which N(0, 1) and N(mean, spread²) are (ε, δ)-close.

    Args:
        mean: Any number.
        spread: Above 0.
        delta: In (0, 1).
    """
    if delta_between(0.0, mean, spread) <= delta:
        return 0.0
    high = 1.0
    while delta_between(high, mean, spread) > delta:
        high *= 2
    return _least(lambda epsilon: delta_between(epsilon, mean, spread) <= delta, high)


def separation_of(epsilon: float, delta: float) -> float:
    """Return μ for which N(0, 1) and N(μ, 1) have that ε at δ: a Gaussian mechanism's Δ/σ.

    Args:
        epsilon: 0 or more; what is beyond every separation gets the greatest.
        delta: In (0, 1).
    """
    if delta_between(epsilon, _MOST_SEPARATION, 1.0) <= delta:
        return _MOST_SEPARATION
    return _least(lambda mean: delta_between(epsilon, mean, 1.0) > delta, _MOST_SEPARATION)


def _least(fits: Callable[[float], bool], high: float) -> float:
    """Return the least of [0, high] that fits; all above it do."""
    low = 0.0
    for _ in range(_TURNS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


# --- the bound for noise that is added ------------------------------------------------------------


def _least_separation(rounds: Sequence[AuditRound], error: float) -> float:
    """Return what the separation of the whole run is at least, but with probability `error`."""
    counts = np.array([np.sum(each.gave) for each in rounds], dtype=np.float64)
    parts = counts / counts.sum()
    means = [float(each.scores[each.gave].sum()) for each in rounds]
    mean = math.fsum(means) / float(counts.sum())
    shares = float(np.sum(parts**2))
    freedom = 1 / float(np.sum(parts**2 / [each.freedom for each in rounds]))
    least = _below(mean, error, float(counts.sum()), freedom)
    return max(0.0, least) / math.sqrt(shares)  # V-06


def _below(mean: float, error: float, count: float, freedom: float) -> float:
    """Return what the expectation of a mean score is at least, but with probability `error`.

    A mean of normal variables over an estimated deviation has a noncentral t distribution, of which
    this is the usual approximation (Abramowitz and Stegun 1964, 26.7.10); a test measures it.
    """
    quantile = float(ndtri(1 - error))
    spread = math.sqrt(1 / count + mean * mean / (2 * freedom))
    return mean * (1 - 1 / (4 * freedom)) - quantile * spread


def noticeable(
    epsilon: float, *, given: int, rounds: int, freedom: int, delta: float, confidence: float
) -> float:
    """Return how many times too weak noise is that nearly every audit notices.

    With noise of a standard deviation that much less than a claim of ε takes, the additive bound
    exceeds the claim in 95 of 100 runs.

    Args:
        epsilon: The claim, for the whole run.
        given: Vectors that canaries give in all rounds.
        rounds: Rounds of the run.
        freedom: As in `AuditRound`.
        delta: Of the claim.
        confidence: As for `audit`.
    """
    error, total = (1 - confidence) / 2, float(freedom * rounds)
    claimed = separation_of(epsilon, delta) / math.sqrt(rounds)

    def exceeds(mean: float) -> bool:
        return _below(mean, error, given, total) > claimed

    def noticed(expected: float) -> bool:
        return _below(expected, _MISSED, given, total) >= limit

    limit = _least(exceeds, _MOST_SEPARATION)
    return _least(noticed, _MOST_SEPARATION) / claimed


# --- the bound for any mechanism ------------------------------------------------------------------


@lru_cache(maxsize=1024)
def right_guesses(canaries: int, separation: float) -> NDArray[np.float64]:
    """Bound the probability that so many guesses on one round are right, or more.

    Holds for every mechanism under which whoever sees the release, and knows all else, can tell a
    canary's vector from its zeros no better than N(separation, 1) from N(0, 1).

    Args:
        canaries: Fair coins, all of which are guessed.
        separation: μ ≥ 0 of the trade-off.

    Returns:
        Shape (canaries + 1,), read-only: entry v bounds the probability of v right guesses or more.
    """
    low, high = np.zeros(canaries + 1), np.ones(canaries + 1)
    for _ in range(_FEW_TURNS):
        middle = (low + high) / 2
        possible = _least_mass(middle, separation) <= 1
        low, high = np.where(possible, middle, low), np.where(possible, high, middle)
    high[0] = 1.0
    bounds = np.asarray(np.minimum.accumulate(high))
    bounds.flags.writeable = False
    return bounds


def _least_mass(tails: NDArray[np.float64], separation: float) -> NDArray[np.float64]:
    """Return for each v what P(N ≥ 0) is at least if P(N ≥ v) is tails[v] (V-07).

    With S(c) = P(N ≥ c), a(c) = (c·S(c) + S(c+1) + … + S(m)) / m is the probability that N ≥ c and
    a canary picked at random is guessed right. That it is guessed wrong and N ≥ c − 1 has the
    probability S(c−1) − a(c−1) ≥ Φ(Φ⁻¹(a(c)) − μ).
    """
    m = len(tails) - 1
    wanted = np.arange(m + 1)
    here = np.where(wanted == m, tails, 0.0)  # S(c), for c = m and on down
    above = np.zeros(m + 1)  # S(c + 1) + … + S(m)
    for c in range(m, 0, -1):
        right = np.minimum((c * here + above) / m, 1.0)
        above = above + here
        wrong = ndtr(ndtri(right) - separation)
        needed = (m * wrong + above) / (m - c + 1)
        here = np.where(wanted == c - 1, tails, np.maximum(here, needed))
        here = np.where(wanted < c - 1, 0.0, here)
    return np.asarray(here)


def _least_by_guesses(rounds: Sequence[AuditRound], error: float) -> float:
    """Return the least separation of the run under which so many right guesses are no wonder."""
    right = sum(each.right for each in rounds)
    sizes = [len(each.scores) for each in rounds]

    def likely(separation: float) -> bool:
        total = np.ones(1)
        for size in sizes:  # rounds follow one another: the bound holds given all before
            tail = right_guesses(size, separation)
            total = np.convolve(total, tail - np.append(tail[1:], 0.0))
        return float(total[right:].sum()) >= error

    if likely(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while not likely(high):
        low, high = high, 2 * high
    for _ in range(_ROUGH_TURNS):
        middle = (low + high) / 2
        low, high = (low, middle) if likely(middle) else (middle, high)
    return low * math.sqrt(len(rounds))
