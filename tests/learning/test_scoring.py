from __future__ import annotations

import numpy as np
import pytest
import torch

from fl_core.encoders import standardise
from fl_core.errors import ModelError
from fl_core.scoring import (
    EPSILON,
    JOINT_FLOOR,
    ROUNDING,
    SERIES_SHRINKAGE,
    SHRINKAGE,
    EmbeddingStatistics,
    HeadStatistics,
    benign_threshold,
    standardised,
)


@pytest.mark.req("L-10")
@pytest.mark.parametrize(("window", "shrinkage"), [(1, SHRINKAGE), (16, SERIES_SHRINKAGE)])
def test_the_score_is_the_mahalanobis_length(window, shrinkage):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4)) + 5
    statistics = EmbeddingStatistics.fit(z, window=window)
    direction = (z - z.mean(axis=1, keepdims=True)) / np.sqrt(
        z.var(axis=1, keepdims=True) + EPSILON
    )
    both = np.hstack([z / z.std(), direction])
    covariance = np.cov(both.T, bias=True)
    covariance += shrinkage * np.trace(covariance) / 8 * np.eye(8)
    for row, score in zip(both[:5], statistics.distance(z[:5]), strict=True):
        centred = row - both.mean(axis=0)
        expected = np.sqrt(centred @ np.linalg.solve(covariance, centred) / 8)
        assert score == pytest.approx(expected)


@pytest.mark.req("L-05")
def test_numpy_and_torch_standardise_alike():
    z = np.random.default_rng(0).normal(3.0, 5.0, size=(40, 16))
    z[0] = 2.0
    assert np.allclose(standardised(z), standardise(torch.tensor(z)).numpy(), atol=1e-12)


def test_both_length_and_direction_count():
    rng = np.random.default_rng(0)
    z = rng.normal(size=8) * 3 + rng.normal(size=(500, 8)) * 0.3
    statistics = EmbeddingStatistics.fit(z)
    usual = statistics.distance(z).max()
    assert statistics.distance(4.0 * z[:1])[0] > usual
    assert statistics.distance(-z[:1])[0] > usual


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_or_equal_embeddings_still_give_finite_scores(n):
    statistics = EmbeddingStatistics.fit(np.ones((n, 5)))
    assert np.isfinite(statistics.distance(np.random.default_rng(0).normal(size=(9, 5)))).all()


@pytest.mark.parametrize("z", [np.empty((0, 3)), np.full((2, 3), np.nan), np.zeros(3)])
def test_embeddings_that_cannot_be_fitted_are_refused(z):
    with pytest.raises(ModelError, match="at least one embedding"):
        EmbeddingStatistics.fit(z)


def drawn(n=300, k=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, k)) @ rng.normal(size=(k, k))


@pytest.mark.req("L-10")
def test_parts_have_statistics_of_their_own_and_a_geometric_mean():
    z, other = drawn(), drawn(seed=1)
    joint = HeadStatistics.fit(z, (3, 2), window=16)
    assert joint.widths == (3, 2)
    first = EmbeddingStatistics.fit(z[:, :3], window=16).distance(other[:, :3])
    second = EmbeddingStatistics.fit(z[:, 3:], window=16).distance(other[:, 3:])
    expected = np.sqrt(np.sqrt((first**2 + JOINT_FLOOR) * (second**2 + JOINT_FLOOR)))
    assert np.allclose(joint.distance(other), expected, rtol=1e-12)


@pytest.mark.req("L-10")
def test_the_score_of_one_part_is_its_length():
    z, other = drawn(), drawn(seed=1)
    alone = EmbeddingStatistics.fit(z).distance(other)
    assert np.array_equal(HeadStatistics.fit(z, (5,)).distance(other), alone)


@pytest.mark.req("L-10")
def test_a_part_at_its_mean_does_not_hide_another():
    z = drawn(k=6)
    statistics = HeadStatistics.fit(z, (3, 3))
    flat = np.zeros((1, 6)) + z.mean(axis=0)
    for part in (slice(0, 3), slice(3, 6)):
        odd = flat.copy()
        odd[:, part] += 300.0
        assert statistics.distance(odd)[0] > 2.0 * statistics.distance(z).max()


@pytest.mark.parametrize("widths", [(), (2, 2), (5, 1)])
def test_parts_that_are_not_the_embedding_are_refused(widths):
    with pytest.raises(ModelError, match="parts of"):
        HeadStatistics.fit(drawn(), widths)


def test_a_head_without_parts_is_refused():
    with pytest.raises(ModelError, match="at least one part"):
        HeadStatistics(())


@pytest.mark.req("L-13")
@pytest.mark.parametrize(
    ("n", "max_fpr", "rank"),
    [
        (99, 0.01, 99),
        (100, 0.01, 100),
        (199, 0.01, 198),
        (999, 0.01, 990),
        (9, 0.1, 9),
        (19, 0.1, 18),
    ],
)
def test_the_threshold_is_the_conformal_order_statistic(n, max_fpr, rank):
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    assert benign_threshold(scores, max_fpr) == pytest.approx(rank * (1 + ROUNDING), rel=1e-12)
    assert benign_threshold(-scores, max_fpr) > -(n + 1 - rank), "raised, whatever the sign"


@pytest.mark.req("L-13")
@pytest.mark.parametrize("n", [1, 2, 50, 98])
def test_too_few_rows_give_the_largest_score(n):
    found = benign_threshold(np.arange(n), 0.01)
    assert found == pytest.approx((n - 1) * (1 + ROUNDING), rel=1e-12)


@pytest.mark.req("L-13")
def test_a_fresh_benign_score_exceeds_it_at_most_as_often_as_asked():
    # 4000 draws of a threshold on 149 rows; the rate is 2/150 at max_fpr 0.02 (rank 147 of 149:
    # 3/150 = 0.02). Standard error of the mean below 2e-4: a miss is a wrong estimator, not luck.
    rng = np.random.default_rng(1)
    rates = [1.0 - benign_threshold(rng.uniform(size=149), 0.02) for _ in range(4000)]
    assert np.mean(rates) == pytest.approx(3 / 150, abs=8e-4)


@pytest.mark.parametrize(
    ("scores", "max_fpr", "text"),
    [
        ([], 0.01, "at least one"),
        ([np.nan], 0.01, "finite"),
        ([1.0], 0.0, "max_fpr"),
        ([1.0], 1.0, "max_fpr"),
    ],
)
def test_a_threshold_from_nothing_is_refused(scores, max_fpr, text):
    with pytest.raises(ModelError, match=text):
        benign_threshold(scores, max_fpr)
