"""The deep autoencoder of Meidan et al. 2018, alone on a device, on pooled rows, and federated.

The paper that the real rows come from trains one autoencoder a device on its benign rows and calls
a row anomalous whose reconstruction error is large. It leaves the activation and the scaling of the
rows open: here the hidden layers have tanh and the output none, and rows are normalised as for
every other method of the table (signed logarithm, mean 0, variance 1, cut at ±20), by each device's
own training rows, or by the pooled rows where rows are pooled.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from fl_core.baselines import ScoreFunction, pooled
from fl_core.errors import DataError, ModelError
from fl_core.evaluation import round_seed
from fl_core.normalise import Normaliser
from fl_core.optimisers import Adam
from fl_core.parameters import ParamSpec, draw_parameters
from fl_core.settings import Settings, check_integer, check_number

__all__ = [
    "Autoencoder",
    "AutoencoderConfig",
    "central_autoencoder",
    "federated_autoencoder",
    "local_autoencoder",
]

_PER_CENT: Final = (75, 50, 33, 25)
"""Widths of the encoding layers in per cent of the input; decoding goes back up."""

_CHUNK: Final = 8192  # rows scored at once


@dataclass(frozen=True, slots=True)
class AutoencoderConfig(Settings):
    """How the autoencoder is trained, with Adam on the mean squared error."""

    rounds: int = 6
    """Rounds of the federation; alone they only multiply the steps, and Adam starts afresh."""

    steps: int = 60
    """Optimiser steps of one device in one round."""

    batch_size: int = 128
    """Rows a step, drawn with replacement."""

    learning_rate: float = 1e-3
    """Of Adam."""

    def __post_init__(self) -> None:
        own = "AutoencoderConfig"
        check_integer(own, "rounds", self.rounds, low=1, high=100_000)
        check_integer(own, "steps", self.steps, low=1, high=100_000)
        check_integer(own, "batch_size", self.batch_size, low=1, high=4_096)
        check_number(own, "learning_rate", self.learning_rate, low=1e-8, high=10.0)


def _widths(dim: int) -> list[int]:
    down = [max(1, dim * share // 100) for share in _PER_CENT]
    return [dim, *down, *reversed(down[:-1]), dim]


class Autoencoder(nn.Module):
    """Layers of 75, 50, 33, 25, 33, 50, 75 and 100 % of the input.

    Source: Meidan et al. 2018, "N-BaIoT"; specs/90-learning.md L-55.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(before, after) for before, after in itertools.pairwise(_widths(dim))
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Reconstruct normalised rows, shape (B, d)."""
        h = rows
        for layer in self.layers[:-1]:
            h = torch.tanh(layer(h))  # (B, before) -> (B, after)
        out: Tensor = self.layers[-1](h)
        return out


def local_autoencoder(
    train: ArrayLike, *, config: AutoencoderConfig, seed: int, rounds: int | None = None
) -> ScoreFunction:
    """Train on the rows of one device alone.

    Args:
        train: Benign rows, raw, shape (n, d).
        config: Training.
        seed: Of the first parameters and of the batches; non-negative.
        rounds: Other than those of `config`.

    Returns:
        The root mean squared error of the reconstruction of normalised rows.

    Raises:
        DataError: no rows, or a value that is not finite.
        ModelError: training went astray.
    """
    normaliser = Normaliser.fit(train)
    rows = torch.from_numpy(normaliser.apply(train))
    theta = _first(rows.shape[1], seed)
    for number in range(rounds or config.rounds):
        theta = _trained(theta, rows, config, round_seed(seed, number, "", "autoencoder"))
    return _score(theta, normaliser)


def central_autoencoder(
    trains: Sequence[ArrayLike], *, config: AutoencoderConfig, seed: int
) -> ScoreFunction:
    """Train on the pooled rows of all devices, in as many steps as all devices take together.

    Args, returns and errors: as `local_autoencoder`, with the rows of every device.
    """
    rounds = config.rounds * len(trains)

    def alone(rows: ArrayLike) -> ScoreFunction:
        return local_autoencoder(rows, config=config, seed=seed, rounds=rounds)

    return pooled(alone, trains)


def federated_autoencoder(
    trains: Sequence[ArrayLike], *, config: AutoencoderConfig, seed: int
) -> Callable[[ArrayLike], ScoreFunction]:
    """Train by FedAvg: in every round each device trains the shared parameters, then their mean.

    Every device counts once, as the devices of a secure sum that hides their sizes.

    Args:
        trains: The benign rows of each device, raw.
        config: Training.
        seed: Run seed, non-negative.

    Returns:
        Benign rows of a device, one of these or another, to the score of the shared autoencoder
        under the normalisation of those rows.

    Raises:
        DataError: no devices or rows, or a value that is not finite.
        ModelError: training went astray.

    Source: McMahan et al. 2017.
    """
    if not trains:
        raise DataError("there are no devices to train", hint="give the rows of at least one")
    own = [torch.from_numpy(Normaliser.fit(rows).apply(rows)) for rows in trains]
    theta = _first(own[0].shape[1], seed)
    for number in range(config.rounds):
        after = [
            _trained(theta, rows, config, round_seed(seed, number, str(i), "autoencoder"))
            for i, rows in enumerate(own)
        ]
        theta = np.asarray(np.mean(after, axis=0, dtype=np.float64), dtype=np.float32)
    return lambda rows: _score(theta, Normaliser.fit(rows))


def _layout(dim: int) -> ParamSpec:
    shapes: list[tuple[str, tuple[int, ...]]] = []
    for i, (before, after) in enumerate(itertools.pairwise(_widths(dim))):
        shapes += [(f"layers.{i}.weight", (after, before)), (f"layers.{i}.bias", (after,))]
    return ParamSpec.of("autoencoder", tuple(shapes))


def _first(dim: int, seed: int) -> NDArray[np.float32]:
    return draw_parameters(_layout(dim).shapes, seed)


def _built(theta: NDArray[np.float32], dim: int) -> Autoencoder:
    return _layout(dim).build(lambda: Autoencoder(dim), theta)


def _trained(
    theta: NDArray[np.float32], rows: Tensor, config: AutoencoderConfig, seed: int
) -> NDArray[np.float32]:
    """Return the parameters after one round of steps on normalised rows."""
    network = _built(theta, rows.shape[1])
    generator = torch.Generator().manual_seed(seed)
    optimiser = Adam(network.parameters(), config.learning_rate)
    for _ in range(config.steps):
        batch = rows[torch.randint(len(rows), (config.batch_size,), generator=generator)]
        loss = (network(batch) - batch).square().mean()
        optimiser.clear()
        loss.backward()
        optimiser.step()
    after = _layout(rows.shape[1]).flatten(network)
    if not np.isfinite(after).all():
        raise ModelError(
            "training gave a parameter that is not finite",
            hint="lower AutoencoderConfig.learning_rate",
        )
    return after


def _score(theta: NDArray[np.float32], normaliser: Normaliser) -> ScoreFunction:
    network = _built(theta, len(normaliser.location))

    def score(values: ArrayLike) -> NDArray[np.float64]:
        rows = normaliser.apply(values)
        errors = [np.empty(0)]
        with torch.inference_mode():
            for start in range(0, len(rows), _CHUNK):
                batch = torch.from_numpy(rows[start : start + _CHUNK])
                square = (network(batch) - batch).double().square().mean(dim=1)
                errors.append(square.sqrt().numpy())
        return np.concatenate(errors)

    return score
