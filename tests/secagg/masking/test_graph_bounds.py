"""How often a sparse graph exposes an input or loses the round: by enumeration and real graphs."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from secagg.assumptions import FAILURE_BITS, SECURITY_BITS
from secagg.masking import parameters
from secagg.masking.graph import build_graph, window_quota
from secagg.masking.parameters import (
    GRAPH_DRAWS,
    MaskingParameters,
    choose,
    graph_failure_bits,
    liveness_bits,
)
from secagg.wire.messages import MAX_ATTEMPTS
from tests.support.thresholds import chosen


def tail(population: int, marked: int, draws: int, bar: int) -> Fraction:
    """Return P[X ≥ bar], X hypergeometric, term by term."""
    others = population - marked
    ways = sum(
        math.comb(marked, count) * math.comb(others, draws - count)
        for count in range(bar, draws + 1)
    )
    return Fraction(ways, math.comb(population, draws))


def enumerated(population: int, marked: int, draws: int, bar: int) -> Fraction:
    """Return the same by looking at every way to draw."""
    draws_of = list(itertools.combinations(range(population), draws))
    return Fraction(sum(sum(x < marked for x in drawn) >= bar for drawn in draws_of), len(draws_of))


def bits_of(n: int, made: MaskingParameters, *, lower: int = 0) -> float:
    return graph_failure_bits(
        n,
        neighbours=made.neighbours,
        threshold=made.threshold - lower,
        quorum=made.quorum,
        colluders=made.colluders,
    )


# --- the two bounds --------------------------------------------------------------------------


@pytest.mark.req("P-04", "P-08")
@pytest.mark.parametrize("n", [7, 8, 9])
def test_privacy_bits_are_those_of_an_enumeration(n: int) -> None:
    finite = 0
    for quorum, half in itertools.product(range(n // 2 + 1, n + 1), range(1, (n - 2) // 2 + 1)):
        for colluders, threshold in itertools.product(range(1, quorum - 1), range(1, 2 * half)):
            bar = (threshold + 1) // 2
            bound = GRAPH_DRAWS * n * enumerated(quorum, colluders, half, bar)
            bits = graph_failure_bits(
                n, neighbours=2 * half, threshold=threshold, quorum=quorum, colluders=colluders
            )
            wanted = math.inf if not bound else max(0.0, -math.log2(bound))
            assert bits == pytest.approx(wanted, abs=1e-9)
            finite += math.isfinite(wanted)
    assert finite > 10


@pytest.mark.req("P-05", "P-08")
@pytest.mark.parametrize("n", [7, 8, 9, 10])
def test_failure_bits_are_those_of_an_enumeration(n: int) -> None:
    positive = 0
    for half, dropouts in itertools.product(range(1, (n - 2) // 2 + 1), range(n // 2)):
        for threshold in range(1, 2 * half):
            thin = half - window_quota(threshold) + 1
            bound = n * enumerated(n, dropouts, half, thin)
            bits = liveness_bits(n, neighbours=2 * half, threshold=threshold, dropouts=dropouts)
            wanted = math.inf if not bound else max(0.0, -math.log2(bound))
            assert bits == pytest.approx(wanted, abs=1e-9)
            positive += wanted > 0
    assert positive > 5


def test_on_the_complete_graph_nothing_is_left_to_chance() -> None:
    complete = {"neighbours": 29, "threshold": 20}
    assert graph_failure_bits(30, **complete, quorum=20, colluders=19) == math.inf
    assert graph_failure_bits(30, **complete, quorum=20, colluders=20) == 0
    assert liveness_bits(30, **complete, dropouts=10) == math.inf
    assert liveness_bits(30, **complete, dropouts=11) == 0


@pytest.mark.req("P-04", "P-05", "P-06")
def test_every_sparse_choice_meets_both_bounds_with_the_least_threshold() -> None:
    sparse = [(n, made) for n, made in chosen() if made.neighbours < n - 1]
    assert len(sparse) > 15
    for n, made in sparse:
        assert bits_of(n, made) >= SECURITY_BITS
        assert made.threshold == 3 or bits_of(n, made, lower=2) < SECURITY_BITS
        live = liveness_bits(
            n, neighbours=made.neighbours, threshold=made.threshold, dropouts=made.dropouts
        )
        assert live >= FAILURE_BITS


def slow_choice(n: int, made: MaskingParameters, *, security: int, failure: int) -> tuple[int, int]:
    """Return (k, t) by trying every h and w, each tail summed afresh."""
    colluders = max(made.colluders, 1)
    for half in range(1, (n - 2) // 2 + 1):
        for quota in range(1, half + 1):
            exposed = GRAPH_DRAWS * n * tail(made.quorum, colluders, half, quota)
            if exposed * 2**security > 1:
                continue
            lost = n * tail(n, made.dropouts, half, half - quota + 1)
            if lost * 2**failure <= 1:
                return 2 * half, 2 * quota - 1
            break  # a higher quota only loses more
    return n - 1, made.quorum


@pytest.mark.req("P-06", "P-08")
@settings(deadline=None, max_examples=120)
@given(
    st.integers(4, 90),
    st.floats(0, 0.3),
    st.floats(0, 0.34),
    st.integers(1, 45),
    st.integers(1, 25),
)
@example(13, 0.0, 2 / 13, 10, 1)  # meets the failure bound exactly
def test_no_sparser_graph_would_do(
    n: int, collusion: float, dropout: float, security: int, failure: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parameters, "SPARSE_FROM", 4)  # small enough to try every graph
        parameters._solve.cache_clear()
        made = choose(
            n,
            collusion=collusion,
            dropout=dropout,
            security_bits=security,
            failure_bits=failure,
        )
    parameters._solve.cache_clear()
    slow = slow_choice(n, made, security=security, failure=failure)
    assert (made.neighbours, made.threshold) == slow


@pytest.mark.req("P-04")
def test_left_out_nodes_that_make_the_circle_complete_do_not_lower_the_threshold() -> None:
    closed = 0
    for n, (a, d) in itertools.product(
        range(10, 200, 7), itertools.product(range(0, 40, 3), (5, 30, 40))
    ):
        if a + 2 * d >= 100:
            continue
        made = choose(n, collusion=a / 100, dropout=d / 100)
        if n - 1 > made.neighbours >= made.quorum - 1:
            closed += 1
            assert made.threshold > made.colluders
    assert closed > 5


@pytest.mark.req("P-04")
def test_the_adversary_sees_as_many_graphs_as_the_bound_counts() -> None:
    assert GRAPH_DRAWS == MAX_ATTEMPTS


# --- the real graph code against the bounds --------------------------------------------------


def binomial_interval(trials: int, probability: float, alarm: float) -> tuple[int, int]:
    """Return the counts that a binomial leaves with probability at most `alarm` on each side."""
    logs = [
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(probability)
        + (trials - k) * math.log1p(-probability)
        for k in range(trials + 1)
    ]
    mass = np.exp(logs)
    below, above = np.cumsum(mass), np.cumsum(mass[::-1])[::-1]
    return int(np.argmax(below > alarm)), int(trials - np.argmax((above > alarm)[::-1]))


def frequencies(
    case: tuple[int, int, int], least: int, *, trials: int, shuffled: bool
) -> tuple[int, int]:
    """Draw real graphs and count where at least `least` of the marked nodes share a window.

    Args:
        case: n, h = k/2, number of marked nodes.
        least: How many marked ones in a window count as a hit.
        trials: Graphs to draw.
        shuffled: Mark other nodes each time; else only the graph is random.

    Returns:
        In how many graphs the window at place 0 is hit, in how many any window is.
    """
    n, half, marked = case
    rng = np.random.default_rng(20)
    nodes = [f"n{index:03d}" for index in range(n)]
    one = anyone = 0
    for _ in range(trials):
        circle = build_graph(nodes, degree=2 * half, seed=rng.bytes(32)).circle
        bad = set(rng.permutation(nodes)[:marked]) if shuffled else set(nodes[:marked])
        flags = np.array([node in bad for node in circle])
        counts = sum(np.roll(flags, -step).astype(int) for step in range(half))
        one += int(counts[0] >= least)
        anyone += int(counts.max() >= least)
    return one, anyone


@pytest.mark.req("P-04")
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(("case", "quota"), [((60, 10, 12), 5), ((40, 6, 8), 4), ((30, 8, 9), 5)])
def test_colluders_meet_in_a_window_as_often_as_computed(
    case: tuple[int, int, int], quota: int, shuffled: bool
) -> None:
    n, half, colluders = case
    exact = float(tail(n, colluders, half, quota))
    assert 0.005 < exact < 0.1
    trials = 4000
    low, high = binomial_interval(trials, exact, 1e-6)
    one, anyone = frequencies(case, quota, trials=trials, shuffled=shuffled)
    assert low <= one <= high
    assert exact * n / 10 < anyone / trials <= exact * n
    other = float(tail(n, colluders + 3, half, quota))
    assert not low <= other * trials <= high, "three colluders more would be noticed"


@pytest.mark.req("P-04", "P-05")
def test_the_bits_bound_how_often_a_graph_exposes_somebody_or_loses_the_round() -> None:
    n, half, marked, quota, trials = 60, 10, 12, 6, 4000
    setting = {"neighbours": 2 * half, "threshold": 2 * quota - 1}
    _, exposed = frequencies((n, half, marked), quota, trials=trials, shuffled=False)
    bound = 2 ** -graph_failure_bits(n, **setting, quorum=n, colluders=marked) / GRAPH_DRAWS
    assert 0.1 < bound < 0.3
    assert bound / 10 < exposed / trials <= bound

    threshold = 2 * (half - 5) - 1  # windows lose the round when six of ten are gone
    rng = np.random.default_rng(21)
    nodes = [f"n{index:03d}" for index in range(n)]
    lost = 0
    for _ in range(trials):
        made = build_graph(nodes, degree=2 * half, seed=rng.bytes(32))
        survivors = rng.permutation(nodes)[marked:].tolist()
        lost += not made.is_whole(survivors, threshold)
    bits = liveness_bits(n, neighbours=2 * half, threshold=threshold, dropouts=marked)
    assert 2**-bits == pytest.approx(bound)
    assert 2**-bits / 10 < lost / trials <= 2**-bits


def test_the_interval_holds_what_it_should() -> None:
    low, high = binomial_interval(100, 0.1, 1e-3)
    mass = [math.comb(100, k) * 0.1**k * 0.9 ** (100 - k) for k in range(101)]
    assert sum(mass[:low]) <= 1e-3 < sum(mass[: low + 1])
    assert sum(mass[high + 1 :]) <= 1e-3 < sum(mass[high:])
