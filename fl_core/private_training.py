"""One node's part of a round under record-level differential privacy: only the update comes out.

The unit is one row of one node: with it or without it, what leaves the node is nearly equally
likely. Therefore everything between the rows and the update is either a function of one row alone,
or happens after the noise, or is public:

- rows are normalised by the public bank, not by each other (`fl_core.public_bank`);
- a row is in a step's batch by its own secret coin, exactly Bernoulli(q); the coins do not come
  from the round's seed, which the coordinator knows;
- what it does in the batch is a vector of whole numbers of bounded length
  (`fl_core.per_record`, `fl_core.logit_dp`);
- noise is added to the exact sum, once a step, for an empty batch too, then come division by the
  nominal batch, and the optimiser;
- no error, count, loss, weight or centroid depends on the rows.

Source: Abadi et al. 2016, algorithm 1; Mironov, Talwar and Zhang 2019 (Poisson sampling);
specs/53-record-level.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fl_core.augment import Layout, make_view
from fl_core.config import CLIP_STEPS, DP_SGD, RATE_UNITS, ModelConfig, TrainConfig
from fl_core.encoders import Encoder, build_encoder
from fl_core.errors import ModelError
from fl_core.logit_dp import PairGradients
from fl_core.optimisers import Adam, Optimiser, Sgd
from fl_core.parameters import ParamSpec, checked_vector
from fl_core.per_record import PATTERNS, RecordGradients, draw_patterns
from fl_core.public_bank import PublicBank

__all__ = ["Noise", "SecretBytes", "noise_variance", "private_delta", "record_cost", "sample_rows"]

SecretBytes: TypeAlias = Callable[[int], bytes]
"""Returns n uniform bytes that nobody else can know: at a node, the operating system's."""

Noise: TypeAlias = Callable[[int, float], NDArray[np.integer]]
"""(count, variance) to integers of shape (count,) with an exact discrete Gaussian distribution."""

_LOWER_RATE: Final = "lower TrainConfig.learning_rate"


def record_cost(config: TrainConfig) -> tuple[float, float, int]:
    """Return what one round of private training costs: a sampled Gaussian mechanism.

    Args:
        config: With `private` set.

    Returns:
        Noise multiplier (per step, relative to the sensitivity), sampling rate (Poisson, exact),
        number of steps. Neighbours: one row added or removed. Rounds compose: a node that trained
        in R rounds has run R times as many steps.

    Raises:
        ModelError: the settings are not private.
    """
    if not config.private:
        raise ModelError(
            "training without record-level privacy has no finite cost",
            hint="set TrainConfig.private",
        )
    #
    return config.noise_multiplier, _rate_units(config) / RATE_UNITS, config.steps


def noise_variance(config: TrainConfig) -> float:
    """Return the variance of a step's noise in grid units: (z * CLIP_STEPS)^2."""
    return (config.noise_multiplier * CLIP_STEPS) ** 2


def sample_rows(count: int, config: TrainConfig, secret: SecretBytes) -> NDArray[np.int64]:
    """Draw a step's batch: each of `count` rows on its own with probability q, exactly.

    Logit-DP keeps at most `batch_size` of them, a uniform subset; that never makes a row likelier,
    and the bound on F covers the row that comes in when another goes (specs/53 section 4).

    Args:
        count: Rows of the node, 0 or more.
        config: Sampling rate, and the batch of Logit-DP.
        secret: Four bytes a row are read, whatever comes of them.

    Returns:
        Ascending indices below `count`.
    """
    words = np.frombuffer(_secret_bytes(secret, 4 * count), dtype="<u4")
    drawn = np.flatnonzero(words < np.uint64(_rate_units(config)))
    if config.private != DP_SGD and len(drawn) > config.batch_size:
        keys = np.frombuffer(_secret_bytes(secret, 16 * len(drawn)), dtype="<u8").reshape(2, -1)
        drawn = np.sort(drawn[np.lexsort((keys[0], keys[1]))[: config.batch_size]])
    return drawn.astype(np.int64)


def _secret_bytes(secret: SecretBytes, count: int) -> bytes:
    drawn = secret(count)
    if len(drawn) != count:
        raise ModelError(f"the source of secret bytes gave {len(drawn)} of {count}")
    return drawn


def _rate_units(config: TrainConfig) -> int:
    return int(config.sampling_rate * RATE_UNITS)  # exact product, cut down


