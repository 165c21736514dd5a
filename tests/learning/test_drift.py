"""Drift: few false reports at the stated rate, real shifts soon, attacks apart, old heads said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fl_core import drift
from fl_core.detector import Head
from fl_core.drift import (
    ALERT_RATE,
    FALSE_ALARMS,
    HOP,
    SCORES,
    SPAN,
    WINDOW,
    DriftMonitor,
    excess_probability,
    unwatched,
)
from fl_core.errors import ModelError
from fl_core.normalise import Normaliser
from fl_core.score_reference import MAX_LEVELS, MIN_SCORES, ScoreReference, correlation_length
from fl_core.scoring import (
    EmbeddingStatistics,
    HeadStatistics,
    benign_threshold,
    threshold_rank,
)


def head_of(scores, max_fpr=0.01):
    """A head as `fit_head` makes it of these validation scores; its other parts are idle."""
    threshold = benign_threshold(scores, max_fpr)
    return Head(
        "dev",
        Normaliser(np.zeros(1), np.ones(1)),
        HeadStatistics((EmbeddingStatistics(1.0, np.zeros(4), np.eye(4)),)),
        threshold,
        max_fpr,
        100,
        len(scores),
        len(scores),
        ScoreReference.fit(scores, threshold),
    )


def benign(rng, n):
    return rng.lognormal(0.0, 0.3, n)


def dwelling(rng, n, phi=0.9):
    """Benign scores that stay where they are for a while: a process of (1+phi)/(1-phi) rows."""
    x = np.empty(n)
    x[0] = rng.normal()
    for i, step in enumerate(rng.normal(0.0, np.sqrt(1 - phi**2), n - 1), start=1):
        x[i] = phi * x[i - 1] + step
    return np.exp(0.3 * x)


# ------------------------------------------------------------------------------ the reference


@pytest.mark.req("L-64")
@pytest.mark.parametrize("count", [60, 400, 5000])
def test_the_reference_is_the_quiet_part_in_a_few_levels(count):
    scores = benign(np.random.default_rng(0), count)
    threshold = benign_threshold(scores, 0.01)
    reference = ScoreReference.fit(scores, threshold)
    quiet = scores[scores < threshold]
    assert len(reference.levels) == min(len(quiet), MAX_LEVELS)
    assert reference.count == len(quiet)
    assert reference.levels[-1] == quiet.max() < threshold
    for level, share in zip(reference.levels, reference.shares, strict=True):
        assert share == np.mean(quiet <= level)


@pytest.mark.req("L-64")
def test_equal_scores_are_one_level():
    scores = np.repeat([1.0, 2.0, 3.0], 100)
    reference = ScoreReference.fit(scores, 3.0)
    assert reference.levels.tolist() == [1.0, 2.0]
    assert reference.shares.tolist() == [0.5, 1.0]
    assert reference.distance([1.0, 2.0]) == 0.0
    assert reference.distance([1.0, 1.0]) == 0.5


@pytest.mark.req("L-64")
def test_the_distance_is_that_of_kolmogorov_and_smirnov_or_just_below():
    rng = np.random.default_rng(1)
    for count in (100, 3000):
        scores = benign(rng, count)
        reference = ScoreReference.fit(scores, np.inf)
        other = benign(rng, 1000) * 1.1
        exact = stats.ks_2samp(scores, other).statistic
        assert exact - 1.0 / MAX_LEVELS - 1e-3 <= reference.distance(other) <= exact + 1e-12


def test_the_correlation_length_is_that_of_the_process():
    rng = np.random.default_rng(2)
    assert correlation_length(benign(rng, 20_000)) < 1.1
    assert correlation_length(dwelling(rng, 50_000)) == pytest.approx(19.0, rel=0.2)
    assert correlation_length(np.ones(100)) == 1.0
    assert correlation_length([1.0]) == 1.0
    assert 20 < correlation_length(np.arange(100.0)) <= 100


@pytest.mark.parametrize(
    ("levels", "shares", "count", "correlation"),
    [
        ([], [], 10, 1.0),
        ([1.0, 1.0], [0.5, 1.0], 10, 1.0),
        ([1.0, 2.0], [1.0, 0.5], 10, 1.0),
        ([1.0, 2.0], [0.5, 1.1], 10, 1.0),
        ([1.0, 2.0], [0.0, 1.0], 10, 1.0),
        ([1.0, np.nan], [0.5, 1.0], 10, 1.0),
        ([1.0], [0.5, 1.0], 10, 1.0),
        ([1.0], [1.0], 0, 1.0),
        ([1.0], [1.0], 10, 0.5),
        ([1.0], [1.0], 10, float("nan")),
        (range(300), np.arange(1, 301) / 300, 300, 1.0),
    ],
)
def test_a_reference_that_is_not_sound_is_refused(levels, shares, count, correlation):
    with pytest.raises(ModelError, match="reference scores"):
        ScoreReference(np.array(levels, float), np.array(shares, float), count, correlation)


# ------------------------------------------------------------------------------ false reports


def looks(draw, count, repetitions, rng):
    """Yield both tests' verdicts on fresh pairs of a reference and a window."""
    for _ in range(repetitions):
        head, window = head_of(draw(rng, count)), draw(rng, WINDOW)
        reference = head.reference
        quiet = window[window < head.threshold]
        flags = (window > head.threshold).astype(float)
        length, rank = correlation_length(flags), threshold_rank(count, head.max_fpr)
        probability = excess_probability(
            flags.sum() / length,
            WINDOW / length,
            (count + 1 - rank) / reference.correlation,
            rank / reference.correlation,
        )
        yield reference, quiet, probability


