"""The sensitivity plots: a value of a setting is trained with, and drawn where it belongs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from bench import sensitivity
from bench.sensitivity import FIGURES, Point, draw, measure, table
from fl_core.config import TrainConfig
from fl_core.data.sources import load_device
from tests.support.federation import write_site


def test_every_value_is_a_setting_and_the_default_is_among_them() -> None:
    for figure in FIGURES:
        for value in figure.values:
            replace(TrainConfig(), **{figure.setting: value})
        assert getattr(TrainConfig(), figure.setting) in figure.values
        assert figure.values == tuple(sorted(figure.values))


def test_a_point_is_measured_and_a_diverged_one_is_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_site(tmp_path / "a.csv", seed=0)
    devices = [load_device(str(tmp_path / "a.csv"), "a")]
    brief = TrainConfig(steps=2, batch_size=8)
    found = measure(devices, brief, rounds=1, seed=0)
    assert 0.5 < found["AUC"] <= 1.0

    def astray(*_: object, **__: object) -> None:
        raise sensitivity.ModelError("the loss is nan at step 0")

    monkeypatch.setattr(sensitivity, "train_federated", astray)
    assert all(math.isnan(value) for value in measure(devices, brief, rounds=1, seed=0).values())


def test_tables_and_plots_show_mean_and_range(tmp_path: Path) -> None:
    columns = {"AUC": (0.9, 0.7), "F1": (0.5, 0.7), "FPR at TPR 0.999": (0.1, 0.3)}
    points = [Point(0.1, columns), Point(0.2, columns)]
    assert "| 0.1 | 0.8000 (0.7000–0.9000) |" in table(FIGURES[1], points)
    for name in ("one.svg", "two.svg"):
        draw(FIGURES[1], points, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
