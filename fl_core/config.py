"""Settings of the model and of its training: checked when made, strict when read.

Both classes travel inside the signed offer of a round (as `to_dict`), so every node trains the
same way, and both are frozen: a setting that exists is a setting that has been checked.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Final

from fl_core.architectures import ATTENTION_HEADS, RESIDUALS, SPREADS, parameter_shapes
from fl_core.errors import ModelError
from fl_core.settings import (
    Settings,
    check_choice,
    check_flag,
    check_integer,
    check_integers,
    check_number,
)

__all__ = [
    "CLIP_STEPS",
    "DP_SGD",
    "ENCODER_KINDS",
    "IN_BATCH",
    "LOGIT_DP",
    "PER_RECORD",
    "RATE_UNITS",
    "ModelConfig",
    "TrainConfig",
]

ENCODER_KINDS: tuple[str, ...] = ("mlp", "cnn", "gnn", "gat", "timefreq")
"""Encoders that `fl_core.encoders` can build."""

MIN_WINDOW: Final = 4
"""Fewest time steps of a "timefreq" window: three frequencies."""

DP_SGD: Final = "dp-sgd"
LOGIT_DP: Final = "logit-dp"
IN_BATCH: Final = "in-batch"
PER_RECORD: Final = "per-record"

CLIP_STEPS: Final = 1 << 18
"""Grid steps in the clipping norm of record-level privacy: the L2 sensitivity of an integer sum."""

RATE_UNITS: Final = 1 << 32
"""A sampling rate is a whole number of these parts: a row is drawn by one 32-bit word."""

_OF_PRIVACY: Final = (
    "objective",
    "private",
    "optimiser",
    "noise_multiplier",
    "learning_rate",
    "steps",
    "temperature",
    "gain_std",
)
"""Settings of training that are chosen for noised steps, if there are any."""

_NOT_PRIVATE: Final = (
    "contrast_weight",
    "adversary_weight",
    "prox_weight",
    "moon_weight",
    "public_negatives",
    "window_drop_rate",
    "jitter_std",
    "swap_rate",
    "mix_rate",
)
"""Terms and views that a record's loss under `private` cannot have."""

MAX_PAIR_BATCH: Final = 64
"""Largest batch of Logit-DP, which takes the gradient of every pair of rows in it."""

MAX_MULTIPLIER: Final = 16.0
"""Greatest noise multiplier: beyond it the noise of a step leaves the range of exact samplers."""

MAX_DIM = 65_536
"""Widest layer or input: far above any use, small enough that no hostile offer fills memory."""

MAX_LAYERS = 16
"""Deepest encoder, for the same reason."""

MAX_BATCH = 4_096
"""Largest batch: the contrast compares all its rows with each other, 64 MB of similarities."""

MAX_PARAMETERS = 1 << 26
"""Largest model in coordinates, for the same reason."""


