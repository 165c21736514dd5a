"""What stands in the table of detection quality: every method by the same two questions.

A contender is trained on the benign rows of some devices. Then it gives a score function for each
of them, and one for a device that it has not seen, from a few benign rows of that device: those
that a site needs anyway to set a threshold.

Source: specs/90-learning.md section 12 (L-70).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

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
    train_alone,
)
from fl_core.calibration import cross_scores, cross_scores_together
from fl_core.config import ModelConfig, TrainConfig
from fl_core.encoders import build_encoder, embed
from fl_core.evaluation import round_seed
from fl_core.federated import train_federated
from fl_core.normalise import Normaliser
from fl_core.parameters import ParamSpec, initial_parameters
from fl_core.public_bank import PublicBank
from fl_core.scoring import EmbeddingStatistics, standardised

__all__ = [
    "ABLATIONS",
    "Contender",
    "Fitted",
    "Rows",
    "TrainEncoder",
    "baselines",
    "encoder_contender",
    "encoders",
    "head_score",
]

Rows = Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Benign training and validation rows of each device, raw."""

TrainEncoder = Callable[[Rows, int], tuple[NDArray[np.float32], float]]
"""Rows and a seed to parameters of the shared encoder, and bytes that a node sent a round."""

PROX_WEIGHT: Final = 0.01
MOON_WEIGHT: Final = 1.0
ADVERSARY_WEIGHT: Final = 1.0
PUBLIC_NEGATIVES: Final = 128
"""Of the published ranges (0.001 to 1, and 0.1 to 10) the values that their authors use most."""

ABLATIONS: Final[dict[str, Mapping[str, Any]]] = {
    "ours, no alignment": {"align_weight": 0.0},
    "ours, no dynamic weights": {"dynamic_weights": False},
    "ours, no contrast": {"contrast_weight": 0.0},
    "ours, views without gain": {"gain_std": 0.0},
    "ours, views miss streams": {"drop_rate": 0.02},
    "ours, views miss windows": {"window_drop_rate": 0.05},
    "ours, views with other rates": {"jitter_std": 0.1},
    "ours, views with swapped streams": {"swap_rate": 0.1},
    "ours, views with mixed flows": {"mix_rate": 0.5},
    "ours, corrupted rows as negatives": {"synthetic_negatives": True},
}
"""Name to what differs from the default settings of training."""


@dataclass(frozen=True)
class Fitted:
    """A trained contender."""

    known: Callable[[int], ScoreFunction]
    """Index of a training device to its score function."""

    calibration: Callable[[int], NDArray[np.float64]] | None
    """Index of a training device to scores of its training rows by what had not seen them: with
    those of its validation rows they set the threshold. None where they are too slow to make."""

    unseen: Callable[[ArrayLike], ScoreFunction]
    """Some benign rows of another device to its score function."""

    traffic: float | None = None
    """Bytes that a node sends a round; None for what sends nothing."""

    embed: Callable[[int, ArrayLike], NDArray[np.float64]] | None = None
    """Index of a training device and raw rows of it to their standardised embeddings."""


@dataclass(frozen=True)
class Contender:
    """A method of the table."""

    name: str
    fit: Callable[[Rows, int], Fitted]
    """Rows of the devices and a seed to what was trained on them."""


def baselines() -> tuple[Contender, ...]:
    """Return the methods that train no contrastive encoder."""
    return (
        Contender("random scores", lambda rows, seed: _alone(lambda _: random_score(seed), rows)),
        Contender("PCA, alone", lambda rows, _: _alone(pca_score, rows)),
        Contender("PCA, pooled rows", lambda rows, _: _pooled(pca_score, rows)),
        Contender("5 neighbours, alone", lambda rows, _: _alone(knn_score, rows)),
        Contender("5 neighbours, pooled rows", lambda rows, _: _pooled(knn_score, rows)),
        Contender(
            "isolation forest, alone",
            lambda rows, seed: _alone(lambda own: isolation_forest_score(own, seed=seed), rows),
        ),
        Contender(
            "autoencoder, alone",
            lambda rows, seed: _alone(
                lambda own: local_autoencoder(own, config=AutoencoderConfig(), seed=seed),
                rows,
                slow=True,
            ),
        ),
        Contender(
            "autoencoder, pooled rows",
            lambda rows, seed: _shared(
                central_autoencoder(_trains(rows), config=AutoencoderConfig(), seed=seed)
            ),
        ),
        Contender("autoencoder, federated", _federated_autoencoder),
    )


