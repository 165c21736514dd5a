"""From embeddings to anomaly scores, and from benign scores to a threshold.

The score is the Mahalanobis length of a row's embedding under the mean and covariance of the
node's own benign rows: summary statistics only, no row is kept. Numpy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.errors import ModelError

__all__ = ["SHRINKAGE", "EmbeddingStatistics", "benign_threshold"]

SHRINKAGE: Final = 0.01
"""Share of the mean variance that is added to every variance of the covariance: keeps it
invertible for any number of rows and damps directions that the benign rows hardly use."""

_TINY: Final = 1e-12
"""Least variance added, for embeddings that do not vary at all."""


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingStatistics:
    """Where a node's benign embeddings lie, and how they spread."""

    mean: NDArray[np.float64]
    """Shape (k,)."""

    whitening: NDArray[np.float64]
    """Shape (k, k), lower triangular W with W W^T the inverse of the shrunk covariance."""

    def __post_init__(self) -> None:
        k = len(self.mean) if self.mean.ndim == 1 else -1
        if self.whitening.shape != (k, k):
            raise ModelError("embedding statistics need a (k,) mean and a (k, k) whitening")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.whitening).all()):
            raise ModelError("embedding statistics hold a NaN or an infinity")

    @classmethod
    def fit(cls, embeddings: ArrayLike) -> EmbeddingStatistics:
        """Fit to benign embeddings of shape (n, k), n >= 1.

        Raises:
            ModelError: no embeddings, or values that are not finite.
        """
        z = np.asarray(embeddings, dtype=np.float64)
        if z.ndim != 2 or len(z) == 0 or not np.isfinite(z).all():
            raise ModelError("need at least one embedding, all finite")
        mean = z.mean(axis=0)
        centred = z - mean
        covariance = centred.T @ centred / len(z)
        ridge = SHRINKAGE * float(np.trace(covariance)) / len(covariance) + _TINY
        precision = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))
        whitening = np.linalg.cholesky((precision + precision.T) / 2.0)
        return cls(mean, whitening.astype(np.float64, copy=False))

    def distance(self, embeddings: ArrayLike) -> NDArray[np.float64]:
        """Score embeddings of shape (n, k).

        Returns:
            Shape (n,): sqrt((z - m)^T C^-1 (z - m) / k), 0 or more, about 1 for a benign row.
        """
        whitened = (np.asarray(embeddings, dtype=np.float64) - self.mean) @ self.whitening
        return np.asarray(np.sqrt(np.square(whitened).mean(axis=1)))


def benign_threshold(scores: ArrayLike, max_fpr: float) -> float:
    """Return the threshold that a benign row exceeds with probability at most `max_fpr`.

    The k-th smallest of n validation scores with k = ceil((n + 1)(1 - max_fpr)), which a further
    exchangeable benign score exceeds with probability at most 1 - k/(n+1) <= max_fpr. With too few
    rows for that (k > n, that is n < 1/max_fpr - 1) it is the largest score, exceeded with
    probability at most 1/(n+1): the most that n rows can promise.

    Args:
        scores: Scores of benign rows that trained neither encoder nor statistics, shape (n,).
        max_fpr: In (0, 1).

    Raises:
        ModelError: no scores, a score that is not finite, or `max_fpr` out of range.

    Source: split conformal prediction, Vovk et al. 2005; specs/90-learning.md L-13.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    if not 0.0 < max_fpr < 1.0:
        raise ModelError(f"max_fpr is {max_fpr}", hint="use a number between 0 and 1, such as 0.01")
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ModelError("a threshold needs at least one validation score, all finite")
    rank = math.ceil((len(values) + 1) * (1.0 - max_fpr) - 1e-9)  # 1e-9: 100 * 0.99 is 99, not 100
    return float(values[min(rank, len(values)) - 1])
