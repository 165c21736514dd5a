"""From events to ε: Rényi divergences added up over rounds, and two tighter ways where they hold.

Three upper bounds on the same ε, of which the least counts:

- Rényi: every event has a bound of its divergence at each of `_ORDERS`; bounds add up, and
  dp_accounting turns the sums into ε. For every event.
- Gaussian: sums of discrete Gaussians are, within a factor that is counted, a continuous Gaussian
  that was rounded at random, and a rounded thing gives no more away. For these ε is known exactly.
- privacy loss distribution: the same step, for Gaussians some of which are sampled.

`dp_accounting` takes a second to import, so it is imported by what needs it: no command pays that
unless it asks for an ε. Source: specs/58-accounting.md sections 5 to 7.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg.dp.divergences import (
    NearGaussian,
    fold_discrete_gaussians,
    log_theta,
    renyi_discrete_gaussians,
    renyi_skellam,
    smoothing_variance,
)
from secagg.dp.events import (
    PrivacyEvent,
    SampledGaussian,
    SumNoise,
    Unprotected,
    ZeroConcentrated,
)
from secagg.dp.terms import SKELLAM
from secagg.errors import ConfigError

__all__ = ["epsilon_of", "multiplier_for"]

_Events: TypeAlias = Iterable[PrivacyEvent] | Mapping[PrivacyEvent, int]
_Counts: TypeAlias = frozenset[tuple[PrivacyEvent, int]]

_SAMPLED_UP_TO: Final = 1024
"""Greatest order of a sampled Gaussian: the sum has as many terms as the order."""
_ORDERS: Final[NDArray[np.float64]] = np.array(
    [1 + k / 20 for k in range(1, 40)]
    + [3 + k / 4 for k in range(28)]
    + list(range(10, 33))
    + [36, 40, 48, 56, 64, 80, 96, 128, 192, 256, 384, 512, 768, _SAMPLED_UP_TO]
    + [1536, 2048, 4096, 8192, 16384, 65536],
    dtype=np.float64,
)
_SMOOTHING_LOSS: Final = 1e-9
"""ε spent on treating discrete Gaussians as a rounded continuous one, over all rounds."""
_MOST_COORDINATES: Final = 1 << 32
"""Of a sampled Gaussian, which does not say how many it has."""
_ROUND_UP: Final = 1 + 1e-9
"""Covers the tolerance of the searches in dp_accounting."""
_LEAST_PLD_DELTA: Final = 1e-10
"""Convolutions by Fourier transform are off by some 1e-16 a step: far below this."""
_MOST_PLD_EVENTS: Final = 64
_MOST_PLD_EPSILON: Final = 1000.0
"""Nobody asks beyond, and the distribution would take gigabytes."""
_MOST_TURNS: Final = 100
_MOST_MULTIPLIER: Final = float(1 << 20)


def epsilon_of(events: _Events, delta: float) -> float:
    """Return ε of all events together at `delta`.

    Args:
        events: What was done, in any order; or how often each was done.
        delta: δ of the whole, in (0, 1).

    Returns:
        An upper bound on ε, 0 for no events; inf if one of them is `Unprotected`.

    Raises:
        ConfigError: delta is not in (0, 1), or no more than the truncated mass of the events.
    """
    return _epsilon(_counted(events, delta), delta, True)


def multiplier_for(target: Callable[[float], _Events], *, epsilon: float, delta: float) -> float:
    """Return the least noise multiplier whose events stay within ε, to 1 part in 10^4.

    Args:
        target: The events under a noise multiplier; their ε falls as it grows.
        epsilon: ε > 0 that they may have at most.
        delta: δ of the whole, in (0, 1).

    Raises:
        ConfigError: ε is not positive or out of reach, or as for `epsilon_of`.
    """
    if not 0 < epsilon < math.inf:
        raise ConfigError(f"epsilon is {epsilon}", hint="use a positive number")

    def fits(multiplier: float, tight: bool) -> bool:
        return _epsilon(_counted(target(multiplier), delta), delta, tight) <= epsilon

    high = 1.0
    while not fits(high, False):  # the Rényi bound alone is cheap
        high *= 2
        if high > _MOST_MULTIPLIER:
            raise ConfigError(
                f"no noise keeps this within epsilon {epsilon:g} at delta {delta:g}",
                hint="use fewer rounds, a greater epsilon or delta, or events that grow with noise",
            )
    low = high / 2
    while fits(low, False):
        high, low = low, low / 2
        if low < 1 / _MOST_MULTIPLIER:
            return high
    high = _bisect(lambda z: fits(z, False), low, high)
    low = high / 2
    while fits(low, True):
        high, low = low, low / 2
    return _bisect(lambda z: fits(z, True), low, high)


def _bisect(fits: Callable[[float], bool], low: float, high: float) -> float:
    """Return what fits and is at most 1 + 1e-4 times what does not; `high` fits, `low` does not."""
    while high > low * (1 + 1e-4):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _counted(events: _Events, delta: float) -> _Counts:
    if not 0 < delta < 1:
        raise ConfigError(f"delta is {delta}", hint="use a number above 0 and below 1")
    counts = Counter(events)
    if (slack := _slack(counts.items())) >= delta:
        raise ConfigError(  # Z-08
            f"truncated mass {slack:.3g} is not below delta {delta:g}",
            hint="use a greater delta, or fewer rounds",
        )
    return frozenset(counts.items())


def _slack(counts: Iterable[tuple[PrivacyEvent, int]]) -> float:
    """Return the probability, at most, that anything went otherwise than the events say."""
    return math.fsum(
        count * (event.truncation if isinstance(event, SumNoise) else event.delta_extra)
        for event, count in counts
        if isinstance(event, SumNoise | ZeroConcentrated)
    )


@lru_cache(maxsize=32)  # few, since keys may be long
def _epsilon(counts: _Counts, delta: float, tight: bool) -> float:
    """Return ε with the truncated mass taken off δ: 1 + e^ε times, as both neighbours have it."""
    if any(isinstance(event, Unprotected) for event, _ in counts):
        return math.inf  # Z-07
    if not (slack := _slack(counts)):
        return _ideal_epsilon(counts, delta, tight)
    epsilon = 0.0
    for _ in range(_MOST_TURNS):  # rises to the least ε that pays for itself
        left = delta - (1 + math.exp(min(epsilon, 700.0))) * slack  # Z-08
        if left <= 0:
            return math.inf
        needed = _ideal_epsilon(counts, left, tight)
        if needed <= epsilon:
            return epsilon
        epsilon = needed * _ROUND_UP
    return math.inf


def _ideal_epsilon(counts: _Counts, delta: float, tight: bool) -> float:
    epsilon = _by_renyi(counts, delta)
    gaussians = [(event, count) for event, count in counts if _is_gaussian(event)]
    if tight and len(gaussians) == len(counts):
        try:
            with np.errstate(all="ignore"):
                epsilon = min(epsilon, _sound_epsilon(_by_gaussian(counts, delta, epsilon)))
        except ArithmeticError:
            pass  # the other bound holds
    return epsilon


def _by_renyi(counts: _Counts, delta: float) -> float:
    from dp_accounting import rdp

    rho = math.fsum(n * event.rho for event, n in counts if isinstance(event, ZeroConcentrated))
    total = _renyi(ZeroConcentrated(rho)).copy()
    for event, count in counts:
        if not isinstance(event, ZeroConcentrated):
            total += count * _renyi(event)  # Z-07
    with np.errstate(all="ignore"):
        epsilon = float(rdp.compute_epsilon(_ORDERS, _sound(total), delta)[0])
    return _sound_epsilon(epsilon * _ROUND_UP)


def _sound(divergences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return bounds that hold: one that is no number, or below 0, bounds nothing (Z-13)."""
    return np.where(divergences >= 0, divergences, math.inf)


