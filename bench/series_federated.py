"""The time-frequency transformer on sensor series, trained over all places of a set together.

    python -m bench.series_federated --skab DIR --asd DIR [--seeds 0 1 2]

Every series is a node. Rounds are plain weighted means, which is what the secure sum opens. Each
node then fits its head on its own windows, and every test step is scored, as in
`bench.series_baselines`. "untrained" is the same with the first parameters. Figures are means over
the series; the standard deviation is that of the seeds' means.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.common import BenchError
from fl_core.config import ModelConfig, TrainConfig
from fl_core.data.series import Series, split_windows, step_windows, window_columns
from fl_core.data.series_files import list_series, load_series
from fl_core.detector import Detector
from fl_core.federated import train_federated
from fl_core.parameters import initial_parameters
from fl_core.series_metrics import series_quality

__all__ = ["load", "main", "measure", "model_of", "train"]

WINDOW: Final = 16
ROUNDS: Final = 6
SETTINGS: Final = {
    "skab": TrainConfig(steps=20, batch_size=32, learning_rate=5e-3),
    "asd": TrainConfig(steps=30, batch_size=64, learning_rate=5e-3),
}
_SHOWN: Final = ("auc_pr", "vus_pr", "affiliation_f1")


def model_of(series: Sequence[Series], window: int = WINDOW) -> ModelConfig:
    """Return the encoder for windows of these series."""
    channels = len(series[0].channels)
    return ModelConfig(
        input_dim=window * channels,
        kind="timefreq",
        window=window,
        hidden=(32,),
        embedding_dim=7 * channels,
    )


def train(
    series: Sequence[Series], model: ModelConfig, config: TrainConfig, *, seed: int
) -> NDArray[np.float32]:
    """Return the parameters after all rounds, shape (dim,)."""
    parts = [split_windows(each, model.window) for each in series]
    return train_federated(parts, model=model, config=config, rounds=ROUNDS, seed=seed)


def measure(
    series: Sequence[Series], model: ModelConfig, params: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return AUC-PR, VUS-PR and affiliation F1 at the threshold for 1 %: means over the series."""
    table = []
    for each in series:
        own, held = split_windows(each, model.window)
        names = window_columns(each.channels, model.window)
        head = Detector.fit_head(
            params, model, own, held, device=each.name, feature_names=names, max_fpr=0.01
        )
        scores = head.score(step_windows(each, model.window))
        quality = series_quality(each.labels, scores, head.threshold())
        table.append([getattr(quality, key) for key in _SHOWN])
    return np.asarray(np.mean(table, axis=0), dtype=np.float64)


def load(folder: str) -> tuple[Series, ...]:
    names = list_series(Path(folder))
    if not names:
        raise BenchError(f"{folder}: no series", hint="give a folder in the layout of SKAB or ASD")
    return tuple(load_series(Path(folder), name) for name in names)


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.series_federated")
    parser.add_argument("--skab", help="folder of SKAB")
    parser.add_argument("--asd", help="folder of ASD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    print("| set | encoder | AUC-PR | VUS-PR | affiliation F1 |\n|---|---|---|---|---|")
    for name, config in SETTINGS.items():
        if not (folder := getattr(args, name)):
            continue
        series = load(folder)
        model = model_of(series)
        runs: dict[str, list[NDArray[np.float64]]] = {"federated": [], "untrained": []}
        for seed in args.seeds:
            trained = train(series, model, config, seed=seed)
            runs["federated"].append(measure(series, model, trained))
            runs["untrained"].append(measure(series, model, initial_parameters(model, seed)))
        for encoder, rows in runs.items():
            means, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
            cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(means, spread, strict=True)]
            print(f"| {name} | {encoder} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
