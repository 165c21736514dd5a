"""Federated training of a list of devices in one process and in the clear, for tables and tests.

What the coordinator and the nodes do to the model, without the protocol around it: no masks, no
fixed-point rounding, no clipping, no losses on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.config import ModelConfig, TrainConfig
from fl_core.errors import DataError
from fl_core.evaluation import round_seed
from fl_core.parameters import initial_parameters
from fl_core.public_bank import PublicBank
from fl_core.server_opt import (
    ServerOptConfig,
    ServerState,
    apply_mean,
    weighted_mean,
    within_ball,
)
from fl_core.training import LocalUpdate, train_local

__all__ = ["train_federated"]

_FEDAVG: Final = ServerOptConfig()


def train_federated(
    rows: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    model: ModelConfig,
    config: TrainConfig,
    rounds: int,
    seed: int,
    server: ServerOptConfig = _FEDAVG,
    bank: PublicBank | None = None,
    watch: Callable[[Sequence[LocalUpdate]], None] | None = None,
) -> NDArray[np.float32]:
    """Train all devices for some rounds, each on its own rows.

    Args:
        rows: For each device its benign training and validation rows, raw, shapes (n, d), (m, d).
        model: Architecture.
        config: Training settings of a round, without record-level privacy.
        rounds: Rounds; 0 gives the first parameters.
        seed: Run seed: of the first parameters and, with round and device, of every training.
        server: How the mean update is applied.
        bank: Public rows, for `config.public_negatives`.
        watch: Is shown every round's updates, one a device, which no coordinator sees.

    Returns:
        Parameters after the last round, shape (dim,), float32; equal arguments give equal values.

    Raises:
        DataError: there are no devices, or rows that `train_local` refuses.
        ModelError: as `train_local`.

    Source: specs/90-learning.md section 1 and L-56.
    """
    if not rows:
        raise DataError("there are no devices to train", hint="give the rows of at least one")
    theta = initial_parameters(model, seed)
    reference = np.zeros(model.embedding_dim, np.float32)
    state = ServerState.start(server, len(theta))
    last: list[NDArray[np.float32] | None] = [None] * len(rows)
    for number in range(rounds):
        updates = [
            train_local(
                theta,
                reference,
                train,
                validation,
                model=model,
                config=config,
                seed=round_seed(seed, number, str(device), "train"),
                previous=last[device],
                site=device,
                bank=bank,
            )
            for device, (train, validation) in enumerate(rows)
        ]
        if watch is not None:
            watch(updates)
        last = [theta + update.delta for update in updates]
        mean, reference = _opened(updates)
        theta, state = apply_mean(theta, mean, state, server)
    return theta


def _opened(updates: Sequence[LocalUpdate]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return the weighted mean update, shape (dim,), and the next reference, shape (k,)."""
    weights = np.array([update.weight for update in updates])
    delta = weights @ np.array([update.delta for update in updates], dtype=np.float64)
    centroid = weights @ np.array([update.centroid for update in updates], dtype=np.float64)
    total = float(weights.sum())
    # L-08, and the reference of section 1 step 6
    mean, centre = weighted_mean(delta, total), weighted_mean(centroid, total)
    return mean, within_ball(centre).astype(np.float32)
