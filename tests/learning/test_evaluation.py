from __future__ import annotations

import numpy as np
import pytest

from fl_core.baselines import knn_score, pca_score, train_alone
from fl_core.config import TrainConfig
from fl_core.evaluation import evaluate, evaluate_device, mean_quality, round_seed
from fl_core.parameters import initial_parameters
from fl_core.training import train_local


@pytest.fixture(scope="module")
def table(devices, model, config):
    initial = initial_parameters(model, 0)
    return evaluate_device(
        devices[0], initial + 0.01, initial, model=model, config=config, rounds=2, seed=0,
    )  # fmt: skip


def test_the_table_has_its_rows_in_order(table, devices):
    assert list(table) == ["federated", "local", "random"]
    for row in table.values():
        assert row.n_benign == len(devices[0].test_benign)
        assert 0.0 <= row.fpr_at_tpr_999 <= 1.0
        assert row.auc > 0.5


@pytest.mark.req("L-19")
def test_every_threshold_comes_from_benign_rows_that_are_no_test_rows(devices, model, config):
    """Other test rows change the measured rates, never a threshold."""
    initial = initial_parameters(model, 0)

    def thresholds(rows):
        table = evaluate_device(
            rows, initial, initial, model=model, config=config, rounds=1, seed=0
        )
        return [row.threshold for row in table.values()]

    rows = devices[0]
    swapped = type(rows)(
        rows.device, rows.feature_names, rows.train, rows.validation,
        rows.test_attack * 3.0, rows.test_benign[:50],
    )  # fmt: skip
    assert thresholds(rows) == thresholds(swapped)


def test_alone_is_a_federation_of_one(devices, model, config):
    initial = initial_parameters(model, 0)
    rows = devices[1]
    theta = train_alone(
        initial, rows.train, rows.validation, model=model, config=config, seeds=[4, 5]
    )
    one = train_local(
        initial, np.zeros(8), rows.train, rows.validation, model=model, config=config, seed=4
    )
    two = train_local(
        initial + one.delta, one.centroid, rows.train, rows.validation,
        model=model, config=config, seed=5,
    )  # fmt: skip
    assert np.array_equal(theta, initial + one.delta + two.delta)


@pytest.mark.req("L-11")
def test_seeds_differ_by_run_round_node_and_purpose():
    seeds = {
        round_seed(run, round_, node, purpose)
        for run in (0, 1)
        for round_ in (0, 1)
        for node in ("a", "b")
        for purpose in ("train", "local")
    }
    assert len(seeds) == 16
    assert all(0 <= s < 1 << 63 for s in seeds)
    assert round_seed(0, 0, "a", "train") in seeds


@pytest.mark.parametrize("method", [pca_score, knn_score])
def test_baselines_tell_attacks_apart(devices, method):
    rows = devices[0]
    quality = evaluate(method(rows.train), 1.0, rows.test_benign, rows.test_attack)
    assert quality.auc > 0.9


@pytest.mark.parametrize("method", [pca_score, knn_score])
def test_baselines_take_very_few_rows(devices, method):
    rows = devices[0]
    assert np.isfinite(method(rows.train[:2])(rows.test_benign)).all()


def test_means_count_every_device_once(table):
    better = {k: type(v)(**(v.to_dict() | {"auc": 1.0})) for k, v in table.items()}
    means = mean_quality([table, better])
    assert means["local"]["auc"] == pytest.approx((table["local"].auc + 1.0) / 2)
    assert means["local"]["n_benign"] == 2 * table["local"].n_benign
    assert mean_quality([]) == {}


def test_default_settings_can_be_trained(devices, model):
    rows = devices[0]
    update = train_local(
        initial_parameters(model, 0), np.zeros(8), rows.train, rows.validation,
        model=model, config=TrainConfig(steps=2), seed=0,
    )  # fmt: skip
    assert np.isfinite(update.delta).all()
