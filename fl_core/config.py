"""Settings of the model and of its training: checked when made, strict when read.

Both classes travel inside the signed offer of a round (as `to_dict`), so every node trains the
same way, and both are frozen: a setting that exists is a setting that has been checked.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from fl_core.errors import ModelError

__all__ = [
    "CLIP_STEPS",
    "DP_SGD",
    "ENCODER_KINDS",
    "IN_BATCH",
    "LOGIT_DP",
    "PER_RECORD",
    "RATE_UNITS",
    "ModelConfig",
    "Settings",
    "TrainConfig",
    "check_integer",
    "check_integers",
    "check_number",
]

ENCODER_KINDS: tuple[str, ...] = ("mlp",)
"""Encoders that `fl_core.encoders` can build."""

DP_SGD: Final = "dp-sgd"
LOGIT_DP: Final = "logit-dp"
IN_BATCH: Final = "in-batch"
PER_RECORD: Final = "per-record"

CLIP_STEPS: Final = 1 << 18
"""Grid steps in the clipping norm of record-level privacy: the L2 sensitivity of an integer sum."""

RATE_UNITS: Final = 1 << 32
"""A sampling rate is a whole number of these parts: a row is drawn by one 32-bit word."""

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


class Settings:
    """Strict round trip of a frozen dataclass of scalars and integer tuples to plain dicts."""

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values; tuples become lists."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make the settings from `to_dict` output; a missing key takes its default.

        Raises:
            ModelError: an unknown key, a missing key without default, a wrong type or range.
        """
        known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ModelError(
                f"{cls.__name__} has no setting {unknown[0]!r}", hint=f"known: {', '.join(known)}"
            )
        missing = [
            f.name
            for f in known.values()
            if f.default is dataclasses.MISSING and f.name not in values
        ]
        if missing:
            raise ModelError(f"{cls.__name__} needs the setting {missing[0]!r}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def check_integer(owner: str, name: str, value: object, *, low: int, high: int) -> None:
    """Refuse a setting that is not a whole number from `low` to `high`.

    Raises:
        ModelError: names the setting and the range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ModelError(
            f"{owner}.{name} is {value!r}", hint=f"use a whole number from {low} to {high}"
        )


def check_number(owner: str, name: str, value: object, *, low: float, high: float) -> None:
    """Refuse a setting that is not a number from `low` to `high`; NaN is none.

    Raises:
        ModelError: names the setting and the range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ModelError(f"{owner}.{name} is {value!r}", hint=f"use a number from {low} to {high}")


def check_integers(owner: str, name: str, value: object, *, at_most: int) -> None:
    """Refuse a setting that is not a tuple of at most `at_most` positive whole numbers.

    Raises:
        ModelError: names the setting and the range.
    """
    if not isinstance(value, tuple) or len(value) > at_most:
        raise ModelError(
            f"{owner}.{name} is {value!r}", hint=f"use a list of at most {at_most} whole numbers"
        )
    for item in value:
        check_integer(owner, name, item, low=1, high=MAX_DIM)


@dataclass(frozen=True, slots=True)
class ModelConfig(Settings):
    """Architecture of the shared encoder: what a node's policy pins by `ParamSpec.digest`."""

    input_dim: int
    """Features in a row; 115 for the damped traffic statistics."""

    kind: str = "mlp"
    """Encoder family, one of `ENCODER_KINDS`."""

    hidden: tuple[int, ...] = (128, 64)
    """Widths of the hidden layers, input side first."""

    embedding_dim: int = 64
    """Coordinates k of an embedding; see specs/90-learning.md section 8 for the choice."""

    def __post_init__(self) -> None:
        if self.kind not in ENCODER_KINDS:
            raise ModelError(
                f"ModelConfig.kind is {self.kind!r}", hint=f"use one of {', '.join(ENCODER_KINDS)}"
            )
        check_integer("ModelConfig", "input_dim", self.input_dim, low=1, high=MAX_DIM)
        check_integer("ModelConfig", "embedding_dim", self.embedding_dim, low=2, high=MAX_DIM)
        check_integers("ModelConfig", "hidden", self.hidden, at_most=MAX_LAYERS)
        widths = (self.input_dim, *self.hidden, self.embedding_dim)
        size = sum(a * b + b for a, b in itertools.pairwise(widths))
        size += self.input_dim * self.embedding_dim
        if size > MAX_PARAMETERS:
            raise ModelError(
                f"the model has {size} parameters, more than {MAX_PARAMETERS}",
                hint="make hidden or embedding_dim smaller",
            )


@dataclass(frozen=True, slots=True)
class TrainConfig(Settings):
    """One node's training in one round. Numbers chosen as specs/90-learning.md section 8 says."""

    steps: int = 60
    """Optimiser steps a round: the same for every node, so that a small node is not drowned."""

    batch_size: int = 128
    """Rows a step; a node with fewer rows draws with replacement."""

    learning_rate: float = 1e-3
    """Of the local Adam, which starts afresh every round."""

    temperature: float = 0.2
    """tau of InfoNCE (specs/90-learning.md section 4); lower sharpens the contrast."""

    align_weight: float = 1.0
    """Factor of the alignment to the global reference; 0 switches it off. Below about 2 the
    contrast outweighs it: the reference stays short, the consistency weights near one half."""

    noise_std: float = 0.05
    """Standard deviation of the noise on a view's features, in node standard deviations."""

    gain_std: float = 0.1
    """Standard deviation of the common gain of one stream and window: a slightly busier moment."""

    drop_rate: float = 0.0
    """Probability that a view misses a stream's window, that is, shows the node's mean there. More
    helps on real rows and hurts on the built-in ones (specs/90-learning.md section 8)."""

    synthetic_negatives: bool = False
    """Also push the rows away from corrupted rows (specs/90-learning.md section 4)."""

    blocks: tuple[int, ...] = ()
    """Lengths of runs of columns that belong to one stream and window; () takes the known layout
    of 115 or 100 traffic columns, and otherwise every column alone."""

    objective: str = IN_BATCH
    """What a row is told from: "in-batch", the other rows of the batch; "per-record", public rows
    and variants of itself, so that no row's loss depends on another (specs/53-record-level.md)."""

    private: str = ""
    """Record-level privacy: "" for none, "dp-sgd" with the per-record objective, or "logit-dp" with
    the in-batch one. `align_weight` and `synthetic_negatives` have no effect under either."""

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
        check_number(own, "align_weight", self.align_weight, low=0.0, high=1e3)
        check_number(own, "noise_std", self.noise_std, low=0.0, high=10.0)
        check_number(own, "gain_std", self.gain_std, low=0.0, high=10.0)
        check_number(own, "drop_rate", self.drop_rate, low=0.0, high=0.95)
        if not isinstance(self.synthetic_negatives, bool):
            raise ModelError(
                f"{own}.synthetic_negatives is {self.synthetic_negatives!r}",
                hint="use true or false",
            )
        check_integers(own, "blocks", self.blocks, at_most=MAX_DIM)
        self._check_privacy()

    def unprotected(self) -> TrainConfig:
        """Return settings without record-level privacy, for what never leaves a node.

        Optimiser, rate and steps are the defaults too: those of noised steps suit no others.
        """
        if not self.private:
            return self
        plain = TrainConfig()
        reset = ("objective", "private", "optimiser", "noise_multiplier", "learning_rate", "steps")
        return dataclasses.replace(self, **{name: getattr(plain, name) for name in reset})

    def _check_privacy(self) -> None:
        """Refuse settings of record-level privacy that are out of range or unsound together."""
        own = "TrainConfig"
        _check_choice(own, "objective", self.objective, (IN_BATCH, PER_RECORD))
        _check_choice(own, "private", self.private, ("", DP_SGD, LOGIT_DP))
        _check_choice(own, "optimiser", self.optimiser, ("adam", "sgd"))
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


def _check_choice(owner: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ModelError(
            f"{owner}.{name} is {value!r}", hint=f"use one of {', '.join(map(repr, choices))}"
        )
