"""Degree, threshold and quorum: exact bounds, least settings, refusals whose advice holds."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from secagg.errors import ConfigError
from secagg.masking import parameters
from secagg.masking.graph import build_graph, window_quota
from secagg.masking.parameters import (
    DEFAULT_COLLUSION,
    DEFAULT_DROPOUT,
    FAILURE_BITS,
    GRAPH_DRAWS,
    MAX_DEGREE,
    SECURITY_BITS,
    SPARSE_FROM,
    MaskingParameters,
    choose,
    graph_failure_bits,
    insecurity,
    liveness_bits,
)
from secagg.wire.messages import MAX_ATTEMPTS

SETTINGS = ((0.05, 0.05), (0.1, 0.1), (0.1, 0.3), (0.0, 0.45), (0.4, 0.05))
SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


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


def with_counts(n: int, colluders: int, dropouts: int) -> MaskingParameters:
    return choose(n, collusion=colluders / n, dropout=dropouts / n)


def bits_of(n: int, made: MaskingParameters, *, lower: int = 0) -> float:
    return graph_failure_bits(
        n,
        neighbours=made.neighbours,
        threshold=made.threshold - lower,
        quorum=made.quorum,
        colluders=made.colluders,
    )


def chosen() -> Iterator[tuple[int, MaskingParameters]]:
    for n, (collusion, dropout) in itertools.product(SIZES, SETTINGS):
        yield n, choose(n, collusion=collusion, dropout=dropout)


# --- quorum and co-signatures ----------------------------------------------------------------


@pytest.mark.req("P-01", "P-02")
def test_by_default_the_quorum_is_two_thirds() -> None:
    for n in range(3, 301):
        made = choose(n)
        assert made.quorum == max(3, -(-2 * n // 3))
        assert made.colluders == math.floor(0.33 * n + 1e-9)
        assert made.dropouts == (0 if n == 3 else n // 3)
        assert insecurity(n, **judged(made)) is None


@pytest.mark.req("P-01")
def test_fractions_are_of_the_cohort_rounded_down_but_for_the_rounding_of_floats() -> None:
    made = choose(100, collusion=0.29, dropout=0.07)  # 0.29 · 100 is 28.999999999999996
    assert (made.colluders, made.dropouts) == (29, 7)
    made = choose(50, collusion=0.0999, dropout=0.0999)
    assert (made.colluders, made.dropouts) == (4, 4)


@pytest.mark.req("P-02")
def test_two_views_share_an_honest_signer_and_the_round_outlasts_its_dropouts() -> None:
    for n in range(3, 31):
        for colluders, dropouts in itertools.product(range((n + 1) // 2), repeat=2):
            if colluders + 2 * dropouts >= n:
                with pytest.raises(ConfigError, match="need not share an honest node"):
                    with_counts(n, colluders, dropouts)
                continue
            made = with_counts(n, colluders, dropouts)
            assert 2 * made.cosigners - n > colluders
            assert max(3, made.cosigners, made.threshold) <= made.quorum <= n - made.dropouts
            assert made.quorum - colluders >= 2
            assert made.dropouts == dropouts or made.quorum == 3
            assert insecurity(n, **judged(made)) is None


@pytest.mark.req("P-02", "P-03", "P-06")
def test_what_is_chosen_holds_at_every_size() -> None:
    for n, made in chosen():
        assert made.threshold <= made.cosigners <= made.quorum == n - made.dropouts
        assert insecurity(n, **judged(made)) is None
        if made.neighbours == n - 1:
            assert made.threshold == made.quorum > max(made.colluders, n / 2)
        else:
            assert 3 <= made.threshold < made.neighbours < n - 1
            assert made.neighbours <= MAX_DEGREE
            assert made.neighbours % 2 == 0
            assert made.threshold % 2 == 1


@pytest.mark.req("P-03")
def test_on_a_sparse_graph_no_single_holder_opens_a_secret() -> None:
    made = choose(200, collusion=0.0, dropout=0.1)
    assert (made.colluders, made.threshold) == (0, 3)
    assert made.neighbours < 199
    reason = insecurity(200, **{**judged(made), "threshold": 2})
    assert reason is not None
    assert "use at least 3" in reason


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


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.req("P-01")
@pytest.mark.parametrize("n", [-1, 0, 1, 2, 10_001])
def test_a_cohort_that_cannot_be_is_refused(n: int) -> None:
    with pytest.raises(ConfigError, match=f"a cohort of {n}") as refusal:
        choose(n)
    assert "use 3 to 10000 nodes" in refusal.value.hint


@pytest.mark.req("P-01")
@pytest.mark.parametrize("name", ["dropout", "collusion"])
@pytest.mark.parametrize("value", [-0.01, 0.5, 1.0, math.nan, math.inf])
def test_a_fraction_outside_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} .* out of range") as refusal:
        choose(30, **{name: value})
    assert "0.5" in refusal.value.hint


@pytest.mark.req("P-01")
@pytest.mark.parametrize("name", ["security_bits", "failure_bits"])
@pytest.mark.parametrize("value", [0, -3, 129])
def test_an_exponent_outside_is_refused(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}") as refusal:
        choose(30, **{name: value})  # type: ignore[arg-type]
    assert refusal.value.hint == "use 1 to 128"


HINT = re.compile(
    r"with collusion ([0-9.]+) use dropout ([0-9.]+), "
    r"or with dropout ([0-9.]+) use collusion ([0-9.]+)"
)


@pytest.mark.req("P-02", "P-06")
@pytest.mark.parametrize(
    ("n", "collusion", "dropout"),
    [
        (3, 0.34, 0.34), (5, 0.2, 0.4), (10, 0.4, 0.4), (40, 0.3, 0.36), (99, 0.33337, 0.3334),
        (300, 1 / 3, 1 / 3), (2049, 0.2, 0.45), (3000, 0.2, 0.45), (5000, 0.33, 1 / 3),
        (10_000, 0.33, 1 / 3), (10_000, 0.499, 0.499),
    ],
)  # fmt: skip
def test_a_refusal_names_the_nearest_settings_that_work(
    n: int, collusion: float, dropout: float
) -> None:
    with pytest.raises(ConfigError, match=f"{n} nodes cannot withstand") as refusal:
        choose(n, collusion=collusion, dropout=dropout)
    found = HINT.fullmatch(refusal.value.hint)
    assert found is not None
    same_collusion, fewer_dropouts, same_dropout, fewer_colluders = map(float, found.groups())
    first = choose(n, collusion=same_collusion, dropout=fewer_dropouts)
    second = choose(n, collusion=fewer_colluders, dropout=same_dropout)
    dropouts, colluders = math.floor(fewer_dropouts * n + 1e-9), second.colluders
    assert insecurity(n, **judged(first)) is None
    assert insecurity(n, **judged(second)) is None
    with pytest.raises(ConfigError):
        choose(n, collusion=collusion, dropout=(dropouts + 1) / n)
    with pytest.raises(ConfigError):
        choose(n, collusion=(colluders + 1) / n, dropout=dropout)


@pytest.mark.req("P-06")
def test_more_neighbours_than_a_message_carries_is_refused() -> None:
    bits = {"security_bits": 128, "failure_bits": 128}
    assert choose(2049, **bits).neighbours == 2048 == MAX_DEGREE
    with pytest.raises(ConfigError, match="at most 2048 neighbours is not enough"):
        choose(2050, **bits)
    assert choose(10_000, collusion=0.1, dropout=0.1).neighbours < 150


# --- settings that others chose --------------------------------------------------------------

NAMES = ("neighbours", "threshold", "quorum", "colluders")
ADVICE = re.compile(r"use (?:at (?:least|most) )?(\d+)(?:,? with threshold (\d+))?$")


def judged(made: MaskingParameters) -> dict[str, int]:
    return {name: value for name, value in asdict(made).items() if name in NAMES}


def followed(setting: dict[str, int], reason: str) -> dict[str, int]:
    """Return the setting with what `reason` advises."""
    found = ADVICE.search(reason)
    assert found is not None, reason
    field = next(name for name in NAMES if name in reason.replace(":", "").split()[:2])
    changed = {**setting, field: int(found[1])}
    return changed | ({"threshold": int(found[2])} if found[2] else {})


GOOD = {"neighbours": 60, "threshold": 55, "quorum": 90, "colluders": 33}


@pytest.mark.req("P-07")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"threshold": 4},
            "threshold 4 of 60 neighbours: 2 colluding neighbours in a window are likelier than "
            r"2\^-40; use at least 55",
        ),
        ({"threshold": 54}, "27 colluding neighbours in a window .* use at least 55"),
        ({"threshold": 60}, "more survivors than a window of 30 has places; use at most 59"),
        ({"neighbours": 100}, "100 neighbours in a cohort of 100; use 99"),
        ({"neighbours": 1}, "1 neighbours in a cohort of 100; use 2"),
        ({"neighbours": 10}, "all 5 in a window collude .* use at least 50, with threshold 49"),
        ({"quorum": 66}, "two sets of co-signers need not share an honest node; use at least 67"),
        ({"quorum": 2}, "could subtract its own input; use at least 67"),
        ({"quorum": 34}, "fewer than two honest ones are in the sum; use at least 67"),
        ({"quorum": 101}, "is never met; use at most 100"),
        ({"neighbours": 99, "threshold": 33}, "33 colluding holders reach it; use at least 51"),
        ({"neighbours": 99, "threshold": 50}, "not more than half of them; use at least 51"),
        ({"neighbours": 99, "threshold": 101}, "is never met; use at most 100"),
        ({"neighbours": 99, "threshold": 91}, "quorum 90 is below threshold 91, .* at least 91"),
    ],
)
def test_an_unsafe_setting_is_refused_with_the_nearest_safe_one(
    change: dict[str, int], reason: str
) -> None:
    assert insecurity(100, **GOOD) is None
    setting = {**GOOD, **change}
    found = insecurity(100, **setting)
    assert found is not None
    assert re.search(reason, found), found
    better = followed(setting, found)
    assert better != setting
    further = insecurity(100, **better)
    if further is not None:  # the advice is on one number; the one it hangs on may be next
        assert insecurity(100, **followed(better, further)) is None


@pytest.mark.req("P-07")
def test_a_cohort_that_hides_nobody_is_refused() -> None:
    few = {"neighbours": 1, "threshold": 2, "quorum": 2, "colluders": 0}
    assert "use at least 3" in str(insecurity(2, **few))
    for colluders in (-1, 9, 10):
        setting = {"neighbours": 9, "threshold": 10, "quorum": 10, "colluders": colluders}
        assert "assume 0 to 8" in str(insecurity(10, **setting))
    assert insecurity(10, **{**setting, "colluders": 8}) is None


@pytest.mark.req("P-07")
@settings(deadline=None, max_examples=300)
@given(st.data(), st.integers(3, 150))
def test_following_the_advice_always_ends_in_a_safe_setting(data: st.DataObject, n: int) -> None:
    setting = {
        "neighbours": data.draw(st.integers(0, n + 5)),
        "threshold": data.draw(st.integers(0, n + 5)),
        "quorum": data.draw(st.integers(0, n + 5)),
        "colluders": data.draw(st.integers(0, n - 2)),
    }
    for _ in range(5):
        reason = insecurity(n, **setting)
        if reason is None:
            break
        setting = followed(setting, reason)
    assert insecurity(n, **setting) is None
    half = -(-setting["neighbours"] // 2)
    if 2 * half >= n - 1:
        assert setting["threshold"] > max(setting["colluders"], n // 2)
    else:
        assert graph_failure_bits(n, **setting) >= SECURITY_BITS
    assert setting["quorum"] - setting["colluders"] >= 2
    assert 2 * setting["quorum"] - n > setting["colluders"]


@pytest.mark.req("P-07")
def test_an_even_threshold_is_judged_by_the_colluders_who_reach_it() -> None:
    made = choose(500, collusion=0.1, dropout=0.1)
    even = {**judged(made), "threshold": made.threshold - 1}
    reason = insecurity(500, **even)
    assert reason is not None, "as many colluders as the threshold fit in two windows"
    assert reason.endswith(f"use at least {made.threshold}")
    assert insecurity(500, **{**even, "threshold": made.threshold + 1}) is None


@pytest.mark.req("P-04")
def test_a_colluder_too_many_tells_on_a_small_cohort() -> None:
    setting = {"neighbours": 22, "threshold": 11, "quorum": 45}
    bits = [graph_failure_bits(50, **setting, colluders=count) for count in (5, 6, 10)]
    assert bits == [math.inf, pytest.approx(6.5, abs=0.05), 0.0], "as P-06 says"
    complete = {"neighbours": 49, "threshold": 45, "quorum": 45}
    assert [insecurity(50, **complete, colluders=count) is None for count in (39, 40)] == [
        True,
        False,
    ]
    assert choose(1000).neighbours == 999


@pytest.mark.req("P-06")
def test_small_cohorts_get_the_complete_graph() -> None:
    little = {"collusion": 0.02, "dropout": 0.02}
    assert choose(SPARSE_FROM - 1, **little).neighbours == SPARSE_FROM - 2
    assert choose(SPARSE_FROM, **little).neighbours < SPARSE_FROM // 2


@pytest.mark.req("P-07")
def test_more_security_bits_ask_for_more() -> None:
    made = choose(500, collusion=0.1, dropout=0.1)
    assert insecurity(500, **judged(made), security_bits=30) is None
    assert insecurity(500, **judged(made), security_bits=60) is not None


def test_the_defaults_are_the_module_s() -> None:
    made = choose(90)
    assert made == choose(90, collusion=DEFAULT_COLLUSION, dropout=DEFAULT_DROPOUT)
    assert (made.neighbours, made.threshold, made.quorum, made.cosigners) == (89, 60, 60, 60)
