"""Which score of an embedding tells anomalies best, chosen on planted anomalies.

::

    python -m bench.scores [--data nbaiot.npz] [--drop 'HH_jit_*'] [--seeds 3]

No test row is read (`bench.planted`). One federation a seed gives the encoder; every score is then
fitted to each device's benign training rows. Figures are AUC by kind of planted anomaly and the
false-positive rate at TPR 0.999 of all, means over devices and seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.neighbors import NearestNeighbors

from bench.planted import measure_planted
from fl_core.config import ModelConfig, TrainConfig
from fl_core.data.dataset import DeviceData
from fl_core.encoders import build_encoder, embed
from fl_core.federated import train_federated
from fl_core.layouts import column_runs
from fl_core.metrics import fpr_at_tpr, quality
from fl_core.normalise import Normaliser
from fl_core.scoring import SHRINKAGE, standardised

__all__ = ["SCORES", "main", "measure"]

Matrix = NDArray[np.float64]
_Embed = Callable[[Matrix], Matrix]
_Score = Callable[[Matrix], NDArray[np.float64]]

ROUNDS: Final = 8
NEIGHBOURS: Final = 5
ENERGY_TEMPERATURE: Final = 0.1


def _both(z: Matrix, spread: float) -> Matrix:
    return np.concatenate((z / spread, standardised(z)), axis=1)


def _mahalanobis(u: Matrix, shrinkage: float) -> _Score:
    """Return the Mahalanobis length under the mean and shrunk covariance of u, shape (n, p)."""
    mean, centred = u.mean(axis=0), u - u.mean(axis=0)
    covariance = centred.T @ centred / len(u)
    ridge = shrinkage * np.trace(covariance) / len(covariance) + 1e-9
    precision = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))
    whitening = np.linalg.cholesky((precision + precision.T) / 2.0)
    return lambda values: np.sqrt(np.square((values - mean) @ whitening).mean(axis=1))


def _neighbours(u: Matrix) -> _Score:
    index = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(u))).fit(u)
    return lambda values: np.asarray(index.kneighbors(values)[0].mean(axis=1), dtype=np.float64)


def _size_and_direction(shrinkage: float) -> Callable[[_Embed, Matrix], _Score]:
    def fit(embed_rows: _Embed, rows: Matrix) -> _Score:
        z = embed_rows(rows)
        spread = float(z.std())
        score = _mahalanobis(_both(z, spread), shrinkage)
        return lambda values: score(_both(embed_rows(values), spread))

    return fit


def _size(embed_rows: _Embed, rows: Matrix) -> _Score:
    score = _mahalanobis(embed_rows(rows), SHRINKAGE)
    return lambda values: score(embed_rows(values))


def _direction(embed_rows: _Embed, rows: Matrix) -> _Score:
    score = _mahalanobis(standardised(embed_rows(rows)), SHRINKAGE)
    return lambda values: score(standardised(embed_rows(values)))


def _near_in_size(embed_rows: _Embed, rows: Matrix) -> _Score:
    score = _neighbours(embed_rows(rows))
    return lambda values: score(embed_rows(values))


def _near_in_direction(embed_rows: _Embed, rows: Matrix) -> _Score:
    score = _neighbours(standardised(embed_rows(rows)))
    return lambda values: score(standardised(embed_rows(values)))


def _one_class(embed_rows: _Embed, rows: Matrix) -> _Score:
    """Distance from the centre of the directions, as of deep one-class methods (Ruff 2018)."""
    centre = standardised(embed_rows(rows)).mean(axis=0)
    return lambda values: np.square(standardised(embed_rows(values)) - centre).mean(axis=1)


def _energy(embed_rows: _Embed, rows: Matrix) -> _Score:
    """Free energy (Liu et al. 2020) of a row's similarities to the benign rows."""

    def unit(z: Matrix) -> Matrix:
        return np.asarray(z / np.linalg.norm(z, axis=1, keepdims=True))

    known = unit(embed_rows(rows))
    return lambda values: np.asarray(
        -logsumexp(unit(embed_rows(values)) @ known.T / ENERGY_TEMPERATURE, axis=1)
    )


