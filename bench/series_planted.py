"""What a change of the time-frequency transformer does, on normal parts and planted anomalies.

    python -m bench.series_planted --skab DIR --asd DIR [--seeds 0 1 2]

Settings are chosen here and not on labelled steps; `bench.series_planting` says what is planted. A
line is a score. A cell is its AUC-PR, the mean over kinds of anomaly and series with the standard
deviation of the seeds' means, and in brackets how far its worst kind lies from PCA of the same
windows: a score that is better on average may still miss what PCA sees. "long", "run" and "brief"
are SKAB's; one federation trains on all their normal parts.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from bench.series_planting import KINDS, SETS, pieces, plant, shortened
from fl_core.architectures import RESIDUALS, SPREADS
from fl_core.baselines import pca_score, train_alone
from fl_core.config import ModelConfig, TrainConfig
from fl_core.contender_encoders import ADAPT_ROUNDS, SERIES
from fl_core.data.dataset import Matrix
from fl_core.data.series import Series, split_windows, step_windows
from fl_core.data.sources import load_all_series
from fl_core.encoders import build_encoder
from fl_core.evaluation import round_seed
from fl_core.federated import train_federated
from fl_core.normalise import Normaliser
from fl_core.parameters import initial_parameters
from fl_core.scoring import HeadStatistics
from fl_core.series_metrics import auc_pr
from fl_core.timefreq import SPREAD_GAIN, Reconstruction, TimeFrequencyEncoder

__all__ = ["main", "quality"]

FREE_RUN: Final = Path("anomaly-free") / "anomaly-free.csv"
"""Where SKAB keeps its run without anomalies; the first column is the time."""

ROUNDS: Final = 8

SHARES: Final = {"skab": 0.6, "asd": 0.8}
"""Share of a normal part that is the new series' normal part."""

ASD_STEPS: Final = 900
"""Test steps of a server that are planted in: six anomalies."""

PCA: Final = "PCA of the windows"
AS_IT_IS: Final = "as it is"
OURS: Final = "ours"
FIRST: Final = "no training"

BY_THEMSELVES: Final = {OURS: ADAPT_ROUNDS, FIRST: ROUNDS}
"""Encoders that every series goes on training by itself, too, and the rounds that it does."""

SHORTEST: Final = 400
"""Normal steps that an experiment of SKAB needs to be shortened: all but one have them."""

FLOOR: Final = 1e-3
"""Added to a squared error before its logarithm, in the embedding that was taken earlier."""

_Scores = dict[str, NDArray[np.float64]]
_Fit = Callable[[Matrix], Callable[[Matrix], _Scores]]
"""Raw training windows (n, d) to what gives raw windows (m, d) their scores (m,), by name."""

_Parts = tuple[NDArray[np.float64], ...]
"""Parts of an embedding, shapes (n, k_i): each has statistics of its own."""


@torch.inference_mode()
def _views(encoder: TimeFrequencyEncoder, rows: NDArray[np.float32]) -> dict[str, _Parts]:
    """Return the parts of z, and what is compared with them."""
    batch = torch.from_numpy(rows)
    x, found = encoder.windows(batch), encoder.reconstruct(batch)
    last = replace(found, time=found.time[-1:], frequency=found.frequency[-1:])
    z = encoder.discrepancies(x, found)
    cut = RESIDUALS * encoder.channels
    blocks, residuals, spreads = z.chunk(RESIDUALS + SPREADS, dim=1), z[:, :cut], z[:, cut:]
    last_z, logarithms = encoder.discrepancies(x, last), _logarithms(x, found)
    views = {
        AS_IT_IS: (residuals, spreads),
        "one part": (z,),
        "one part, residuals × 3": (torch.cat((3.0 * residuals, spreads), dim=1),),
        "one part, residuals × 1/3": (torch.cat((residuals / 3.0, spreads), dim=1),),
        "residuals alone": (residuals,),
        "spreads alone": (spreads,),
        "variances for spreads": (residuals, spreads.square() / SPREAD_GAIN),
        "logarithms of errors": (logarithms,),
        "these beside both": (residuals, spreads, logarithms),
        "time path alone": (torch.cat(blocks[0:3:2], dim=1), blocks[4]),
        "frequency path alone": (torch.cat(blocks[1:4:2], dim=1), blocks[5]),
        "last stage alone": (last_z[:, :cut], last_z[:, cut:]),
    }
    return {
        name: tuple(part.numpy().astype(np.float64) for part in parts)
        for name, parts in views.items()
    }


