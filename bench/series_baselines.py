"""Baselines on sensor series: what a federated detector of windows has to beat, and what chance is.

    python -m bench.series_baselines --skab DIR --asd DIR [--windows 1 16] [--seeds 0 1 2]

Every series stands alone: its own training windows, its threshold for 1 % from its own validation
windows, every test step scored. Figures are means over the series and seeds; the standard deviation
is that of the seeds' means.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.common import BenchError
from fl_core.data.series import Series, split_windows, step_windows
from fl_core.data.series_files import list_series, load_series
from fl_core.scoring import benign_threshold
from fl_core.series_baselines import BASELINES
from fl_core.series_metrics import SeriesQuality, series_quality

__all__ = ["main", "measure"]

MAX_FPR: Final = 0.01
_SHOWN: Final = (
    "auc_pr",
    "vus_pr",
    "affiliation_precision",
    "affiliation_recall",
    "affiliation_f1",
)


def measure(series: Series, method: str, *, window: int, seed: int) -> SeriesQuality:
    """Return the quality of one baseline on one series."""
    train, validation = split_windows(series, window)
    score = BASELINES[method](train, seed=seed)
    threshold = benign_threshold(score(validation), MAX_FPR)
    return series_quality(series.labels, score(step_windows(series, window)), threshold)


def _load(folder: str) -> tuple[Series, ...]:
    names = list_series(Path(folder))
    if not names:
        raise BenchError(f"{folder}: no series", hint="give a folder in the layout of SKAB or ASD")
    return tuple(load_series(Path(folder), name) for name in names)


def _rows(name: str, series: Sequence[Series], args: argparse.Namespace) -> Iterator[str]:
    for window in args.windows:
        for method in BASELINES:
            runs = [_means(series, method, window, seed) for seed in args.seeds]
            cells = [
                f"{m:.3f} ± {s:.3f}"
                for m, s in zip(np.mean(runs, axis=0), np.std(runs, axis=0), strict=True)
            ]
            yield f"| {name} | {window} | {method} | " + " | ".join(cells) + " |"


def _means(series: Sequence[Series], method: str, window: int, seed: int) -> NDArray[np.float64]:
    """Return the means over the series; each has draws of its own."""
    table = []
    for index, one in enumerate(series):
        own = int(np.random.SeedSequence((seed, index)).generate_state(1)[0])
        quality = measure(one, method, window=window, seed=own)
        table.append([getattr(quality, key) for key in _SHOWN])
    return np.asarray(np.mean(table, axis=0), dtype=np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.series_baselines")
    parser.add_argument("--skab", help="folder of SKAB")
    parser.add_argument("--asd", help="folder of ASD")
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    print("| set | window | method | AUC-PR | VUS-PR | aff. precision | aff. recall | aff. F1 |")
    print("|---|---|---|---|---|---|---|---|")
    for name in ("skab", "asd"):
        if folder := getattr(args, name):
            series = _load(folder)
            for row in _rows(name, series, args):
                print(row, flush=True)
            share = np.mean([one.labels.mean() for one in series])
            print(
                f"\n{name}: {len(series)} series, anomalous share of the test steps {share:.3f}\n"
            )


if __name__ == "__main__":
    main()
