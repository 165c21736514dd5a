"""ε against the library where it has the event, and against exact divergences where it has not."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache

import dp_accounting as dp
import numpy as np
import pytest
from scipy.stats import norm

from secagg.dp import accountant
from secagg.dp.accountant import epsilon_of, multiplier_for
from secagg.dp.events import (
    PrivacyEvent,
    SampledGaussian,
    SumNoise,
    Unprotected,
    ZeroConcentrated,
    event_from_dict,
)
from secagg.dp.rounding import sensitivity
from secagg.dp.terms import DISCRETE_GAUSSIAN, MECHANISMS, SKELLAM
from secagg.errors import ConfigError
from tests.secagg.dp.exact import (
    discrete_gaussian,
    hockey_stick,
    joint,
    shifted,
    skellam,
    sum_of,
)

DELTAS = (1e-2, 1e-4, 1e-6)


def sum_noise(
    z: float, *, mechanism: str = DISCRETE_GAUSSIAN, h: int = 50, truncation: float = 0.0
) -> SumNoise:
    """Return one of a real size: 10 000 coordinates, clip 1024 steps."""
    bound = sensitivity(1024, 10_000)
    return SumNoise(mechanism, (z * bound.l2) ** 2 / h, h, bound.l2, bound.l1, 10_000, truncation)


@lru_cache
def summed(mechanism: str, variance: float, shares: int, reach: int) -> np.ndarray:
    """Return log P of the sum of the shares, on −reach … reach."""
    of = skellam if mechanism == SKELLAM else discrete_gaussian
    return sum_of([of(variance, 2 * reach)] * shares, reach)


# --- against the library ---------------------------------------------------------------------


@pytest.mark.req("Z-07")
@pytest.mark.parametrize("delta", [1e-3, 1e-6, 1e-9])
def test_zero_concentrated_events_cost_what_the_library_says(delta: float) -> None:
    events = [ZeroConcentrated(0.01), ZeroConcentrated(0.02), ZeroConcentrated(0.01)]
    oracle = dp.rdp.RdpAccountant(list(accountant._ORDERS))
    oracle.compose(dp.ComposedDpEvent([dp.ZCDpEvent(e.rho) for e in events]))
    assert epsilon_of(events, delta) == pytest.approx(oracle.get_epsilon(delta), rel=1e-8)
    assert epsilon_of(events, delta) >= oracle.get_epsilon(delta)


@pytest.mark.req("Z-10")
@pytest.mark.parametrize(("z", "rounds"), [(0.5, 1), (1.0, 1), (5.0, 30), (20.0, 500)])
@pytest.mark.parametrize("delta", [1e-3, 1e-9])
def test_sums_of_fine_discrete_gaussians_cost_what_a_gaussian_does(
    z: float, rounds: int, delta: float
) -> None:
    exact = dp.get_epsilon_gaussian(z / math.sqrt(rounds), delta)
    ours = epsilon_of([sum_noise(z)] * rounds, delta)
    assert exact < ours < exact * 1.001 + 1e-6


@pytest.mark.req("Z-09")
@pytest.mark.parametrize(("z", "q", "steps"), [(1.0, 0.01, 500), (0.7, 0.1, 50), (3.0, 0.5, 400)])
def test_sampled_steps_cost_no_less_than_the_library_says_and_little_more(
    z: float, q: float, steps: int
) -> None:
    event = dp.PoissonSampledDpEvent(q, dp.GaussianDpEvent(z))
    finest = dp.pld.PLDAccountant(value_discretization_interval=1e-4)
    finest.compose(event, steps)
    continuous = epsilon_of([SampledGaussian(z, q, steps, 0.0)], 1e-5)
    coarse = epsilon_of([SampledGaussian(z, q, steps)], 1e-5)
    assert finest.get_epsilon(1e-5) <= continuous * (1 + 1e-6) <= coarse * (1 + 1e-6)
    assert continuous <= 1.005 * finest.get_epsilon(1e-5)
    renyi = dp.rdp.RdpAccountant(list(range(2, 65)))
    renyi.compose(event, steps)
    assert coarse <= renyi.get_epsilon(1e-5) * (1 + 1e-6)
    divided = [SampledGaussian(z, q, steps // 2)] * 2
    assert epsilon_of(divided, 1e-5) == pytest.approx(coarse, rel=1e-3)


def test_divergences_read_from_the_library_are_its_own() -> None:
    orders = np.array([2.0, 3.0, 10.0])
    read = accountant._from_library(dp.GaussianDpEvent(2.0), orders)
    assert read == pytest.approx(orders / 8, rel=1e-8)


# --- against exact divergences ----------------------------------------------------------------


SMALL = [
    (0.25, 2, (1,)),
    (0.25, 5, (1,)),
    (0.3, 3, (2,)),
    (0.5, 4, (1, 1)),
    (1.0, 2, (2, 1)),
    (2.0, 6, (3,)),
    (6.0, 3, (5,)),
    (6.0, 3, (3, 2)),
]


@pytest.mark.req("Z-05")
@pytest.mark.req("Z-06")
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("variance", "shares", "shift"), SMALL, ids=str)
def test_one_sum_is_as_private_as_claimed(
    mechanism: str, variance: float, shares: int, shift: tuple[int, ...]
) -> None:
    logs = summed(mechanism, variance, shares, 45)
    first, second = joint([shifted(logs, s) for s in shift])
    l2, l1 = math.sqrt(sum(s * s for s in shift)), float(sum(shift))
    event = SumNoise(mechanism, variance, shares, l2, l1, len(shift))
    for delta in DELTAS:
        claimed = epsilon_of([event], delta)
        assert hockey_stick(first, second, claimed) <= delta
        if variance * shares > 10:  # nor is it far off
            least = 0.6 if mechanism == SKELLAM else 0.8
            assert hockey_stick(first, second, claimed * least) > delta


@pytest.mark.req("Z-05")
@pytest.mark.req("Z-06")
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("variance", "shares"), [(0.25, 3), (0.5, 4), (3.0, 3)])
def test_three_rounds_together_are_as_private_as_claimed(
    mechanism: str, variance: float, shares: int
) -> None:
    logs = summed(mechanism, variance, shares, 30)
    first, second = joint([shifted(logs, 1)] * 3)
    event = SumNoise(mechanism, variance, shares, 1.0, 1.0, 1)
    for delta in DELTAS:
        assert hockey_stick(first, second, epsilon_of([event] * 3, delta)) <= delta


@pytest.mark.req("Z-06")
@pytest.mark.parametrize(("shares", "l2", "l1"), [(3, 4.0, 9.0), (1, 60.0, 90.0), (80, 3.0, 9.0)])
def test_sums_of_skellam_cost_what_the_theorem_says(shares: int, l2: float, l1: float) -> None:
    """Both terms of its minimum, as printed; the exact divergences are too low to tell them."""
    mu, orders = shares * 2.5, list(range(2, 65))
    printed = [
        a * l2**2 / (2 * mu) + min(((2 * a - 1) * l2**2 + 6 * l1) / (4 * mu**2), 3 * l1 / (2 * mu))
        for a in orders
    ]
    wanted, best = dp.rdp.compute_epsilon(orders, printed, 1e-5)
    assert best < 64
    event = SumNoise(SKELLAM, 2.5, shares, l2, l1, 20)
    assert epsilon_of([event], 1e-5) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.req("Z-04")
@pytest.mark.req("Z-10")
def test_a_coarse_sum_pays_for_its_distance_from_a_gaussian_in_every_coordinate() -> None:
    shares, dim, rounds = 20, 100_000, 2
    event = SumNoise(DISCRETE_GAUSSIAN, 1.6, shares, 4.0, 16.0, dim)
    span = sum(4 * math.exp(-2 * math.pi**2 * 1.6 * k / (k + 1)) for k in range(1, shares))
    loss = rounds * dim * span
    smoothing = math.log(5 * rounds * dim / 1e-9) / (2 * math.pi**2)
    multiplier = math.sqrt((1.6 * shares - smoothing) / rounds) / 4.0
    wanted = dp.get_epsilon_gaussian(multiplier, 1e-5 * math.exp(-loss)) + loss
    assert loss > 0.1
    assert epsilon_of([event] * rounds, 1e-5) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.req("Z-04")
@pytest.mark.parametrize("parts", [(0.3, 0.2), (1.0, 0.5, 0.25)], ids=str)
def test_shares_in_parts_are_as_private_as_claimed(parts: tuple[float, ...]) -> None:
    node = sum_of([discrete_gaussian(v, 90) for v in parts], 90)
    first, second = shifted(sum_of([node] * 3, 45), 1)
    event = SumNoise(DISCRETE_GAUSSIAN, sum(parts), 3, 1.0, 1.0, 1, 0.0, parts)
    for delta in DELTAS:
        assert hockey_stick(first, second, epsilon_of([event], delta)) <= delta
    whole = SumNoise(DISCRETE_GAUSSIAN, sum(parts), 3, 1.0, 1.0, 1)
    assert epsilon_of([event], 1e-4) > epsilon_of([whole], 1e-4)


@pytest.mark.req("Z-09")
@pytest.mark.req("Z-10")
@pytest.mark.parametrize("z", [0.8, 1.6])
@pytest.mark.parametrize("q", [1.0, 0.2, 0.02])
@pytest.mark.parametrize("steps", [1, 2])
def test_sampled_noise_on_the_coarsest_grid_is_as_private_as_claimed(
    z: float, q: float, steps: int
) -> None:
    logs = discrete_gaussian(64.0, 80)  # standard deviation of 8 steps
    without, there = shifted(logs, round(8 / z))
    mixed = q * there + (1 - q) * without
    first, second = joint([(without, mixed)] * steps)
    event = SampledGaussian(8 / round(8 / z), q, steps)
    for delta in (1e-3, 1e-5):
        assert hockey_stick(first, second, epsilon_of([event], delta)) <= delta


@pytest.mark.req("Z-10")
def test_a_grid_does_cost_something() -> None:
    """The discrete Gaussian exceeds the continuous one: to account it as such would be wrong."""
    first, second = shifted(discrete_gaussian(64.0, 110), 8)
    exceeds = [
        hockey_stick(first, second, e)
        > 1.01 * (norm.cdf(0.5 - e) - math.exp(e) * norm.cdf(-0.5 - e))
        for e in np.linspace(0.1, 4, 40)
    ]
    assert any(exceeds)


# --- from a clipped vector to ε, with every step in between -----------------------------------


def rounded(x: Sequence[float], squared: int) -> dict[tuple[int, ...], float]:
    """Return the exact distribution of random rounding, drawn again beyond the norm bound."""
    corners: dict[tuple[int, ...], float] = {}
    for up in np.ndindex(*[2] * len(x)):
        corner = tuple(math.floor(v) + u for v, u in zip(x, up, strict=True))
        chance = math.prod(
            v - math.floor(v) if u else 1 - v + math.floor(v) for v, u in zip(x, up, strict=True)
        )
        if chance > 0 and sum(c * c for c in corner) <= squared:
            corners[corner] = chance
    total = sum(corners.values())
    return {corner: chance / total for corner, chance in corners.items()}


@pytest.mark.req("Z-02")
@pytest.mark.req("Z-07")
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("z", [0.15, 0.6, 1.5])
@pytest.mark.parametrize(
    "x", [(8.0, 0.0), (5.65, 5.65), (7.9, 1.2), (6.55, -4.55), (0.3, -0.2)], ids=str
)
def test_a_clipped_vector_in_a_small_ring_is_as_private_as_claimed(
    mechanism: str, z: float, x: tuple[float, float]
) -> None:
    shares, ring, bound = 3, 64, sensitivity(8, 2)
    variance = (z * bound.l2) ** 2 / shares
    logs = summed(mechanism, variance, shares, int(10 * z * bound.l2) + 30)
    noise = np.zeros(ring)
    np.add.at(noise, (np.arange(len(logs)) - len(logs) // 2) % ring, np.exp(logs))
    others = (17, 60)  # what the other nodes gave, which the adversary may know

    def released(vector: tuple[int, ...]) -> np.ndarray:
        moved = [np.roll(noise, v + o) for v, o in zip(vector, others, strict=True)]
        return np.outer(*moved)

    there = sum(p * released(vector) for vector, p in rounded(x, bound.squared).items())
    event = SumNoise(mechanism, variance, shares, bound.l2, bound.l1, 2)
    for delta in DELTAS:
        assert hockey_stick(there, released((0, 0)), epsilon_of([event], delta)) <= delta


@pytest.mark.req("Z-02")
def test_a_vector_as_long_as_the_bound_spends_nearly_all_of_it() -> None:
    """So a sensitivity of the clip, without rounding, would undercount."""
    bound = sensitivity(8, 2)
    assert bound.squared == 8 * 8 + 3 * 3
    logs = summed(DISCRETE_GAUSSIAN, 30.0, 3, 110)
    first, second = joint([shifted(logs, 8), shifted(logs, 3)])
    right = epsilon_of([SumNoise(DISCRETE_GAUSSIAN, 30.0, 3, bound.l2, bound.l1, 2)], 1e-4)
    wrong = epsilon_of([SumNoise(DISCRETE_GAUSSIAN, 30.0, 3, 8.0, 11.0, 2)], 1e-4)
    assert hockey_stick(first, second, right) <= 1e-4 < hockey_stick(first, second, wrong)


# --- composition, δ, limits -------------------------------------------------------------------


@pytest.mark.req("Z-07")
def test_every_event_counts_and_the_order_does_not() -> None:
    events: list[PrivacyEvent] = [
        sum_noise(8.0),
        sum_noise(8.0, mechanism=SKELLAM),
        SampledGaussian(4.0, 0.1, 20),
        ZeroConcentrated(0.01),
    ]
    whole = epsilon_of(events, 1e-6)
    assert epsilon_of(events[::-1], 1e-6) == whole
    assert epsilon_of(dict.fromkeys(events, 1), 1e-6) == whole
    for left in range(len(events)):
        assert epsilon_of(events[:left] + events[left + 1 :], 1e-6) < whole
        assert epsilon_of([*events, events[left]], 1e-6) > whole
    assert epsilon_of([*events, Unprotected()], 1e-6) == math.inf
    assert epsilon_of([], 1e-6) == 0


@pytest.mark.req("Z-07")
def test_gaussians_mixed_with_sampled_ones_cost_what_the_library_says() -> None:
    events = [*[sum_noise(5.0)] * 4, SampledGaussian(1.0, 0.05, 50, 0.0)]
    oracle = dp.pld.PLDAccountant(value_discretization_interval=1e-4)
    oracle.compose(dp.GaussianDpEvent(5.0), 4)
    oracle.compose(dp.PoissonSampledDpEvent(0.05, dp.GaussianDpEvent(1.0)), 50)
    exact = oracle.get_epsilon(1e-6)
    assert exact <= epsilon_of(events, 1e-6) * (1 + 1e-6)
    assert epsilon_of(events, 1e-6) <= 1.005 * exact


@pytest.mark.req("Z-07")
def test_a_long_ledger_of_equal_entries_is_worked_out_once() -> None:
    accountant._renyi.cache_clear()
    event = sum_noise(30.0, mechanism=SKELLAM)
    copies = [event_from_dict(event.to_dict()) for _ in range(100)]
    whole = epsilon_of(copies * 100, 1e-6)
    assert accountant._renyi.cache_info().misses == 2  # the event, and ρ = 0
    assert whole == epsilon_of({event: 10_000}, 1e-6)


@pytest.mark.req("Z-08")
def test_truncated_mass_is_paid_from_delta_by_both_neighbours() -> None:
    mass, rounds, delta = 1e-11, 20, 1e-6
    whole = epsilon_of([sum_noise(5.0, truncation=mass)] * rounds, delta)
    left = delta - (1 + math.exp(whole)) * mass * rounds
    assert whole == pytest.approx(epsilon_of([sum_noise(5.0)] * rounds, left), rel=1e-8)
    assert whole >= epsilon_of([sum_noise(5.0)] * rounds, left) * (1 - 1e-12)
    extra = ZeroConcentrated(0.01, 1e-7)
    assert epsilon_of([extra], delta) > epsilon_of([ZeroConcentrated(0.01)], delta - 1e-7)


@pytest.mark.req("Z-08")
def test_truncated_mass_is_really_lost() -> None:
    """A mechanism that shows its input with that probability is as private as claimed, not more."""
    mass, delta = 1e-3, 1e-2
    first, second = shifted(discrete_gaussian(400.0, 300), 10)
    shown = [
        np.append((1 - mass) * p, tail) for p, tail in ((first, (mass, 0)), (second, (0, mass)))
    ]
    event = SumNoise(DISCRETE_GAUSSIAN, 400.0, 1, 10.0, 10.0, 1, mass)
    assert hockey_stick(*shown, epsilon_of([event], delta)) <= delta
    unaware = SumNoise(DISCRETE_GAUSSIAN, 400.0, 1, 10.0, 10.0, 1)
    assert hockey_stick(*shown, epsilon_of([unaware], delta)) > delta


@pytest.mark.req("Z-08")
@pytest.mark.parametrize("mass", [1e-7, 1e-6])
def test_mass_that_leaves_no_delta_is_refused_and_what_eats_it_up_is_infinite(mass: float) -> None:
    with pytest.raises(ConfigError, match="truncated mass") as refused:
        epsilon_of([ZeroConcentrated(0.01, mass)] * 10, 1e-6)
    assert refused.value.hint
    assert epsilon_of([ZeroConcentrated(5.0, 9e-8)] * 10, 1e-6) == math.inf


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-6, math.nan, math.inf])
def test_delta_is_a_probability(delta: float) -> None:
    with pytest.raises(ConfigError, match="delta is"):
        epsilon_of([ZeroConcentrated(0.1)], delta)


@pytest.mark.parametrize(
    "target",
    [
        lambda z: {sum_noise(z): 50},
        lambda z: {sum_noise(z, mechanism=SKELLAM, truncation=1e-12): 50},
        lambda z: [SampledGaussian(z, 0.05, 300)],
        lambda z: [SampledGaussian(z, 0.05, 300), ZeroConcentrated(1e-4)],
    ],
)
@pytest.mark.parametrize("epsilon", [0.5, 4.0])
def test_the_multiplier_is_the_least_that_fits(target, epsilon: float) -> None:  # type: ignore[no-untyped-def]
    z = multiplier_for(target, epsilon=epsilon, delta=1e-6)
    assert epsilon_of(target(z), 1e-6) <= epsilon < epsilon_of(target(z * 0.999), 1e-6)


def test_a_budget_out_of_reach_is_refused() -> None:
    with pytest.raises(ConfigError, match="no noise") as refused:
        multiplier_for(lambda z: [Unprotected()], epsilon=1, delta=1e-6)
    assert refused.value.hint
    for epsilon in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="epsilon is"):
            multiplier_for(lambda z: [sum_noise(z)], epsilon=epsilon, delta=1e-6)


def test_importing_the_accountant_does_not_import_the_library() -> None:
    code = "import sys, secagg.dp.planning; sys.exit('dp_accounting' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