def encoders(
    *, rounds: int, ablations: bool = False, bank: PublicBank | None = None
) -> tuple[Contender, ...]:
    """Return the methods that train an encoder, ours last; training is in the clear.

    Args:
        rounds: Of every federation; who trains on pooled rows takes as many steps in all.
        ablations: Also return `ABLATIONS`.
        bank: Public rows with the devices' columns; without, nothing has them as negatives.
    """
    plain = TrainConfig(align_weight=0.0, dynamic_weights=False)
    found = [
        encoder_contender("random encoder", "mlp", _untrained),
        encoder_contender("MLP encoder, alone", "mlp", _untrained, retrain=(TrainConfig(), rounds)),
    ]
    for title, kind in (("MLP", "mlp"), ("1D-CNN", "cnn"), ("GNN", "gnn"), ("GAT", "gat")):
        found.append(encoder_contender(f"{title} encoder, pooled rows", kind, _central(rounds)))
    for title, config in (
        ("FedAvg", plain),
        ("FedProx", replace(plain, prox_weight=PROX_WEIGHT)),
        ("MOON", replace(plain, moon_weight=MOON_WEIGHT)),
    ):
        found.append(encoder_contender(title, "mlp", _federated(config, rounds)))
    found.append(encoder_contender("ours", "mlp", _federated(TrainConfig(), rounds)))
    if ablations:
        misled = replace(TrainConfig(), adversary_weight=ADVERSARY_WEIGHT)
        found.append(
            encoder_contender(
                "ours, misleading a reader", "mlp", _federated(misled, rounds), reader=True
            )
        )
        if bank is not None:
            wider = replace(TrainConfig(), public_negatives=PUBLIC_NEGATIVES)
            found.append(
                encoder_contender(
                    "ours, public rows as negatives", "mlp", _federated(wider, rounds, bank)
                )
            )
        found += [
            encoder_contender(name, "mlp", _federated(replace(TrainConfig(), **other), rounds))
            for name, other in ABLATIONS.items()
        ]
    return tuple(found)


_Train = Callable[[Rows, ModelConfig, int], tuple[NDArray[np.float32], float | None]]


def encoder_contender(
    name: str,
    kind: str,
    train: _Train,
    *,
    retrain: tuple[TrainConfig, int] | None = None,
    reader: bool = False,
) -> Contender:
    """Return a contender of one encoder for all devices, with a head for each.

    Args:
        name: In the table.
        kind: Of the encoder, one of `fl_core.config.ENCODER_KINDS`.
        train: Rows, architecture and seed to parameters, and bytes that a node sends a round.
        retrain: Settings and rounds by which each device goes on alone, with nothing sent.
        reader: Whether the model has a reader with one class a device.
    """

    def fit(rows: Rows, seed: int) -> Fitted:
        sites = len(rows) if reader else 0
        model = ModelConfig(rows[0][0].shape[1], kind=kind, sites=sites)
        theta, traffic = train(rows, model, seed)

        def embed_own(index: int, values: ArrayLike) -> NDArray[np.float64]:
            normaliser = Normaliser.fit(rows[index][0])
            return standardised(embed(build_encoder(model, theta), normaliser.apply(values)))

        @functools.cache
        def encoder_of(index: int) -> NDArray[np.float32]:
            return theta if retrain is None else alone(*rows[index])

        def alone(own: NDArray[np.float64], held: NDArray[np.float64]) -> NDArray[np.float32]:
            config, rounds = retrain or (TrainConfig(), 0)
            seeds = [round_seed(seed, number, name, "alone") for number in range(rounds)]
            return train_alone(theta, own, held, model=model, config=config, seeds=seeds)

        def unseen(some: ArrayLike) -> ScoreFunction:
            found = theta if retrain is None else alone(np.asarray(some), np.asarray(some))
            return head_score(found, model, some)

        def head_of(index: int) -> Callable[[ArrayLike], ScoreFunction]:
            return lambda some: head_score(encoder_of(index), model, some)

        return Fitted(
            lambda index: head_of(index)(rows[index][0]),
            lambda index: cross_scores(head_of(index), rows[index][0]),
            unseen,
            traffic,
            None if retrain else embed_own,
        )

    return Contender(name, fit)


