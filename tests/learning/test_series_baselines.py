from __future__ import annotations

import numpy as np
import pytest

from fl_core.data.series import windows
from fl_core.series_baselines import BASELINES
from fl_core.series_metrics import auc_pr


@pytest.fixture(scope="module")
def case():
    """Return normal windows of two waves, windows whose waves come apart, and their labels."""
    rng = np.random.default_rng(0)
    t = np.arange(1500)
    values = np.stack((np.sin(t / 7), np.cos(t / 7)), axis=1) + 0.02 * rng.normal(size=(1500, 2))
    values[1200:1260, 1] = np.cos(t[1200:1260] / 2)
    rows = windows(values, 8)
    labels = ((t >= 1200) & (t < 1260))[7:]
    return rows[:900], rows[900:], labels[900:]


def test_pca_and_forest_find_what_chance_does_not(case):
    train, test, labels = case
    area = {name: auc_pr(labels, make(train, seed=1)(test)) for name, make in BASELINES.items()}
    assert area["pca"] > 0.6  # a window reaches back into the anomaly for a while after it
    assert area["forest"] > 0.3
    assert area["random"] < 0.2


def test_scores_follow_from_the_seed(case):
    train, test, _ = case
    for name, make in BASELINES.items():
        first, again, other = (make(train, seed=seed)(test) for seed in (1, 1, 2))
        assert np.array_equal(first, again)
        assert np.array_equal(first, other) == (name == "pca")
        assert first.shape == (len(test),)
