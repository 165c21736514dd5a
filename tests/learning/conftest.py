"""Small rows with structure: a few hidden causes, many columns, some constant, some huge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_core.config import ModelConfig, TrainConfig

WIDTH = 20
NAMES = tuple(f"f{i}" for i in range(WIDTH))


@dataclass(frozen=True)
class Rows:
    device: str
    feature_names: tuple[str, ...]
    train: NDArray[np.float64]
    validation: NDArray[np.float64]
    test_benign: NDArray[np.float64]
    test_attack: NDArray[np.float64]


def make_rows(index: int, n: int = 300) -> Rows:
    """Benign rows on a three-dimensional sheet; attacks leave it, each column staying usual."""
    shared = np.random.default_rng(99).normal(size=(3, WIDTH))
    rng = np.random.default_rng(index)
    offset = rng.normal(size=WIDTH)

    def benign(count: int) -> NDArray[np.float64]:
        logs = rng.normal(size=(count, 3)) @ shared + offset + 0.1 * rng.normal(size=(count, WIDTH))
        rows = np.sign(logs) * np.expm1(np.abs(logs))
        rows[:, 0] = 7.0  # a column that never changes
        rows[:, 1] *= 1e15
        return rows

    attack = benign(n)
    for column in range(2, WIDTH):
        attack[:, column] = rng.permutation(attack[:, column])
    return Rows(f"dev{index}", NAMES, benign(n), benign(120), benign(n), attack)


@pytest.fixture(scope="session")
def devices() -> list[Rows]:
    return [make_rows(i) for i in range(3)]


@pytest.fixture(scope="session")
def model() -> ModelConfig:
    return ModelConfig(input_dim=WIDTH, hidden=(32,), embedding_dim=8)


@pytest.fixture(scope="session")
def config() -> TrainConfig:
    return TrainConfig(steps=15, batch_size=64)
