from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from fl_core import window_stream
from fl_core.config import ModelConfig
from fl_core.data.series import padded_windows, window_columns, windows
from fl_core.detector import Detector
from fl_core.parameters import initial_parameters
from fl_core.row_stream import RowBatch
from fl_core.window_stream import window_batches
from nodes.cli import main


def batches(values, sizes, devices=None):
    """Cut rows into batches of the given sizes."""
    owners = devices or [None] * len(values)
    first = 0
    for size in sizes:
        part = slice(first, first + size)
        numbers = range(first + 1, first + size + 1)
        yield RowBatch(numbers, values[part], [None] * size, owners[part])
        first += size


def joined(parts):
    return np.concatenate([part.values for part in parts])


@pytest.mark.req("L-37")
@pytest.mark.parametrize("sizes", [[20], [1] * 20, [3, 9, 8]])
def test_windows_do_not_depend_on_how_the_steps_arrive(sizes):
    values = np.random.default_rng(0).normal(size=(20, 2))
    got = joined(window_batches(batches(values, sizes), 5))
    assert np.array_equal(got, padded_windows(values, 5))
    assert np.array_equal(joined(window_batches(batches(values, sizes), 1)), values)


@pytest.mark.req("L-37")
def test_every_device_is_a_series_of_its_own():
    values = np.arange(24.0).reshape(12, 2)
    owners = ["a", "b", "b"] * 4
    got = joined(window_batches(batches(values, [5, 7], owners), 3))
    for name in "ab":
        mine = [i for i, owner in enumerate(owners) if owner == name]
        assert np.array_equal(got[mine], padded_windows(values[mine], 3))


@pytest.mark.req("L-37")
def test_a_file_that_starts_anew_carries_nothing_over():
    values = np.arange(8.0).reshape(4, 2)
    first, *rest = batches(values + 100, [2, 2])
    both = [*batches(values, [1, 3]), replace(first, anew=True), *rest]
    got = joined(window_batches(both, 3))
    assert np.array_equal(got[:4], padded_windows(values, 3))
    assert np.array_equal(got[4:], padded_windows(values + 100, 3))
    assert not list(window_batches([RowBatch([], values[:0], [], [])], 3))


@pytest.mark.req("L-20")
def test_devices_that_nobody_knows_are_not_remembered():
    values = np.arange(16.0).reshape(8, 2)
    owners = ["a", "x"] * 4
    got = joined(window_batches(batches(values, [1] * 8, owners), 3, devices={"a"}))
    assert np.array_equal(got[::2], padded_windows(values[::2], 3))
    assert np.array_equal(got[1::2], np.tile(values[1::2], 3)), "each as if it were the first"


@pytest.mark.req("L-20")
def test_of_too_many_series_the_one_silent_longest_begins_anew(monkeypatch):
    monkeypatch.setattr(window_stream, "MAX_SERIES", 2)
    values = np.arange(10.0).reshape(5, 2)
    owners = ["a", "b", "a", "c", "b"]
    got = joined(window_batches(batches(values, [1] * 5, owners), 2))
    assert np.array_equal(got[2], [*values[0], *values[2]]), "a is remembered"
    assert np.array_equal(got[4], np.tile(values[4], 2)), "b is not: c took its place"


@pytest.mark.req("L-37")
def test_detect_reads_time_steps_for_a_model_of_windows(tmp_path, monkeypatch, capsys):
    length, names = 4, ("p", "q")
    values = np.random.default_rng(0).normal(size=(300, 2))
    model = ModelConfig(input_dim=8, hidden=(8,), embedding_dim=4, window=length)
    detector = Detector.fit_head(
        initial_parameters(model, 0),
        model,
        windows(values[:200], length),
        windows(values[200:], length),
        device="pump",
        feature_names=window_columns(names, length),
    )
    detector.save(tmp_path / "model.safetensors")
    lines = ["q;datetime;p", *(f"{q!r};now;{p!r}" for p, q in values[:50].tolist())]
    (tmp_path / "new.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    command = ["secagg", "detect", "--model", "model.safetensors", "--data", "new.csv", "--all"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stop:
        main()
    out, _ = capsys.readouterr()
    assert stop.value.code in (0, None)
    got = [json.loads(line)["score"] for line in out.splitlines()]
    assert got == pytest.approx(detector.score(padded_windows(values[:50], length)), rel=1e-4)