@dataclass(frozen=True, slots=True)
class ModelConfig(Settings):
    """Architecture of the shared encoder: what a node's policy pins by `ParamSpec.digest`."""

    input_dim: int
    """Features in a row; 115 for the damped traffic statistics."""

    kind: str = "mlp"
    """Encoder family: mlp, cnn, gnn, gat, or timefreq for windows of a series."""

    hidden: tuple[int, ...] = (128, 64)
    """Widths of the hidden layers, input side first: of convolutions for "cnn", of graph layers for
    "gnn" and "gat"; the one width of a "timefreq" encoder."""

    embedding_dim: int = 64
    """Coordinates k of an embedding; see specs/90-learning.md section 8 for the choice. 7 a channel
    of a "timefreq" encoder."""

    window: int = 1
    """Time steps W of a row that is a window of a series, oldest first: input_dim is W × channels.
    1 for rows that stand alone."""

    sites: int = 0
    """Classes of a reader that is trained to tell a node's site from its embeddings, and that the
    encoder learns to mislead (`TrainConfig.adversary_weight`); 0 for none."""

    stages: int = 2
    """Stages of each path of a "timefreq" encoder, each with a reconstruction of its own."""

    @property
    def parts(self) -> tuple[int, ...]:
        """Coordinates of each part of an embedding, whose statistics are apart (L-10).

        Residuals and spreads of a "timefreq" encoder (L-43), else all together.
        """
        if self.kind != "timefreq":
            return (self.embedding_dim,)
        channels = self.input_dim // self.window
        return (RESIDUALS * channels, SPREADS * channels)

    def __post_init__(self) -> None:
        if self.kind not in ENCODER_KINDS:
            raise ModelError(
                f"ModelConfig.kind is {self.kind!r}", hint=f"use one of {', '.join(ENCODER_KINDS)}"
            )
        check_integer("ModelConfig", "input_dim", self.input_dim, low=1, high=MAX_DIM)
        check_integer("ModelConfig", "embedding_dim", self.embedding_dim, low=2, high=MAX_DIM)
        check_integers("ModelConfig", "hidden", self.hidden, at_most=MAX_LAYERS, high=MAX_DIM)
        check_integer("ModelConfig", "window", self.window, low=1, high=self.input_dim)
        check_integer("ModelConfig", "sites", self.sites, low=0, high=MAX_DIM)
        check_integer("ModelConfig", "stages", self.stages, low=1, high=MAX_LAYERS)
        if self.input_dim % self.window:
            raise ModelError(
                f"ModelConfig.input_dim is {self.input_dim}, no multiple of the window "
                f"{self.window}",
                hint="input_dim is window times the channels of the series",
            )
        if self.kind == "timefreq":
            self._check_timefreq()
        size = sum(math.prod(shape) for _, shape in parameter_shapes(self))
        if size > MAX_PARAMETERS:
            raise ModelError(
                f"the model has {size} parameters, more than {MAX_PARAMETERS}",
                hint="make hidden or embedding_dim smaller",
            )

    def _check_timefreq(self) -> None:
        """Refuse what the time-frequency transformer cannot be built from (L-40)."""
        if self.window < MIN_WINDOW:
            raise ModelError(
                f"ModelConfig.window is {self.window}, too short for a spectrum",
                hint=f'a "timefreq" encoder needs a window of {MIN_WINDOW} time steps or more',
            )
        if len(self.hidden) != 1 or self.hidden[0] % ATTENTION_HEADS:
            raise ModelError(
                f"ModelConfig.hidden is {self.hidden} for a timefreq encoder",
                hint=f"give one width, a multiple of {ATTENTION_HEADS}, such as (32,)",
            )
        wanted = sum(self.parts)
        if self.embedding_dim != wanted:
            channels = self.input_dim // self.window
            raise ModelError(
                f"ModelConfig.embedding_dim is {self.embedding_dim} for {channels} channels",
                hint=f"a timefreq encoder embeds {RESIDUALS + SPREADS} numbers a channel: use "
                f"{wanted}",
            )


