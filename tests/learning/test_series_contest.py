"""Contenders on series: what they see, and what is measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fl_core.config import TrainConfig
from fl_core.contender_baselines import baselines
from fl_core.contender_encoders import SERIES, encoders
from fl_core.contenders import Contender, Fitted, Rows
from fl_core.contest import markdown, summary
from fl_core.data.series import Series, split_windows, step_windows
from fl_core.errors import DataError
from fl_core.scoring import benign_threshold
from fl_core.series_contest import SERIES_COLUMNS, compare_series
from fl_core.series_metrics import series_quality

WINDOW = 8


def place(index: int) -> Series:
    """Two channels that move together, until for a while they do not."""
    rng = np.random.default_rng(index)
    common = np.sin(np.arange(500) / 5.0)[:, None]
    values = np.repeat(common, 2, axis=1) + 0.1 * rng.normal(size=(500, 2))
    values[420:450, 1] *= -1.0
    labels = np.zeros(200, dtype=np.int8)
    labels[120:150] = 1
    return Series(f"place-{index}", ("a", "b"), values[:300], values[300:], labels)


@pytest.fixture(scope="module")
def places() -> list[Series]:
    return [place(index) for index in range(3)]


@pytest.mark.req("L-76")
def test_a_contender_sees_windows_of_the_normal_part_and_is_measured_step_by_step(
    places: list[Series],
) -> None:
    seen: list[Rows] = []

    def score(values):
        return np.asarray(values)[:, -1]

    def fit(rows: Rows, seed: int) -> Fitted:
        seen.append(rows)
        return Fitted(lambda index: score, None, lambda some: score, 5.0)

    (result,) = compare_series([Contender("last", fit)], places, window=WINDOW, seeds=[4])
    for each, (train, validation) in zip(places, seen[0], strict=True):
        own, held = split_windows(each, WINDOW)
        assert np.array_equal(train, own)
        threshold = benign_threshold(score(validation), 0.01)
        assert np.array_equal(validation, held)
        wanted = series_quality(each.labels, score(step_windows(each, WINDOW)), threshold)
        assert result.series[each.name] == wanted
    assert (result.seed, result.traffic) == (4, 5.0)


@pytest.mark.req("L-76")
def test_every_method_learns_something_and_chance_nothing(places: list[Series]) -> None:
    brief = TrainConfig(steps=4, batch_size=16, learning_rate=5e-3)
    recipe = replace(SERIES, window=WINDOW, config=brief)
    methods = [each for each in baselines(WINDOW - 1) if "autoencoder" not in each.name]
    methods += encoders(rounds=1, recipe=recipe)
    results = list(compare_series(methods, places, window=WINDOW, seeds=[0]))
    found = summary(results, SERIES_COLUMNS)
    assert "time-frequency encoder, pooled rows" in found
    assert not any("GNN" in name or "GAT" in name for name in found)
    for name, columns in found.items():
        if name == "random scores":
            assert columns["auc_pr"].mean < 0.3
        elif name != "isolation forest, alone":  # blind to the relation of two columns
            assert columns["auc_pr"].mean > 0.3, name
    assert "| ours |" in markdown(results, SERIES_COLUMNS)


def test_a_series_without_anomalies_is_refused_before_anything_is_trained(
    places: list[Series],
) -> None:
    def fit(rows: Rows, seed: int) -> Fitted:
        raise AssertionError("trained")

    quiet = replace(places[1], labels=np.zeros(200, dtype=np.int8))
    with pytest.raises(DataError, match="place-1 has no anomaly"):
        list(compare_series([Contender("x", fit)], [places[0], quiet], window=WINDOW, seeds=[0]))


@pytest.mark.req("L-76")
def test_the_series_of_a_group_are_one_device_and_measured_one_by_one(
    places: list[Series],
) -> None:
    seen: list[Rows] = []
    asked: list[int] = []

    def known(index: int):
        asked.append(index)
        return lambda values: np.asarray(values)[:, -1] * (1.0 if index == 0 else -1.0)

    def fit(rows: Rows, seed: int) -> Fitted:
        seen.append(rows)
        return Fitted(known, None, lambda some: known(0), None)

    groups = [("place-2", "place-0"), ("place-1",)]
    (result,) = compare_series(
        [Contender("last", fit)], places, window=WINDOW, seeds=[0], groups=groups
    )
    both, alone = seen[0]
    own = [split_windows(each, WINDOW) for each in places]
    assert np.array_equal(both[0], np.concatenate((own[0][0], own[2][0])))
    assert np.array_equal(both[1], np.concatenate((own[0][1], own[2][1])))
    assert np.array_equal(alone[0], own[1][0])
    assert set(asked) == {0, 1}
    assert set(result.series) == {"place-0", "place-1", "place-2"}
    scores = -step_windows(places[1], WINDOW)[:, -1]
    threshold = benign_threshold(-own[1][1][:, -1], 0.01)
    assert result.series["place-1"] == series_quality(places[1].labels, scores, threshold)