def private_delta(
    params: ArrayLike,
    train: ArrayLike,
    *,
    model: ModelConfig,
    config: TrainConfig,
    seed: int,
    bank: PublicBank | None,
    secret: SecretBytes | None,
    noise: Noise | None,
) -> NDArray[np.float32]:
    """Train one round on a node's rows; the update is differentially private.

    Args:
        params: Shape (dim,): the round's parameters; public.
        train: Raw rows, shape (n, d), n >= 0. Rows that are not finite take no part.
        model: Architecture.
        config: With `private` set.
        seed: Of public draws only: variants of rows, choice of public rows.
        bank: The public bank that `config.bank_digest` names.
        secret: Source of the coins and of the choice of variants.
        noise: Exact sampler; called once a step.

    Returns:
        Shape (dim,): parameters after minus before. `record_cost` says at what price.

    Raises:
        DataError: not a table of numbers with the model's columns.
        ModelError: bank, randomness or noise are missing or do not fit; an encoder other than the
            perceptron; the noised parameters ran
            out of range.
    """
    if model.kind != "mlp":  # L-44
        raise ModelError(
            f"a {model.kind} encoder has no objective for record-level privacy",
            hint='use kind = "mlp", or leave TrainConfig.private empty',
        )
    if bank is None or secret is None or noise is None:
        raise ModelError(
            "private training needs a public bank, secret bytes and a noise sampler",
            hint="give train_local bank, secret and noise; nothing is trained without them",
        )
    bank.check(model.input_dim, config.bank_digest)
    spec = ParamSpec.from_model(model)
    before = checked_vector(params, spec.dim, "the parameter vector")
    rows = torch.from_numpy(bank.apply(train))
    encoder = build_encoder(model, before)
    _fit(encoder, rows, bank, model=model, config=config, seed=seed, secret=secret, noise=noise)
    after = spec.flatten(encoder)
    if not np.isfinite(after).all():  # after the noise: says nothing that the update would not
        raise ModelError("training gave a parameter that is not finite", hint=_LOWER_RATE)
    return after - before


def _fit(
    encoder: Encoder,
    rows: Tensor,
    bank: PublicBank,
    *,
    model: ModelConfig,
    config: TrainConfig,
    seed: int,
    secret: SecretBytes,
    noise: Noise,
) -> None:
    """Run `config.steps` noised steps on the encoder in place."""
    public = torch.Generator().manual_seed(seed)
    bank_rows = torch.from_numpy(bank.normalised())
    layout = Layout.of(model.input_dim, config.blocks, model.window)
    kind = Sgd if config.optimiser == "sgd" else Adam
    optimiser = kind(encoder.parameters(), config.learning_rate)
    records: RecordGradients | PairGradients
    if config.private == DP_SGD:
        records, step_size = RecordGradients(encoder, config), config.clip_norm / CLIP_STEPS
        expected = config.sampling_rate * config.nominal_rows
    else:
        records = PairGradients(encoder, config)
        step_size = records.step
        expected = min(config.sampling_rate * config.nominal_rows, config.batch_size)
    for _ in range(config.steps):
        patterns = draw_patterns(layout.members, bank_rows, config, public)
        at = torch.randint(len(bank_rows), (config.bank_negatives,), generator=public)
        negatives = make_view(bank_rows[at], layout, config, public)
        drawn = sample_rows(len(rows), config, secret)
        chosen = np.frombuffer(_secret_bytes(secret, len(drawn)), np.uint8).astype(np.int64)
        chosen %= PATTERNS
        sums = records.total(rows[drawn], chosen, patterns, negatives)
        sums = sums + _checked_noise(noise, len(sums), noise_variance(config))
        _step(encoder, optimiser, sums.astype(np.float64) * (step_size / expected))


def _checked_noise(noise: Noise, count: int, variance: float) -> NDArray[np.int64]:
    """Draw the noise of one step; anything but whole numbers of the right shape is refused."""
    drawn = np.asarray(noise(count, variance))
    if drawn.shape != (count,) or drawn.dtype.kind != "i":
        raise ModelError(
            f"the noise sampler gave {drawn.dtype} of shape {drawn.shape}, not {count} signed "
            "integers",
            hint="pass the exact discrete Gaussian sampler",
        )
    return drawn.astype(np.int64)


def _step(encoder: Encoder, optimiser: Optimiser, gradient: NDArray[np.float64]) -> None:
    """Give the noised gradient to the optimiser."""
    flat = torch.from_numpy(gradient.astype(np.float32))
    start = 0
    for parameter in encoder.parameters():
        parameter.grad = flat[start : start + parameter.numel()].view_as(parameter).clone()
        start += parameter.numel()
    optimiser.step()
