"""How often a threshold keeps the false-positive rate it was set for, by what it was set on.

::

    python -m bench.thresholds [--data nbaiot.npz] [--drop 'HH_jit_*'] [--every 10] [--seeds 3]

No test row is read: devices are those of `fl_core.planted` (specs/90-learning.md L-75), where
validation rows stand for the benign rows to come. One federation a seed gives the encoder; each
device then sets its threshold for 1 % on held-out scores alone, on cross-fitted scores alone, or
on both, and its rate on the rows to come is held against a binomial distribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.planted import measure_planted
from fl_core.calibration import cross_scores
from fl_core.config import ModelConfig, TrainConfig
from fl_core.contender_encoders import head_score
from fl_core.contest import rate_interval
from fl_core.data.dataset import DeviceData
from fl_core.federated import train_federated
from fl_core.scoring import benign_threshold

__all__ = ["RULES", "Kept", "main", "measure"]

MAX_FPR: Final = 0.01
ROUNDS: Final = 8

RULES: Final[dict[str, tuple[bool, int]]] = {
    "held-out rows": (True, 0),
    "5 folds": (False, 5),
    "both, 5 folds": (True, 5),
    "both, 10 folds": (True, 10),
    "both, 20 folds": (True, 20),
}
"""Name to whether held-out scores count, and the folds of cross-fitted ones (0: none)."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What one rule gave one device."""

    rule: str
    scores: int
    """Behind the threshold."""
    rate: float
    """Of false alarms on the benign rows to come."""
    recall: float
    """Of planted anomalies."""
    off: int
    """-1 or 1 where fewer or more alarms came than chance explains at the 95 % level, else 0."""


def measure(devices: Sequence[DeviceData], *, seed: int, rounds: int = ROUNDS) -> Iterator[Kept]:
    """Train one federation, then set every device's threshold by every rule.

    Args:
        devices: With planted anomalies, as `measure_planted` makes them.
        seed: Of training.
        rounds: Of the federation.
    """
    rows = [(each.train, each.validation) for each in devices]
    model = ModelConfig(rows[0][0].shape[1])
    theta = train_federated(rows, model=model, config=TrainConfig(), rounds=rounds, seed=seed)
    for device in devices:
        score = head_score(theta, model, device.train)
        benign, planted = score(device.test_benign), score(device.test_attack)
        low, high = rate_interval(len(benign), MAX_FPR)
        for rule, (held_out, folds) in RULES.items():
            parts: list[NDArray[np.float64]] = [score(device.validation)] if held_out else []
            if folds:
                parts.append(
                    cross_scores(lambda x: head_score(theta, model, x), device.train, folds=folds)
                )
            scores = np.concatenate(parts)
            threshold = benign_threshold(scores, MAX_FPR)
            alarms = int(np.sum(benign > threshold))
            yield Kept(
                rule,
                len(scores),
                alarms / len(benign),
                float(np.mean(planted > threshold)),
                int(alarms > high) - int(alarms < low),
            )


def main() -> None:
    """Measure and print one line a rule."""
    runs = measure_planted(
        "bench.thresholds", lambda devices, seed: list(measure(devices, seed=seed))
    )
    found = [kept for run in runs for kept in run]
    print("| threshold set on | scores (median) | mean rate | too many | too few | of | recall |")
    print("|---|---|---|---|---|---|---|")
    for rule in RULES:
        own = [each for each in found if each.rule == rule]
        print(
            f"| {rule} | {np.median([each.scores for each in own]):.0f} "
            f"| {np.mean([each.rate for each in own]):.4f} "
            f"| {sum(each.off > 0 for each in own)} | {sum(each.off < 0 for each in own)} "
            f"| {len(own)} | {np.mean([each.recall for each in own]):.3f} |"
        )


if __name__ == "__main__":
    main()
