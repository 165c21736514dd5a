"""How quality depends on the learning rate and on the temperature: seed 001, Figures 2 and 3.

::

    python -m bench.sensitivity [--data PATH] [--seeds 3] [--plots bench/plots] [--out FILE]

The paper plots AUC over the learning rate and F1 over the temperature; on data that is nearly
separable both say little, so the false-positive rate at a recall of 0.999 stands beside them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from fl_core.calibration import cross_scores
from fl_core.config import ModelConfig, TrainConfig
from fl_core.contender_encoders import head_score
from fl_core.data.dataset import DeviceData
from fl_core.data.sources import load_devices
from fl_core.errors import DataError, ModelError
from fl_core.federated import train_federated
from fl_core.metrics import quality
from fl_core.scoring import benign_threshold
from nodes.learner import use_one_thread

__all__ = ["FIGURES", "Figure", "Point", "draw", "main", "measure", "table"]

MAX_FPR: Final = 0.01


@dataclass(frozen=True)
class Figure:
    """A setting that is varied."""

    name: str
    setting: str
    values: tuple[float, ...]
    column: str
    """What the paper plots over it."""


FIGURES: Final = (
    Figure("learning rate", "learning_rate", (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 0.1), "AUC"),
    Figure("temperature", "temperature", (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0), "F1"),
)
COLUMNS: Final = {"AUC": "auc", "F1": "f1", "FPR at TPR 0.999": "fpr_at_tpr_999"}


@dataclass(frozen=True)
class Point:
    """Quality at one value of a setting: mean over devices, for each seed."""

    value: float
    columns: dict[str, tuple[float, ...]]


def measure(
    devices: Sequence[DeviceData], config: TrainConfig, *, rounds: int, seed: int
) -> dict[str, float]:
    """Train once and return the means over devices of `COLUMNS`; NaN where training goes astray."""
    rows = [(each.train, each.validation) for each in devices]
    model = ModelConfig(devices[0].train.shape[1])
    try:
        theta = train_federated(rows, model=model, config=config, rounds=rounds, seed=seed)
    except ModelError:  # a loss that is no number
        return dict.fromkeys(COLUMNS, float("nan"))
    found = []
    for each in devices:
        score = head_score(theta, model, each.train)
        crossed = cross_scores(lambda some: head_score(theta, model, some), each.train)
        unseen = np.concatenate((crossed, score(each.validation)))
        threshold = benign_threshold(unseen, MAX_FPR)
        found.append(quality(score(each.test_benign), score(each.test_attack), threshold))
    return {
        title: float(np.mean([getattr(each, key) for each in found]))
        for title, key in COLUMNS.items()
    }


def table(figure: Figure, points: Sequence[Point]) -> str:
    """Return a figure's points as Markdown: mean over seeds, and their range."""
    lines = [f"| {figure.name} | {' | '.join(COLUMNS)} |", "|--:" * (len(COLUMNS) + 1) + "|"]
    for point in points:
        cells = [
            f"{np.mean(values):.4f} ({min(values):.4f}–{max(values):.4f})"
            for values in point.columns.values()
        ]
        lines.append(f"| {point.value:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(figure: Figure, points: Sequence[Point], path: Path) -> None:
    """Plot the paper's measure over the setting, and the false-positive rate below it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context({"svg.hashsalt": figure.name, "svg.fonttype": "none"}):
        canvas = Canvas(figsize=(6, 6), layout="constrained")
        for axes, title in zip(
            canvas.subplots(2, 1, sharex=True), (figure.column, "FPR at TPR 0.999"), strict=True
        ):
            values = np.array([point.columns[title] for point in points])  # (points, seeds)
            at = [point.value for point in points]
            axes.plot(at, values.mean(axis=1), marker="o")
            axes.fill_between(at, values.min(axis=1), values.max(axis=1), alpha=0.2)
            axes.set(xscale="log", ylabel=title)
            axes.axvline(getattr(TrainConfig(), figure.setting), color="grey", linestyle=":")
        axes.set_xlabel(f"{figure.name} (dotted: the default)")
        canvas.savefig(path, metadata={"Date": None})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and plot."""
    parser = argparse.ArgumentParser(prog="python -m bench.sensitivity", description=__doc__)
    parser.add_argument("--data", default="builtin")
    parser.add_argument("--drop", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--plots", type=Path, help="folder for the figures")
    parser.add_argument("--out", type=Path, help="append the tables to a file")
    options = parser.parse_args(arguments)
    use_one_thread()
    if options.plots:
        options.plots.mkdir(parents=True, exist_ok=True)
    try:
        loaded = [
            load_devices(options.data, options.drop, seed=seed) for seed in range(options.seeds)
        ]
        for figure in FIGURES:
            points = []
            for value in figure.values:
                config = TrainConfig.from_dict({figure.setting: value})
                found = [
                    measure(devices, config, rounds=options.rounds, seed=seed)
                    for seed, devices in enumerate(loaded)
                ]
                columns = {title: tuple(each[title] for each in found) for title in COLUMNS}
                points.append(Point(value, columns))
            text = table(figure, points)
            print(f"{text}\n", flush=True)
            if options.out:
                with options.out.open("a") as file:
                    file.write(f"{text}\n\n")
            if options.plots:
                draw(figure, points, options.plots / f"{figure.setting}.svg")
    except (DataError, ModelError) as error:
        sys.exit(f"{error}: {error.hint}")


if __name__ == "__main__":
    main()
