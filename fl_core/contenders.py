"""What stands in the table of detection quality: every method by the same two questions.

A contender is trained on the benign rows of some devices. Then it gives a score function for each
of them, and one for a device that it has not seen, from a few benign rows of that device: those
that a site needs anyway to set a threshold.

Source: specs/90-learning.md section 12 (L-70).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.baselines import ScoreFunction
from fl_core.scoring import benign_threshold

__all__ = ["Contender", "Fitted", "Rows", "training_rows"]

Rows = Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Benign training and validation rows of each device, raw."""


@dataclass(frozen=True)
class Fitted:
    """A trained contender."""

    known: Callable[[int], ScoreFunction]
    """Index of a training device to its score function."""

    calibration: Callable[[int], NDArray[np.float64]] | None
    """Index of a training device to scores of its training rows by what had not seen them; None
    where they are too slow to make."""

    unseen: Callable[[ArrayLike], ScoreFunction]
    """Some benign rows of another device to its score function."""

    traffic: float | None = None
    """Bytes that a node sends a round; None for what sends nothing."""

    embed: Callable[[int, ArrayLike], NDArray[np.float64]] | None = None
    """Index of a training device and raw rows of it to their standardised embeddings."""

    def threshold(self, index: int, validation: ArrayLike, max_fpr: float) -> float:
        """Return a training device's threshold, from its benign rows (L-13, L-19, L-71)."""
        scores = self.known(index)(validation)
        if self.calibration is not None:
            scores = np.concatenate((self.calibration(index), scores))
        return benign_threshold(scores, max_fpr)


@dataclass(frozen=True)
class Contender:
    """A method of the table."""

    name: str
    fit: Callable[[Rows, int], Fitted]
    """Rows of the devices and a seed to what was trained on them."""
    least: int = 1
    """Devices that it takes to train it."""


def training_rows(rows: Rows) -> list[NDArray[np.float64]]:
    """Return each device's training rows."""
    return [train for train, _ in rows]
