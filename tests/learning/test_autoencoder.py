"""The autoencoder of the data's own paper, alone, pooled and federated."""

from __future__ import annotations

import numpy as np
import pytest

from fl_core.autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    central_autoencoder,
    federated_autoencoder,
    local_autoencoder,
)
from fl_core.errors import DataError, ModelError

CONFIG = AutoencoderConfig(rounds=3, steps=60, batch_size=64, learning_rate=3e-3)


@pytest.fixture(scope="module")
def trains(devices):
    return [rows.train for rows in devices]


@pytest.mark.req("L-55")
def test_the_layers_are_those_of_the_paper():
    shapes = [layer.weight.shape for layer in Autoencoder(115).layers]
    assert [shape[0] for shape in shapes] == [86, 57, 37, 28, 37, 57, 86, 115]
    assert shapes[0][1] == 115
    assert [layer.weight.shape[0] for layer in Autoencoder(1).layers] == [1] * 8


@pytest.mark.req("L-55")
def test_attacks_are_reconstructed_worse_than_benign_rows(devices, trains):
    everyone = federated_autoencoder(trains, config=CONFIG, seed=0)
    central = central_autoencoder(trains, config=CONFIG, seed=0)
    for rows in devices:
        alone = local_autoencoder(rows.train, config=CONFIG, seed=0)
        for score in (alone, central, everyone(rows.train)):
            benign, attack = score(rows.test_benign), score(rows.test_attack)
            assert benign.shape == (len(rows.test_benign),)
            assert np.median(attack) > 1.2 * np.median(benign)


@pytest.mark.req("L-55")
def test_more_training_reconstructs_better(devices):
    rows = devices[0]
    one = AutoencoderConfig(rounds=1, steps=1)
    short = local_autoencoder(rows.train, config=one, seed=0)(rows.test_benign)
    long = local_autoencoder(rows.train, config=CONFIG, seed=0)(rows.test_benign)
    assert long.mean() < 0.8 * short.mean()
    assert 0.8 < short.mean() < 1.3  # about the standard deviation of a normalised column


@pytest.mark.req("L-55", "L-11")
def test_equal_seeds_give_equal_scores(devices, trains):
    rows = devices[0].test_benign
    brief = AutoencoderConfig(rounds=2, steps=3)

    def scores(seed):
        return [
            local_autoencoder(trains[0], config=brief, seed=seed)(rows),
            central_autoencoder(trains, config=brief, seed=seed)(rows),
            federated_autoencoder(trains, config=brief, seed=seed)(trains[0])(rows),
        ]

    for first, again, other in zip(scores(1), scores(1), scores(2), strict=True):
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


@pytest.mark.req("L-55")
def test_a_federation_of_one_is_that_device_but_for_its_batches(trains):
    brief = AutoencoderConfig(rounds=1, steps=1)
    score = federated_autoencoder(trains[:1], config=brief, seed=0)(trains[0])
    alone = local_autoencoder(trains[0], config=brief, seed=0)
    assert np.allclose(score(trains[0]), alone(trains[0]), atol=0.05)


def test_nothing_to_train_on_is_refused():
    with pytest.raises(DataError, match="there are no devices"):
        federated_autoencoder([], config=CONFIG, seed=0)
    with pytest.raises(DataError, match="cannot pool"):
        central_autoencoder([], config=CONFIG, seed=0)
    with pytest.raises(DataError, match="there are none"):
        local_autoencoder(np.empty((0, 4)), config=CONFIG, seed=0)
    with pytest.raises(ModelError, match="steps"):
        AutoencoderConfig(steps=0)


def test_no_rows_have_no_scores(trains):
    score = local_autoencoder(trains[0], config=AutoencoderConfig(rounds=1, steps=1), seed=0)
    assert score(np.empty((0, 20))).shape == (0,)
