from __future__ import annotations

import numpy as np
import pytest

from fl_core.errors import ModelError
from fl_core.server_opt import ServerOptConfig, ServerState, apply_mean, weighted_mean

FEDAVG = ServerOptConfig()
FEDADAM = ServerOptConfig(kind="fedadam", learning_rate=0.1, beta1=0.9, beta2=0.99, tau=0.01)


@pytest.mark.req("L-08")
def test_the_sum_is_divided_by_the_sum_of_weights():
    deltas, weights = np.array([[1.0, 0.0], [0.0, 4.0]]), np.array([0.5, 0.25])
    mean = weighted_mean(weights @ deltas, weights.sum())
    assert np.allclose(mean, np.average(deltas, axis=0, weights=weights))


@pytest.mark.req("L-08")
def test_equal_updates_give_that_update_whatever_the_weights():
    delta = np.array([1.0, -2.0])
    for weights in ([1.0, 1.0], [0.5, 0.5], [0.2, 0.9]):
        assert np.allclose(weighted_mean(sum(w * delta for w in weights), sum(weights)), delta)


@pytest.mark.req("L-08")
@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf])
def test_weights_that_add_up_to_nothing_are_refused(weight):
    with pytest.raises(ModelError, match="weights add up"):
        weighted_mean(np.zeros(2), weight)


def test_a_sum_that_is_not_finite_is_refused():
    with pytest.raises(ModelError, match="finite"):
        weighted_mean(np.array([np.nan]), 1.0)


@pytest.mark.req("L-09")
def test_fedavg_adds_the_mean():
    params = np.array([1.0, 2.0], np.float32)
    moved, state = apply_mean(params, [0.5, -1.0], ServerState.start(FEDAVG, 2), FEDAVG)
    assert moved.tolist() == [1.5, 1.0]
    assert moved.dtype == np.float32
    assert state.step == 1
    assert params.tolist() == [1.0, 2.0]


@pytest.mark.req("L-09")
def test_fedadam_follows_its_recurrence():
    params, state = np.zeros(3, np.float32), ServerState.start(FEDADAM, 3)
    theta, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
    for step in range(5):
        delta = np.array([1.0, -0.1, 0.0]) * (step + 1)
        params, state = apply_mean(params, delta, state, FEDADAM)
        m, v = 0.9 * m + 0.1 * delta, 0.99 * v + 0.01 * delta**2
        theta = theta + 0.1 * m / (np.sqrt(v) + 0.01)
    assert np.allclose(params, theta, rtol=1e-5)
    assert state.step == 5


@pytest.mark.req("L-09")
@pytest.mark.parametrize("config", [FEDAVG, FEDADAM], ids=["fedavg", "fedadam"])
def test_a_state_survives_a_checkpoint(config):
    _, state = apply_mean(np.zeros(4), np.ones(4), ServerState.start(config, 4), config)
    again = ServerState.from_arrays(state.to_arrays())
    one, _ = apply_mean(np.zeros(4), np.ones(4), state, config)
    two, _ = apply_mean(np.zeros(4), np.ones(4), again, config)
    assert np.array_equal(one, two)
    assert again.step == 1


@pytest.mark.parametrize(
    "change",
    [
        {"step": np.array([-1])},
        {"first": np.array([np.nan])},
        {"second": np.array([-1.0])},
        {"second": np.zeros(2)},
        {"step": np.zeros((1, 1), int)},
        {"extra": np.zeros(1)},
    ],
    ids=lambda c: next(iter(c)),
)
def test_a_damaged_state_is_refused(change):
    arrays = {"step": np.array([1]), "first": np.zeros(1), "second": np.zeros(1)} | change
    with pytest.raises(ModelError, match="server state"):
        ServerState.from_arrays(arrays)


@pytest.mark.req("L-12")
@pytest.mark.parametrize(
    ("params", "delta", "text"),
    [
        (np.zeros(2), np.zeros(3), "does not fit"),
        (np.zeros(2), np.array([0.0, np.inf]), "not finite"),
        (np.array([np.nan, 0.0]), np.zeros(2), "NaN or an infinity"),
        (np.full(2, 3e38), np.full(2, 3e38), "the new parameters"),
        (np.zeros((2, 2)), np.zeros(2), "has shape"),
    ],
    ids=["shape", "infinite", "nan", "overflow", "matrix"],
)
def test_a_step_that_cannot_be_is_refused(params, delta, text):
    with pytest.raises(ModelError, match=text):
        apply_mean(params, delta, ServerState.start(FEDAVG, 2), FEDAVG)


def test_a_state_of_another_model_is_refused():
    with pytest.raises(ModelError, match="server state does not fit"):
        apply_mean(np.zeros(2), np.zeros(2), ServerState.start(FEDADAM, 3), FEDADAM)
