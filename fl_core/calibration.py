"""Scores of benign rows by what has not seen them: what a threshold is set on.

A few held-out rows place a threshold badly: of 100, one odd row decides. So training rows are
scored too, each by a head that was fitted to the other four fifths of them. It errs on the quiet
side: the heads of the folds know less, and score benign rows higher, than the one that is used.

Source: specs/90-learning.md L-13; Vovk 2015 (cross-conformal prediction).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["FOLDS", "cross_scores", "cross_scores_together"]

FOLDS: Final = 5
"""Parts that the rows are cut into, in their order: rows that follow one another are alike, and
stay together."""

Matrix = NDArray[np.float64]
_Score = Callable[[Matrix], NDArray[np.float64]]


def cross_scores(
    fit: Callable[[Matrix], _Score], rows: Matrix, *, folds: int = FOLDS, gap: int = 0
) -> NDArray[np.float64]:
    """Score each row by what was fitted to the rows of the other folds.

    Args:
        fit: Rows (m, d) to a score function of rows (k, d).
        rows: Shape (n, d), in time order where there is one, n >= 2.
        folds: Parts, at least 2; no more are made than there are rows.
        gap: Rows on either side of a fold that are not fitted to either: W - 1 for windows of W
            time steps, which share steps with so many neighbours.

    Returns:
        Shape (n,), in the order of the rows; (m,) with m < n where some folds leave one row to fit
        to, or the gap leaves less than half of them: the rows of these folds are not scored.
    """
    return cross_scores_together(lambda some: fit(some[0]), [rows], folds=folds, gap=gap)[0]


def cross_scores_together(
    fit: Callable[[Sequence[Matrix]], _Score],
    tables: Sequence[Matrix],
    *,
    folds: int = FOLDS,
    gap: int = 0,
) -> list[NDArray[np.float64]]:
    """Score each row of several devices by what was fitted to all devices' other folds.

    Args:
        fit: One table (m_i, d) a device to a score function of rows (k, d).
        tables: The devices' rows, shapes (n_i, d), n_i >= 2.
        folds: Parts of each table, at least 2; no more are made than the shortest has rows.
        gap: As of `cross_scores`, in each table.

    Returns:
        One array a device, as by `cross_scores`.
    """
    count = min([folds, *map(len, tables)])
    parts = [np.array_split(np.arange(len(table)), count) for table in tables]
    found: list[list[NDArray[np.float64]]] = [[] for _ in tables]
    for fold in range(count):
        own = [part[fold] for part in parts]
        rest = [_beyond(table, part, gap) for table, part in zip(tables, own, strict=True)]
        pairs = zip(rest, tables, strict=True)
        enough = [max(2, len(table) / 2) <= len(left) for left, table in pairs]  # L-13
        if not any(enough):
            continue
        score = fit(rest)
        # A short table's fold says nothing of the others'.
        for index in itertools.compress(range(len(tables)), enough):
            found[index].append(score(tables[index][own[index]]))
    return [np.concatenate(scores) if scores else np.empty(0) for scores in found]


def _beyond(rows: Matrix, fold: NDArray[np.intp], gap: int) -> Matrix:
    """Return the rows that are more than `gap` before or after those of a fold."""
    return np.concatenate((rows[: max(0, fold[0] - gap)], rows[fold[-1] + 1 + gap :]))
