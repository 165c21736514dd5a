from __future__ import annotations

import numpy as np
import pytest

from fl_core.errors import ModelError
from fl_core.scoring import SHRINKAGE, EmbeddingStatistics, benign_threshold


@pytest.mark.req("L-10")
def test_the_score_is_the_mahalanobis_length():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4)) + 5
    statistics = EmbeddingStatistics.fit(z)
    covariance = np.cov(z.T, bias=True)
    covariance += SHRINKAGE * np.trace(covariance) / 4 * np.eye(4)
    for row, score in zip(z[:5], statistics.distance(z[:5]), strict=True):
        centred = row - z.mean(axis=0)
        expected = np.sqrt(centred @ np.linalg.solve(covariance, centred) / 4)
        assert score == pytest.approx(expected)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_or_equal_embeddings_still_give_finite_scores(n):
    statistics = EmbeddingStatistics.fit(np.ones((n, 5)))
    assert np.isfinite(statistics.distance(np.random.default_rng(0).normal(size=(9, 5)))).all()


@pytest.mark.parametrize("z", [np.empty((0, 3)), np.full((2, 3), np.nan), np.zeros(3)])
def test_embeddings_that_cannot_be_fitted_are_refused(z):
    with pytest.raises(ModelError, match="at least one embedding"):
        EmbeddingStatistics.fit(z)


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
    assert benign_threshold(scores, max_fpr) == rank


@pytest.mark.req("L-13")
@pytest.mark.parametrize("n", [1, 2, 50, 98])
def test_too_few_rows_give_the_largest_score(n):
    assert benign_threshold(np.arange(n), 0.01) == n - 1


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
