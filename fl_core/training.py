"""One node's part of a round: train on its own rows, then say what changed and how far it stands.

No global state: every draw comes from generators seeded by the caller's `seed`, so the same
arguments give the same update, bit for bit, on the same machine with the same number of threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fl_core.augment import Layout
from fl_core.config import ModelConfig, TrainConfig
from fl_core.encoders import Encoder, build_encoder, embed, standardise
from fl_core.errors import DataError, ModelError
from fl_core.losses import model_contrast, proximity, reader_loss
from fl_core.normalise import Normaliser, checked_rows
from fl_core.objectives import local_step
from fl_core.optimisers import Adam
from fl_core.parameters import ParamSpec, checked_vector
from fl_core.private_training import Noise, SecretBytes, private_delta
from fl_core.public_bank import PublicBank
from fl_core.server_opt import within_ball

__all__ = ["MIN_TRAIN_ROWS", "LocalUpdate", "check_objective", "consistency", "train_local"]

MIN_TRAIN_ROWS = 2
"""Fewest training rows: contrast needs another row."""


@dataclass(frozen=True, slots=True, eq=False)
class LocalUpdate:
    """What one node found in one round. Delta and centroid leave it inside a protected sum only.

    The weight goes with them, unless the coordinator weighs: then it is told the distance, roughly.

    After private training only `delta` says anything about the rows, and that within the budget;
    the other fields are constants, so that passing them on gives nothing away.
    """

    delta: NDArray[np.float32] = field(repr=False)
    """Shape (dim,): parameters after minus parameters before."""

    centroid: NDArray[np.float32] = field(repr=False)
    """Shape (embedding_dim,): mean standardised embedding of the validation rows; |c|^2 <= k."""

    weight: float
    """w = 1 / (1 + distance), in (0, 1]; 1 after private training."""

    distance: float
    """d = mean over validation rows of |z~ - g|^2 / k, at least 0."""

    loss: float
    """Mean training loss over the round's steps; 0 after private training."""

    samples: int
    """Training rows of the node; 0 after private training."""


def consistency(
    encoder: Encoder,
    rows: NDArray[np.float32],
    reference: NDArray[np.float32],
    *,
    normalised: bool = True,
) -> tuple[NDArray[np.float32], float, float]:
    """Embed rows and measure how far they stand from the reference.

    Args:
        encoder: The encoder after local training.
        rows: Normalised validation rows, shape (n, d), n >= 1.
        reference: g, shape (k,).
        normalised: Whether the embeddings are (`TrainConfig.window_normalisation`); otherwise the
            centroid is cut to the length that one of normalised embeddings can have.

    Returns:
        Centroid (k,), |c|^2 <= k, distance d >= 0, weight 1 / (1 + d) in (0, 1].

    Source: seed 001 section 3 (w_i); specs/90-learning.md L-07, L-53.
    """
    z = standardise(torch.from_numpy(embed(encoder, rows)), on=normalised).numpy()  # (n, k)
    distance = float(np.mean(np.square(z - reference)))  # over rows and coordinates
    centroid = z.mean(axis=0)
    if not normalised:  # L-53
        centroid = within_ball(centroid)
    return centroid.astype(np.float32), distance, 1.0 / (1.0 + distance)


def train_local(
    params: ArrayLike,
    reference: ArrayLike,
    train: ArrayLike,
    validation: ArrayLike,
    *,
    model: ModelConfig,
    config: TrainConfig,
    seed: int,
    previous: ArrayLike | None = None,
    site: int = 0,
    bank: PublicBank | None = None,
    secret: SecretBytes | None = None,
    noise: Noise | None = None,
) -> LocalUpdate:
    """Train one round on a node's own rows.

    With `config.private` set, the update is differentially private towards each row of `train`
    (`fl_core.private_training`); `validation` and `reference` are not looked at.

    Args:
        params: Shape (dim,): the round's parameters.
        reference: g, shape (embedding_dim,); zeros in the first round mean "none yet": then nothing
            is aligned.
        train: Benign rows, shape (n, d), raw feature values.
        validation: Benign rows kept out of training, shape (m, d), raw.
        model: Architecture.
        config: Training settings of the round.
        seed: Derived by the caller from run, round, node and purpose; non-negative.
        previous: This node's parameters after its training of the round before, for MOON; None in
            its first round, which then has no such term.
        site: Number of this node's site, for a model with sites; taken modulo their number.
        bank: Public rows; needed under `config.private`, and for `config.public_negatives`.
        secret: Secret uniform bytes; needed under `config.private` only, as the next.
        noise: Exact sampler of integer noise.

    Returns:
        The update; equal arguments give equal values.

    Raises:
        DataError: fewer than two training rows, no validation rows, a wrong width, a value that is
            not finite.
        ModelError: a vector that does not fit the model, settings that leave nothing to train, or a
            loss or parameter that is not finite; under `config.private` also a missing or wrong
            bank, and missing secret or noise.
    """
    if config.private:
        delta = private_delta(
            params,
            train,
            model=model,
            config=config,
            seed=seed,
            bank=bank,
            secret=secret,
            noise=noise,
        )
        # constants, all but the update
        return LocalUpdate(delta, np.zeros(model.embedding_dim, np.float32), 1.0, 0.0, 0.0, 0)
    check_objective(model, config)
    spec = ParamSpec.from_model(model)
    before = checked_vector(params, spec.dim, "the parameter vector")
    g = checked_vector(reference, model.embedding_dim, "the reference vector")
    normaliser = Normaliser.fit(checked_rows(train, model.input_dim, "training rows"))
    rows = normaliser.apply(train, "training rows")
    held_out = normaliser.apply(validation, "validation rows")
    if len(rows) < MIN_TRAIN_ROWS or len(held_out) == 0:
        raise DataError(
            f"{len(rows)} training and {len(held_out)} validation rows are too few to train on",
            hint=f"give the node at least {MIN_TRAIN_ROWS} training rows and 1 validation row",
        )
    encoder = build_encoder(model, before)
    public = _public_rows(bank, normaliser, config) if config.public_negatives else None
    anchors = None
    if config.moon_weight and previous is not None:
        last = checked_vector(previous, spec.dim, "this node's last parameters")
        anchors = (build_encoder(model, before), build_encoder(model, last))
    loss = _fit(
        encoder,
        torch.from_numpy(rows),
        torch.from_numpy(g),
        anchors,
        public,
        site=site % model.sites if model.sites and config.adversary_weight else None,
        layout=_layout(model, config),
        config=config,
        seed=seed,
    )
    after = spec.flatten(encoder)
    if not np.isfinite(after).all():  # L-12
        raise ModelError("training gave a parameter that is not finite", hint=_LOWER_RATE)
    centroid, distance, weight = consistency(
        encoder, held_out, g, normalised=config.window_normalisation
    )
    if not config.dynamic_weights:
        weight = 1.0
    return LocalUpdate(after - before, centroid, weight, distance, loss, len(rows))


