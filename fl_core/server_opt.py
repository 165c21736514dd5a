"""The coordinator's step: the weighted mean of the updates moves the shared parameters.

Pure numpy: the same inputs give the same bytes, and a state is a dict of arrays that a checkpoint
can hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.errors import ModelError
from fl_core.parameters import checked_vector
from fl_core.settings import Settings, check_number

__all__ = [
    "SERVER_OPTIMISERS",
    "ServerOptConfig",
    "ServerState",
    "apply_mean",
    "weighted_mean",
    "within_ball",
]

SERVER_OPTIMISERS: Final = ("fedavg", "fedadam")


@dataclass(frozen=True, slots=True)
class ServerOptConfig(Settings):
    """How the mean update is applied."""

    kind: str = "fedavg"
    """`fedavg` adds the mean; `fedadam` scales each coordinate by its running moments."""

    learning_rate: float = 1.0
    """eta; 1 for plain FedAvg, about 0.003 for FedAdam, whose steps have unit size."""

    beta1: float = 0.9
    """Decay of the first moment (FedAdam)."""

    beta2: float = 0.99
    """Decay of the second moment (FedAdam)."""

    tau: float = 1e-3
    """Added to the root of the second moment (FedAdam): larger adapts less."""

    def __post_init__(self) -> None:
        own = "ServerOptConfig"
        if self.kind not in SERVER_OPTIMISERS:
            raise ModelError(
                f"{own}.kind is {self.kind!r}", hint=f"use one of {', '.join(SERVER_OPTIMISERS)}"
            )
        check_number(own, "learning_rate", self.learning_rate, low=1e-8, high=100.0)
        check_number(own, "beta1", self.beta1, low=0.0, high=0.999999)
        check_number(own, "beta2", self.beta2, low=0.0, high=0.999999)
        check_number(own, "tau", self.tau, low=1e-12, high=1.0)


@dataclass(frozen=True, slots=True, eq=False)
class ServerState:
    """What the optimiser remembers between rounds."""

    step: int
    """Means applied so far."""

    first: NDArray[np.float64]
    """First moment, shape (dim,); empty for FedAvg."""

    second: NDArray[np.float64]
    """Second moment, shape (dim,); empty for FedAvg."""

    @classmethod
    def start(cls, config: ServerOptConfig, dim: int) -> ServerState:
        """Return the state before the first round of a model with `dim` coordinates."""
        size = dim if config.kind == "fedadam" else 0
        return cls(0, np.zeros(size), np.zeros(size))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays, for a checkpoint (L-09)."""
        return {"step": np.array([self.step]), "first": self.first, "second": self.second}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> ServerState:
        """Make the state from `to_arrays` output.

        Raises:
            ModelError: an array is missing, too many, misshapen or not finite.
        """
        if set(arrays) != {"step", "first", "second"}:
            raise ModelError("a server state holds the arrays step, first and second")
        step, first, second = (np.asarray(arrays[k]) for k in ("step", "first", "second"))
        sound = step.shape == (1,) and step.dtype.kind in "iu" and step[0] >= 0
        sound &= (
            first.ndim == 1
            and first.shape == second.shape
            and {"f"}
            == {
                first.dtype.kind,
                second.dtype.kind,
            }
        )
        if not sound or not (np.isfinite(first).all() and np.isfinite(second).all()):
            raise ModelError("the server state is damaged", hint="take an earlier checkpoint")
        if (second < 0).any():
            raise ModelError("the server state has a negative second moment")
        return cls(int(step[0]), first.astype(np.float64), second.astype(np.float64))


def weighted_mean(total: ArrayLike, total_weight: float) -> NDArray[np.float64]:
    """Divide the opened sum by the opened weight: sum(w * delta) / sum(w).

    Args:
        total: sum of w * delta, shape (dim,).
        total_weight: sum of w, above 0.

    Raises:
        ModelError: the weight is not a positive number, or the sum is not finite.

    Source: seed 001 section 3, with the missing normaliser (specs/90-learning.md L-08).
    """
    values = np.asarray(total, dtype=np.float64)
    if not np.isfinite(total_weight) or total_weight <= 0:
        raise ModelError(f"the weights add up to {total_weight}", hint="need at least one node")
    if values.ndim != 1 or not np.isfinite(values).all():  # L-12
        raise ModelError("the sum of updates is not a vector of finite numbers")
    return values / total_weight


def within_ball(centroid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a mean of embeddings no longer than one of standardised embeddings can be.

    A node that gives a negative weight could make it as long as it likes, and nodes refuse a
    reference that is (H-16).
    """
    square = float(centroid @ centroid) / len(centroid)
    return centroid / np.sqrt(square) if square > 1 else centroid


def apply_mean(
    params: ArrayLike, mean_delta: ArrayLike, state: ServerState, config: ServerOptConfig
) -> tuple[NDArray[np.float32], ServerState]:
    """Move the parameters by one round's mean update.

    Args:
        params: Shape (dim,).
        mean_delta: Weighted mean of the updates, shape (dim,).
        state: From `ServerState.start` or the round before.
        config: Optimiser.

    Returns:
        New parameters, float32 (dim,), and the new state; the inputs are left as they are.

    Raises:
        ModelError: shapes differ, or a value is or becomes not finite.

    Source: McMahan et al. 2017 (FedAvg); Reddi et al. 2021, algorithm 2 (FedAdam), without bias
    correction, as there (L-09).
    """
    old = np.asarray(params)
    if old.ndim != 1:
        raise ModelError(f"the parameter vector has shape {old.shape}, not (dim,)")
    theta = checked_vector(old, len(old), "the parameter vector").astype(np.float64)
    delta = np.asarray(mean_delta, dtype=np.float64)
    if delta.shape != theta.shape or not np.isfinite(delta).all():
        raise ModelError("the mean update does not fit the parameters or is not finite")
    first, second = state.first, state.second
    if config.kind == "fedadam":
        if first.shape != theta.shape:
            raise ModelError("the server state does not fit the parameters", hint="start it anew")
        first = config.beta1 * first + (1.0 - config.beta1) * delta
        second = config.beta2 * second + (1.0 - config.beta2) * delta**2
        delta = first / (np.sqrt(second) + config.tau)
    moved = checked_vector(theta + config.learning_rate * delta, len(theta), "the new parameters")
    return moved, ServerState(state.step + 1, first, second)
