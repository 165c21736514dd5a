"""Training a list of devices in the clear: the rules of a round, term by term."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fl_core import federated
from fl_core.config import TrainConfig
from fl_core.errors import DataError
from fl_core.evaluation import round_seed
from fl_core.federated import train_federated
from fl_core.parameters import initial_parameters
from fl_core.server_opt import ServerOptConfig, within_ball
from fl_core.training import train_local


@pytest.fixture(scope="module")
def pairs(devices):
    return [(rows.train, rows.validation) for rows in devices]


@pytest.mark.req("L-56")
def test_two_rounds_are_what_the_specification_says(pairs, model, config):
    theta, g = initial_parameters(model, 4), np.zeros(model.embedding_dim)
    for number in range(2):
        updates = [
            train_local(
                theta,
                g,
                *pair,
                model=model,
                config=config,
                seed=round_seed(4, number, str(device), "train"),
            )
            for device, pair in enumerate(pairs)
        ]
        total = sum(u.weight for u in updates)
        mean = sum(u.weight * u.delta.astype(np.float64) for u in updates) / total
        g = sum(u.weight * u.centroid.astype(np.float64) for u in updates) / total
        theta = (theta + mean).astype(np.float32)
    found = train_federated(pairs, model=model, config=config, rounds=2, seed=4)
    assert np.allclose(found, theta, atol=1e-6)
    assert found.dtype == np.float32
    again = train_federated(pairs, model=model, config=config, rounds=2, seed=4)
    assert np.array_equal(found, again)


@pytest.mark.req("L-56")
def test_moon_gets_the_devices_own_last_parameters(pairs, model, config, monkeypatch):
    calls, given = [], []

    def spy(params, reference, *rows, previous, **settings):
        update = train_local(params, reference, *rows, previous=previous, **settings)
        given.append(previous)
        calls.append(params + update.delta)
        return update

    monkeypatch.setattr(federated, "train_local", spy)
    moon = dataclasses.replace(config, moon_weight=1.0)
    train_federated(pairs, model=model, config=moon, rounds=3, seed=0)
    n = len(pairs)
    assert given[:n] == [None] * n
    for index in range(n, 3 * n):
        assert np.array_equal(given[index], calls[index - n])


@pytest.mark.req("L-56")
def test_the_reference_stays_within_the_ball(pairs, model, config, monkeypatch):
    seen = []

    def long(params, reference, *rows, **settings):
        seen.append(reference)
        update = train_local(params, reference, *rows, **settings)
        return dataclasses.replace(update, centroid=np.full(model.embedding_dim, 3.0, np.float32))

    monkeypatch.setattr(federated, "train_local", long)
    train_federated(pairs, model=model, config=config, rounds=2, seed=0)
    assert np.allclose(seen[-1], 1.0)
    short = np.array([0.5, -0.5])
    assert within_ball(short) is short


def test_no_rounds_are_the_first_parameters_and_the_server_may_scale(pairs, model, config):
    def train(rounds, **more):
        return train_federated(pairs, model=model, config=config, rounds=rounds, seed=1, **more)

    first = initial_parameters(model, 1)
    assert np.array_equal(train(0), first)
    whole = train(1) - first
    half = train(1, server=ServerOptConfig(learning_rate=0.5)) - first
    assert np.allclose(half, whole / 2, atol=1e-6)


def test_no_devices_are_refused(model):
    with pytest.raises(DataError, match="no devices"):
        train_federated([], model=model, config=TrainConfig(), rounds=1, seed=0)
