"""The measurement runs and says what it should; no time is judged."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import drift
from bench.common import BenchError
from bench.detection_speed import (
    DETECTOR,
    Figures,
    Scoring,
    Setting,
    largest_device,
    main,
    measure,
    table,
    verdicts,
)
from fl_core.config import ModelConfig
from fl_core.contender_encoders import SERIES
from fl_core.data.sources import load_device
from fl_core.export import MAX_DIFFERENCE
from fl_core.parameters import ParamSpec

FIGURES = Figures(
    "d", 100, 115, 1, 34_624, 0.5, (Scoring(DETECTOR, 60_000.0, 0.2),), None, 20_000.0, 9, 1e-16
)


@pytest.mark.req("L-68")
def test_a_small_run_measures_everything() -> None:
    data = load_device("builtin", "Ecobee_Thermostat", limit_rows=100)
    found = measure(data, Setting(rows=200, batch=64, singles=3, repetitions=1))
    assert found.train_rows == 100
    assert len(found.scoring) == 4
    assert all(each.rows_per_s > 0 and each.single_ms > 0 for each in found.scoring)
    assert found.csv_rows_per_s > 0
    assert found.program_difference <= MAX_DIFFERENCE
    assert "| detector |" in table(found)


@pytest.mark.req("L-68")
def test_of_series_the_windows_of_their_own_encoder_are_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for server, count in (("omi-1", 200), ("omi-2", 150)):
        label = (np.arange(60) > 40).astype(np.int8)
        train, test = rng.normal(size=(count, 3)), rng.normal(size=(60, 3))
        np.savez(tmp_path / f"{server}.npz", train=train, test=test, test_label=label)
    out = tmp_path / "figures.json"
    main(["--data", str(tmp_path), "--rows", "100", "--repetitions", "1", "--out", str(out)])
    assert "48 features in 16 time steps" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert (found["device"], found["window"]) == ("omi-1", 16)
    assert found["parameters"] == ParamSpec.from_model(SERIES.model(48)).dim
    assert found["csv_rows_per_s"] > 0


@pytest.mark.req("L-01", "L-68")
def test_the_default_encoder_is_within_its_size() -> None:
    assert ParamSpec.from_model(ModelConfig(input_dim=115)).dim == 34_624
    assert verdicts(FIGURES)["parameters"]


@pytest.mark.req("L-68")
@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, set()),
        ({"parameters": 50_000}, {"parameters"}),
        ({"round_s": 5.1}, {"round_s"}),
        ({"scoring": (Scoring(DETECTOR, 49_000.0, 5.1),)}, {"rows_per_s", "single_ms"}),
    ],
)
def test_a_missed_target_is_said(change: dict[str, object], missed: set[str]) -> None:
    figures = replace(FIGURES, **change)  # type: ignore[arg-type]
    assert {name for name, met in verdicts(figures).items() if not met} == missed
    assert table(figures).count("**no**") == len(missed)


def test_nothing_to_score_is_an_error() -> None:
    data = load_device("builtin", "Ecobee_Thermostat", limit_rows=50)
    with pytest.raises(BenchError, match="nothing to score"):
        measure(data, Setting(rows=0))


def test_the_command_takes_a_file_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load_device("builtin", "Ecobee_Thermostat", limit_rows=60)
    lines = [",".join([*data.feature_names, "label"])]
    for label, rows in (("benign", data.train), ("attack", data.test_attack)):
        lines += [",".join([*map(repr, row), label]) for row in rows.tolist()]
    (tmp_path / "d.csv").write_text("\n".join(lines))
    out = tmp_path / "figures.json"
    source = str(tmp_path / "d.csv")
    assert largest_device(source).train.shape[1] == 115
    main(["--data", source, "--rows", "100", "--repetitions", "1", "--out", str(out)])
    assert "| one window, ms |" in capsys.readouterr().out
    assert json.loads(out.read_text())["parameters"] == 34_624
    with pytest.raises(SystemExit, match="error: "):
        main(["--data", str(tmp_path / "missing.csv")])


def test_the_drift_watch_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    drift.main(["--devices", "Ecobee_Thermostat", "--days", "0.6"])
    head, _, row = capsys.readouterr().out.splitlines()
    assert head.count("|") == row.count("|") == 7
    assert row.startswith("| Ecobee_Thermostat | ")