def check_objective(model: ModelConfig, config: TrainConfig) -> None:
    """Refuse settings whose loss says nothing about the rows.

    FedProx holds parameters back, and MOON is off in a node's first round: neither suffices.

    Raises:
        ModelError: contrast and alignment are both off, and the encoder does not reconstruct.
    """
    reconstructs = model.kind == "timefreq" and config.reconstruction_weight > 0
    if not (config.private or config.contrast_weight or config.align_weight or reconstructs):
        raise ModelError(  # L-53
            "contrast_weight and align_weight are both 0: there is nothing to train",
            hint="set one of them above 0",
        )
    if config.adversary_weight and not model.sites:
        raise ModelError(  # L-81
            "adversary_weight is set, and the model has no sites to tell apart",
            hint="set sites in [model], or adversary_weight to 0",
        )


def _public_rows(bank: PublicBank | None, normaliser: Normaliser, config: TrainConfig) -> Tensor:
    """Return the public rows as this node's encoder sees them, shape (n, d).

    Raises:
        ModelError: there are none, others than the settings name, or they have other columns.
    """
    if bank is None:
        raise ModelError(
            "public_negatives is set, and there are no public rows",
            hint="give the node public rows ([data] public), or set public_negatives to 0",
        )
    bank.check(len(normaliser.location), config.bank_digest or bank.digest)
    return torch.from_numpy(bank.under(normaliser))


def _layout(model: ModelConfig, config: TrainConfig) -> Layout | None:
    """Return how the columns belong together; None where no view asks (it is d by d numbers)."""
    if model.kind == "timefreq":
        return None
    return Layout.of(model.input_dim, config.blocks, model.window)


_LOWER_RATE = "lower TrainConfig.learning_rate"


def _fit(
    encoder: Encoder,
    rows: Tensor,
    reference: Tensor,
    anchors: tuple[Encoder, Encoder] | None,
    public: Tensor | None,
    *,
    site: int | None,
    layout: Layout | None,
    config: TrainConfig,
    seed: int,
) -> float:
    """Run `config.steps` Adam steps on the encoder in place; return the mean loss."""
    generator = torch.Generator().manual_seed(seed)  # L-11
    start = [parameter.detach().clone() for parameter in encoder.parameters()]
    optimiser = Adam(encoder.parameters(), config.learning_rate)
    total = 0.0
    for step in range(config.steps):
        batch = rows[torch.randint(len(rows), (config.batch_size,), generator=generator)]
        taken = local_step(encoder, batch, layout, reference, config, generator, public)
        loss = taken.loss
        if site is not None:  # L-81
            guess = reader_loss(taken.embedding, encoder.reader, site)
            loss = loss + config.adversary_weight * guess
        if config.prox_weight:  # L-51
            loss = loss + config.prox_weight * proximity(encoder.parameters(), start)
        if anchors is not None:  # L-52
            with torch.no_grad():
                shared, last = (
                    standardise(anchor(taken.view), on=config.window_normalisation)
                    for anchor in anchors
                )
            moon = model_contrast(
                taken.embedding, shared, last, temperature=config.moon_temperature
            )
            loss = loss + config.moon_weight * moon
        value = float(loss.detach())
        if not math.isfinite(value):  # L-12
            raise ModelError(f"the loss is {value} at step {step}", hint=_LOWER_RATE)
        total += value
        optimiser.clear()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return total / config.steps
