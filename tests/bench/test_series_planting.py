"""What settings of series are chosen on: no labelled step, and anomalies where the labels say."""

from __future__ import annotations

import numpy as np
import pytest

from bench.series_planting import KINDS, PIECE, SETS, STRIDE, pieces, plant, shortened
from fl_core.data.series import Series

C = 4
OTHERS = np.array([[5.0, -5.0, 2.0, 1.0], [0.0, 3.0, -2.0, 4.0]])


def normal(steps: int = 400, tested: int = 300) -> Series:
    rng = np.random.default_rng(0)
    values = 10.0 + rng.normal(size=(steps + tested, C)).cumsum(axis=0) * 0.05
    values += 0.3 * rng.normal(size=values.shape)
    labels = np.ones(tested, np.int8)
    return Series("pump", tuple("abcd"), values[:steps], values[steps:], labels)


def test_a_shortened_series_holds_no_test_step() -> None:
    series = normal()
    short = shortened(series, 0.6, 100)
    assert np.array_equal(short.train, series.train[:240])
    assert np.array_equal(short.test, series.train[240:340])
    assert not short.labels.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SETS)
def test_what_is_planted_is_where_the_labels_say(kind: str, name: str) -> None:
    clean = shortened(normal(2000), 0.5, 900)
    series = plant(clean, kind, SETS[name], OTHERS, seed=3)
    changed = (np.abs(series.test - clean.test) > 1e-9).any(axis=1)
    assert not changed[series.labels == 0].any()
    assert changed[series.labels == 1].mean() > 0.5  # a trend begins at nothing
    assert np.array_equal(series.train, clean.train)
    assert 0 < series.labels.sum() < len(series.labels)
    assert bool(series.labels[-1]) == SETS[name].lasts
    again = plant(clean, kind, SETS[name], OTHERS, seed=3)
    assert np.array_equal(again.test, series.test)


def test_servers_have_one_anomaly_in_so_many_steps() -> None:
    clean = shortened(normal(2000), 0.5, 900)
    labels = plant(clean, "shift", SETS["asd"], OTHERS, seed=1).labels
    assert np.count_nonzero(np.diff(labels) == 1) == 900 // SETS["asd"].every


def test_pieces_are_as_long_as_an_experiment() -> None:
    values = np.arange(2400.0 * C).reshape(2400, C)
    found = list(pieces(values, "abcd"))
    assert [each.train[0, 0] for each in found] == [C * STRIDE * i for i in range(3)]
    for each in found:
        assert (len(each.train), len(each.train) + len(each.test)) == PIECE
        assert np.array_equal(np.diff(each.test[:, 0]), np.full(len(each.test) - 1, C))
