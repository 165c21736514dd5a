"""The methods of the table with one encoder for all devices and a head for each.

Source: specs/90-learning.md section 12 (L-70).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.architectures import RESIDUALS, RUN_KINDS, SPREADS
from fl_core.baselines import ScoreFunction, train_alone
from fl_core.calibration import cross_scores
from fl_core.config import ModelConfig, TrainConfig
from fl_core.contenders import Contender, Fitted, Rows, training_rows
from fl_core.encoders import build_encoder, embed
from fl_core.evaluation import round_seed
from fl_core.federated import train_federated
from fl_core.normalise import Normaliser
from fl_core.parameters import ParamSpec, initial_parameters
from fl_core.public_bank import PublicBank
from fl_core.scoring import HeadStatistics, standardised

__all__ = [
    "ABLATIONS",
    "SERIES",
    "SERIES_ABLATIONS",
    "Recipe",
    "encoder_contender",
    "encoders",
    "head_score",
]

PROX_WEIGHT: Final = 0.01
MOON_WEIGHT: Final = 1.0
ADVERSARY_WEIGHT: Final = 1.0
PUBLIC_NEGATIVES: Final = 128
"""Of the published ranges (0.001 to 1, and 0.1 to 10) the values that their authors use most."""

ADAPT_ROUNDS: Final = 2
"""Rounds that each device goes on by itself after a federation, to have an encoder of its own."""

_PARTS: Final[dict[str, Mapping[str, Any]]] = {
    "ours, no window normalisation": {"window_normalisation": False},
    "ours, no alignment": {"align_weight": 0.0},
    "ours, no dynamic weights": {"dynamic_weights": False},
    "ours, no contrast": {"contrast_weight": 0.0},
}
"""The parts of seed 001's objective that are settings, each switched off."""

ABLATIONS: Final[dict[str, Mapping[str, Any]]] = {
    **_PARTS,
    "ours, colder contrast": {"temperature": 0.02},
    "ours, views without gain": {"gain_std": 0.0},
    "ours, views miss streams": {"drop_rate": 0.02},
    "ours, views miss windows": {"window_drop_rate": 0.05},
    "ours, views with other rates": {"jitter_std": 0.1},
    "ours, views with swapped streams": {"swap_rate": 0.1},
    "ours, views with mixed flows": {"mix_rate": 0.5},
    "ours, corrupted rows as negatives": {"synthetic_negatives": True},
}
"""Name to what differs from the default settings of training."""

SERIES_ABLATIONS: Final[dict[str, Mapping[str, Any]]] = {
    **_PARTS,
    "ours, no reconstruction": {"reconstruction_weight": 0.0},
}
"""The same of series, whose encoder has no augmented views."""

SERIES_WIDTH: Final = 32
"""Width of the time-frequency transformer."""

_TITLES: Final = {
    "mlp": "MLP",
    "cnn": "1D-CNN",
    "gnn": "GNN",
    "gat": "GAT",
    "timefreq": "time-frequency",
}


