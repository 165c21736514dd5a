"""What a detector of series has to beat, window by window: PCA, an isolation forest, and chance.

Each baseline sees the training windows of one place and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.baselines import ScoreFunction, pca_score
from fl_core.normalise import Normaliser

__all__ = ["BASELINES", "forest_score", "random_score"]

TREES: Final = 100
"""Trees of the isolation forest, each on at most 256 windows: as in its paper."""


def random_score(train: ArrayLike, *, seed: int = 0) -> ScoreFunction:
    """Return scores that know nothing: uniform on [0, 1), drawn anew at every call.

    A measure that is kind to it is kind to anything.
    """
    del train  # chance has nothing to learn
    rng = np.random.default_rng(seed)

    def score(values: ArrayLike) -> NDArray[np.float64]:
        return rng.random(len(np.asarray(values)))

    return score


def forest_score(train: ArrayLike, *, seed: int = 0) -> ScoreFunction:
    """Return the anomaly score of an isolation forest on normalised windows, in (0, 1).

    Args:
        train: Normal windows, shape (n, length * C), raw.
        seed: Of the trees.

    Raises:
        DataError: No windows, or values that are not finite.

    Source: Liu, Ting and Zhou 2008, "Isolation Forest".
    """
    from sklearn.ensemble import IsolationForest  # on use: see fl_core.metrics

    normaliser = Normaliser.fit(train)
    forest = IsolationForest(n_estimators=TREES, random_state=seed).fit(normaliser.apply(train))

    def score(values: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(-forest.score_samples(normaliser.apply(values)), dtype=np.float64)

    return score


def _pca(train: ArrayLike, *, seed: int = 0) -> ScoreFunction:
    del seed  # nothing is drawn
    return pca_score(train)


BASELINES: Final[dict[str, Callable[..., ScoreFunction]]] = {
    "random": random_score,
    "pca": _pca,
    "forest": forest_score,
}
"""Name to what makes a score function of training windows and, by keyword, a seed."""