@dataclass(frozen=True, slots=True)
class TrainConfig(Settings):
    """One node's training in one round. Numbers chosen as specs/90-learning.md section 8 says."""

    steps: int = 60
    """Optimiser steps a round: the same for every node, so that a small node is not drowned."""

    batch_size: int = 128
    """Rows a step, drawn with replacement."""

    learning_rate: float = 1e-3
    """Of the local Adam, which starts afresh every round."""

    contrast_weight: float = 1.0
    """Factor of InfoNCE; 0 switches it off."""

    temperature: float = 0.2
    """tau of InfoNCE (specs/90-learning.md section 4); lower sharpens the contrast."""

    align_weight: float = 1.0
    """Factor of the alignment to the global reference; 0 switches it off. Below about 2 the
    contrast outweighs it: the reference stays short, the consistency weights near one half."""

    window_normalisation: bool = True
    """Whether losses, centroids and weights see embeddings standardised window by window (z~), or
    as the encoder gives them (z). Off only to measure what it is worth; a head looks at both."""

    dynamic_weights: bool = True
    """Whether a node weighs its update by its consistency with the reference; otherwise by 1."""

    adversary_weight: float = 0.0
    """Factor of the reader's loss, which the encoder raises and the reader lowers; needs
    `ModelConfig.sites`. 0 switches it off."""

    prox_weight: float = 0.0
    """mu of FedProx: half of it times the squared way from the round's parameters is added to the
    loss; 0 switches it off."""

    moon_weight: float = 0.0
    """mu of MOON: factor of the contrast between the shared model and this node's model of the
    round before; 0 switches it off."""

    moon_temperature: float = 0.5
    """tau of MOON's contrast, as its authors set it."""

    reconstruction_weight: float = 1.0
    """Factor of the reconstruction error, for encoders that reconstruct ("timefreq")."""

    noise_std: float = 0.05
    """Standard deviation of the noise on a view's features, in node standard deviations."""

    gain_std: float = 0.1
    """Standard deviation of the common gain of one stream and window: a slightly busier moment.
    What a view may do, the encoder learns to overlook: bursts a little, too."""

    drop_rate: float = 0.0
    """Probability that a view misses a stream's window, that is, shows the node's mean there. It
    hurts on the built-in rows, and mostly on real ones (specs/90-learning.md section 8)."""

    window_drop_rate: float = 0.0
    """Probability that a view misses one damped window in all streams."""

    jitter_std: float = 0.0
    """Standard deviation of a gain common to a whole row: the device sends faster or slower."""

    swap_rate: float = 0.0
    """Probability that a view swaps the statistics of two streams of one layout and window."""

    mix_rate: float = 0.0
    """Probability that a view is mixed with another benign row of the batch, 20 % of it at most."""

    synthetic_negatives: bool = False
    """Also push the rows away from corrupted rows (specs/90-learning.md section 4)."""

    public_negatives: int = 0
    """Public rows (`fl_core.public_bank`) a step that the batch is pushed away from as well. A node
    with little data then sees other devices' rows, and no row travels."""

    blocks: tuple[int, ...] = ()
    """Lengths of runs of columns that belong to one stream and window; () takes the known layout
    of 115 or 100 traffic columns, and otherwise every column alone."""

    objective: str = IN_BATCH
    """What a row is told from: "in-batch", the other rows of the batch; "per-record", public rows
    and variants of itself, so that no row's loss depends on another (specs/53-record-level.md)."""

    private: str = ""
    """Record-level privacy: "" for none, "dp-sgd" with the per-record objective, or "logit-dp" with
    the in-batch one. `align_weight` and `synthetic_negatives` have no effect under either; other
    terms and views that they cannot have are refused."""

    optimiser: str = "adam"
    """Local optimiser: "adam", or "sgd" (without momentum) under `private`."""

    clip_norm: float = 1.0
    """Greatest L2 norm of a record's gradient (dp-sgd), or of the gradient of one similarity
    (logit-dp)."""

    noise_multiplier: float = 0.0
    """Standard deviation of a step's noise in units of the sum's sensitivity; above 0 under
    `private`."""

    sampling_rate: float = 0.0
    """q: probability that a row is in a step's batch, each on its own; cut down to a multiple of
    2^-32. Above 0 under `private`, where `batch_size` does not fix the batch."""

    nominal_rows: int = 0
    """Rows that a node is taken to have, whatever it has: q times this divides every sum."""

    bank_digest: str = ""
    """SHA-256 of the public bank, 64 hex digits: all nodes normalise by the same public rows."""

    bank_negatives: int = 32
    """Public rows that a step's records are told from."""

    own_negatives: int = 0
    """Corrupted variants of a record that it is told from; 0 detects best on real rows."""

    def __post_init__(self) -> None:
        own = "TrainConfig"
        check_integer(own, "steps", self.steps, low=1, high=100_000)
        check_integer(own, "batch_size", self.batch_size, low=2, high=MAX_BATCH)
        check_number(own, "learning_rate", self.learning_rate, low=1e-8, high=10.0)
        check_number(own, "temperature", self.temperature, low=1e-3, high=100.0)
        check_number(own, "moon_temperature", self.moon_temperature, low=1e-3, high=100.0)
        check_number(own, "align_weight", self.align_weight, low=0.0, high=1e3)
        check_number(own, "noise_std", self.noise_std, low=0.0, high=10.0)
        check_number(own, "gain_std", self.gain_std, low=0.0, high=10.0)
        check_number(own, "drop_rate", self.drop_rate, low=0.0, high=0.95)
        for name in ("window_drop_rate", "swap_rate", "mix_rate"):
            check_number(own, name, getattr(self, name), low=0.0, high=0.95)
        check_number(own, "jitter_std", self.jitter_std, low=0.0, high=10.0)
        for name in (
            "contrast_weight",
            "adversary_weight",
            "prox_weight",
            "moon_weight",
            "reconstruction_weight",
        ):
            check_number(own, name, getattr(self, name), low=0.0, high=1e3)
        check_integer(own, "public_negatives", self.public_negatives, low=0, high=MAX_BATCH)
        check_flag(own, "synthetic_negatives", self.synthetic_negatives)
        check_flag(own, "dynamic_weights", self.dynamic_weights)
        check_flag(own, "window_normalisation", self.window_normalisation)
        check_integers(own, "blocks", self.blocks, at_most=MAX_DIM, high=MAX_DIM)
        self._check_privacy()

    def unprotected(self) -> TrainConfig:
        """Return settings without record-level privacy, for what never leaves a node.

        What was set for noised steps suits no others: optimiser, rate, steps, temperature and gain
        are the defaults too.
        """
        if not self.private:
            return self
        plain = TrainConfig()
        return dataclasses.replace(self, **{name: getattr(plain, name) for name in _OF_PRIVACY})

    def _check_privacy(self) -> None:
        """Refuse settings of record-level privacy that are out of range or unsound together."""
        own = "TrainConfig"
        check_choice(own, "objective", self.objective, (IN_BATCH, PER_RECORD))
        check_choice(own, "private", self.private, ("", DP_SGD, LOGIT_DP))
        check_choice(own, "optimiser", self.optimiser, ("adam", "sgd"))
        check_number(own, "clip_norm", self.clip_norm, low=1e-6, high=1e6)
        check_number(own, "noise_multiplier", self.noise_multiplier, low=0.0, high=MAX_MULTIPLIER)
        check_number(own, "sampling_rate", self.sampling_rate, low=0.0, high=1.0)
        check_integer(own, "nominal_rows", self.nominal_rows, low=0, high=1 << 40)
        check_integer(own, "bank_negatives", self.bank_negatives, low=0, high=MAX_BATCH)
        check_integer(own, "own_negatives", self.own_negatives, low=0, high=64)
        digest = self.bank_digest
        if not isinstance(digest, str) or (digest and not _DIGEST.fullmatch(digest)):
            raise ModelError(
                f"{own}.bank_digest is {digest!r}",
                hint="use the 64 hex digits of PublicBank.digest",
            )
        if self.private:
            self._check_private()
        else:
            self._check_plain()

    def _check_private(self) -> None:
        """Refuse what is unsound together under record-level privacy, or not enough for it."""
        own = "TrainConfig"
        if self.private == DP_SGD and self.objective == IN_BATCH:
            raise ModelError(
                "per-record clipping bounds nothing under the in-batch InfoNCE: one row is a "
                "negative of every other row and moves all their gradients",
                hint='set objective = "per-record", or private = "logit-dp"',
            )
        if self.private == LOGIT_DP and self.objective == PER_RECORD:
            raise ModelError(
                "logit-dp is for the in-batch objective",
                hint='set private = "dp-sgd": on the per-record objective it needs less noise',
            )
        if self.private == LOGIT_DP and self.batch_size > MAX_PAIR_BATCH:
            raise ModelError(
                f"{own}.batch_size is {self.batch_size}: logit-dp takes every pair's gradient",
                hint=f"use at most {MAX_PAIR_BATCH} with logit-dp",
            )
        plain = {each.name: each.default for each in dataclasses.fields(self)}
        for name in _NOT_PRIVATE:
            if getattr(self, name) != plain[name]:
                raise ModelError(
                    f"{own}.{name} is {getattr(self, name)}, and private training does not read it",
                    hint=f"leave it at {plain[name]}, or private empty",
                )
        if not self.window_normalisation:
            raise ModelError(  # L-53
                f"{own}.window_normalisation is off under private, whose objectives need it",
                hint="leave it on, or private empty",
            )
        if self.private == DP_SGD and not self.bank_negatives + self.own_negatives:
            raise ModelError(
                "a record has no negatives", hint="set bank_negatives or own_negatives above 0"
            )
        if self.noise_multiplier <= 0:
            raise ModelError(
                f"{own}.noise_multiplier is {self.noise_multiplier} under private",
                hint="plan one from epsilon and delta, or leave private empty",
            )
        if self.sampling_rate * RATE_UNITS < 1 or not self.nominal_rows or not self.bank_digest:
            raise ModelError(
                f"{own}: private training needs sampling_rate, nominal_rows and bank_digest",
                hint="none of them may come from a node's own rows",
            )

    def _check_plain(self) -> None:
        """Refuse settings that only private training reads."""
        if self.objective != IN_BATCH or self.optimiser != "adam":
            raise ModelError(
                f"objective {self.objective!r} with optimiser {self.optimiser!r} is not trained "
                "without private",
                hint='set private = "dp-sgd", or leave both as they are',
            )
        if self.noise_multiplier:
            raise ModelError(
                f"TrainConfig.noise_multiplier is {self.noise_multiplier}, and nothing adds noise",
                hint='set private = "dp-sgd" or "logit-dp"',
            )


_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
