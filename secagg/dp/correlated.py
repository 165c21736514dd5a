"""Noise that is correlated over rounds: what a node adds later takes back part of what it added.

For fleets whose nodes can give data in few rounds only and cannot be sampled at random. The
mechanism is a banded inverse with integer coefficients: DP-λCGD (Kalinin, McKenna, Pagh and Lampert
2026) where the band has two entries, BISR (Kalinin, McKenna, Upadhyay and Lampert 2025) with more.
Every node adds its own share, so that nothing but the sum over nodes is ever seen. Source:
specs/54-correlated-noise.md; decision 0016.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secagg.dp.correlated_cost import (
    MAX_ROUNDS,
    concentrated,
    covariance,
    joint_gap,
    pattern_costs,
    prefix_variances,
)
from secagg.dp.events import ZeroConcentrated
from secagg.dp.sampler import MAX_VARIANCE, MIN_VARIANCE, keystream, sampler_for
from secagg.dp.terms import DISCRETE_GAUSSIAN
from secagg.errors import ConfigError, LocalProtocolError, OfferRefused
from secagg.types import NodeId, RefusalReason, Rng

__all__ = [
    "BISR_BANDS",
    "MAX_BAND",
    "CorrelatedShare",
    "CorrelatedTerms",
    "best_band",
    "calibrate",
    "least_noise",
    "prefix_gain",
]

BISR_BANDS: Final = ((2, -1), (8, -4, -1), (16, -8, -2, -1), (128, -64, -16, -8, -5))
"""√(1 - x) cut off after 2 to 5 terms, times the power of two that makes its terms integers."""
MAX_BAND: Final = 8
"""Most entries of a band; a node draws one vector for each, every round."""

_MAX_COEFFICIENT: Final = 1024
_GAP: Final = 2.0**-50  # Λ that `calibrate` aims at: changes ρ = 0.01 by 2·10⁻⁶ of it
_SEED_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class CorrelatedTerms:
    """What an epoch's offers fix about its noise.

    Round t of the epoch, counted from 0, carries Σ_k band[k]·z_{t-k} + e_t in every coordinate.

    Raises:
        ConfigError: a number is out of range.
    """

    band: tuple[int, ...]
    """First column of A: 2 to MAX_BAND integers, none beyond ±1024, the first above 0."""
    sigma: float
    """Standard deviation of z in the sum of `honest` nodes, in integer steps."""
    smoothing: float
    """Standard deviation of e, fresh in every round, in the same sum and unit."""
    rounds: int
    """T: rounds of the epoch, 2 to MAX_ROUNDS."""
    separation: int
    """b: a node gives data in every b-th round, 1 to `rounds`."""
    honest: int
    """h: contributors that do not collude and stay to the epoch's end."""

    def __post_init__(self) -> None:
        band = self.band
        within = all(abs(coefficient) <= _MAX_COEFFICIENT for coefficient in band)
        if not (2 <= len(band) <= MAX_BAND and band[0] > 0 and within):
            raise ConfigError(
                f"a band of {len(band)} coefficients",
                hint=f"use 2 to {MAX_BAND} integers within ±{_MAX_COEFFICIENT}, first above 0",
            )
        if not (2 <= self.rounds <= MAX_ROUNDS and 1 <= self.separation <= self.rounds):
            raise ConfigError(
                f"an epoch of {self.rounds} rounds, data in every {self.separation}th",
                hint=f"use 2 to {MAX_ROUNDS} rounds and a separation within them",
            )
        if self.honest < 1:
            raise ConfigError(f"noise from {self.honest} honest nodes", hint="use 1 or more")
        for name in ("sigma", "smoothing"):  # C-02
            value = getattr(self, name)
            if not MIN_VARIANCE <= value * value / self.honest <= MAX_VARIANCE:
                raise ConfigError(
                    f"{name} is {value}, shared by {self.honest} nodes",
                    hint="use 1/4 to 4194304 times the root of the number of honest nodes",
                )

    @property
    def share_variance(self) -> float:
        """Variance of one node's z."""
        return self.sigma * self.sigma / self.honest

    @property
    def smoothing_share_variance(self) -> float:
        """Variance of one node's e."""
        return self.smoothing * self.smoothing / self.honest

    @property
    def round_variance(self) -> float:
        """Greatest variance of one coordinate of one round's noise, in the sum of h nodes.

        The noise is sub-Gaussian with it; that of n nodes with n/h times it.
        """
        squares = sum(coefficient * coefficient for coefficient in self.band)
        return self.sigma**2 * squares + self.smoothing**2

    def covariance(self) -> NDArray[np.float64]:
        """Return Σ, shape (rounds, rounds)."""
        return covariance(self.band, self.rounds, sigma=self.sigma, smoothing=self.smoothing)

    def rho(
        self, l2: float, dim: int, *, through: int | None = None, slot: int | None = None
    ) -> float:
        """Return ρ of zero-concentrated DP for all the epoch's rounds.

        Args:
            l2: Δ, greatest L2 norm of one round's contribution, in integer steps.
            dim: Coordinates.
            through: Last round to which the node gives data; all that follow are published, too,
                and counted. The epoch's last round if None.
            slot: The node's own slot; the worst of all if None.

        Raises:
            LocalProtocolError: there is no such round.
        """
        last = self.rounds - 1 if through is None else through
        if last >= self.rounds:
            raise LocalProtocolError(f"round {last} of an epoch of {self.rounds}")
        if last < 0:
            return 0.0
        costs = _costs(self)[:, last]
        cost = float(costs.max() if slot is None else costs[slot])
        gap = dim * joint_gap(
            self.band, self.rounds, self.honest, sigma=self.sigma, smoothing=self.smoothing
        )
        return concentrated(cost * l2 * l2 / 2, gap)  # C-07

    def event(
        self, position: int, l2: float, dim: int, *, slot: int | None = None
    ) -> ZeroConcentrated:
        """Return what to charge before the data of round `position` leaves (C-08).

        The charges of rounds 0 to t add up to rho(through=t). A node that knows its slot is
        charged where it gives data only; the coordinator takes the worst slot.
        """
        before = self.rho(l2, dim, through=position - 1, slot=slot)
        return ZeroConcentrated(
            rho=max(0.0, self.rho(l2, dim, through=position, slot=slot) - before), delta_extra=0.0
        )


