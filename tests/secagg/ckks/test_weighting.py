"""Weights: what the coordinator computes is what the nodes allow, and they allow nothing uneven."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from secagg.ckks.weighting import (
    DISTANCE_STEPS,
    MAX_DISTANCE,
    coarse,
    is_even,
    least_effective,
    smoothed,
    weights_from,
)
from secagg.errors import LocalProtocolError
from tests.support.ckks import ckks_setup


def effective(weights: list[int]) -> Fraction:
    return Fraction(sum(weights) ** 2, sum(w * w for w in weights))


@pytest.mark.req("H-11")
@pytest.mark.parametrize(
    ("weights", "least", "even"),
    [
        ((1, 1, 1), 3, True),
        ((1, 0, 0, 0, 0), 3, False),
        ((1, 1, 0), 3, False),
        ((4, 1, 1), 3, False),
        ((4, 1, 1, 1, 1, 1, 1), 3, True),
        ((1,) * 5, 5, True),
        ((1,) * 5 + (2,), 6, False),
        ((3, 3, 3), 3, True),
        ((0, 0, 0), 3, False),
        ((), 3, False),
    ],
)
def test_uneven_weights_are_told(weights: tuple[int, ...], least: int, even: bool) -> None:
    assert is_even(weights, least) is even
    assert is_even(bytes(weights), least) is even


@pytest.mark.req("H-11")
@given(st.lists(st.integers(0, 4), max_size=12), st.integers(3, 8))
def test_evenness_is_the_effective_size_exactly(weights: list[int], least: int) -> None:
    assume(any(weights))
    assert is_even(weights, least) is (effective(weights) >= least)


@pytest.mark.req("H-11")
def test_without_all_that_collude_two_are_left() -> None:
    """Σ over honest nodes has an effective size of 2, for every weighting that is let through."""
    for n, colluders in ((4, 1), (5, 2), (6, 2)):
        for weights in itertools.product(range(1, 5), repeat=n):
            if is_even(weights, max(3, colluders + 2)):
                honest = sorted(weights)[: n - colluders], sorted(weights)[colluders:]
                assert all(effective(list(each)) >= 2 for each in honest)


@pytest.mark.req("H-11")
def test_least_effective_is_two_beyond_all_that_collude() -> None:
    assert least_effective(ckks_setup(3)) == 3
    assert least_effective(ckks_setup(5)) == 3
    assert least_effective(ckks_setup(10)) == 5


@pytest.mark.req("H-16")
@pytest.mark.parametrize(
    ("distance", "told"),
    [(0.0, 0), (0.06, 0), (0.07, 1), (0.125, 1), (1.0, 8), (7.9, 63), (8.0, 64), (1e300, 64)],
)
def test_a_distance_is_told_in_eighths_and_not_beyond_eight(distance: float, told: int) -> None:
    assert coarse(distance) == told
    assert type(coarse(distance)) is int


@pytest.mark.req("H-16")
def test_all_that_is_told_of_a_distance_is_one_of_65_numbers() -> None:
    told = {coarse(distance) for distance in np.geomspace(1e-6, 1e6, 5000)}
    assert told == set(range(65))
    assert coarse(float("inf")) == 64 == MAX_DISTANCE * DISTANCE_STEPS


@pytest.mark.req("H-16")
@pytest.mark.parametrize("distance", [-0.1, -1e-9, float("nan"), float("-inf")])
def test_what_is_no_distance_is_refused(distance: float) -> None:
    with pytest.raises(LocalProtocolError):
        coarse(distance)


def test_each_round_counts_one_half() -> None:
    known = smoothed({"a": 4.0, "gone": 7.0}, {"a": 2.0, "new": 5.0})
    assert known == {"a": 3.0, "gone": 7.0, "new": 5.0}


def given_weights(distances: list[float], **changes: int) -> list[int]:
    values = {"max_weight": 4, "quorum": 3, "effective": 3, **changes}
    names = {f"node-{i:02d}": d for i, d in enumerate(distances)}
    weights = weights_from(names, **values)
    assert list(weights) == list(names)
    return list(weights.values())


def test_weights_are_in_proportion_to_consistency() -> None:
    distances = [0.0, 0.0, 1 / 3, 1 / 3, 1.0, 1.0]
    assert given_weights(distances, quorum=5) == [4, 4, 3, 3, 2, 2]


@pytest.mark.req("H-11")
def test_weights_are_drawn_together_until_any_quorum_is_even() -> None:
    """Whoever drops out, the nodes open a sum of those who are left."""
    distances = [0.0, 0.0, 1 / 3, 1 / 3, 1.0, 1.0]
    assert given_weights(distances, quorum=4) == [4, 4, 3, 3, 2, 2]
    assert given_weights(distances, quorum=3) == [4] * 6
    assert given_weights([0.0, *[3.0] * 4], quorum=4) == [4, 2, 2, 2, 2]


def test_nodes_that_are_alike_have_no_outliers() -> None:
    assert given_weights([1.0, 1.01, 1.02, 1.0, 1.04]) == [4] * 5


def test_an_outlier_weighs_nothing() -> None:
    assert given_weights([1.0, 1.1, 0.9, 1.0, 1.05, 50.0]) == [4, 4, 4, 4, 4, 0]


def test_outliers_stay_as_long_as_there_is_no_quorum_without_them() -> None:
    distances = [1.0, 1.1, 0.9, 1.0, 40.0, 50.0]
    assert given_weights(distances, quorum=5)[4:] == [1, 0]
    assert given_weights(distances, quorum=6)[4:] == [1, 1]


def test_two_nodes_have_no_outlier_and_nobody_no_weight() -> None:
    assert given_weights([0.0, 1e6], quorum=2, effective=1) == [4, 1]
    assert weights_from({}, max_weight=4, quorum=3, effective=3) == {}


@pytest.mark.req("H-11")
@given(
    st.lists(st.floats(0, 8), min_size=3, max_size=10),
    st.integers(1, 4),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_whatever_is_disclosed_the_weights_are_ones_that_nodes_allow(
    distances: list[float], max_weight: int, spare: int, colluders: int
) -> None:
    quorum = max(3, len(distances) - spare)
    least = max(3, min(colluders + 2, quorum))
    weights = given_weights(distances, max_weight=max_weight, quorum=quorum, effective=least)
    used = [weight for weight in weights if weight]
    assert len(used) >= quorum
    assert all(0 <= weight <= max_weight for weight in weights)
    assert is_even(used, least)
    for size in range(quorum, len(used)):
        assert all(is_even(left, least) for left in itertools.combinations(used, size))


def test_the_nearer_node_never_weighs_less() -> None:
    rng = np.random.default_rng(5)
    for _ in range(100):
        distances = sorted(rng.gamma(1.0, size=8).tolist())
        weights = given_weights(distances, quorum=5)
        assert weights == sorted(weights, reverse=True)
