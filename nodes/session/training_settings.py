"""The training settings of an offer: canonical JSON on the wire, checked values here.

Without torch, since sessions read them for what a round costs and what a policy allows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import msgspec

from fl_core.config import ModelConfig, TrainConfig
from fl_core.errors import ModelError

__all__ = ["Training", "parse_training", "settings_of"]


class _TrainingBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    model: dict[str, Any]
    train: dict[str, Any]
    seed: int
    rounds: int
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Training:
    """The offer's training settings, checked."""

    model: ModelConfig
    train: TrainConfig
    seed: int
    rounds: int
    columns: tuple[str, ...] = ()
    """Names that the columns of a node's rows have to have, in order; () where nobody said."""


@functools.lru_cache(maxsize=64)
def parse_training(data: bytes) -> Training:
    """Check the training settings of an offer.

    Raises:
        ModelError: they are malformed or out of range.
    """
    try:
        body = msgspec.json.decode(data, type=_TrainingBody)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"the training settings of the offer are malformed: {error}") from error
    model, train = ModelConfig.from_dict(body.model), TrainConfig.from_dict(body.train)
    return Training(model, train, body.seed, body.rounds, body.columns)


def settings_of(data: bytes) -> Training | None:
    """Return the settings, or None where they are not such: then nothing is known of them."""
    try:
        return parse_training(data)
    except ModelError:
        return None
