"""Nine devices that learn together with record-level privacy, by the product's own training."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fl_core.config import CLIP_STEPS, DP_SGD, PER_RECORD, ModelConfig, TrainConfig
from fl_core.evaluation import round_seed
from fl_core.parameters import initial_parameters
from fl_core.private_training import private_delta, record_cost
from fl_core.public_bank import PublicBank
from secagg.dp.accountant import multiplier_for
from secagg.dp.events import SampledGaussian
from secagg.dp.sampler import sampler_for
from secagg.dp.terms import DISCRETE_GAUSSIAN

__all__ = ["RecordSetting", "train_records"]

_NO_NOISE = 1e-6
"""Noise multiplier that stands for none: less than a step of the grid."""


@dataclass(frozen=True)
class RecordSetting:
    """How nine devices learn; rounds × steps is what every row is charged for, at most."""

    rounds: int = 8
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=10,
            optimiser="sgd",
            learning_rate=0.3,
            temperature=0.2,
            gain_std=0.1,
            own_negatives=8,
            objective=PER_RECORD,
            private=DP_SGD,
            sampling_rate=0.02,
            nominal_rows=1500,
            noise_multiplier=1.0,
            bank_digest="0" * 64,
        )
    )


def event(config: TrainConfig, rounds: int) -> SampledGaussian:
    """Return what a device's training costs over all rounds."""
    z, rate, steps = record_cost(config)
    return SampledGaussian(z, rate, steps * rounds, grid=1 / (z * CLIP_STEPS))


def train_records(
    rows: Sequence[NDArray[np.float64]],
    names: Sequence[str],
    model: ModelConfig,
    setting: RecordSetting,
    *,
    epsilon: float,
    delta: float,
    seed: int,
) -> tuple[NDArray[np.float32], float, float]:
    """Train over all rounds, every device with (ε, δ) for each of its rows; inf is without noise.

    Returns:
        The parameters, z of a step, and 0: what noise does to a parameter is up to the optimiser.
    """
    bank = PublicBank.builtin(names)
    config = replace(setting.train, bank_digest=bank.digest)
    z = 0.0
    if math.isfinite(epsilon):
        z = multiplier_for(
            lambda z: [event(replace(config, noise_multiplier=z), setting.rounds)],
            epsilon=epsilon,
            delta=delta,
        )
    config = replace(config, noise_multiplier=z or _NO_NOISE)
    theta = initial_parameters(model, seed)
    for number in range(setting.rounds):
        deltas = [
            private_delta(
                theta,
                own,
                model=model,
                config=config,
                seed=round_seed(seed, number, str(device), "record"),
                bank=bank,
                secret=os.urandom,
                noise=_noise if z else _none,
            )
            for device, own in enumerate(rows)
        ]
        theta = (theta + np.mean(deltas, axis=0)).astype(np.float32)
    return theta, z, 0.0


def _noise(count: int, variance: float) -> NDArray[np.int32]:
    return sampler_for(DISCRETE_GAUSSIAN, variance).draw(count, os.urandom)


def _none(count: int, _variance: float) -> NDArray[np.int32]:
    return np.zeros(count, np.int32)
