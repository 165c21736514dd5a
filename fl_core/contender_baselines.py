"""The methods of the table that train no contrastive encoder.

Source: specs/90-learning.md section 12 (L-70).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.autoencoder import (
    AutoencoderConfig,
    central_autoencoder,
    federated_autoencoder,
    local_autoencoder,
)
from fl_core.baselines import (
    ScoreFunction,
    isolation_forest_score,
    knn_score,
    pca_score,
    pooled,
    random_score,
)
from fl_core.calibration import cross_scores, cross_scores_together
from fl_core.contenders import Contender, Fitted, Rows, training_rows

__all__ = ["baselines"]


def baselines(gap: int = 0) -> tuple[Contender, ...]:
    """Return the methods that train no contrastive encoder.

    Args:
        gap: Of `fl_core.calibration.cross_scores`.
    """
    alone = functools.partial(_alone, gap=gap)
    together = functools.partial(_pooled, gap=gap)
    return (
        Contender("random scores", _chance),
        Contender("PCA, alone", lambda rows, _: alone(pca_score, rows)),
        Contender("PCA, pooled rows", lambda rows, _: together(pca_score, rows)),
        Contender("5 neighbours, alone", lambda rows, _: alone(knn_score, rows)),
        Contender("5 neighbours, pooled rows", lambda rows, _: together(knn_score, rows)),
        Contender(
            "isolation forest, alone",
            lambda rows, seed: alone(lambda own: isolation_forest_score(own, seed=seed), rows),
        ),
        Contender(
            "autoencoder, alone",
            lambda rows, seed: _uncalibrated(
                lambda own: local_autoencoder(own, config=AutoencoderConfig(), seed=seed), rows
            ),
        ),
        Contender(
            "autoencoder, pooled rows",
            lambda rows, seed: _shared(
                central_autoencoder(training_rows(rows), config=AutoencoderConfig(), seed=seed)
            ),
        ),
        Contender("autoencoder, federated", _federated_autoencoder),
    )


def _chance(rows: Rows, seed: int) -> Fitted:
    """Return draws that are independent: of seed, devices, purpose and rows (L-70)."""
    trains = training_rows(rows)
    total = sum(map(len, trains))  # of other devices, where another is left out

    @functools.cache  # threshold and test rows take from one stream, one after the other
    def known(index: int) -> ScoreFunction:
        return random_score((seed, total, 0, index))

    def calibration(index: int) -> NDArray[np.float64]:
        return random_score((seed, total, 1, index))(trains[index])

    return Fitted(known, calibration, lambda _: random_score((seed, total, 2)))


def _alone(make: Callable[[ArrayLike], ScoreFunction], rows: Rows, *, gap: int) -> Fitted:
    """Return a method of each device's own rows."""

    def calibration(index: int) -> NDArray[np.float64]:
        return cross_scores(make, rows[index][0], gap=gap)

    return Fitted(lambda index: make(rows[index][0]), calibration, make)


def _uncalibrated(make: Callable[[ArrayLike], ScoreFunction], rows: Rows) -> Fitted:
    """Return a method that is too slow to be fitted once more for every fold."""
    return Fitted(lambda index: make(rows[index][0]), None, make)


def _pooled(make: Callable[[ArrayLike], ScoreFunction], rows: Rows, *, gap: int) -> Fitted:
    """Return a method of all devices' rows together; in a fold all devices lack a fifth."""
    trains = training_rows(rows)
    score = pooled(make, trains)

    @functools.cache
    def crossed() -> list[NDArray[np.float64]]:
        return cross_scores_together(lambda some: pooled(make, some), trains, gap=gap)

    return Fitted(lambda _: score, lambda index: crossed()[index], lambda _: score)


def _shared(score: ScoreFunction) -> Fitted:
    return Fitted(lambda _: score, None, lambda _: score)


def _federated_autoencoder(rows: Rows, seed: int) -> Fitted:
    config = AutoencoderConfig()
    score_of = federated_autoencoder(training_rows(rows), config=config, seed=seed)
    return Fitted(lambda index: score_of(rows[index][0]), None, score_of)
