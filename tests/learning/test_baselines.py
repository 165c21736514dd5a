"""Baselines without an encoder, alone and on pooled rows."""

from __future__ import annotations

import numpy as np
import pytest

from fl_core.baselines import isolation_forest_score, knn_score, pca_score, pooled, random_score
from fl_core.errors import DataError
from fl_core.metrics import fpr_at_tpr


@pytest.mark.parametrize("baseline", [knn_score, pca_score, isolation_forest_score])
def test_attacks_score_above_benign_rows_alone_and_pooled(devices, baseline):
    for score in (baseline(devices[0].train), pooled(baseline, [rows.train for rows in devices])):
        benign, attack = score(devices[0].test_benign), score(devices[0].test_attack)
        assert benign.shape == (len(devices[0].test_benign),)
        assert benign.dtype == np.float64
        assert np.median(attack) > np.median(benign)


def test_pooled_rows_are_all_rows_in_one_table(devices):
    trains = [rows.train for rows in devices]
    rows = devices[1].test_benign
    assert np.array_equal(pooled(knn_score, trains)(rows), knn_score(np.concatenate(trains))(rows))


def test_an_isolation_forest_is_its_seeds(devices):
    rows, test = devices[0].train, devices[0].test_attack
    first, again, other = (isolation_forest_score(rows, seed=seed)(test) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_random_scores_tell_nothing_and_repeat_by_their_seed():
    rows = np.zeros((4000, 3))
    score, again = random_score(1), random_score(1)
    benign, attack = score(rows), score(rows)
    assert np.array_equal(benign, again(rows))
    assert not np.array_equal(benign, attack)
    # 4000 uniform numbers: within five deviations of 0.9
    assert fpr_at_tpr(benign, attack, 0.9) == pytest.approx(0.9, abs=5 * 0.0067)


@pytest.mark.parametrize("widths", [(), (3, 4)])
def test_rows_that_do_not_pool_are_refused(widths):
    with pytest.raises(DataError, match=f"cannot pool the rows of {len(widths)} devices"):
        pooled(knn_score, [np.zeros((5, width)) for width in widths])
