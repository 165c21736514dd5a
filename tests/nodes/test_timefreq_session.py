"""The time-frequency transformer trains under masking: the sums stay exact and the model learns."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from fl_core.config import ModelConfig
from fl_core.encoders import build_encoder
from fl_core.normalise import Normaliser
from fl_core.parameters import initial_parameters
from fl_core.server_opt import ServerOptConfig
from nodes.config import CoordinatorConfig, CoordinatorSection, RunSection
from nodes.coordinator_daemon import fresh_run, server_step
from nodes.rehearsal import sharded_training
from nodes.simulator import Network, Simulation

W, C, NODES = 8, 2, 4


def shard(node: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation windows of two channels of one rhythm, at the node's own pace."""
    angle = np.arange(160) * 2 * np.pi / (6.0 + 0.3 * node)
    values = np.stack((np.sin(angle), np.cos(angle)), axis=1)
    values += 0.05 * np.random.default_rng(node).normal(size=values.shape)
    views = np.lib.stride_tricks.sliding_window_view(values, W, axis=0)
    rows = views.transpose(0, 2, 1).reshape(-1, W * C)
    return rows[:100], rows[100:]


def error(model: ModelConfig, params: np.ndarray, shards: list[tuple[np.ndarray, ...]]) -> float:
    """Return the mean reconstruction error of the nodes' validation windows."""
    encoder = build_encoder(model, params).requires_grad_(False)
    batches = [torch.from_numpy(Normaliser.fit(a).apply(b)) for a, b in shards]
    losses = [encoder.reconstruct(rows).loss(encoder.windows(rows)).item() for rows in batches]
    return float(np.mean(losses))


@pytest.mark.req("L-44")
def test_nodes_train_it_under_masking() -> None:
    config = CoordinatorConfig(
        coordinator=CoordinatorSection(keys="", state=""),
        run=RunSection(rounds=3, min_nodes=3, scheme="masking", seed=1, give_up=600.0),
        model={
            "kind": "timefreq",
            "input_dim": W * C,
            "window": W,
            "hidden": [8],
            "embedding_dim": 7 * C,
        },
        train={"steps": 40, "batch_size": 32, "learning_rate": 0.005},
    )
    model, shards = config.model_config(), [shard(node) for node in range(NODES)]
    simulation = Simulation(
        config.plan(),
        fresh_run(config, os.urandom),
        n_nodes=NODES,
        trainer=sharded_training(shards),
        server_step=server_step(ServerOptConfig()),
        network=Network(dropout=0.0),
        seed=1,
    )
    results = list(simulation.run())
    assert [(r.outcome, r.contributors, r.exact) for r in results] == [("done", NODES, True)] * 3

    before, after = initial_parameters(model, 1), simulation.coordinator.run.params
    assert error(model, after, shards) < 0.5 * error(model, before, shards)