@pytest.mark.req("L-66")
def test_a_threshold_from_more_scores_leaves_less_to_chance():
    """Training rows count: by whatever number of scores the threshold was placed."""
    scores = benign(np.random.default_rng(3), 200)
    few = head_of(scores)
    many = replace(few, n_train=2000, n_calibration=2200)
    stream = np.where(np.arange(WINDOW) % 5 == 0, 2.0 * few.threshold, scores.min())
    limits = [
        [report.limit for report in DriftMonitor(head).observe(stream) if report.kind == ALERT_RATE]
        for head in (few, many)
    ]
    (few_limit,), (many_limit,) = limits
    assert few_limit > 1.3 * many_limit


@pytest.mark.req("L-65")
@pytest.mark.parametrize("count", [50, 300, 2000])
@pytest.mark.parametrize("draw", [benign, lambda rng, n: rng.integers(0, 40, n) / 10.0])
def test_one_look_errs_as_rarely_as_it_says(count, draw):
    """At 10 %, where 600 looks can tell; the limits have the same form at every level."""
    rng = np.random.default_rng(count)
    far = many = 0
    for reference, quiet, probability in looks(draw, count, 600, rng):
        worth = len(quiet) / correlation_length(quiet)
        far += reference.distance(quiet) > reference.limit(worth, 0.1)
        many += probability <= 0.1
    most = 600 * 0.1 + 3 * np.sqrt(600 * 0.1 * 0.9)
    assert far <= most
    assert many <= most


@pytest.mark.req("L-65")
def test_the_looks_of_a_span_share_the_stated_rate():
    looks_in_a_span = 2 * SPAN / HOP
    assert drift._ALPHA * looks_in_a_span == pytest.approx(FALSE_ALARMS)


@pytest.mark.req("L-65")
@pytest.mark.parametrize("count", [60, 800, 3000])
def test_exchangeable_benign_streams_raise_nothing(count):
    """Five streams of 100 000 rows: any report has probability 0.05 at most; the seed is fixed."""
    rng = np.random.default_rng(count)
    for _ in range(5):
        monitor = DriftMonitor(head_of(benign(rng, count)))
        assert monitor.observe(benign(rng, SPAN)) == []


@pytest.mark.req("L-65")
def test_rows_that_resemble_their_neighbours_are_no_drift():
    rng = np.random.default_rng(7)
    for _ in range(3):
        head = head_of(dwelling(rng, 1500))
        assert DriftMonitor(head).observe(dwelling(rng, 30_000)) == []
    # taken for independent rows, such a window is far beyond the limit
    naive = replace(head.reference, correlation=1.0)
    stream = dwelling(rng, 30_000).reshape(-1, WINDOW)
    distances = [naive.distance(window[window < head.threshold]) for window in stream]
    assert max(distances) > naive.limit(WINDOW, 1e-4)


# ------------------------------------------------------------------------------ what is noticed


@pytest.mark.req("L-66")
@pytest.mark.parametrize(("count", "factor"), [(300, 0.75), (1600, 0.9), (1600, 1.1)])
def test_a_shift_is_noticed_within_some_thousand_rows(count, factor):
    rng = np.random.default_rng(3)
    monitor = DriftMonitor(head_of(benign(rng, count)))
    assert monitor.observe(benign(rng, 5000)) == []
    reports = monitor.observe(factor * benign(rng, 3000))
    assert SCORES in [report.kind for report in reports]
    first = reports[0]
    assert 5000 < first.seen <= 8000
    assert first.value > first.limit
    assert first.device == "dev"


@pytest.mark.req("L-66")
def test_attacks_are_alerts_and_no_drift_of_the_scores():
    rng = np.random.default_rng(4)
    monitor = DriftMonitor(head_of(benign(rng, 800)))
    scores = benign(rng, 20_000)
    scores[rng.random(20_000) < 0.1] = 50.0
    reports = monitor.observe(scores)
    assert [report.kind for report in reports] == [ALERT_RATE]
    assert 60 < reports[0].value < 150
    assert reports[0].limit < reports[0].value


