"""A plan keeps its budget, its noise is the real noise, and its words are true."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from secagg.dp.accountant import epsilon_of
from secagg.dp.events import UNITS
from secagg.dp.planning import attack_bounds, plain_sentence, plan
from secagg.dp.rounding import sensitivity
from secagg.dp.terms import MECHANISMS, SKELLAM
from secagg.errors import ConfigError
from tests.secagg.dp.exact import discrete_gaussian, shifted

FLEET: dict[str, Any] = {
    "nodes": 1000,
    "colluders": 100,
    "dropout": 0.3,
    "rounds": 50,
    "epsilon": 4.0,
    "delta": 1e-6,
    "dim": 5000,
    "clip": 0.5,
    "scale": 2048,
}


@pytest.mark.req("Z-11")
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("rounds", [1, 7, 50])
def test_a_plan_stays_within_its_budget_and_no_less_noise_would(
    mechanism: str, rounds: int
) -> None:
    made = plan(**FLEET | {"mechanism": mechanism, "rounds": rounds})
    assert epsilon_of([made.event] * rounds, 1e-6) <= 4.0
    less = replace(made.event, share_variance=made.event.share_variance * 0.997)
    assert epsilon_of([less] * rounds, 1e-6) > 4.0
    last, spent = made.epsilon_by_round[-1]
    assert (last, spent) == (rounds, epsilon_of([made.event] * rounds, 1e-6))
    assert made.epsilon_one_round == epsilon_of([made.event], 1e-6)
    for count, epsilon in made.epsilon_by_round:
        assert epsilon == epsilon_of([made.event] * count, 1e-6)
    numbers = [count for count, _ in made.epsilon_by_round]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == min(rounds, 20)


@pytest.mark.req("Z-01")
@pytest.mark.req("Z-11")
def test_shares_are_for_the_fewest_honest_survivors_and_the_length_after_rounding() -> None:
    made = plan(**FLEET)
    assert (made.dropouts, made.honest, made.event.shares) == (300, 600, 600)
    bound = sensitivity(2048, 5000)
    assert (made.event.l2, made.event.l1) == (bound.l2, bound.l1)
    total = made.event.share_variance * 600
    assert math.sqrt(total) == pytest.approx(made.noise_multiplier * bound.l2)


@pytest.mark.req("Z-11")
def test_forecasts_are_what_a_simulation_shows() -> None:
    made = plan(**FLEET | {"nodes": 20, "colluders": 2, "rounds": 10, "dim": 400})
    rng = np.random.default_rng(1)
    step = 0.5 / 2048
    for forecast in (made.left_in, made.left_in_worst, made.taken_back, made.taken_back_worst):
        shares = rng.normal(0, forecast.share_std_steps, (forecast.survivors, 40_000))
        mean = shares.sum(axis=0) * step / forecast.survivors
        assert shares.sum(axis=0).std() == pytest.approx(forecast.sum_std_steps, rel=0.03)
        assert forecast.sum_std == pytest.approx(forecast.sum_std_steps * step)
        assert mean.std() == pytest.approx(forecast.mean_std, rel=0.03)
        norms = np.square(mean.reshape(100, 400)).sum(axis=1)
        assert math.sqrt(norms.mean()) == pytest.approx(forecast.mean_norm, rel=0.03)
        assert forecast.signal_to_noise == pytest.approx(0.5 / forecast.mean_norm)


@pytest.mark.req("Z-11")
def test_taking_back_the_excess_leaves_just_what_the_honest_need() -> None:
    made = plan(**FLEET)
    needed = made.event.share_variance * made.honest
    for forecast in (made.taken_back, made.taken_back_worst):
        honest = forecast.survivors - made.colluders
        assert forecast.share_std_steps**2 * honest == pytest.approx(needed)
    assert made.gain == pytest.approx(math.sqrt(900 / 600))
    assert made.taken_back_worst == made.left_in_worst
    reliable = plan(**FLEET | {"dropout": 0.0})
    assert reliable.gain == 1
    assert reliable.left_in == reliable.left_in_worst


def test_the_fewest_survivors_are_three() -> None:
    assert plan(**FLEET | {"nodes": 4, "colluders": 1, "dropout": 0.49}).honest == 2


@pytest.mark.parametrize(
    "change",
    [
        {"colluders": 700},
        {"nodes": 2, "colluders": 0},
        {"nodes": 0},
        {"colluders": -1},
        {"dropout": 1.0},
        {"dropout": math.nan},
        {"rounds": 0},
        {"clip": 0.0},
        {"clip": math.inf},
        {"scale": 0},
        {"dim": 0},
        {"epsilon": 0.0},
        {"delta": 0.0},
        {"mechanism": "laplace"},
        {"truncation": 1e-6},
    ],
    ids=str,
)
def test_an_impossible_fleet_is_refused_with_a_hint(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        plan(**FLEET | change)
    assert refused.value.hint


def test_skellam_needs_no_less_noise() -> None:
    assert plan(**FLEET | {"mechanism": SKELLAM}).noise_multiplier > plan(**FLEET).noise_multiplier


# --- words -----------------------------------------------------------------------------------


@pytest.mark.req("Z-12")
@pytest.mark.parametrize("false_alarms", [0.001, 0.01, 0.2])
@pytest.mark.parametrize("z", [0.5, 1.0, 3.0])
def test_the_best_attack_on_a_real_mechanism_stays_within_the_bounds(
    z: float, false_alarms: float
) -> None:
    first, second = shifted(discrete_gaussian(100.0, 150), round(10 / z))
    order = np.argsort(-second / np.maximum(first, 1e-300), kind="stable")
    alarms, found = np.cumsum(first[order]), np.cumsum(second[order])  # Neyman and Pearson 1933
    rate = float(np.interp(false_alarms, alarms, found))
    right = float((1 + np.abs(second - first).sum() / 2) / 2)
    for delta in (1e-2, 1e-5):
        grid = np.linspace(0, 60, 6001)
        spent = np.array([np.maximum(second - math.exp(e) * first, 0).sum() for e in grid])
        epsilon = float(grid[np.argmax(spent <= delta)])
        bounds = attack_bounds(epsilon, delta, false_alarms)
        assert rate <= bounds.found
        assert right <= bounds.right


@pytest.mark.req("Z-12")
def test_bounds_at_the_ends_and_between() -> None:
    assert attack_bounds(0.0, 0.0).found == pytest.approx(0.01)
    assert attack_bounds(0.0, 0.0).right == 0.5
    assert attack_bounds(math.inf, 1e-6) == attack_bounds(5000.0, 1e-6)
    assert attack_bounds(math.inf, 1e-6).found == attack_bounds(math.inf, 1e-6).right == 1.0
    two = attack_bounds(2.0, 1e-3)
    assert two.found == pytest.approx(math.exp(2) * 0.01 + 1e-3)
    assert two.right == pytest.approx((math.exp(2) + 1e-3) / (1 + math.exp(2)))
    assert attack_bounds(6.0, 0.0).found == pytest.approx(1 - math.exp(-6) * 0.99)
    assert attack_bounds(0.0, 1.0).found == 1.0
    for epsilon, delta in ((-1.0, 0.1), (math.nan, 0.1), (1.0, 1.1), (1.0, math.nan)):
        with pytest.raises(ConfigError):
            attack_bounds(epsilon, delta)


@pytest.mark.req("Z-12")
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 2.0, 3.3333, 8.0])
@pytest.mark.parametrize("unit", ["client", "record"])
def test_the_sentence_never_promises_more_than_holds(unit: str, epsilon: float) -> None:
    sentence = plain_sentence(unit, epsilon, 1e-5)
    found, even, right = (float(p) / 100 for p in re.findall(r"([\d.]+) %", sentence))
    bounds = attack_bounds(epsilon, 1e-5)
    assert bounds.found <= found < bounds.found + 1.1e-4
    assert bounds.right <= right < bounds.right + 1.1e-4
    assert even == 0.5
    said = re.search(r"ε = ([\d.]+), δ = 1e-05", sentence)
    assert said is not None
    assert epsilon <= float(said[1]) < epsilon + 0.011
    assert ("one node's contributions" if unit == "client" else "one row") in sentence


@pytest.mark.req("Z-12")
def test_a_weak_promise_is_not_called_a_strong_one() -> None:
    assert "can hardly tell" in plain_sentence("client", 1.0, 1e-6)
    assert "cannot be sure" in plain_sentence("client", 2.0, 1e-6)
    assert "may well be able" in plain_sentence("client", 8.0, 1e-6)
    for unit, epsilon in (("none", 1.0), ("client", math.inf), ("record", math.inf)):
        assert plain_sentence(unit, epsilon, 1e-6).startswith("Nothing is promised")


def test_units_have_a_sentence_and_others_are_refused() -> None:
    assert all(plain_sentence(unit, 1.0, 1e-6) for unit in UNITS)
    with pytest.raises(ConfigError, match="unit") as refused:
        plain_sentence("site", 1.0, 1e-6)
    assert refused.value.hint
