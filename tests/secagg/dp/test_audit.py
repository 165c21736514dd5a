"""What canaries tell of ε: two Gaussians, scores, and bounds that hold as often as they say."""

from __future__ import annotations

import functools
import math

import dp_accounting
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.stats import binom, chi2, nct, norm

from secagg.dp.audit import (
    Audit,
    AuditRound,
    audit,
    delta_between,
    epsilon_between,
    noticeable,
    right_guesses,
    scores_of,
    separation_of,
)
from secagg.errors import ConfigError

DELTA = 1e-5
ALARMS = 1e-6
"""Probability with which a test over honest data fails."""


def simulated(
    rng: np.random.Generator, canaries: int, rounds: int, freedom: int, separation: float
) -> list[AuditRound]:
    """Return rounds of a Gaussian mechanism that has this separation over the whole run."""
    played = []
    for _ in range(rounds):
        gave = rng.random(canaries) < 0.5
        along = rng.standard_normal(canaries) + separation / math.sqrt(rounds) * gave
        noise = math.sqrt(rng.chisquare(freedom) / freedom)
        played.append(AuditRound(along / noise, gave, freedom))
    return played


def random_frame(rng: np.random.Generator, dim: int, canaries: int) -> NDArray[np.float64]:
    frame = np.linalg.qr(rng.standard_normal((dim, canaries)))[0]
    return np.asarray(frame * rng.choice([-1.0, 1.0], canaries))


# --- two Gaussians --------------------------------------------------------------------------------


@pytest.mark.parametrize("separation", [0.1, 0.5, 1.66, 5.0, 20.0])
def test_epsilon_is_that_of_the_gaussian_mechanism(separation: float) -> None:
    expected = dp_accounting.get_epsilon_gaussian(1 / separation, DELTA)
    found = epsilon_between(separation, 1.0, DELTA)
    assert found == pytest.approx(expected, rel=1e-9)
    assert separation_of(found, DELTA) == pytest.approx(separation, rel=1e-9)
    assert epsilon_between(-separation, 1.0, DELTA) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("spread", [0.4, 0.9, 0.999999, 1.0, 1.1, 3.0])
@pytest.mark.parametrize("mean", [0.0, 0.3, 1.5])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_delta_is_the_integral_of_what_the_densities_differ_by(
    epsilon: float, mean: float, spread: float
) -> None:
    x = np.linspace(-40, 40, 800_001)
    here, there = norm.pdf(x), norm.pdf(x, mean, spread)
    factor = math.exp(epsilon)
    ways = (
        trapezoid(np.maximum(0.0, there - factor * here), x),
        trapezoid(np.maximum(0.0, here - factor * there), x),
    )
    assert delta_between(epsilon, mean, spread) == pytest.approx(max(ways), abs=1e-8)


def test_equal_gaussians_cost_nothing_and_far_ones_stay_finite() -> None:
    assert epsilon_between(0.0, 1.0, DELTA) == 0.0
    assert epsilon_between(1000.0, 1.0, DELTA) == pytest.approx(500_000, rel=0.01)
    assert separation_of(0.0, DELTA) < 1e-4
    assert separation_of(1e9, DELTA) == 1e4


# --- scores ---------------------------------------------------------------------------------------


@pytest.mark.req("V-05")
def test_scores_of_zeros_are_standard_normal_whatever_was_released() -> None:
    rng = np.random.default_rng(1)
    spike = np.zeros(400)
    spike[3] = 7.0
    scores = np.concatenate([scores_of(spike, random_frame(rng, 400, 10)) for _ in range(200)])
    low, high = chi2.ppf([ALARMS / 2, 1 - ALARMS / 2], len(scores))
    assert low < float(scores @ scores) < high
    assert abs(scores.mean()) < norm.isf(ALARMS / 2) / math.sqrt(len(scores))


@pytest.mark.req("V-05")
def test_scores_are_free_of_scale_and_of_what_other_canaries_gave() -> None:
    rng = np.random.default_rng(2)
    frame, noise = random_frame(rng, 600, 3), rng.standard_normal(600)
    alone = scores_of(noise + 2.0 * frame[:, 0], frame)
    assert scores_of(1e-6 * (noise + 2.0 * frame[:, 0]), frame) == pytest.approx(alone)
    more = scores_of(noise + frame @ np.array([2.0, 5.0, -9.0]), frame)
    assert more[0] == pytest.approx(alone[0])
    assert alone[0] == pytest.approx(2.0 + frame[:, 0] @ noise, abs=0.3)