class CorrelatedShare:
    """One node's share of an epoch's noise: how far it is, and the seeds it still needs.

    Its seeds live here only; a node that restarts has none and is out of the epoch (C-10).
    """

    def __init__(self, terms: CorrelatedTerms, slot: int) -> None:
        """Begin an epoch, before its round 0.

        Args:
            terms: Those of the epoch's first offer.
            slot: The node gives data in rounds congruent to it, 0 to separation - 1.
        """
        if not 0 <= slot < terms.separation:
            raise LocalProtocolError(f"slot {slot} of {terms.separation}")
        self.terms = terms
        self.slot = slot
        self._position = 0
        self._dim: int | None = None
        self._pending = False
        self._survivors: frozenset[NodeId] | None = None
        self._seeds: deque[bytes] = deque(maxlen=len(terms.band) - 1)

    def __repr__(self) -> str:
        return f"CorrelatedShare(position={self._position}, slot={self.slot})"

    @property
    def position(self) -> int:
        """The round whose noise comes next; `terms.rounds` at the end."""
        return self._position

    @property
    def gives_data(self) -> bool:
        """Whether the node's data goes into the next round, or an all-zero vector (C-06)."""
        return self._position % self.terms.separation == self.slot

    def admit(self, terms: CorrelatedTerms, position: int, cohort: Collection[NodeId]) -> None:
        """Check that an offered round continues this epoch.

        Args:
            terms: Those of the offer.
            position: Its round in the epoch.
            cohort: Its nodes.

        Raises:
            OfferRefused: it does not, or this node missed a round (C-09).
        """
        if terms != self.terms:
            fault = "the noise is not what this epoch began with"
        elif self._pending or position != self._position or position >= self.terms.rounds:
            fault = f"round {position} is not the next one of the epoch for this node"
        elif self._survivors is not None and not self._survivors.issuperset(cohort):
            fault = "the cohort has nodes that were not in the epoch's last sum"
        else:
            return
        raise OfferRefused(
            RefusalReason.PARAMETERS_UNSAFE, fault, hint="this node waits for the next epoch"
        )

    def draw(self, dim: int, rng: Rng) -> NDArray[np.int64]:
        """Return this node's noise of the next round, and move on.

        Args:
            dim: Coordinates, the same in every round.
            rng: The operating system's randomness; 64 bytes are taken.

        Returns:
            Shape (dim,), to be added to the node's integers before they are masked.

        Raises:
            LocalProtocolError: the last round's sum is not known to hold this node, or the epoch
                is over.
        """
        terms = self.terms
        if self._pending or self._position >= terms.rounds or dim != (self._dim or dim):
            raise LocalProtocolError("noise drawn out of turn")  # C-09
        self._pending = True
        self._dim = dim
        self._position += 1
        seed = rng(_SEED_BYTES)
        fresh = sampler_for(DISCRETE_GAUSSIAN, terms.smoothing_share_variance)
        noise = fresh.draw(dim, keystream(rng(_SEED_BYTES))).astype(np.int64)  # C-03
        sampler = sampler_for(DISCRETE_GAUSSIAN, terms.share_variance)
        for coefficient, past in zip(terms.band, (seed, *reversed(self._seeds)), strict=False):
            noise += coefficient * sampler.draw(dim, keystream(past)).astype(np.int64)  # C-01
        self._seeds.append(seed)
        return noise

    def survived(self, survivors: Collection[NodeId]) -> None:
        """Note that this node co-signed `survivors`, itself among them, for the drawn round.

        Raises:
            LocalProtocolError: no round is open, or the set grew.
        """
        kept = self._survivors is None or self._survivors.issuperset(survivors)
        if not self._pending or not kept:
            raise LocalProtocolError("survivors that do not fit the epoch")
        self._pending = False
        self._survivors = frozenset(survivors)


