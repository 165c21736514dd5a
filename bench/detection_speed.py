"""Speed and size of learning and detection, on one core, beside what it has to be.

::

    python -m bench.detection_speed [--data PATH] [--out FILE]

The largest device of the data trains one round at the defaults, and its test rows, repeated, are
scored in batches and one by one: by the detector, by the exported program, and by scikit-learn's
isolation forest and PCA, fitted on the same training rows, in the same run. All start at raw rows.
Of a folder of series (SKAB, ASD) rows are windows, and the encoder is the one of series.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from threadpoolctl import threadpool_limits

from bench.common import BenchError, describe_machine
from fl_core.baselines import pca_score
from fl_core.contender_encoders import SERIES, Recipe
from fl_core.data.dataset import DeviceData
from fl_core.data.series import window_layout
from fl_core.data.sources import is_series_folder, list_devices, load_device
from fl_core.detector import Detector
from fl_core.drift import DriftMonitor, unwatched
from fl_core.errors import DataError, ModelError
from fl_core.export import save_program
from fl_core.normalise import Normaliser
from fl_core.parameters import ParamSpec, initial_parameters
from fl_core.row_stream import open_batches
from fl_core.streaming import score_batches
from fl_core.training import train_local
from fl_core.window_stream import window_batches

__all__ = [
    "TARGETS",
    "Figures",
    "Scoring",
    "Setting",
    "largest_device",
    "main",
    "measure",
    "table",
    "verdicts",
]

Score = Callable[[NDArray[np.float64]], object]

TARGETS: Final = {
    "parameters": 50_000,
    "round_s": 5.0,
    "rows_per_s": 50_000.0,
    "single_ms": 5.0,
}
"""specs/90-learning.md L-68: at most, but rows_per_s at least."""

DETECTOR, PROGRAM = "detector", "exported program"
FOREST, PCA = "isolation forest (scikit-learn)", "PCA(20) (scikit-learn)"


@dataclass(frozen=True)
class Setting:
    """How much is measured."""

    rows: int = 50_000
    batch: int = 1_024
    singles: int = 300
    repetitions: int = 5


@dataclass(frozen=True)
class Scoring:
    """One way to score raw rows."""

    way: str
    rows_per_s: float
    """In batches, per CPU second: the median of the repetitions."""
    single_ms: float
    """One row alone, CPU milliseconds: the median."""


@dataclass(frozen=True)
class Figures:
    """All that was measured."""

    device: str
    train_rows: int
    features: int
    window: int
    """Time steps in a row; 1 for rows that stand alone."""
    parameters: int
    round_s: float
    scoring: tuple[Scoring, ...]
    drift_us: float | None
    """CPU microseconds a row of the drift watch; None where the head cannot be watched."""
    csv_rows_per_s: float
    """From a CSV file to verdicts, as `secagg detect` does it, drift and printing left out."""
    program_bytes: int
    program_difference: float

    def of(self, way: str) -> Scoring:
        """Return the figures of one way."""
        return next(each for each in self.scoring if each.way == way)


def largest_device(source: str, *, window: int = 1) -> DeviceData:
    """Load the device with the most training rows, of this many time steps each.

    Raises:
        DataError: the source cannot be read, or has no device.
    """
    return max(
        (load_device(source, name, window=window) for name in list_devices(source)),
        key=lambda data: len(data.train),
    )


def measure(data: DeviceData, setting: Setting, recipe: Recipe | None = None) -> Figures:
    """Train, fit, export and score on one core.

    Args:
        data: Rows of one device.
        setting: How much is measured.
        recipe: Encoder and settings of training; those of rows that stand alone if None.

    Raises:
        BenchError: nothing to score.
        DataError: rows that cannot be used.
    """
    known = np.concatenate((data.test_benign, data.test_attack))
    if not len(known) or min(asdict(setting).values()) < 1:
        raise BenchError("there is nothing to score", hint="give test rows and counts of 1 or more")
    rows = np.resize(known, (setting.rows, known.shape[1]))
    recipe = recipe or Recipe()
    model, config = recipe.model(rows.shape[1]), recipe.config
    start, zeros = initial_parameters(model, 0), np.zeros(model.embedding_dim)

    def train() -> NDArray[np.float32]:
        return train_local(
            start, zeros, data.train, data.validation, model=model, config=config, seed=1
        ).delta

    delta = train()  # the first call also loads kernels
    round_s = statistics.median(_seconds(train) for _ in range(setting.repetitions))
    detector = Detector.fit_head(
        start + delta,
        model,
        data.train,
        data.validation,
        device=data.device,
        feature_names=data.feature_names,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.pt2"
        seen = save_program(detector, path)
        program = torch.export.load(path).module()
        csv_rows_per_s = _from_csv(detector, rows[: setting.rows // 5 + 1], Path(folder))

    def run_program(part: NDArray[np.float64]) -> object:
        with torch.inference_mode():
            return program(torch.from_numpy(part))

    ways: dict[str, Score] = {
        DETECTOR: detector.score,
        PROGRAM: run_program,
        FOREST: _forest(data.train),
        PCA: pca_score(data.train),
    }
    return Figures(
        device=data.device,
        train_rows=len(data.train),
        features=model.input_dim,
        window=model.window,
        parameters=ParamSpec.from_model(model).dim,
        round_s=round_s,
        scoring=tuple(_scoring(way, score, rows, setting) for way, score in ways.items()),
        drift_us=_drift_us(detector, rows, setting.batch),
        csv_rows_per_s=csv_rows_per_s,
        program_bytes=seen.size,
        program_difference=seen.difference,
    )


def _forest(train: NDArray[np.float64]) -> Score:
    """Fit scikit-learn's defaults on normalised rows, as the product's own encoder gets them."""
    normaliser = Normaliser.fit(train)
    forest = IsolationForest(random_state=0, n_jobs=1).fit(normaliser.apply(train))
    return lambda rows: -forest.score_samples(normaliser.apply(rows))


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _scoring(way: str, score: Score, rows: NDArray[np.float64], setting: Setting) -> Scoring:
    def in_batches() -> None:
        for start in range(0, len(rows), setting.batch):
            score(rows[start : start + setting.batch])

    score(rows[: setting.batch])
    spent = statistics.median(_seconds(in_batches) for _ in range(setting.repetitions))
    score(rows[:1])
    singles = [
        _seconds(lambda at=at: score(rows[at : at + 1]))  # type: ignore[misc]
        for at in range(min(setting.singles, len(rows)))
    ]
    return Scoring(way, len(rows) / max(spent, 1e-9), 1e3 * statistics.median(singles))


def _drift_us(detector: Detector, rows: NDArray[np.float64], batch: int) -> float | None:
    head = detector.head()
    if unwatched(head) is not None:
        return None
    scores, monitor = detector.score(rows), DriftMonitor(head)
    spent = _seconds(
        lambda: [monitor.observe(scores[at : at + batch]) for at in range(0, len(rows), batch)]
    )
    return 1e6 * spent / len(rows)


def _from_csv(detector: Detector, rows: NDArray[np.float64], folder: Path) -> float:
    path = folder / "rows.csv"
    channels, length = window_layout(detector.feature_names)
    steps = rows[:, -len(channels) :]  # of a window its last
    lines = [",".join(channels)]
    lines += [",".join(map(repr, step)) for step in steps.tolist()]
    path.write_text("\n".join(lines) + "\n")

    def read() -> None:
        with open_batches(str(path), channels) as batches:
            for _ in score_batches(detector, window_batches(batches, length)):
                pass

    return len(rows) / max(_seconds(read), 1e-9)


# --- command ---------------------------------------------------------------------------------


def verdicts(figures: Figures) -> dict[str, bool]:
    """Tell which targets the detector meets."""
    own = figures.of(DETECTOR)
    return {
        "parameters": figures.parameters < TARGETS["parameters"],
        "round_s": figures.round_s <= TARGETS["round_s"],
        "rows_per_s": own.rows_per_s >= TARGETS["rows_per_s"],
        "single_ms": own.single_ms <= TARGETS["single_ms"],
    }


def table(figures: Figures) -> str:
    """Return the figures as two Markdown tables and a line."""
    own, met = figures.of(DETECTOR), verdicts(figures)
    budget = (
        ("encoder parameters", f"{figures.parameters:,}", "below 50,000", "parameters"),
        ("one round of training, s", f"{figures.round_s:.2f}", "5", "round_s"),
        ("windows a second", f"{own.rows_per_s:,.0f}", "50,000", "rows_per_s"),
        ("one window, ms", f"{own.single_ms:.2f}", "5", "single_ms"),
    )
    lines = ["| | measured | target | met |", "|---|--:|--:|---|"]
    lines += [
        f"| {name} | {value} | {target} | {'yes' if met[key] else '**no**'} |"
        for name, value, target, key in budget
    ]
    lines += ["", "| scoring raw rows | windows/s | one window, ms |", "|---|--:|--:|"]
    lines += [f"| {s.way} | {s.rows_per_s:,.0f} | {s.single_ms:.2f} |" for s in figures.scoring]
    steps = f" in {figures.window} time steps" if figures.window > 1 else ""
    drift = "not watched" if figures.drift_us is None else f"{figures.drift_us:.1f} µs a row"
    lines += [
        "",
        f"{figures.device}, {figures.train_rows} training rows of {figures.features} features"
        f"{steps}. "
        f"Drift watch: {drift}. From a CSV file: {figures.csv_rows_per_s:,.0f} rows/s. Program: "
        f"{figures.program_bytes:,} bytes, difference {figures.program_difference:.1e}.",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.detection_speed", description=__doc__)
    parser.add_argument("--data", default="builtin", help="a source as `secagg` takes it")
    parser.add_argument("--rows", type=int, default=Setting.rows, help="rows scored in batches")
    parser.add_argument("--batch", type=int, default=Setting.batch, help="rows a batch")
    parser.add_argument("--repetitions", type=int, default=Setting.repetitions)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args(arguments)
    setting = Setting(rows=options.rows, batch=options.batch, repetitions=options.repetitions)
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            recipe = SERIES if is_series_folder(options.data) else Recipe()
            data = largest_device(options.data, window=recipe.window)
            figures = measure(data, setting, recipe)
    except (BenchError, DataError, ModelError) as error:
        sys.exit(f"error: {error}\nhint: {error.hint}")
    print(table(figures))
    if options.out:
        facts: dict[str, Any] = {"machine": asdict(describe_machine()), "torch": torch.__version__}
        options.out.write_text(json.dumps(facts | asdict(figures), indent=1) + "\n")


if __name__ == "__main__":
    main()