def test_a_release_of_canaries_alone_has_no_noise_to_measure() -> None:
    frame = np.eye(300)[:, :2]
    with pytest.raises(ConfigError, match="nothing but canaries"):
        scores_of(frame[:, 0].copy(), frame)
    with pytest.raises(ConfigError, match="2 canaries in 2 coordinates"):
        scores_of(np.ones(2), np.eye(2))


# --- the bounds -----------------------------------------------------------------------------------


@pytest.mark.req("V-06", "V-07", "V-08")
@pytest.mark.parametrize(("canaries", "rounds", "freedom"), [(10, 2, 200), (100, 5, 3900)])
@pytest.mark.parametrize("separation", [1.66, 12.0])
def test_the_bound_exceeds_the_truth_as_rarely_as_it_says(
    canaries: int, rounds: int, freedom: int, separation: float
) -> None:
    found = audits(canaries, rounds, freedom, separation, 60)
    truth = epsilon_between(separation, 1.0, DELTA)
    assert sum(each.bound > truth for each in found) <= binom.isf(ALARMS, len(found), 0.05)
    assert np.median([each.estimate for each in found]) == pytest.approx(truth, rel=0.15)


@pytest.mark.slow
@pytest.mark.req("V-06", "V-07", "V-08")
@pytest.mark.parametrize(("canaries", "rounds"), [(20, 2), (100, 5)])
def test_the_bound_exceeds_the_truth_as_rarely_as_it_says_in_thousands_of_runs(
    canaries: int, rounds: int
) -> None:
    found = audits(canaries, rounds, 1000, 1.66, 3000)
    over = sum(each.bound > epsilon_between(1.66, 1.0, DELTA) for each in found)
    assert over <= binom.isf(ALARMS, len(found), 0.05)
    assert over >= binom.ppf(ALARMS, len(found), 0.01), "the bound is not needlessly low"


@functools.cache
def audits(
    canaries: int, rounds: int, freedom: int, separation: float, count: int
) -> tuple[Audit, ...]:
    rng = np.random.default_rng(canaries)
    return tuple(
        audit(simulated(rng, canaries, rounds, freedom, separation), delta=DELTA)
        for _ in range(count)
    )


@pytest.mark.req("V-06")
@pytest.mark.parametrize("separation", [1.0, 5.0, 40.0])
@pytest.mark.parametrize(("count", "freedom"), [(10, 200), (50, 3900)])
def test_the_approximation_of_the_noncentral_t_is_good(
    count: int, freedom: int, separation: float
) -> None:
    """A mean score just above the one whose bound is the truth has the probability it should."""

    def bound(mean: float) -> float:
        scores = np.array([mean] * count + [0.0, 0.1])
        gave = np.arange(count + 2) < count
        return audit([AuditRound(scores, gave, freedom)], delta=DELTA).additive_bound

    low, high = separation, 3 * separation + 3
    for _ in range(40):
        middle = (low + high) / 2
        above = bound(middle) > epsilon_between(separation, 1.0, DELTA)
        low, high = (low, middle) if above else (middle, high)
    root = math.sqrt(count)
    assert nct.sf(high * root, freedom, separation * root) == pytest.approx(0.025, abs=0.0015)


@pytest.mark.req("V-06")
def test_rounds_of_unequal_noise_count_by_what_they_show() -> None:
    rng = np.random.default_rng(3)
    rounds = [simulated(rng, 100, 1, 3000, ratio)[0] for ratio in (1.0, 2.0, 3.0)]
    truth = epsilon_between(math.sqrt(14), 1.0, DELTA)
    assert 0.5 * truth < audit(rounds).additive_bound < truth


# --- what is noticed ------------------------------------------------------------------------------


@pytest.mark.req("V-06", "V-08")
def test_missing_noise_gives_a_bound_far_above_any_claim() -> None:
    found = audit(simulated(np.random.default_rng(4), 100, 5, 3900, 30 * math.sqrt(5)))
    assert found.right == found.given + found.zeros == 500
    assert found.additive_bound > 1000
    assert found.guessing_bound > 50, "with nothing assumed of the mechanism but its trade-off"


