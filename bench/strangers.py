"""How heads of other devices best score a device of which no row is known, on planted anomalies.

::

    python -m bench.strangers [--data nbaiot.npz] [--drop 'HH_jit_*'] [--seeds 3]

No test row is read (`bench.planted`). Every device is left out in turn; the others train an encoder
and fit their heads, and each way to join the heads' scores is judged by the bursts planted in the
device that was left out. Planted foreign rows are no anomalies here: they are what others' heads
know. Figures are means over devices and seeds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.common import BenchError
from bench.planted import measure_planted
from fl_core.calibration import cross_scores
from fl_core.contender_encoders import Recipe, head_score
from fl_core.data.dataset import DeviceData
from fl_core.federated import train_federated
from fl_core.metrics import quality
from fl_core.scoring import benign_threshold

__all__ = ["JOINS", "Heads", "main", "measure"]

Matrix = NDArray[np.float64]

ROUNDS: Final = 8
_FEWEST: Final = 3


@dataclass(frozen=True, eq=False)
class Heads:
    """What is known of the other devices' heads besides their scores, one entry a head."""

    medians: NDArray[np.float64]
    """Shape (h,): of the scores of their own validation rows."""
    thresholds: NDArray[np.float64]
    """Shape (h,): for false-positive rates of 1 %."""
    loose: NDArray[np.float64]
    """Shape (h,): for 10 %."""


Join = Callable[[Matrix, Heads], NDArray[np.float64]]


def _harmonic(power: float) -> Join:
    return lambda scores, _: np.asarray((scores**-power).sum(axis=0) ** (-1 / power))


def _nearest(count: int, mean: Callable[..., Matrix]) -> Join:
    return lambda scores, _: np.asarray(mean(np.sort(scores, axis=0)[:count], axis=0))


def _geometric(scores: Matrix, axis: int) -> Matrix:
    return np.asarray(np.exp(np.log(scores).mean(axis=axis)))


JOINS: Final[dict[str, Join]] = {
    "least (L-72)": lambda scores, _: np.asarray(scores.min(axis=0)),
    "least, over the head's median": lambda scores, heads: np.asarray(
        (scores / heads.medians[:, None]).min(axis=0)
    ),
    "least, over its threshold": lambda scores, heads: np.asarray(
        (scores / heads.thresholds[:, None]).min(axis=0)
    ),
    "least, over its threshold for 10 %": lambda scores, heads: np.asarray(
        (scores / heads.loose[:, None]).min(axis=0)
    ),
    "second least": lambda scores, _: np.asarray(np.sort(scores, axis=0)[1]),
    "mean of the least two": _nearest(2, np.mean),
    "geometric mean of the least three": _nearest(3, _geometric),
    "harmonic, power 1": _harmonic(1),
    "harmonic, power 2": _harmonic(2),
    "harmonic, power 4": _harmonic(4),
    "geometric mean": lambda scores, _: _geometric(scores, 0),
    "median": lambda scores, _: np.asarray(np.median(scores, axis=0)),
    "greatest": lambda scores, _: np.asarray(scores.max(axis=0)),
}
"""Name to what joins the scores (h, n) of h heads: to (n,)."""


def measure(
    devices: Sequence[DeviceData], *, seed: int, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Leave out every device in turn and judge every join on it.

    Args:
        devices: With planted anomalies, as `measure_planted` makes them, three or more.
        seed: Of training.
        rounds: Of the federation.

    Returns:
        Join to AUC and FPR at TPR 0.999 against bursts: means over the devices.

    Raises:
        BenchError: fewer than three devices, so that there is no second head to join.
    """
    if len(devices) < _FEWEST:
        raise BenchError(
            f"{len(devices)} devices are too few to leave one out", hint="give three or more"
        )
    found: dict[str, list[list[float]]] = {name: [] for name in JOINS}
    for index, device in enumerate(devices):
        others = [*devices[:index], *devices[index + 1 :]]
        bursts = device.test_attack[device.attack_names == "burst"]
        heads, quiet, loud = _scores(others, (device.test_benign, bursts), seed, rounds)
        for name, join in JOINS.items():
            seen = quality(join(quiet, heads), join(loud, heads), 0.0)
            found[name].append([seen.auc, seen.fpr_at_tpr_999])
    return {name: np.mean(table, axis=0).tolist() for name, table in found.items()}


def _scores(
    devices: Sequence[DeviceData], parts: tuple[Matrix, Matrix], seed: int, rounds: int
) -> tuple[Heads, Matrix, Matrix]:
    """Train the devices; return what their heads say of both parts of another, (h, n) each."""
    recipe = Recipe()
    model = recipe.model(devices[0].train.shape[1])
    pairs = [(each.train, each.validation) for each in devices]
    theta = train_federated(pairs, model=model, config=recipe.config, rounds=rounds, seed=seed)
    fit = functools.partial(head_score, theta, model)
    scores: tuple[list[Matrix], list[Matrix]] = ([], [])
    marks = []
    for train, held in pairs:
        head = fit(train)
        for part, own in zip(parts, scores, strict=True):
            own.append(head(part))
        benign = np.concatenate((cross_scores(fit, train), head(held)))
        marks.append(
            (np.median(head(held)), benign_threshold(benign, 0.01), benign_threshold(benign, 0.1))
        )
    return Heads(*np.array(marks).T), np.array(scores[0]), np.array(scores[1])


def main() -> None:
    """Measure and print one line a join."""
    runs = measure_planted("bench.strangers", lambda devices, seed: measure(devices, seed=seed))
    print("| join | AUC, burst | FPR at TPR 0.999, burst |\n|---|---|---|")
    for name in JOINS:
        means = np.mean([run[name] for run in runs], axis=0)
        print(f"| {name} | {means[0]:.4f} | {means[1]:.3f} |")


if __name__ == "__main__":
    main()
