from __future__ import annotations

import numpy as np
import pytest

from fl_core.errors import ModelError
from fl_core.metrics import fpr_at_tpr, quality


def slow_fpr_at_tpr(benign, attack, tpr):
    """Try every threshold there is."""
    best = 1.0
    for t in sorted({*benign, *attack}):
        if np.mean(np.array(attack) >= t) >= tpr - 1e-12:
            best = min(best, float(np.mean(np.array(benign) >= t)))
    return best


@pytest.mark.req("L-14")
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("tpr", [0.5, 0.9, 0.999, 1.0])
def test_fpr_at_tpr_is_the_best_threshold_with_ties_against_us(seed, tpr):
    rng = np.random.default_rng(seed)
    benign, attack = rng.integers(0, 6, 30), rng.integers(2, 9, 40)
    assert fpr_at_tpr(benign, attack, tpr) == slow_fpr_at_tpr(benign, attack, tpr)


@pytest.mark.req("L-14")
def test_one_attack_in_a_thousand_may_be_missed_and_no_more():
    attack = np.r_[np.zeros(1), np.full(999, 5.0)]
    assert fpr_at_tpr([1.0, 2.0], attack) == 0.0
    attack = np.r_[np.zeros(2), np.full(998, 5.0)]
    assert fpr_at_tpr([1.0, 2.0], attack) == 1.0


@pytest.mark.req("L-14")
def test_a_constant_score_is_worth_nothing():
    assert fpr_at_tpr(np.ones(5), np.ones(5)) == 1.0
    assert quality(np.ones(5), np.ones(5), 1.0).auc == 0.5


def test_quality_counts_strictly_above_the_threshold():
    q = quality([0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0], 2.0)
    assert (q.fpr, q.recall) == (0.25, 0.75)
    assert q.f1 == pytest.approx(0.75)
    assert q.auc == pytest.approx(14 / 16)
    assert q.to_dict()["n_benign"] == q.n_attack == 4


def test_a_perfect_score_is_perfect():
    q = quality([0.1, 0.2], [1.0, 2.0], 0.5)
    assert (q.auc, q.auc_pr, q.f1, q.recall, q.fpr, q.fpr_at_tpr_999) == (1, 1, 1, 1, 0, 0)


@pytest.mark.parametrize(
    ("benign", "attack", "threshold"),
    [([], [1.0], 0.5), ([1.0], [], 0.5), ([np.nan], [1.0], 0.5), ([1.0], [1.0], np.inf)],
)
def test_scores_that_cannot_be_judged_are_refused(benign, attack, threshold):
    with pytest.raises(ModelError, match=r"score|threshold"):
        quality(benign, attack, threshold)