@pytest.mark.req("V-06")
@pytest.mark.parametrize(("canaries", "rounds"), [(20, 3), (30, 5)])
def test_what_is_said_to_be_noticed_is_noticed_in_95_of_100_runs(
    canaries: int, rounds: int
) -> None:
    given = canaries * rounds // 2
    factor = noticeable(8.0, given=given, rounds=rounds, freedom=3000, delta=DELTA, confidence=0.95)
    weak = factor * separation_of(8.0, DELTA)
    rng = np.random.default_rng(5)
    caught = sum(
        audit(simulated(rng, canaries, rounds, 3000, weak)).additive_bound > 8.0 for _ in range(150)
    )
    assert binom.ppf(ALARMS, 150, 0.93) <= caught <= binom.isf(ALARMS, 150, 0.97)


@pytest.mark.req("V-06")
@pytest.mark.parametrize(
    ("canaries", "rounds", "factor"),
    [(20, 5, 1.68), (50, 5, 1.43), (100, 5, 1.31), (200, 5, 1.22), (100, 1, 1.31), (100, 20, 1.31)],
)
def test_the_table_of_what_is_noticed(canaries: int, rounds: int, factor: float) -> None:
    given = canaries * rounds // 2
    found = noticeable(8.0, given=given, rounds=rounds, freedom=3900, delta=DELTA, confidence=0.95)
    assert found == pytest.approx(factor, abs=0.006)


# --- any mechanism --------------------------------------------------------------------------------


@pytest.mark.req("V-07")
def test_one_guess_is_right_with_the_probability_of_the_trade_off() -> None:
    for separation in (0.0, 0.7, 3.0):
        assert right_guesses(1, separation) == pytest.approx([1.0, norm.cdf(separation / 2)])


@pytest.mark.req("V-07")
@pytest.mark.parametrize("separation", [0.2, 0.742, 2.0])
def test_two_guesses_are_bounded_by_the_best_of_all_distributions_allowed(
    separation: float,
) -> None:
    """P(N = 2) at most, by trying all P(N = 1) under the two inequalities."""

    def reach(mass: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(norm.cdf(norm.ppf(mass) + separation))

    one, two = np.meshgrid(np.linspace(0, 1, 2001), np.linspace(0, 1, 2001))
    allowed = (two <= reach(one / 2)) & (one + two <= 1)
    allowed &= two + one / 2 <= reach(1 - one / 2 - two)
    assert right_guesses(2, separation)[2] == pytest.approx(two[allowed].max(), abs=1e-3)


@pytest.mark.req("V-07")
@pytest.mark.parametrize("canaries", [5, 100])
@pytest.mark.parametrize("separation", [0.3, 0.742, 1.66])
def test_mechanisms_of_that_trade_off_stay_below_the_bound(
    canaries: int, separation: float
) -> None:
    """One adds noise; the other is as good or bad for all canaries at once, and has fatter tails.

    A Gaussian trade-off is a mixture of randomised responses with ε = |privacy loss|; here all
    canaries get the same one.
    """
    bounds, wanted = right_guesses(canaries, separation), np.arange(canaries + 1)
    noisy = binom.sf(wanted - 1, canaries, norm.cdf(separation / 2))
    losses = np.linspace(0, 30 * separation, 20_001)
    density = norm.pdf(losses, separation**2 / 2, separation) * (1 + np.exp(-losses))
    tails = binom.sf(wanted[:, None] - 1, canaries, 1 / (1 + np.exp(-losses)))
    common = trapezoid(tails * density, losses, axis=1)
    assert (noisy <= bounds + 1e-6).all()
    assert (common <= bounds + 1e-6).all()
    for v in np.flatnonzero(bounds > 1e-5):
        assert common[v] > bounds[v] / 20, "the bound is not far from what can be"
    with pytest.raises(ValueError, match="read-only"):
        bounds[0] = 0.0


@pytest.mark.req("V-07")
def test_a_mechanism_that_tells_all_is_not_bounded_by_less_than_everything() -> None:
    assert right_guesses(50, 12.0)[50] > 0.99
    assert right_guesses(50, 0.0)[50] < 1e-7


# --- refusals -------------------------------------------------------------------------------------


def test_what_cannot_be_judged_is_refused() -> None:
    good = simulated(np.random.default_rng(6), 20, 1, 500, 1.0)
    with pytest.raises(ConfigError, match="0 vectors and 0 zeros"):
        audit([])
    with pytest.raises(ConfigError, match="confidence 1"):
        audit(good, confidence=1.0)
    with pytest.raises(ConfigError, match="delta 0"):
        audit(good, delta=0.0)
    with pytest.raises(ConfigError, match="199 directions"):
        AuditRound(np.zeros(2), np.zeros(2, dtype=bool), 199)
    with pytest.raises(ConfigError, match="coins"):
        AuditRound(np.zeros(2), np.zeros(3, dtype=bool), 500)
