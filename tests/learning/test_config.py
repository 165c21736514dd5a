from __future__ import annotations

import math

import pytest

from fl_core.config import ModelConfig, TrainConfig
from fl_core.errors import ModelError
from fl_core.server_opt import ServerOptConfig


@pytest.mark.parametrize(
    "settings",
    [
        ModelConfig(input_dim=115),
        ModelConfig(input_dim=3, hidden=(), embedding_dim=2),
        TrainConfig(blocks=(3, 3, 7)),
        ServerOptConfig(kind="fedadam", learning_rate=0.01),
    ],
    ids=lambda s: type(s).__name__,
)
def test_settings_survive_a_round_trip(settings):
    assert type(settings).from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("kind", "values", "text"),
    [
        (ModelConfig, {"input_dim": 0}, "input_dim is 0"),
        (ModelConfig, {"input_dim": True}, "input_dim is True"),
        (ModelConfig, {"input_dim": 5, "kind": "rnn"}, "kind is 'rnn'"),
        (ModelConfig, {"input_dim": 5, "hidden": [8, -1]}, "hidden is -1"),
        (ModelConfig, {"input_dim": 5, "hidden": "ab"}, "hidden is 'ab'"),
        (ModelConfig, {"input_dim": 5, "embedding_dim": 1}, "embedding_dim is 1"),
        (ModelConfig, {"input_dim": 60_000, "hidden": [60_000]}, "parameters, more than"),
        (ModelConfig, {}, "needs the setting 'input_dim'"),
        (ModelConfig, {"input_dim": 5, "width": 3}, "has no setting 'width'"),
        (TrainConfig, {"temperature": 0.0}, "temperature is 0.0"),
        (TrainConfig, {"temperature": math.nan}, "temperature is nan"),
        (TrainConfig, {"learning_rate": math.inf}, "learning_rate is inf"),
        (TrainConfig, {"batch_size": 1}, "batch_size is 1"),
        (TrainConfig, {"steps": 1.5}, "steps is 1.5"),
        (TrainConfig, {"align_weight": "much"}, "align_weight is 'much'"),
        (ServerOptConfig, {"kind": "sgd"}, "kind is 'sgd'"),
        (ServerOptConfig, {"beta1": 1.0}, "beta1 is 1.0"),
    ],
)
def test_a_wrong_setting_is_named(kind, values, text):
    with pytest.raises(ModelError, match=text):
        kind.from_dict(values)
