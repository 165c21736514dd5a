"""Where offers meet the learner: settings that cannot be trained on are named, rows are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_core.config import ModelConfig, TrainConfig
from fl_core.errors import DataError, ModelError
from fl_core.layouts import named_blocks
from fl_core.parameters import initial_parameters
from fl_core.training import LocalUpdate, train_local
from nodes.config import DataSection, training_bytes
from nodes.learner import Learner, load_data, load_public
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


def test_settings_that_train_nothing_are_refused_with_the_offer(learner: Learner) -> None:
    idle = replace(TRAIN, contrast_weight=0.0, align_weight=0.0)
    with pytest.raises(ModelError, match="nothing to train"):
        learner.accept(training_bytes(MODEL, idle, 0, 3), np.zeros(8, dtype=np.float32))


@pytest.mark.req("L-52")
def test_moon_gets_the_last_parameters_of_the_same_run_and_of_no_other(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[np.ndarray | None] = []

    def spy(*rows: object, previous: np.ndarray | None, **settings: object) -> LocalUpdate:
        given.append(previous)
        return train_local(*rows, previous=previous, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("nodes.learner.train_local", spy)
    params = initial_parameters(MODEL, 0)
    reference = np.zeros(MODEL.embedding_dim, dtype=np.float32)
    moon = training_bytes(MODEL, replace(TRAIN, moon_weight=1.0), 0, 3)
    run = b"r" * 16
    first = learner.train(moon, params, reference, 0, run=run)
    learner.train(moon, params + 0.01, reference, 1, run=run)
    learner.train(moon, params, reference, 0, run=b"s" * 16)  # the same settings, another run
    other = training_bytes(MODEL, replace(TRAIN, moon_weight=1.0), 1, 3)
    learner.train(other, params, reference, 0, run=run)
    learner.train(training_bytes(MODEL, TRAIN, 0, 3), params, reference, 0, run=run)
    assert given[0] is None  # the first round, and the first after a restart
    assert np.array_equal(given[1], params + first.delta)
    assert given[2:] == [None, None, None]


@pytest.mark.req("S-23")
def test_columns_that_mean_something_else_are_refused(learner: Learner) -> None:
    names, reference = learner.data.feature_names, np.zeros(MODEL.embedding_dim, np.float32)
    learner.accept(training_bytes(MODEL, TRAIN, 0, 3, names), reference)
    for wanted, odd in ((names[::-1], 1), ((*names[:3], "flow", *names[4:]), 4), (names[:3], 4)):
        named = repr(wanted[odd - 1]) if odd <= len(wanted) else "nothing"
        with pytest.raises(DataError, match=f"column {odd} is {named} in the offer") as caught:
            learner.accept(training_bytes(MODEL, TRAIN, 0, 3, wanted), reference)
        assert names[odd - 1] not in str(caught.value), "the node's own names stay its own"


@pytest.mark.req("S-23")
def test_rows_as_wide_as_n_baiots_have_to_be_its(tmp_path: Path) -> None:
    data = load_data(DataSection(source="builtin", device="Danmini_Doorbell"))
    model, train = ModelConfig(115, hidden=(8,), embedding_dim=4), replace(TRAIN, steps=1)
    reference = np.zeros(4, dtype=np.float32)
    Learner(data, "a", max_fpr=0.01).accept(training_bytes(model, train, 0, 3), reference)
    turned = replace(data, feature_names=data.feature_names[::-1])
    other = Learner(turned, "b", max_fpr=0.01)
    with pytest.raises(DataError, match="column 1 is 'MI_dir_L5_weight' in the offer"):
        other.accept(training_bytes(model, train, 0, 3), reference)
    other.accept(training_bytes(model, train, 0, 3, turned.feature_names), reference)


def test_relative_sources_are_relative_to_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "elsewhere").mkdir()
    write_site(tmp_path / "pump.csv", seed=1)
    monkeypatch.chdir(tmp_path / "elsewhere")
    section = DataSection(source="../pump.csv", public="../pump.csv")
    assert load_data(section, tmp_path / "site").device == "pump"
    assert load_public(section, tmp_path / "site") is not None
    with pytest.raises(DataError, match="no such file"):
        load_data(DataSection(source="pump.csv"), tmp_path / "site")
    assert load_data(DataSection(source=str(tmp_path / "pump.csv")), tmp_path / "site")


@pytest.mark.req("L-54")
@pytest.mark.parametrize("drop", ["MI_dir_*", "H_*", "HH_jit_*"])
def test_runs_of_columns_follow_their_names_and_not_their_number(
    drop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_data(DataSection(source="builtin", device="Danmini_Doorbell", drop=(drop,)))
    assert len(data.feature_names) == 100
    seen: list[tuple[int, ...]] = []

    def spy(*rows: object, config: TrainConfig, **settings: object) -> LocalUpdate:
        seen.append(config.blocks)
        return train_local(*rows, config=config, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("nodes.learner.train_local", spy)
    model, train = ModelConfig(100, hidden=(8,), embedding_dim=4), replace(TRAIN, steps=1)
    learner, reference = Learner(data, "bell", max_fpr=0.01), np.zeros(4, dtype=np.float32)
    params = initial_parameters(model, 0)
    offer = training_bytes(model, train, 0, 3, data.feature_names)
    learner.train(offer, params, reference, 0, run=b"r" * 16)
    known = drop == "HH_jit_*"
    assert seen == [() if known else named_blocks(data.feature_names)]
    for kind in ("cnn", "gnn", "gat"):
        offer = training_bytes(replace(model, kind=kind), train, 0, 3, data.feature_names)
        if known:
            learner.accept(offer, reference)
            continue
        with pytest.raises(DataError, match="100 columns for the traffic statistics"):
            learner.accept(offer, reference)


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
