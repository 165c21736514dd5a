"""What some broken nodes do to the others' detectors, and what the consistency weights do about it.

::

    python -m bench.astray [--data PATH] [--drop PATTERN] [--seeds 3] [--broken 1 3] [--out FILE]

The first devices of a source train on rows that are not what they should be; they are honest
otherwise and follow the protocol. Quality is that of the other devices' own heads on their test
rows, after a federation of all with weights and without, and of the sound devices alone, which is
all that a perfect guard could reach. Attacks on the protocol are another matter (specs/10).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from fl_core.config import ModelConfig, TrainConfig
from fl_core.contender_encoders import head_score
from fl_core.data.dataset import DeviceData, Matrix
from fl_core.data.sources import list_devices, load_devices
from fl_core.errors import DataError, ModelError
from fl_core.federated import train_federated
from fl_core.metrics import fpr_at_tpr
from fl_core.training import LocalUpdate
from nodes.learner import use_one_thread

__all__ = ["FAULTS", "Harm", "harm", "main", "table"]

_Fault = Callable[[Matrix, DeviceData, np.random.Generator], Matrix]
"""Rows (n, d) of a device to as many that are broken."""


def _shuffled(rows: Matrix, device: DeviceData, rng: np.random.Generator) -> Matrix:
    del device
    return rng.permuted(rows, axis=0)


def _infected(rows: Matrix, device: DeviceData, rng: np.random.Generator) -> Matrix:
    return device.test_attack[rng.choice(len(device.test_attack), len(rows))]


def _stuck(rows: Matrix, device: DeviceData, rng: np.random.Generator) -> Matrix:
    del device
    return np.asarray(rows[:1] * (1.0 + 1e-3 * rng.normal(size=rows.shape)))


FAULTS: Final[dict[str, _Fault]] = {
    "columns in different orders": _shuffled,
    "attacks taken for benign rows": _infected,
    "one row again and again": _stuck,
}


@dataclass(frozen=True)
class Harm:
    """What one seed of one fault gave; rates are FPR at TPR 0.999, means over the sound devices."""

    weighted: float
    unweighted: float
    without: float
    """Of a federation of the sound devices alone."""
    broken: tuple[float, float]
    """Least and greatest weight of a broken device in the last round."""
    sound: tuple[float, float]
    """The same of the sound ones."""


def harm(
    devices: Sequence[DeviceData], fault: _Fault, broken: int, *, rounds: int, seed: int
) -> Harm:
    """Break the first `broken` devices, train, and measure the others."""
    rng = np.random.default_rng(seed)
    rows = [(each.train, each.validation) for each in devices]
    faulty = [
        (fault(train, each, rng), fault(held, each, rng))
        for each, (train, held) in zip(devices[:broken], rows[:broken], strict=True)
    ]
    model, last = ModelConfig(devices[0].train.shape[1]), np.empty(0)

    def keep(updates: Sequence[LocalUpdate]) -> None:
        nonlocal last
        last = np.array([update.weight for update in updates])

    def rate(parts: Sequence[tuple[Matrix, Matrix]], config: TrainConfig) -> float:
        theta = train_federated(
            parts, model=model, config=config, rounds=rounds, seed=seed, watch=keep
        )
        found = []
        for each in devices[broken:]:
            score = head_score(theta, model, each.train)
            found.append(fpr_at_tpr(score(each.test_benign), score(each.test_attack), 0.999))
        return float(np.mean(found))

    config = TrainConfig()
    sound = rows[broken:]
    without = rate(sound, config)
    unweighted = rate([*faulty, *sound], replace(config, dynamic_weights=False))
    weighted = rate([*faulty, *sound], config)  # the last: its weights are kept
    bad, good = last[:broken], last[broken:]
    spans = ((float(part.min()), float(part.max())) for part in (bad, good))
    return Harm(weighted, unweighted, without, *spans)


def table(found: dict[tuple[str, int], Sequence[Harm]]) -> str:
    """Return the results as Markdown: means over seeds with their range, weights over all seeds."""
    lines = [
        "| fault | broken | with weights | without weights | sound devices alone "
        "| weights of broken | of sound |",
        "|---" * 7 + "|",
    ]
    for (fault, broken), seeds in found.items():
        rates = []
        for name in ("weighted", "unweighted", "without"):
            values = [getattr(each, name) for each in seeds]
            rates.append(f"{np.mean(values):.4f} ({min(values):.4f}–{max(values):.4f})")
        spans = []
        for name in ("broken", "sound"):
            values = [value for each in seeds for value in getattr(each, name)]
            spans.append(f"{min(values):.3f}–{max(values):.3f}")
        lines.append(f"| {fault} | {broken} | {' | '.join(rates + spans)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.astray", description=__doc__)
    parser.add_argument("--data", default="builtin")
    parser.add_argument("--drop", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--broken", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--out", type=Path, help="append the table to a file")
    options = parser.parse_args(arguments)
    use_one_thread()
    found: dict[tuple[str, int], Sequence[Harm]] = {}
    try:
        count = len(list_devices(options.data))
        if not all(0 < broken < count for broken in options.broken):
            parser.error(f"{options.broken} of {count} devices cannot be broken")
        tables = [
            load_devices(options.data, options.drop, seed=seed) for seed in range(options.seeds)
        ]
        for broken in options.broken:
            for name, fault in FAULTS.items():
                found[name, broken] = [
                    harm(devices, fault, broken, rounds=options.rounds, seed=seed)
                    for seed, devices in enumerate(tables)
                ]
                print(f"{name}, {broken}: done", file=sys.stderr, flush=True)
    except (DataError, ModelError) as error:
        sys.exit(f"{error}: {error.hint}")
    text = table(found)
    print(text)
    if options.out:
        with options.out.open("a") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
