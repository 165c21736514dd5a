"""Training settings for the unit "record": what the operator leaves open is filled in here.

Source: specs/53-record-level.md.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from collections.abc import Mapping
from typing import Any, Final

from fl_core.config import CLIP_STEPS, DP_SGD, IN_BATCH, LOGIT_DP, PER_RECORD, TrainConfig
from fl_core.data.extractor import FEATURE_NAMES
from fl_core.errors import ModelError
from fl_core.public_bank import PublicBank
from nodes.session.privacy import PrivacySettings, record_event
from secagg.dp.accountant import multiplier_for
from secagg.errors import ConfigError

__all__ = ["record_training"]

_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    DP_SGD: {
        "objective": PER_RECORD,
        "steps": 10,
        "optimiser": "sgd",
        "learning_rate": 0.3,
        "temperature": 0.2,
        "gain_std": 0.1,
        "own_negatives": 8,
        "sampling_rate": 0.02,
        "nominal_rows": 1500,
    },
    LOGIT_DP: {
        "objective": IN_BATCH,
        "steps": 10,
        "temperature": 1.0,
        "gain_std": 0.1,
        "sampling_rate": 0.02,
        "nominal_rows": 1500,
        "batch_size": 32,
    },
}
"""By the way of `private`: for dp-sgd the settings that `python -m bench.dp utility` measures. None
of them may come from a node's own rows. Sensitivity of logit-dp is out of hand at a low temperature
(specs/53-record-level.md section 4)."""
_MOST_MULTIPLIER: Final = 16.0


def record_training(
    given: Mapping[str, Any],
    settings: PrivacySettings,
    *,
    rounds: int,
    width: int,
    drop: tuple[str, ...],
) -> TrainConfig:
    """Return the settings of training that protects single rows within the budget.

    Args:
        given: The table [train].
        settings: The table [privacy].
        rounds: Rounds that are to have a result.
        width: Columns of the model.
        drop: Patterns of the traffic columns that the nodes leave out.

    Raises:
        ConfigError: no public rows have the model's columns, or no noise is enough for the budget.
        ModelError: a setting is out of range or unsound with another.
    """
    plain = TrainConfig()  # a written file holds every default: only what differs was chosen
    chosen = {key: value for key, value in given.items() if value != getattr(plain, key, None)}
    way = chosen.get("private", DP_SGD)
    values = {"private": way, **_DEFAULTS.get(str(way), {}), **chosen}
    if "private" in chosen and "objective" in given:  # both were chosen: unsound ones are refused
        values["objective"] = given["objective"]
    if "bank_digest" not in chosen:
        values["bank_digest"] = _digest(width, drop)
    if "noise_multiplier" in chosen:
        return TrainConfig.from_dict(values)
    count = settings.planned_rounds(rounds)
    one = record_event(TrainConfig.from_dict({**values, "noise_multiplier": 1.0}))

    def events(multiplier: float) -> dict[Any, int]:
        grid = 1 / max(multiplier * CLIP_STEPS, 8.0)
        event = dataclasses.replace(one, noise_multiplier=multiplier, grid=grid)
        return {event: count}

    least = multiplier_for(events, epsilon=settings.epsilon, delta=settings.delta)
    if least > _MOST_MULTIPLIER:
        raise ConfigError(
            f"epsilon = {settings.epsilon:g} over {rounds} rounds takes a noise multiplier of "
            f"{least:.3g}",
            hint="use fewer rounds or steps, a smaller sampling_rate or a larger epsilon",
        )
    return TrainConfig.from_dict({**values, "noise_multiplier": least})


@functools.cache
def _digest(width: int, drop: tuple[str, ...]) -> str:
    """Return the digest of the built-in public rows with a model's columns."""
    names = [n for n in FEATURE_NAMES if not any(fnmatch.fnmatchcase(n, p) for p in drop)]
    if len(names) != width:
        raise ConfigError(
            f"the built-in public rows have {len(names)} columns without {list(drop)}, the model "
            f"takes {width}",
            hint="set privacy.drop as the nodes' data.drop; for other data give the nodes data."
            "public and set [train] bank_digest, which a node that refuses the offer prints",
        )
    try:
        return PublicBank.builtin(names).digest
    except ModelError as error:
        raise ConfigError(str(error), hint=error.hint) from error
