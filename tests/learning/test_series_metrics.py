from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from fl_core.errors import ModelError
from fl_core.series_metrics import (
    affiliation,
    anomaly_ranges,
    auc_pr,
    range_auc_pr,
    series_quality,
    vus_pr,
)

LABELS_AND_SCORES = st.integers(2, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(any),
        st.lists(st.integers(-20, 20), min_size=n, max_size=n),
    )
)


def marked(length, *ranges):
    labels = np.zeros(length, np.int8)
    for first, after in ranges:
        labels[first:after] = 1
    return labels


def slow_range_auc_pr(labels, scores, buffer):
    """Follow the definition threshold by threshold and step by step."""
    ranges = anomaly_ranges(labels).tolist()
    anomalous = [t for t, label in enumerate(labels) if label]
    weights = []
    for t in range(len(labels)):
        d = min(abs(t - a) for a in anomalous)
        inside = d <= buffer / 2 and d > 0
        weights.append(1.0 if d == 0 else math.sqrt(1 - d / buffer) if inside else 0.0)
    area = before = 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [t for t, score in enumerate(scores) if score >= threshold]
        caught = sum(weights[t] for t in chosen)
        recall = min(1.0, caught / ((sum(labels) + sum(weights)) / 2))
        if buffer:
            side = buffer // 2
            found = [any(a - side <= t < b + side for t in chosen) for a, b in ranges]
            recall *= sum(found) / len(found)
        area += (recall - before) * caught / len(chosen)
        before = recall
    return area


def test_ranges_are_the_runs_of_anomalous_steps():
    assert anomaly_ranges([1, 1, 0, 0, 1, 0, 1]).tolist() == [[0, 2], [4, 5], [6, 7]]
    assert anomaly_ranges([0, 0]).shape == (0, 2)


# ------------------------------------------------------------------------------ areas


@pytest.mark.req("L-33")
@given(LABELS_AND_SCORES)
def test_auc_pr_is_average_precision(case):
    labels, scores = case
    assert auc_pr(labels, scores) == pytest.approx(average_precision_score(labels, scores))
    assert vus_pr(labels, scores, max_buffer=0) == auc_pr(labels, scores)


@pytest.mark.req("L-33")
def test_auc_pr_adjusts_no_point():
    labels = marked(100, (40, 60))
    one_hit = np.where(np.arange(100) == 50, 1.0, 0.0)
    # the hit is one of twenty steps; then all steps come at once, with precision 0.2
    assert auc_pr(labels, one_hit) == pytest.approx(0.05 + 0.95 * 0.2)


@pytest.mark.req("L-34")
def test_one_buffer_by_hand():
    # weights √½, 1, √½ around the only anomalous step; P = (1 + 1 + 2√½) / 2
    labels, half = [0, 0, 1, 0, 0], math.sqrt(0.5)
    whole = 1 + half
    # the step itself first: precision 1, recall 1/P; then its left neighbour; then all
    first = 1 / whole
    then = min(1.0, (1 + half) / whole)
    area = first * 1 + (then - first) * (1 + half) / 2
    assert range_auc_pr(labels, [0, 1, 2, 0, 0], 2) == pytest.approx(area)
    # a neighbour alone earns what its weight is worth, though AUC-PR gives it nothing
    assert range_auc_pr(labels, [0, 1, 0, 0, 0], 2) == pytest.approx(
        half / whole * half + (1 - half / whole) * (1 + 2 * half) / 5
    )


@pytest.mark.req("L-34")
def test_recall_counts_the_ranges_that_are_found():
    labels = marked(60, (10, 14), (40, 44))
    only_one = np.where(labels == 1, 1.0, 0.0)
    only_one[40:44] = 0.0
    weights = 8 + 4 * sum(math.sqrt(1 - d / 4) for d in (1, 2))
    # half of the ranges at the first threshold: its recall 4/P is halved
    first = 4 / ((8 + weights) / 2) / 2
    assert range_auc_pr(labels, only_one, 4) == pytest.approx(first + (1 - first) * weights / 60)


