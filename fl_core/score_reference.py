"""What is kept of a device's benign scores, so that later scores can be compared with them.

Scores above the threshold are alerts, judged apart (`fl_core.drift`), so the reference is the
quiet part: the validation scores below the threshold. Given the threshold, they and the later
benign scores below it are draws from one distribution, which is what a two-sample test needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.errors import ModelError
from fl_core.scoring import ROUNDING

__all__ = ["MAX_LEVELS", "MIN_SCORES", "ScoreReference", "correlation_length"]

MAX_LEVELS: Final = 256
"""Most points of the distribution function that are kept: 4 KB a head. Between neighbours lie
0.4 % of the scores, far less than any test on some thousand scores can tell."""

MIN_SCORES: Final = 50
"""Fewest validation scores that a reference is made of."""


def correlation_length(values: ArrayLike) -> float:
    """Return how many consecutive values are worth one independent one, at least 1.

    1 + 2 (r_1 + r_2 + …), r_k the autocorrelation of the ranks at lag k, summed up to the first
    that is not positive. Rows of traffic that follow one another are alike, often over tens of
    rows, and a test that takes them for independent would see drift everywhere.

    Args:
        values: In the order in which they came, shape (n,), finite; equal values share a rank.

    Returns:
        At least 1, at most n; 1 where nothing varies.

    Source: the initial positive sequence of Geyer 1992, cut at single lags.
    """
    x = np.asarray(values, dtype=np.float64)
    ordered = np.sort(x)
    ranks = np.searchsorted(ordered, x, "left") + np.searchsorted(ordered, x, "right")
    centred = ranks - ranks.mean() if len(x) else ranks.astype(np.float64)
    variance = float(centred @ centred)
    if variance == 0.0:
        return 1.0
    padded = 1 << (2 * len(x) - 1).bit_length()  # room for every lag without wrapping round
    spectrum = np.fft.rfft(centred, padded)
    lags = np.fft.irfft(np.square(np.abs(spectrum)), padded)[1 : len(x)] / variance
    ends = np.flatnonzero(lags <= 0.0)
    positive = lags[: ends[0]] if len(ends) else lags
    return float(min(1.0 + 2.0 * positive.sum(), len(x)))


@dataclass(frozen=True, slots=True, eq=False)
class ScoreReference:
    """The distribution function of a device's quiet validation scores, at some points."""

    levels: NDArray[np.float64] = field(repr=False)
    """Shape (r,), 1 to `MAX_LEVELS` scores, strictly ascending."""

    shares: NDArray[np.float64] = field(repr=False)
    """Shape (r,): part of the quiet scores that is at most the level, ascending in (0, 1]."""

    count: int
    """Quiet scores behind it."""

    correlation: float
    """How many of them are worth one independent score; from their order, at least 1."""

    def __post_init__(self) -> None:
        arrays = (self.levels, self.shares)
        if any(a.ndim != 1 or not 1 <= len(a) <= MAX_LEVELS for a in arrays) or (
            len(self.levels) != len(self.shares)
        ):
            raise ModelError(f"reference scores need 1 to {MAX_LEVELS} levels, each with its share")
        if not all(np.isfinite(a).all() and (np.diff(a) > 0.0).all() for a in arrays):
            raise ModelError("reference scores do not ascend, or hold a NaN or an infinity")
        if self.shares[0] <= 0.0 or self.shares[-1] > 1.0:
            raise ModelError("reference scores have a share out of range")
        if self.count < 1 or not 1.0 <= self.correlation <= self.count:
            raise ModelError(
                f"reference scores claim {self.count} scores, alike over {self.correlation}"
            )

    @classmethod
    def fit(cls, scores: ArrayLike, threshold: float) -> ScoreReference | None:
        """Keep what is needed of validation scores in the order of their rows, shape (n,).

        Returns:
            The reference; None below `MIN_SCORES` scores, or where none is below the threshold.

        Source: specs/90-learning.md L-64.
        """
        values = np.asarray(scores, dtype=np.float64)
        quiet = values[values < threshold]
        if len(values) < MIN_SCORES or len(quiet) == 0:
            return None
        ordered = np.sort(quiet)
        at = np.linspace(0, len(ordered) - 1, min(len(ordered), MAX_LEVELS)).round().astype(np.intp)
        levels = np.unique(ordered[at])
        shares = np.searchsorted(ordered, levels, "right") / len(ordered)
        return cls(levels, shares, len(quiet), correlation_length(quiet))

    @property
    def effective(self) -> float:
        """Independent scores that the reference is worth, at least 1."""
        return self.count / self.correlation

    def distance(self, scores: ArrayLike) -> float:
        """Return the largest difference of two distribution functions at the levels, in [0, 1].

        At most the Kolmogorov-Smirnov statistic of all scores, because only some points are
        looked at: a test by it errs on the quiet side. A score that is above a level by no more
        than `ROUNDING` of it is at the level: those of rows that repeat are now and then.

        Args:
            scores: Scores to compare, shape (w,), w >= 1.
        """
        levels = self.levels * (1.0 + ROUNDING)  # L-66
        found = np.searchsorted(np.sort(scores), levels, "right") / len(np.asarray(scores))
        return float(np.abs(found - self.shares).max())

    def limit(self, effective: float, alpha: float) -> float:
        """Return the distance that two samples of one distribution exceed with probability alpha.

        Args:
            effective: Independent scores that the other sample is worth.
            alpha: In (0, 1).

        Source: sqrt(ln(2/alpha)/2 · (1/n + 1/m)), Smirnov 1939: the first term of the limit law,
            which is above it. Checked by simulation in the tests.
        """
        return math.sqrt(math.log(2.0 / alpha) / 2.0 * (1.0 / self.effective + 1.0 / effective))