@pytest.mark.req("L-66")
def test_nothing_but_alerts_is_noticed_too():
    rng = np.random.default_rng(5)
    reports = DriftMonitor(head_of(benign(rng, 800))).observe(np.full(3000, 9.0))
    assert [report.kind for report in reports] == [ALERT_RATE]
    assert reports[0].value == WINDOW


@pytest.mark.req("L-66")
def test_a_drift_is_reported_when_it_begins_and_not_again_until_it_has_ended():
    rng = np.random.default_rng(6)
    monitor = DriftMonitor(head_of(benign(rng, 1600)))
    kinds = [
        [report.kind for report in monitor.observe(factor * benign(rng, 10_000))]
        for factor in (1.0, 0.7, 1.0, 0.7)
    ]
    assert kinds == [[], [SCORES], [], [SCORES]]


@pytest.mark.req("L-66")
def test_single_rows_and_bursts_see_the_same_shift():
    rng = np.random.default_rng(8)
    head, stream = head_of(benign(rng, 1600)), np.append(benign(rng, 2000), benign(rng, 3000) * 0.7)
    whole, single = DriftMonitor(head), DriftMonitor(head)
    in_bursts = whole.observe(stream)
    one_by_one = [report for score in stream for report in single.observe([score])]
    assert [r.kind for r in in_bursts] == [r.kind for r in one_by_one] == [SCORES]
    assert abs(in_bursts[0].seen - one_by_one[0].seen) <= 2 * HOP


@pytest.mark.req("L-66")
def test_memory_is_two_windows():
    rng = np.random.default_rng(9)
    monitor = DriftMonitor(head_of(benign(rng, 300)))
    monitor.observe(benign(rng, 50_000))
    assert len(monitor._flags._values) == len(monitor._quiet._values) == WINDOW


def test_the_bound_on_alerts_is_the_beta_binomial_tail():
    for alerts, rows, above, below in [(0, 10, 8, 856), (31, 1000, 8, 856), (5, 1000, 1, 50)]:
        expected = stats.betabinom(rows, above, below).sf(alerts - 1)
        assert excess_probability(alerts, rows, above, below) == pytest.approx(expected, rel=1e-6)
    for above in (0.3, 1.0, 9.0, 40.0):
        for below in (0.4, 1.0, 7.5, 3000.0):
            for alerts in (1, 20, 700, 990):  # also where the tail rises again
                tail = stats.betabinom(1000, above, below).pmf(np.arange(alerts, 1001))
                found = excess_probability(alerts, 1000, above, below)
                assert found == pytest.approx(tail.sum(), rel=1e-9, abs=1e-300)
    assert excess_probability(1000, 1000, 8, 856) < 1e-12
    assert excess_probability(3.9, 9.5, 1, 50) == excess_probability(3, 10, 1, 50)


# ------------------------------------------------------------------------------ what cannot be


@pytest.mark.req("L-67")
def test_too_few_validation_rows_cannot_be_watched_and_say_so():
    rng = np.random.default_rng(10)
    few = head_of(benign(rng, MIN_SCORES - 1))
    assert few.reference is None
    assert unwatched(few) == "49 validation rows are too few, 50 are needed"
    with pytest.raises(ModelError, match="49 validation rows are too few"):
        DriftMonitor(few)
    assert unwatched(head_of(benign(rng, MIN_SCORES))) is None


@pytest.mark.req("L-67")
def test_a_head_of_an_older_version_says_so():
    head = replace(head_of(benign(np.random.default_rng(11), 300)), reference=None)
    assert "an older version wrote it" in unwatched(head)


@pytest.mark.req("L-67")
def test_scores_that_hardly_ever_change_cannot_be_watched():
    climbing = np.linspace(1.0, 2.0, 300)
    assert "worth only" in unwatched(head_of(climbing))


@pytest.mark.req("L-66")
@pytest.mark.parametrize("states", [1, 2, 10])
def test_how_scores_of_rows_that_repeat_are_rounded_is_no_drift(states):
    levels = np.linspace(1.0, 2.0, states)
    head = head_of(np.tile(levels, 300 // states))
    assert unwatched(head) is None
    rng = np.random.default_rng(states)
    scores = np.tile(levels, 5000 // states)
    rounded = scores * (1.0 + 1e-6 * rng.uniform(-1.0, 1.0, size=len(scores)))
    assert DriftMonitor(head).observe(rounded) == []
    if states > 1:
        assert DriftMonitor(head).observe(np.full(5000, 1.0)) != [], "one state of several is"
