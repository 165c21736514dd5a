"""Where offers meet the learner: settings that cannot be trained on are named, rows are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_core.errors import DataError, ModelError
from nodes.config import DataSection, training_bytes
from nodes.learner import Learner, load_data
from nodes.session.training_settings import parse_training
from tests.support.federation import N_FEATURES, write_site
from tests.support.training import small_settings

MODEL, TRAIN = small_settings(N_FEATURES)


@pytest.fixture
def learner(tmp_path: Path) -> Learner:
    write_site(tmp_path / "pump.csv", seed=1)
    data = load_data(DataSection(source=str(tmp_path / "pump.csv")))
    return Learner(data, "pump", max_fpr=0.01)


@pytest.mark.req("T-03")
@pytest.mark.parametrize(
    "settings",
    [
        b"",
        b"{}",
        b"[" * 60_000,
        b'{"model": "\xff"}',
        b'{"model":{},"train":{},"seed":1,"rounds":1}',
    ],
    ids=["empty", "no fields", "deep", "not UTF-8", "no input_dim"],
)
def test_hostile_training_settings_give_a_typed_error(settings: bytes) -> None:
    with pytest.raises(ModelError):
        parse_training(settings)


def test_a_model_for_other_columns_is_refused_before_any_row_is_read(learner: Learner) -> None:
    good = training_bytes(MODEL, TRAIN, 0, 3)
    learner.accept(good, np.zeros(MODEL.embedding_dim, dtype=np.float32))
    with pytest.raises(ModelError, match="a reference of 3 values"):
        learner.accept(good, np.zeros(3, dtype=np.float32))
    other, _ = small_settings(N_FEATURES + 1)
    with pytest.raises(DataError, match="takes 7 features, this node has 6"):
        learner.accept(
            training_bytes(other, TRAIN, 0, 3), np.zeros(other.embedding_dim, dtype=np.float32)
        )
    body = json.loads(good)
    body["train"]["batch_size"] = 65_536
    with pytest.raises(ModelError, match="batch_size"):
        learner.accept(json.dumps(body).encode(), np.zeros(MODEL.embedding_dim, dtype=np.float32))


@pytest.mark.req("L-37")
def test_a_node_of_windows_takes_models_of_its_own_length_or_of_none(tmp_path: Path) -> None:
    write_site(tmp_path / "pump.csv", seed=1)
    section = DataSection(source=str(tmp_path / "pump.csv"), window=4, drop=("*@-3",))
    assert len(load_data(section).feature_names) == 3 * N_FEATURES
    data = load_data(DataSection(source=section.source, window=4))
    learner = Learner(data, "pump", max_fpr=0.01)
    plain, train = small_settings(4 * N_FEATURES)
    reference = np.zeros(plain.embedding_dim, dtype=np.float32)
    for window in (1, 4):
        model = replace(plain, window=window)
        learner.accept(training_bytes(model, train, 0, 3), reference)
    model = replace(plain, window=2)
    with pytest.raises(DataError, match="takes windows of 2 time steps, this node's rows have 4"):
        learner.accept(training_bytes(model, train, 0, 3), reference)