def prefix_gain(band: tuple[int, ...], rounds: int, separation: int) -> float:
    """Return by what factor the noise in the model is smaller than independent noise's.

    Both at the same ρ, with data in every `separation`-th round; root of the mean over rounds of
    the variance of the noise summed so far. Without smoothing, which adds little where `calibrate`
    finds terms. Below 1 independent noise is better.
    """
    sigmas = covariance(band, rounds, sigma=1.0, smoothing=1e-3)
    cost = float(pattern_costs(sigmas, separation)[:, -1].max())
    times = math.ceil(rounds / separation)
    independent = times * (rounds + 1) / 2
    return math.sqrt(independent / (cost * float(prefix_variances(sigmas).mean())))


@lru_cache(maxsize=64)
def best_band(rounds: int, separation: int, denominator: int = 16) -> tuple[int, int]:
    """Return the pair (c, -a) in lowest terms with the greatest `prefix_gain`, a/c = λ.

    Args:
        rounds: T.
        separation: b. With 1 no pair is better than independent noise.
        denominator: λ is a multiple of 1/denominator.
    """
    pairs = []
    for a in range(1, denominator):
        common = math.gcd(a, denominator)
        pairs.append((denominator // common, -a // common))
    return max(pairs, key=lambda pair: prefix_gain(pair, rounds, separation))


def least_noise(
    band: tuple[int, ...], *, rounds: int, dim: int, honest: int
) -> tuple[float, float]:
    """Return the least σ, and the smoothing σ_e, at which the noise is as good as ideal (C-04).

    Args:
        band: First column of A.
        rounds: T.
        dim: Coordinates.
        honest: h.

    Returns:
        In steps. With them, or a greater σ, Λ is below 2^-50.
    """
    # Every theta series that joint_gap takes is at variance τ² or more, and so below _GAP over the
    # times that it counts: shares of 2τ² for the sums over nodes, 1/σ² and (Σ|band|)²/σ_e² of at
    # most 1/(2τ²) each for A·Z + E.
    tau2 = math.log(32 * rounds * dim * honest / _GAP) / (2 * math.pi**2)
    norm = sum(abs(coefficient) for coefficient in band)
    return math.sqrt(2 * tau2 * honest), math.sqrt(2 * tau2 * max(norm * norm, honest))


def calibrate(
    rho: float, *, l2: float, dim: int, band: tuple[int, ...], rounds: int, separation: int,
    honest: int,
) -> CorrelatedTerms:  # fmt: skip
    """Return the terms with least noise whose whole epoch costs at most `rho`, in any slot.

    The smoothing is what the proof needs; σ is then the least to a millionth.

    Raises:
        ConfigError: so little noise would do that integers are too coarse for it.
    """
    least, smoothing = least_noise(band, rounds=rounds, dim=dim, honest=honest)  # C-04
    terms = CorrelatedTerms(band, least, smoothing, rounds, separation, honest)
    if terms.rho(l2, dim) <= rho:
        raise ConfigError(
            f"noise of {least:.0f} steps is already more than asked for",
            hint="use a larger scale, or a band of smaller coefficients",
        )
    # ρ·σ² hardly depends on σ and rises with it: from below, a few steps.
    while (cost := terms.rho(l2, dim)) > rho:
        terms = replace(terms, sigma=terms.sigma * math.sqrt(cost / rho) * (1 + 1e-7))
    return terms


@lru_cache(maxsize=4)
def _costs(terms: CorrelatedTerms) -> NDArray[np.float64]:
    """Return `pattern_costs` of the terms, read-only."""
    costs = pattern_costs(terms.covariance(), terms.separation)
    costs.flags.writeable = False
    return costs