def _sound_epsilon(epsilon: float) -> float:
    """Return ε, or inf where floats gave out on the way to it (Z-13)."""
    return epsilon if epsilon >= 0 else math.inf


@lru_cache(maxsize=4096)
def _renyi(event: PrivacyEvent) -> NDArray[np.float64]:
    """Return the greatest Rényi divergence of the event's neighbours at every one of `_ORDERS`."""
    try:
        with np.errstate(all="ignore"):
            return _sound(_divergences(event))
    except ArithmeticError:  # of numbers that no mechanism has
        return np.full(_ORDERS.shape, math.inf)


def _divergences(event: PrivacyEvent) -> NDArray[np.float64]:
    if isinstance(event, SumNoise):
        if event.mechanism == SKELLAM:
            variance = event.shares * event.share_variance
            return renyi_skellam(_ORDERS, variance, l2=event.l2, l1=event.l1)
        noise = _near_gaussian(event)
        return renyi_discrete_gaussians(_ORDERS, noise, l2=event.l2, l1=event.l1, dim=event.dim)
    if isinstance(event, SampledGaussian):
        return _renyi_sampled(event)
    return _from_library(_library_event(event, 0.0), _ORDERS)


def _renyi_sampled(event: SampledGaussian) -> NDArray[np.float64]:
    """Return the divergences at whole orders, where the grid costs nothing; others get the next."""
    whole = np.maximum(np.ceil(_ORDERS), 2.0)  # Z-09
    distinct = np.unique(whole[whole <= _SAMPLED_UP_TO])
    known = _from_library(_library_event(event, 0.0), distinct)
    bound: NDArray[np.float64] = np.append(known, math.inf)[np.searchsorted(distinct, whole)]
    return bound