def head_score(params: ArrayLike, model: ModelConfig, rows: ArrayLike) -> ScoreFunction:
    """Return the score by a head that is fitted to benign rows of one device.

    Args:
        params: Of the encoder, shape (dim,).
        model: Its architecture.
        rows: Shape (n, d), raw, n >= 2.

    Raises:
        DataError, ModelError: as `fl_core.detector.Detector.fit_head`.
    """
    encoder, normaliser = build_encoder(model, params), Normaliser.fit(rows)
    statistics = EmbeddingStatistics.fit(embed(encoder, normaliser.apply(rows)))
    return lambda values: statistics.distance(embed(encoder, normaliser.apply(values)))


def _trains(rows: Rows) -> list[NDArray[np.float64]]:
    return [train for train, _ in rows]


def _alone(make: Callable[[ArrayLike], ScoreFunction], rows: Rows, *, slow: bool = False) -> Fitted:
    """Return a method of each device's own rows; a slow one is not fitted once more a fold."""
    if slow:
        return Fitted(lambda index: make(rows[index][0]), None, make)
    return Fitted(
        lambda index: make(rows[index][0]),
        lambda index: cross_scores(make, rows[index][0]),
        make,
    )


def _pooled(make: Callable[[ArrayLike], ScoreFunction], rows: Rows) -> Fitted:
    """Return a method of all devices' rows together; in a fold all devices lack a fifth."""
    trains = _trains(rows)
    score = pooled(make, trains)

    @functools.cache
    def crossed() -> list[NDArray[np.float64]]:
        return cross_scores_together(lambda some: pooled(make, some), trains)

    return Fitted(lambda _: score, lambda index: crossed()[index], lambda _: score)


def _shared(score: ScoreFunction) -> Fitted:
    return Fitted(lambda _: score, None, lambda _: score)


def _federated_autoencoder(rows: Rows, seed: int) -> Fitted:
    config = AutoencoderConfig()
    score_of = federated_autoencoder(_trains(rows), config=config, seed=seed)
    return Fitted(lambda index: score_of(rows[index][0]), None, score_of)


def _untrained(
    _rows: Rows, model: ModelConfig, seed: int
) -> tuple[NDArray[np.float32], float | None]:
    return initial_parameters(model, seed), None


def _central(rounds: int) -> _Train:
    def train(
        rows: Rows, model: ModelConfig, seed: int
    ) -> tuple[NDArray[np.float32], float | None]:
        theta = train_alone(
            initial_parameters(model, seed),
            np.concatenate(_trains(rows)),
            np.concatenate([held for _, held in rows]),
            model=model,
            config=TrainConfig(align_weight=0.0),
            seeds=[round_seed(seed, n, "pooled", "train") for n in range(rounds * len(rows))],
        )
        return theta, None

    return train


def _federated(config: TrainConfig, rounds: int, bank: PublicBank | None = None) -> _Train:
    def train(
        rows: Rows, model: ModelConfig, seed: int
    ) -> tuple[NDArray[np.float32], float | None]:
        theta = train_federated(
            rows, model=model, config=config, rounds=rounds, seed=seed, bank=bank
        )
        return theta, 4.0 * ParamSpec.from_model(model).dim

    return train
