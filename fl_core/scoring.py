"""From embeddings to anomaly scores, and from benign scores to a threshold.

The score is the Mahalanobis length of a row's embedding under the mean and covariance of the
node's own benign rows: summary statistics only, no row is kept. An embedding is looked at twice, as
it is and standardised, because attacks show in either: floods in its length, which the contrast
leaves free, and unusual mixtures in its direction, which the contrast has learned. Where an
embedding has parts of different meaning, each has statistics of its own, and a geometric mean joins
their lengths. Numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.errors import ModelError

__all__ = [
    "EPSILON",
    "JOINT_FLOOR",
    "LEAST_THRESHOLD",
    "ROUNDING",
    "SERIES_SHRINKAGE",
    "SHRINKAGE",
    "EmbeddingStatistics",
    "HeadStatistics",
    "benign_threshold",
    "standardised",
    "threshold_rank",
]

EPSILON: Final = 1e-5
"""Added to the variance in `standardised`, so that a constant embedding gives zeros."""

SHRINKAGE: Final = 0.01
"""Share of the mean variance that is added to every variance of the covariance: keeps it
invertible for any number of rows and damps directions that the benign rows hardly use."""

SERIES_SHRINKAGE: Final = 0.1
"""The same for windows of a series: neighbours share their steps, so they are worth fewer rows."""

JOINT_FLOOR: Final = 0.1
"""Added to the squared length of every part before the parts are joined: one that is unusually near
its mean must not hide another that is far from it."""

LEAST_THRESHOLD: Final = 1e-3
"""No head's threshold is lower: below it lies how an encoder rounds, which depends on how many rows
it is given at once."""

ROUNDING: Final = 1e-5
"""Share of itself that a threshold is raised by: a device whose rows repeat has the same score
again and again, and how an encoder rounds must not decide whether it is an alert."""

_LEAST_RIDGE: Final = 1e-6
"""Least variance added, for embeddings that hardly vary: far above the square of float32's
rounding."""

_TINY: Final = 1e-9
"""Least spread of embeddings that do not vary at all; added to every variance."""


def standardised(embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return z~ = (z - mu) / sigma with mu, sigma over the k coordinates of each row.

    The same as `fl_core.encoders.standardise`, in numpy.

    Args:
        embeddings: Shape (n, k).
    """
    centred = embeddings - embeddings.mean(axis=1, keepdims=True)
    scale = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + EPSILON)
    return np.asarray(centred / scale)


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingStatistics:
    """Where a node's benign embeddings lie, and how they spread."""

    spread: float
    """Standard deviation of all coordinates together, above 0: brings z to the scale of z~."""

    mean: NDArray[np.float64]
    """Shape (2k,): mean of (z / spread, z~)."""

    whitening: NDArray[np.float64]
    """Shape (2k, 2k), lower triangular W with W W^T the inverse of the shrunk covariance."""

    def __post_init__(self) -> None:
        width = len(self.mean) if self.mean.ndim == 1 else -1
        if width % 2 or self.whitening.shape != (width, width):
            raise ModelError("embedding statistics need a (2k,) mean and a (2k, 2k) whitening")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.whitening).all()):
            raise ModelError("embedding statistics hold a NaN or an infinity")
        if not (math.isfinite(self.spread) and self.spread >= _TINY):
            raise ModelError(f"embedding statistics have the spread {self.spread}")

    @classmethod
    def fit(cls, embeddings: ArrayLike, *, window: int = 1) -> EmbeddingStatistics:
        """Fit to benign embeddings of shape (n, k), n >= 1.

        Args:
            embeddings: Of rows, in any order.
            window: Time steps in a row, above 1 where rows are windows of a series.

        Raises:
            ModelError: no embeddings, or values that are not finite.
        """
        z = np.asarray(embeddings, dtype=np.float64)
        if z.ndim != 2 or len(z) == 0 or not np.isfinite(z).all():
            raise ModelError("need at least one embedding, all finite")
        spread = max(float(z.std()), _TINY)
        both = np.concatenate((z / spread, standardised(z)), axis=1)
        mean = both.mean(axis=0)
        centred = both - mean
        covariance = centred.T @ centred / len(z)
        shrinkage = SERIES_SHRINKAGE if window > 1 else SHRINKAGE
        ridge = max(shrinkage * float(np.trace(covariance)) / len(covariance), _LEAST_RIDGE) + _TINY
        precision = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))
        whitening = np.linalg.cholesky((precision + precision.T) / 2.0)
        return cls(spread, mean, whitening.astype(np.float64, copy=False))

    def distance(self, embeddings: ArrayLike) -> NDArray[np.float64]:
        """Score embeddings of shape (n, k).

        Returns:
            Shape (n,): sqrt((u - m)^T C^-1 (u - m) / 2k) with u = (z / spread, z~); 0 or more,
            below about 1 for most benign rows.
        """
        z = np.asarray(embeddings, dtype=np.float64)
        both = np.concatenate((z / self.spread, standardised(z)), axis=1)
        return np.asarray(np.sqrt(np.square((both - self.mean) @ self.whitening).mean(axis=1)))