def _windows_hidden(join: Callable[..., NDArray[np.float64]]) -> Callable[[_Embed, Matrix], _Score]:
    """An ensemble: the score of the whole row, and of the row without each damped window."""

    def fit(embed_rows: _Embed, rows: Matrix) -> _Score:
        runs = column_runs(rows.shape[1])

        def seen_without(window: int | None) -> _Embed:
            columns = [
                i for r in runs if r.window == window for i in range(r.start, r.start + r.length)
            ]

            def embed_rest(values: Matrix) -> Matrix:
                rest = values.copy()
                rest[:, columns] = 0.0  # what is usual for the device
                return embed_rows(rest)

            return embed_rest

        views = [seen_without(w) for w in (None, *sorted({run.window for run in runs}))]
        scores = [_size_and_direction(SHRINKAGE)(view, rows) for view in views]
        return lambda values: np.asarray(join([each(values) for each in scores], axis=0))

    return fit


SCORES: Final[dict[str, Callable[[_Embed, Matrix], _Score]]] = {
    "Mahalanobis, size and direction (L-10)": _size_and_direction(SHRINKAGE),
    "the same, shrinkage 1": _size_and_direction(1.0),
    "the same, shrinkage 0.1": _size_and_direction(0.1),
    "the same, shrinkage 0.001": _size_and_direction(0.001),
    "Mahalanobis, size alone": _size,
    "Mahalanobis, direction alone": _direction,
    "5 neighbours, size": _near_in_size,
    "5 neighbours, direction": _near_in_direction,
    "one class, direction": _one_class,
    "energy of similarities": _energy,
    "mean with each damped window hidden": _windows_hidden(np.mean),
    "greatest with each damped window hidden": _windows_hidden(np.max),
}
"""Name to what fits a score: an embedding of normalised rows and benign rows (n, d), to a function
of rows (m, d). "Size" is z, "direction" the standardised z of L-05."""


def measure(
    devices: Sequence[DeviceData], *, seed: int, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Train one federation and judge every score on every device.

    Args:
        devices: With planted anomalies, as `measure_planted` makes them.
        seed: Of training.
        rounds: Of the federation.

    Returns:
        Score to AUC against foreign rows, AUC against bursts, and FPR at TPR 0.999 of both: means
        over the devices.
    """
    rows = [(each.train, each.validation) for each in devices]
    model = ModelConfig(rows[0][0].shape[1])
    theta = train_federated(rows, model=model, config=TrainConfig(), rounds=rounds, seed=seed)
    encoder = build_encoder(model, theta)

    def embed_rows(values: Matrix) -> Matrix:
        return embed(encoder, values.astype(np.float32)).astype(np.float64)

    found: dict[str, list[list[float]]] = {name: [] for name in SCORES}
    for device in devices:
        normaliser = Normaliser.fit(device.train)
        own, benign, planted = (
            normaliser.apply(part).astype(np.float64)
            for part in (device.train, device.test_benign, device.test_attack)
        )
        for name, fit in SCORES.items():
            score = fit(embed_rows, own)
            quiet, loud = score(benign), score(planted)
            kinds = [loud[device.attack_names == kind] for kind in ("foreign", "burst")]
            figures = [quality(quiet, each, 0.0).auc for each in kinds]
            found[name].append([*figures, fpr_at_tpr(quiet, loud)])
    return {name: np.mean(table, axis=0).tolist() for name, table in found.items()}


def main() -> None:
    """Measure and print one line a score."""
    runs = measure_planted("bench.scores", lambda devices, seed: measure(devices, seed=seed))
    print("| score | AUC, foreign | AUC, burst | FPR at TPR 0.999 |\n|---|---|---|---|")
    for name in SCORES:
        means = np.mean([run[name] for run in runs], axis=0)
        print(f"| {name} | {means[0]:.4f} | {means[1]:.4f} | {means[2]:.3f} |")


if __name__ == "__main__":
    main()
