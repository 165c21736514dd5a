"""Scores of benign rows by what has not seen them: what a threshold is set on.

A few held-out rows place a threshold badly: of 100, one odd row decides. So training rows are
scored too, each by a head that was fitted to the other four fifths of them. It errs on the quiet
side: the heads of the folds know less, and score benign rows higher, than the one that is used.

Source: specs/90-learning.md L-13; Vovk 2015 (cross-conformal prediction).
"""

from __future__ import annotations

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
    fit: Callable[[Matrix], _Score], rows: Matrix, *, folds: int = FOLDS
) -> NDArray[np.float64]:
    """Score each row by what was fitted to the rows of the other folds.

    Args:
        fit: Rows (m, d) to a score function of rows (k, d).
        rows: Shape (n, d), in time order where there is one, n >= 2.
        folds: Parts, at least 2; no more are made than there are rows.

    Returns:
        Shape (n,), in the order of the rows.
    """
    return cross_scores_together(lambda some: fit(some[0]), [rows], folds=folds)[0]


def cross_scores_together(
    fit: Callable[[Sequence[Matrix]], _Score], tables: Sequence[Matrix], *, folds: int = FOLDS
) -> list[NDArray[np.float64]]:
    """Score each row of several devices by what was fitted to all devices' other folds.

    Args:
        fit: One table (m_i, d) a device to a score function of rows (k, d).
        tables: The devices' rows, shapes (n_i, d), n_i >= 2.
        folds: Parts of each table, at least 2; no more are made than the shortest has rows.

    Returns:
        One array (n_i,) a device, in the order of its rows.
    """
    count = min([folds, *map(len, tables)])
    parts = [np.array_split(np.arange(len(table)), count) for table in tables]
    found = [np.empty(len(table)) for table in tables]
    for fold in range(count):
        pairs = zip(tables, parts, strict=True)
        score = fit([np.delete(table, part[fold], axis=0) for table, part in pairs])
        for scores, table, part in zip(found, tables, parts, strict=True):
            scores[part[fold]] = score(table[part[fold]])
    return found