@dataclass(frozen=True, slots=True, eq=False)
class HeadStatistics:
    """Statistics of each part of an embedding, and one score of all parts."""

    parts: tuple[EmbeddingStatistics, ...]
    """One or more, in the order of the coordinates."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise ModelError("a head needs the statistics of at least one part")

    @property
    def widths(self) -> tuple[int, ...]:
        """Coordinates of each part; their sum is k."""
        return tuple(len(part.mean) // 2 for part in self.parts)

    @classmethod
    def fit(
        cls, embeddings: ArrayLike, widths: Sequence[int], *, window: int = 1
    ) -> HeadStatistics:
        """Fit each part to benign embeddings of shape (n, k), n >= 1.

        Args:
            embeddings: Of rows, in any order.
            widths: Coordinates of each part, k in all.
            window: As of `EmbeddingStatistics.fit`.

        Raises:
            ModelError: no embeddings, values that are not finite, or other than k coordinates.
        """
        parts = _parted(np.asarray(embeddings, dtype=np.float64), widths)
        return cls(tuple(EmbeddingStatistics.fit(part, window=window) for part in parts))

    def distance(self, embeddings: ArrayLike) -> NDArray[np.float64]:
        """Score embeddings of shape (n, k).

        Returns:
            Shape (n,): of one part its length, of several the geometric mean of
            sqrt(length^2 + `JOINT_FLOOR`); 0 or more, about 1 for a benign row.

        Source: specs/90-learning.md L-10.
        """
        each = _parted(np.asarray(embeddings, dtype=np.float64), self.widths)
        pairs = zip(self.parts, each, strict=True)
        lengths = np.stack([part.distance(z) for part, z in pairs])  # L-10, (p, n)
        if len(lengths) == 1:
            return np.asarray(lengths[0])
        logarithms = np.log(np.square(lengths) + JOINT_FLOOR)
        return np.asarray(np.exp(0.5 * logarithms.mean(axis=0)))


def _parted(z: NDArray[np.float64], widths: Sequence[int]) -> list[NDArray[np.float64]]:
    if z.ndim != 2 or z.shape[1] != sum(widths):
        raise ModelError(f"embeddings of shape {z.shape} for parts of {tuple(widths)} coordinates")
    return np.split(z, np.cumsum(widths)[:-1], axis=1)


def benign_threshold(scores: ArrayLike, max_fpr: float) -> float:
    """Return the threshold that a benign row exceeds with probability at most `max_fpr`.

    The k-th smallest of n benign scores, raised by `ROUNDING` of itself, with
    k = ceil((n + 1)(1 - max_fpr)), which a further exchangeable benign score exceeds with
    probability at most 1 - k/(n+1) <= max_fpr. With too few
    rows for that (k > n, that is n < 1/max_fpr - 1) it is the largest score, exceeded with
    probability at most 1/(n+1): the most that n rows can promise.

    Args:
        scores: Scores of benign rows, each by statistics that had not seen it, shape (n,).
        max_fpr: In (0, 1).

    Raises:
        ModelError: no scores, a score that is not finite, or `max_fpr` out of range.

    Source: split conformal prediction, Vovk et al. 2005; specs/90-learning.md L-13.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    if not 0.0 < max_fpr < 1.0:
        raise ModelError(f"max_fpr is {max_fpr}", hint="use a number between 0 and 1, such as 0.01")
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ModelError("a threshold needs at least one benign score, all finite")
    found = float(values[threshold_rank(len(values), max_fpr) - 1])
    return found + ROUNDING * abs(found)


def threshold_rank(count: int, max_fpr: float) -> int:
    """Return which of `count` >= 1 ascending benign scores is the threshold, from 1."""
    rank = math.ceil((count + 1) * (1.0 - max_fpr) - 1e-9)  # 1e-9: 100 * 0.99 is 99, not 100
    return max(1, min(rank, count))