@pytest.mark.req("L-34")
@settings(max_examples=60, deadline=None)
@given(LABELS_AND_SCORES, st.sampled_from([0, 2, 4, 10, 40]))
def test_range_auc_pr_is_what_its_definition_says(case, buffer):
    labels, scores = case
    slow = slow_range_auc_pr(labels, scores, buffer)
    assert range_auc_pr(labels, scores, buffer) == pytest.approx(slow)


@pytest.mark.req("L-33", "L-34")
@settings(max_examples=60, deadline=None)
@given(LABELS_AND_SCORES)
def test_only_the_order_of_scores_counts(case):
    labels, scores = case
    plain = np.array(scores, dtype=float)
    for changed in (3 * plain - 5, plain**3, np.exp(plain), np.arctan(plain / 7)):
        assert vus_pr(labels, changed, max_buffer=10) == vus_pr(labels, plain, max_buffer=10)
        assert auc_pr(labels, changed) == auc_pr(labels, plain)


@pytest.mark.req("L-33", "L-34")
def test_limits_of_the_areas():
    labels = marked(1000, (200, 260), (700, 710))
    perfect, constant = labels.astype(float), np.ones(1000)
    assert auc_pr(labels, perfect) == 1.0
    assert auc_pr(labels, constant) == pytest.approx(0.07)
    assert 0.7 < vus_pr(labels, perfect) < 0.75  # most of the ramp comes after the labels
    assert vus_pr(labels, perfect, max_buffer=4) > vus_pr(labels, perfect)
    weights = [
        0.07 + 4 * sum(math.sqrt(1 - d / b) for d in range(1, b // 2 + 1)) / 1000 for b in (2, 4)
    ]
    assert vus_pr(labels, constant, max_buffer=4) == pytest.approx((0.07 + sum(weights)) / 3)
    drawn = np.random.default_rng(0).random((20, 1000))
    assert np.mean([auc_pr(labels, scores) for scores in drawn]) == pytest.approx(0.075, abs=0.02)
    near = np.roll(perfect, 5)  # late by five steps: the buffer forgives some of it
    assert vus_pr(labels, near) / vus_pr(labels, perfect) > auc_pr(labels, near) + 0.2


# ------------------------------------------------------------------------------ affiliation


@pytest.mark.req("L-35")
def test_affiliation_by_hand():
    # one range [4, 6) in [0, 10): the step before it lies 0 to 1 away, on average 1/2
    labels = marked(10, (4, 6))
    near = affiliation(labels, marked(10, (3, 4)))
    # P(distance >= d) = ((4 - d) + (4 - d)) / 10, its mean over d in [0, 1] is 0.7
    assert near.precision == pytest.approx(0.7)
    # y in [4, 6) is d = y - 4 in [0, 2) from the alert: (y - d + max(0, 10 - y - d)) / 10
    # = (4 + (6 - 2d)) / 10, its mean 0.8
    assert near.recall == pytest.approx(0.8)
    assert near.f1 == pytest.approx(2 * 0.7 * 0.8 / 1.5)


@pytest.mark.req("L-35")
def test_zones_meet_halfway_and_count_alike():
    labels = marked(20, (2, 4), (9, 10))  # the zones are [0, 6.5) and [6.5, 20)
    alone = affiliation(labels, marked(20, (2, 4)))
    assert (alone.precision, alone.recall) == (1.0, 0.5)
    cut = affiliation(labels, marked(20, (6, 7)))  # half of the step in either zone
    # left: d in [2, 2.5): ((2 - d)+ + (2.5 - d)) / 6.5; right: d in [2, 2.5) before 9 in [6.5, 20)
    left, right = 0.25 / 6.5, ((2.5 - 2.25) + (10 - 2.25)) / 13.5
    assert cut.precision == pytest.approx((left + right) / 2)


@pytest.mark.req("L-35")
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_affiliation_is_the_integral_that_it_says(data):
    n = data.draw(st.integers(3, 14))
    flags = st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(any)
    labels, alerts = data.draw(flags), data.draw(flags)
    fine = 60  # points a step, by the definition; quarters fall between them
    x = (np.arange(n * fine) + 0.5) / fine
    alert_at, label_at = np.repeat(alerts, fine) == 1, np.repeat(labels, fine) == 1
    ranges = anomaly_ranges(labels)
    centre = np.abs(x[:, None] - (ranges.mean(axis=1))) - np.diff(ranges)[:, 0] / 2
    owner = centre.argmin(axis=1)
    precisions, recalls = [], []
    for j, (first, after) in enumerate(ranges):
        zone = x[owner == j]
        mine = x[(owner == j) & alert_at]
        if not len(mine):
            recalls.append(0.0)
            continue
        away = np.maximum(0, np.maximum(first - zone, zone - after))
        own = np.maximum(0, np.maximum(first - mine, mine - after))
        precisions.append(np.mean([np.mean(away >= d - 1e-12) for d in own]))
        inside = x[label_at & (owner == j)]
        gaps = [np.abs(mine - y).min() for y in inside]
        gaps = [0.0 if d < 0.6 / fine else d - 0.5 / fine for d in gaps]
        recalls.append(
            np.mean([np.mean(np.abs(zone - y) >= d) for y, d in zip(inside, gaps, strict=True)])
        )
    got = affiliation(labels, alerts)
    assert got.precision == pytest.approx(np.mean(precisions), abs=0.03)
    assert got.recall == pytest.approx(np.mean(recalls), abs=0.03)


@pytest.mark.req("L-35")
def test_limits_of_affiliation():
    labels = marked(4000, (1000, 1020), (3000, 3010))
    perfect = affiliation(labels, labels)
    assert (perfect.precision, perfect.recall, perfect.f1) == (1.0, 1.0, 1.0)
    nothing = affiliation(labels, np.zeros(4000))
    assert (nothing.precision, nothing.recall, nothing.f1) == (0.0, 0.0, 0.0)
    rng = np.random.default_rng(1)
    chance = [affiliation(labels, rng.random(4000) < 0.01).precision for _ in range(100)]
    assert np.mean(chance) == pytest.approx(0.5, abs=0.02)
    half = marked(1000, (250, 750))  # half of the zone is anomalous: (1 + 1/4) / 2
    chance = [affiliation(half, rng.random(1000) < 0.1).precision for _ in range(100)]
    assert np.mean(chance) == pytest.approx(0.625, abs=0.02)
    assert affiliation(labels, np.ones(4000)).recall == 1.0


# ------------------------------------------------------------------------------ all together


@pytest.mark.req("L-19", "L-33")
def test_quality_has_all_of_them_and_alerts_strictly_above_the_threshold():
    labels = marked(10, (4, 6))
    quality = series_quality(labels, [0, 0, 0, 2, 1, 1, 0, 0, 0, 0], 1.0, max_buffer=2)
    assert quality.affiliation_precision == pytest.approx(0.7)
    assert (quality.n_steps, quality.n_ranges) == (10, 1)
    assert quality.to_dict()["auc_pr"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 0], [1.0, 2.0], "no anomaly"),
        ([0, 1], [1.0], "need 2 scores"),
        ([0, 1], [1.0, math.nan], "all finite"),
        ([0, 2], [1.0, 1.0], "one 0 or 1"),
        ([[0, 1]], [1.0, 1.0], "one 0 or 1"),
    ],
)
def test_what_cannot_be_judged_is_refused(labels, scores, message):
    with pytest.raises(ModelError, match=message):
        series_quality(labels, scores, 0.5)


def test_odd_buffers_and_thresholds_are_refused():
    for buffer in (3, -2):
        with pytest.raises(ModelError, match=f"buffer is {buffer}"):
            vus_pr([0, 1], [0.0, 1.0], max_buffer=buffer)
    with pytest.raises(ModelError, match="threshold is nan"):
        series_quality([0, 1], [0.0, 1.0], math.nan)
    with pytest.raises(ModelError, match="2 labels"):
        affiliation([0, 1], [1])


def test_twelve_long_series_take_seconds():
    rng = np.random.default_rng(2)
    labels = marked(4320, *((s, s + 30) for s in range(100, 4300, 250)))
    start = time.process_time()
    for _ in range(12):
        series_quality(labels, rng.random(4320), 0.99)
    assert time.process_time() - start < 10.0