@dataclass(frozen=True)
class Recipe:
    """What ours is on one kind of data: encoder, window, settings of training."""

    kind: str = "mlp"
    """Of the encoder, one of `fl_core.config.ENCODER_KINDS`."""

    window: int = 1
    """Time steps in a row; above 1 rows follow one another in time and share steps."""

    config: TrainConfig = field(default_factory=TrainConfig)
    """Of a round; other kinds of encoder train by the defaults."""

    update_bound: float | None = None
    """L2 bound of a weighted update in a protected sum, which no update should reach; a run's
    default if None."""

    def model(self, width: int, kind: str | None = None) -> ModelConfig:
        """Return the encoder for rows of `width` columns, of this kind or another."""
        kind = kind or self.kind
        if kind != "timefreq":
            return ModelConfig(width, kind=kind, window=self.window)
        return ModelConfig(
            width,
            kind=kind,
            window=self.window,
            hidden=(SERIES_WIDTH,),
            embedding_dim=(RESIDUALS + SPREADS) * (width // self.window),
        )

    def settings(self, kind: str) -> TrainConfig:
        """Return the settings that an encoder of this kind trains by."""
        return self.config if kind == self.kind else TrainConfig(blocks=self.config.blocks)


SERIES: Final = Recipe(
    kind="timefreq",
    window=16,
    config=TrainConfig(steps=30, batch_size=64, learning_rate=5e-3),
    update_bound=16.0,
)
"""Ours on sensor series (specs/90-learning.md section 11)."""


def encoders(
    *,
    rounds: int,
    ablations: bool = False,
    bank: PublicBank | None = None,
    recipe: Recipe | None = None,
    layout: bool = True,
) -> tuple[Contender, ...]:
    """Return the methods that train an encoder, ours last; training is in the clear.

    Args:
        rounds: Of every federation; who trains on pooled rows takes as many steps in all.
        ablations: Also return `ABLATIONS`, or `SERIES_ABLATIONS`, the open loop (all steps in one
            round), an encoder for each device that goes on from the shared one and, where they can
            be, the reader misled and public rows as negatives.
        bank: Public rows with the devices' columns; without, nothing has them as negatives.
        recipe: What ours is; for rows that stand alone if None.
        layout: Whether what is known of columns by their number is true; if not, encoders that are
            built after it are left out.
    """
    recipe = recipe or Recipe()
    config, series = recipe.config, recipe.window > 1

    def contender(name: str, train: _Train, kind: str = recipe.kind, **options: Any) -> Contender:
        model = functools.partial(recipe.model, kind=kind)
        return encoder_contender(name, model, train, gap=recipe.window - 1, **options)

    def variant(name: str, **changed: Any) -> Contender:
        return contender(name, _federated(replace(config, **changed), rounds, bank))

    own = _TITLES[recipe.kind]
    found = [
        contender("random encoder", _untrained),
        contender(f"{own} encoder, alone", _untrained, retrain=(config, rounds)),
    ]
    # Graphs over all steps of a series are refused for their size (L-50).
    kinds = ("mlp", "cnn", "timefreq") if series else ("mlp", "cnn", "gnn", "gat")
    for kind in (each for each in kinds if series or layout or each not in RUN_KINDS):
        train = _central(recipe.settings(kind), rounds)
        found.append(contender(f"{_TITLES[kind]} encoder, pooled rows", train, kind))
    plain = {"align_weight": 0.0, "dynamic_weights": False}
    found += [
        variant("FedAvg", **plain),
        variant("FedProx", **plain, prox_weight=PROX_WEIGHT),
        variant("MOON", **plain, moon_weight=MOON_WEIGHT),
        variant("ours"),
    ]
    if ablations:
        once = _federated(replace(config, steps=config.steps * rounds), 1)
        found.append(contender("ours, open loop", once))
        shared = _federated(config, rounds)
        found.append(contender("ours, adapted", shared, retrain=(config, ADAPT_ROUNDS)))
        misled = _federated(replace(config, adversary_weight=ADVERSARY_WEIGHT), rounds)
        found.append(contender("ours, misleading a reader", misled, reader=True))
        if bank is not None:
            name = "ours, public rows as negatives"
            found.append(variant(name, public_negatives=PUBLIC_NEGATIVES))
        other = SERIES_ABLATIONS if series else ABLATIONS
        found += [variant(name, **changed) for name, changed in other.items()]
    return tuple(found)


_Train = Callable[[Rows, ModelConfig, int], tuple[NDArray[np.float32], float | None]]


def encoder_contender(
    name: str,
    model_of: Callable[[int], ModelConfig],
    train: _Train,
    *,
    retrain: tuple[TrainConfig, int] | None = None,
    reader: bool = False,
    gap: int = 0,
) -> Contender:
    """Return a contender of one encoder for all devices, with a head for each.

    Args:
        name: In the table.
        model_of: Columns of a row to the architecture.
        train: Rows, architecture and seed to parameters, and bytes that a node sends a round.
        retrain: Settings and rounds by which each device goes on alone, with no more sent.
        reader: Whether the model has a reader with one class a device.
        gap: Of `fl_core.calibration.cross_scores`.
    """

    def fit(rows: Rows, seed: int) -> Fitted:
        sites = len(rows) if reader else 0
        model = replace(model_of(rows[0][0].shape[1]), sites=sites)
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
            lambda index: cross_scores(head_of(index), rows[index][0], gap=gap),
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
    own = embed(encoder, normaliser.apply(rows))
    statistics = HeadStatistics.fit(own, model.parts, window=model.window)
    return lambda values: statistics.distance(embed(encoder, normaliser.apply(values)))


def _untrained(
    _rows: Rows, model: ModelConfig, seed: int
) -> tuple[NDArray[np.float32], float | None]:
    return initial_parameters(model, seed), None


def _central(config: TrainConfig, rounds: int) -> _Train:
    def train(
        rows: Rows, model: ModelConfig, seed: int
    ) -> tuple[NDArray[np.float32], float | None]:
        theta = train_alone(
            initial_parameters(model, seed),
            np.concatenate(training_rows(rows)),
            np.concatenate([held for _, held in rows]),
            model=model,
            config=replace(config, align_weight=0.0),
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