def _logarithms(x: torch.Tensor, found: Reconstruction) -> torch.Tensor:
    """Return the embedding that was taken before, which drifting levels mislead."""
    time, frequency = torch.stack(found.time), torch.stack(found.frequency)
    errors, window = (time - x, frequency - x, time - frequency), x.shape[1]
    means = [each[:, :, -window // 2 :].square().mean(dim=(0, 2)) for each in errors]
    last = [each[-1, :, -1] for each in errors[:2]]
    steady = [each[-1, :, -window // 4 :].mean(dim=1) for each in errors[:2]]
    logs = torch.log(torch.cat(means, dim=1) + FLOOR)
    return torch.cat((3.0 * torch.cat((*last, *steady), dim=1), logs), dim=1)


def quality(series: Sequence[Series], planted: Sequence[Sequence[Series]], fit: _Fit) -> _Scores:
    """Return the mean AUC-PR of each kind, shape (kinds,), for each score by name.

    Args:
        series: Whose training windows `fit` is given.
        planted: For each kind the same series with its anomalies.
        fit: Makes scores of raw training windows.
    """
    found: dict[str, list[list[float]]] = {}
    for i, each in enumerate(series):
        score = fit(split_windows(each, SERIES.window)[0])
        for kind, table in enumerate(planted):
            for name, scores in score(step_windows(table[i], SERIES.window)).items():
                kinds = found.setdefault(name, [[] for _ in planted])
                kinds[kind].append(auc_pr(table[i].labels, scores))
    return {name: np.array(kinds).mean(axis=1) for name, kinds in found.items()}


def _fit_pca(own: Matrix) -> Callable[[Matrix], _Scores]:
    score = pca_score(own)
    return lambda rows: {PCA: score(rows)}


def _fit_heads(model: ModelConfig, params: NDArray[np.float32], label: str) -> _Fit:
    """Fit the head of L-10 to every view of ours, or under another `label` to z alone."""
    encoder = build_encoder(model, params).eval()
    assert isinstance(encoder, TimeFrequencyEncoder)

    def fit(own: Matrix) -> Callable[[Matrix], _Scores]:
        normaliser = Normaliser.fit(own)
        views = _views(encoder, normaliser.apply(own))
        if label != OURS:
            head = _fit_parts(views[AS_IT_IS])
            return lambda rows: {
                label: head.distance(np.hstack(_views(encoder, normaliser.apply(rows))[AS_IT_IS]))
            }
        heads = {name: _fit_parts(parts) for name, parts in views.items()}
        error = pca_score(own)
        usual = float(error(own).mean())

        def score(rows: Matrix) -> _Scores:
            now = _views(encoder, normaliser.apply(rows))
            found = {name: head.distance(np.hstack(now[name])) for name, head in heads.items()}
            beside = np.square(found[AS_IT_IS]) + error(rows) / usual
            return {**found, "as it is, and PCA": np.asarray(beside)}

        return score

    return fit


def _fit_alone(
    model: ModelConfig, params: NDArray[np.float32], rounds: int, seed: int, label: str
) -> _Fit:
    """Train on the series' own windows from `params` on, and fit the head to what comes of it."""

    def fit(own: Matrix) -> Callable[[Matrix], _Scores]:
        seeds = [round_seed(seed, number, label, "train") for number in range(rounds)]
        mine = train_alone(params, own, own, model=model, config=SERIES.config, seeds=seeds)
        return _fit_heads(model, mine, label)(own)

    return fit


def _fit_parts(parts: _Parts) -> HeadStatistics:
    widths = [part.shape[1] for part in parts]
    return HeadStatistics.fit(np.hstack(parts), widths, window=SERIES.window)


def _sets(name: str, folder: str) -> dict[str, list[Series]]:
    """Return the new series of a set's normal parts, by the names of `SETS`."""
    series = load_all_series(folder)
    if name == "asd":
        return {"asd": [shortened(each, SHARES[name], ASD_STEPS) for each in series]}
    channels = series[0].channels
    values = np.genfromtxt(
        Path(folder) / FREE_RUN,
        delimiter=";",
        skip_header=1,
        usecols=range(1, len(channels) + 1),
    )
    own = [shortened(each, SHARES[name]) for each in series if len(each.train) >= SHORTEST]
    return {"long": own, "run": list(pieces(values, channels)), "brief": own}


def _planted(name: str, series: Sequence[Series]) -> list[list[Series]]:
    levels = np.array([each.train.mean(axis=0) for each in series])
    return [
        [
            plant(
                each,
                kind,
                SETS[name],
                np.delete(levels, i, axis=0),
                seed=zlib.crc32(f"{name}{kind}{i}".encode()),
            )
            for i, each in enumerate(series)
        ]
        for kind in KINDS
    ]


def _encoders(
    series: Sequence[Series], model: ModelConfig, seed: int
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the parameters that are compared."""
    rows = [split_windows(each, SERIES.window) for each in series]

    def trained(config: TrainConfig) -> NDArray[np.float32]:
        return train_federated(rows, model=model, config=config, rounds=ROUNDS, seed=seed)

    plain = replace(SERIES.config, align_weight=0.0, dynamic_weights=False)
    yield OURS, trained(SERIES.config)
    yield FIRST, initial_parameters(model, seed)
    yield "no contrast", trained(replace(SERIES.config, contrast_weight=0.0))
    yield "FedAvg", trained(plain)


def _measure(name: str, folder: str, seeds: Sequence[int]) -> None:
    sets = _sets(name, folder)
    planted = {key: _planted(key, series) for key, series in sets.items()}
    first = next(iter(sets.values()))
    known = [*first, *sets.get("run", [])]
    model = SERIES.model(SERIES.window * len(known[0].channels))
    found: dict[str, list[NDArray[np.float64]]] = {}

    def add(fit: _Fit) -> None:
        rows = [quality(sets[key], planted[key], fit) for key in sets]
        for label in rows[0]:
            found.setdefault(label, []).append(np.array([row[label] for row in rows]))

    add(_fit_pca)
    for seed in seeds:
        for label, params in _encoders(known, model, seed):
            add(_fit_heads(model, params, label))
            if rounds := BY_THEMSELVES.get(label):
                add(_fit_alone(model, params, rounds, seed, f"{label}, then alone"))
    print("| score | " + " | ".join(sets) + " |\n" + "|---" * (len(sets) + 1) + "|")
    for label, tables in found.items():
        table = np.array(tables)  # (seeds, sets, kinds)
        means = table.mean(axis=2)
        worst = (table.mean(axis=0) - found[PCA][0]).min(axis=1)
        cells = [
            f"{m:.3f} ± {s:.3f} ({w:+.2f})"
            for m, s, w in zip(means.mean(axis=0), means.std(axis=0), worst, strict=True)
        ]
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Plant, train, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.series_planted")
    parser.add_argument("--skab", help="folder of SKAB")
    parser.add_argument("--asd", help="folder of ASD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    for name in SHARES:
        if folder := getattr(args, name):
            _measure(name, folder, args.seeds)


if __name__ == "__main__":
    main()
