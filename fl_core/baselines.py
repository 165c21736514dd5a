"""What a federated detector has to beat: its encoder alone or untrained, and no encoder at all.

Each baseline sees one device's benign rows and nothing else; `pooled` gives it those of all devices
and shows what raw rows in one place would give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.config import ModelConfig, TrainConfig
from fl_core.errors import DataError
from fl_core.normalise import Normaliser
from fl_core.training import train_local

__all__ = [
    "ScoreFunction",
    "isolation_forest_score",
    "knn_score",
    "pca_score",
    "pooled",
    "random_score",
    "train_alone",
]

ScoreFunction = Callable[[ArrayLike], NDArray[np.float64]]
"""Raw rows (n, d) to scores (n,); higher is more anomalous."""

PCA_COMPONENTS: Final = 20
"""Directions that PCA keeps, but at most half of the columns."""

NEIGHBOURS: Final = 5
"""Neighbours whose mean distance is the kNN score."""

TREES: Final = 100
"""Trees of an isolation forest."""


def train_alone(
    params: ArrayLike,
    train: ArrayLike,
    validation: ArrayLike,
    *,
    model: ModelConfig,
    config: TrainConfig,
    seeds: list[int],
) -> NDArray[np.float32]:
    """Train as many rounds as there are seeds on one node's rows, its own centroid as reference.

    The same first parameters, steps and objective as in a federation of this one node.

    Args:
        params: Parameters before the first round, shape (dim,).
        train: Benign rows, raw.
        validation: Other benign rows, raw.
        model: Architecture.
        config: Training settings of a round.
        seeds: One a round.

    Returns:
        Parameters after the last round, shape (dim,).

    Raises:
        DataError, ModelError: as `train_local`.
    """
    theta = np.asarray(params, dtype=np.float32)
    reference = np.zeros(model.embedding_dim, np.float32)
    for seed in seeds:
        update = train_local(
            theta, reference, train, validation, model=model, config=config, seed=seed
        )
        theta, reference = theta + update.delta, update.centroid
    return theta


def pca_score(train: ArrayLike) -> ScoreFunction:
    """Return the mean squared reconstruction error of PCA on normalised rows."""
    from sklearn.decomposition import PCA  # on use: see fl_core.metrics

    normaliser = Normaliser.fit(train)
    rows = normaliser.apply(train).astype(np.float64)
    kept = max(1, min(PCA_COMPONENTS, len(rows), rows.shape[1] // 2))
    pca = PCA(kept, svd_solver="full").fit(rows)

    def score(values: ArrayLike) -> NDArray[np.float64]:
        x = normaliser.apply(values).astype(np.float64)
        return np.asarray(np.square(x - pca.inverse_transform(pca.transform(x))).mean(axis=1))

    return score


def knn_score(train: ArrayLike) -> ScoreFunction:
    """Return the mean distance to the nearest training rows, on normalised rows."""
    from sklearn.neighbors import NearestNeighbors  # on use: see fl_core.metrics

    normaliser = Normaliser.fit(train)
    rows = normaliser.apply(train)
    index = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(rows))).fit(rows)

    def score(values: ArrayLike) -> NDArray[np.float64]:
        distances, _ = index.kneighbors(normaliser.apply(values))
        return np.asarray(distances.mean(axis=1), dtype=np.float64)

    return score


def isolation_forest_score(train: ArrayLike, *, seed: int = 0) -> ScoreFunction:
    """Return how early random splits part a normalised row from the training rows, in (0, 1].

    Source: Liu, Ting and Zhou 2008, with 100 trees of 256 rows, as in the paper.
    """
    from sklearn.ensemble import IsolationForest  # on use: see fl_core.metrics

    normaliser = Normaliser.fit(train)
    forest = IsolationForest(n_estimators=TREES, random_state=seed).fit(normaliser.apply(train))

    def score(values: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(-forest.score_samples(normaliser.apply(values)), dtype=np.float64)

    return score


def random_score(seed: int | Sequence[int]) -> ScoreFunction:
    """Return scores that know nothing: uniform on [0, 1), new ones at every call.

    Args:
        seed: Non-negative numbers; each sequence of them is a stream of its own.
    """
    rng = np.random.default_rng(seed)

    def score(values: ArrayLike) -> NDArray[np.float64]:
        return rng.random(len(np.asarray(values)))

    return score


def pooled(
    baseline: Callable[[ArrayLike], ScoreFunction], trains: Sequence[ArrayLike]
) -> ScoreFunction:
    """Return a baseline over the rows of all devices, normalised together.

    Args:
        baseline: Such as `knn_score` or `pca_score`.
        trains: The benign rows of each device, raw, shapes (n, d).

    Raises:
        DataError: there are no devices, or their widths differ.
    """
    tables = [np.asarray(rows) for rows in trains]
    if len({table.shape[1:] for table in tables}) != 1:
        raise DataError(
            f"cannot pool the rows of {len(tables)} devices",
            hint="give at least one device, and all of them with the same columns",
        )
    return baseline(np.concatenate(tables))