def _from_library(event: Any, orders: NDArray[np.float64]) -> NDArray[np.float64]:
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant(orders)
    accountant.compose(event)
    divergences: NDArray[np.float64] = accountant._rdp  # no public name; a test compares it
    return divergences * _ROUND_UP


def _library_event(event: PrivacyEvent, smoothing: float) -> Any:
    """Return dp_accounting's name for the event, with noise narrower by what rounding may use."""
    import dp_accounting as dp

    if isinstance(event, ZeroConcentrated):
        return dp.ZCDpEvent(event.rho)
    multiplier = _smoothed_multiplier(event, smoothing)
    if isinstance(event, SampledGaussian):
        gaussian = dp.GaussianDpEvent(multiplier)
        once = dp.PoissonSampledDpEvent(event.sampling_rate, gaussian)
        return dp.SelfComposedDpEvent(once, event.steps)
    return dp.GaussianDpEvent(multiplier)


@lru_cache(maxsize=4096)
def _near_gaussian(event: SumNoise) -> NearGaussian:
    return fold_discrete_gaussians((event.parts or (event.share_variance,)) * event.shares)


def _is_gaussian(event: PrivacyEvent) -> bool:
    return isinstance(event, SampledGaussian) or (
        isinstance(event, SumNoise) and event.mechanism != SKELLAM
    )


def _smoothed_multiplier(event: PrivacyEvent, smoothing: float) -> float:
    """Return the multiplier of the continuous Gaussian under a discrete one; 0 if there is none."""
    if isinstance(event, SumNoise):
        return math.sqrt(max(0.0, _near_gaussian(event).variance - smoothing)) / event.l2
    if isinstance(event, SampledGaussian):
        return event.noise_multiplier * math.sqrt(max(0.0, 1 - smoothing * event.grid**2))
    return 0.0


def _by_gaussian(counts: _Counts, delta: float, renyi: float) -> float:
    """Return ε of events that are all Gaussian but for rounding at random (Z-10).

    The probabilities of what was done are within a factor e^loss of a rounded Gaussian's, ratios
    of them too: so its ε at δ·e^−loss, and loss more.
    """
    import dp_accounting as dp

    coordinates = float(sum(count * _coordinates(event) for event, count in counts))
    smoothing = smoothing_variance(max(coordinates, 1.0), _SMOOTHING_LOSS)
    at = np.array([smoothing])
    loss = coordinates * float((log_theta(at, 0.0) - log_theta(at, 0.5))[0])
    for event, count in counts:
        if isinstance(event, SumNoise):
            loss += count * event.dim * _near_gaussian(event).span
    multipliers = [_smoothed_multiplier(event, smoothing) for event, _ in counts]
    if loss >= renyi or min(multipliers, default=1.0) <= 0:
        return math.inf
    left = delta * math.exp(-loss)
    if all(isinstance(event, SumNoise) for event, _ in counts):
        square = math.fsum(n / z**2 for (_, n), z in zip(counts, multipliers, strict=True))
        epsilon = dp.get_epsilon_gaussian(1 / math.sqrt(square), left) if square else 0.0
    elif _suits_a_distribution(counts, left, renyi):
        epsilon = _by_loss_distribution(counts, left, smoothing, renyi)
    else:
        return math.inf
    return float(epsilon) * _ROUND_UP + loss


def _coordinates(event: PrivacyEvent) -> int:
    if isinstance(event, SampledGaussian):
        return event.steps * _MOST_COORDINATES if event.grid else 0
    return event.dim if isinstance(event, SumNoise) else 0


def _suits_a_distribution(counts: _Counts, delta: float, renyi: float) -> bool:
    few = len(counts) <= _MOST_PLD_EVENTS
    return few and delta >= _LEAST_PLD_DELTA and 0 < renyi <= _MOST_PLD_EPSILON


def _by_loss_distribution(counts: _Counts, delta: float, smoothing: float, renyi: float) -> float:
    """Return ε from the distribution of the privacy loss, rounded up to a grid fit for that ε."""
    from dp_accounting import pld

    interval = min(max(renyi / 5000, 1e-5), 1e-2)
    accountant = pld.PLDAccountant(value_discretization_interval=interval)
    for event, count in counts:
        accountant.compose(_library_event(event, smoothing), count)
    return float(accountant.get_epsilon(delta))
