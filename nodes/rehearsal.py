"""Builds a simulation from few numbers: data in shards, a trainer, a plan."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from fl_core.config import ModelConfig, TrainConfig
from fl_core.data.extractor import FEATURE_NAMES
from fl_core.data.sources import list_devices, load_device
from fl_core.evaluation import round_seed
from fl_core.parameters import ParamSpec
from fl_core.public_bank import PublicBank
from fl_core.server_opt import ServerOptConfig
from fl_core.training import LocalUpdate, train_local
from nodes.config import CoordinatorConfig, CoordinatorSection, PrivacySection, RunSection
from nodes.coordinator_daemon import fresh_run, server_step
from nodes.learner import exact_noise, use_one_thread
from nodes.session.events import TrainRequested
from nodes.session.privacy import RECORD
from nodes.session.training_settings import parse_training
from nodes.simulator import Network, Simulation, Trainer
from secagg.assumptions import DEFAULT_COLLUSION, DEFAULT_DROPOUT
from secagg.errors import RunIncompleteError
from secagg.schemes import scheme_named
from secagg.types import NodeId

__all__ = ["build_simulation", "random_updates", "sharded_training", "simulate_training"]

MIN_SHARD = 40
"""Rows a simulated node has at least; shards overlap when a device has fewer."""


def build_simulation(
    n_nodes: int,
    rounds: int,
    *,
    dropout: float,
    scheme: str = "masking",
    weights: str = "private",
    privacy: Mapping[str, Any] | None = None,
    tolerance: float = DEFAULT_DROPOUT,
    collusion: float = DEFAULT_COLLUSION,
    source: str | None = "builtin",
    steps: int = 10,
    seed: int = 0,
) -> Simulation:
    """Return a simulation that is ready to run.

    Args:
        n_nodes: Participants, at least 3.
        rounds: Rounds with a result.
        dropout: Crash probability of a node in a round.
        scheme: Name of the scheme.
        weights: Who applies the consistency weights, "private" or "coordinator".
        privacy: The table [privacy] of the coordinator; nobody is protected without.
        tolerance: Fraction of a cohort that a round is built to lose and still end with a sum.
        collusion: Fraction of all nodes that may collude; with `tolerance` it decides the graph.
        source: Data that is dealt out in shards; None trains nothing and sends random updates.
        steps: Training steps a node and round.
        seed: Of delays, crashes, data and model.

    Raises:
        DataError: the source cannot be used.
        ConfigError: the numbers are at odds, or the scheme lacks a library.
    """
    scheme_named(scheme).check()
    shards = _shards(source, n_nodes, seed) if source is not None else []
    width = shards[0][0].shape[1] if shards else 115
    config = CoordinatorConfig(
        coordinator=CoordinatorSection(keys="", state=""),
        run=RunSection(
            rounds=rounds,
            min_nodes=3,
            scheme=scheme,
            weights=weights,
            allow_insecure=scheme == "insecure-plain",
            seed=seed,
            give_up=600.0,
            dropout=tolerance,
            collusion=collusion,
        ),
        privacy=PrivacySection(**(privacy or {})),
        model={"input_dim": width},
        train={"steps": steps},
    )
    by_row = config.privacy.unit == RECORD
    bank = PublicBank.builtin(FEATURE_NAMES) if by_row else None
    trainer = sharded_training(shards, bank) if shards else random_updates(seed)
    return Simulation(
        config.plan(),
        fresh_run(config, os.urandom),
        n_nodes=n_nodes,
        trainer=trainer,
        server_step=server_step(ServerOptConfig()),
        network=Network(dropout=dropout),
        seed=seed,
    )


def simulate_training(
    rows: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    model: ModelConfig,
    train: TrainConfig,
    *,
    rounds: int,
    scheme: str,
    seed: int,
    update_bound: float | None = None,
) -> tuple[NDArray[np.float32], float]:
    """Train one node a pair of rows through the whole protocol, in this process (L-74).

    Args:
        rows: Benign training and validation rows of each node, raw.
        model: Architecture.
        train: Settings of a round's training.
        rounds: Rounds with a result.
        scheme: How updates are summed.
        seed: Of the model and of all training.
        update_bound: L2 bound of a node's weighted update; the default of a run if None.

    Returns:
        The shared parameters, shape (dim,), and the bytes that a node sent a round, on average.

    Raises:
        ConfigError: the scheme lacks a library, or is not for so few nodes.
        RunIncompleteError: the run ended early.
        DataError, ModelError: training went wrong.
    """
    scheme_named(scheme).check()
    run = RunSection(
        rounds=rounds,
        min_nodes=len(rows),
        scheme=scheme,
        allow_insecure=scheme == "insecure-plain",
        seed=seed,
        give_up=600.0,
    )
    if update_bound is not None:
        run = replace(run, update_bound=update_bound)
    config = CoordinatorConfig(
        coordinator=CoordinatorSection(keys="", state=""),
        run=run,
        model=model.to_dict(),
        train=train.to_dict(),
    )
    simulation = Simulation(
        config.plan(),
        fresh_run(config, os.urandom),
        n_nodes=len(rows),
        trainer=sharded_training(list(rows)),
        server_step=server_step(ServerOptConfig()),
        network=Network(),
        seed=seed,
    )
    results = list(simulation.run())
    done = sum(result.outcome == "done" for result in results)
    if done < rounds:
        raise RunIncompleteError(results[-1].outcome, done=done, wanted=rounds)
    return simulation.coordinator.run.params, float(np.mean([r.upload_bytes for r in results]))


def sharded_training(
    shards: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    bank: PublicBank | None = None,
) -> Trainer:
    """Return a trainer that gives node i the i-th pair of training and validation rows.

    Args:
        shards: A pair for each node.
        bank: Public rows, for settings that protect single rows.
    """
    use_one_thread()

    def train(node: NodeId, request: TrainRequested) -> LocalUpdate:
        settings = parse_training(request.offer.training)
        number = int(node.rsplit("-", 1)[1])
        rows, held_out = shards[number]
        return train_local(
            request.params,
            request.reference,
            rows,
            held_out,
            model=settings.model,
            config=settings.train,
            seed=round_seed(settings.seed, request.offer.round_id, node, "train"),
            site=number,
            bank=bank if settings.train.private else None,
            secret=os.urandom,
            noise=exact_noise,
        )

    return train


def random_updates(seed: int) -> Trainer:
    """Return a trainer that makes up updates of realistic size: for protocol runs at scale."""

    def train(node: NodeId, request: TrainRequested) -> LocalUpdate:
        settings = parse_training(request.offer.training)
        rng = np.random.default_rng(round_seed(seed, request.offer.round_id, node, "random"))
        delta = rng.normal(0.0, 0.01, ParamSpec.from_model(settings.model).dim)
        centroid = rng.normal(0.0, 0.1, settings.model.embedding_dim)
        distance = rng.gamma(20.0, 0.05)  # about 1, as of standardised embeddings
        return LocalUpdate(
            delta=delta.astype(np.float32),
            centroid=centroid.astype(np.float32),
            weight=1 / (1 + distance),
            distance=distance,
            loss=1.0,
            samples=100,
        )

    return train


def _shards(
    source: str, n_nodes: int, seed: int
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Deal each device's rows out to the nodes that play it."""
    devices = list_devices(source, limit=min(n_nodes, 9))
    loaded = [load_device(source, device, seed=seed) for device in devices]
    rng = np.random.default_rng(seed)
    shards = []
    for index in range(n_nodes):
        data = loaded[index % len(loaded)]
        players = len(range(index % len(loaded), n_nodes, len(loaded)))
        size = max(MIN_SHARD, len(data.train) // players)
        rows = rng.choice(len(data.train), size=min(size, len(data.train)), replace=False)
        held_out = rng.choice(
            len(data.validation), size=min(50, len(data.validation)), replace=False
        )
        shards.append((data.train[rows], data.validation[held_out]))
    return shards
