"""What the drift watch reports on days it should be quiet about, and on days it should not.

::

    python -m bench.drift [--seed 5] [--days 3]

Each built-in device trains alone for one round and fits its head. Then come packets of other days,
drawn anew from the same profile and extracted in order: as they are, and with every statistic
multiplied by a factor from row 2000 on. Rows of one stream resemble their neighbours, so this is
the case that the stated rate of false reports (exchangeable rows) does not cover.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from fl_core.config import ModelConfig, TrainConfig
from fl_core.data.extractor import extract
from fl_core.data.profiles import PROFILES, benign_packets
from fl_core.data.sources import list_devices, load_device
from fl_core.detector import Detector
from fl_core.drift import DriftMonitor, DriftReport, unwatched
from fl_core.parameters import initial_parameters
from fl_core.training import train_local

__all__ = ["FACTORS", "DeviceDrift", "main", "measure"]

FACTORS: Final = (1.0, 1.5, 4.0)
"""1 is the day as it is."""

QUIET_ROWS: Final = 2000
"""Rows before the factor sets in."""

_START: Final = 1_700_432_000.0  # any day; the built-in devices live on others


@dataclass(frozen=True)
class DeviceDrift:
    """What one device's watch reported."""

    device: str
    rows: int
    correlation: float
    """Validation rows worth one independent one."""
    reports: tuple[tuple[DriftReport, ...], ...]
    """For each of `FACTORS`."""


def _detector(device: str) -> Detector:
    data = load_device("builtin", device)
    model = ModelConfig(input_dim=len(data.feature_names))
    start, zeros = initial_parameters(model, 0), np.zeros(model.embedding_dim)
    update = train_local(
        start, zeros, data.train, data.validation, model=model, config=TrainConfig(), seed=1
    )
    return Detector.fit_head(
        start + update.delta,
        model,
        data.train,
        data.validation,
        device=device,
        feature_names=data.feature_names,
    )


def _fresh(device: str, seed: int, days: float) -> NDArray[np.float64]:
    """Return rows of other days, in order; `days` are as long as the device's own data."""
    profile, rng = PROFILES[device], np.random.default_rng(seed)
    span = (_START, _START + days * profile.duration_s)
    return np.asarray(extract(benign_packets(profile, rng, span)), dtype=np.float64)


def measure(devices: Sequence[str], *, seed: int, days: float) -> Iterator[DeviceDrift]:
    """Yield what each device's watch reports."""
    for device in devices:
        detector = _detector(device)
        head, rows = detector.head(), _fresh(device, seed, days)
        if unwatched(head) is not None or head.reference is None:
            continue
        found = []
        for factor in FACTORS:
            monitor = DriftMonitor(head)
            before = monitor.observe(detector.score(rows[:QUIET_ROWS]))
            after = monitor.observe(detector.score(factor * rows[QUIET_ROWS:]))
            found.append(tuple(after if factor != 1.0 else before + after))
        yield DeviceDrift(device, len(rows), head.reference.correlation, tuple(found))


def _said(reports: Sequence[DriftReport]) -> str:
    first = f", first {reports[0].kind} at {reports[0].seen}" if reports else ""
    return f"{len(reports)}{first}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.drift", description=__doc__)
    parser.add_argument("--seed", type=int, default=5, help="of the other days")
    parser.add_argument("--days", type=float, default=3.0, help="times the length of its data")
    parser.add_argument("--devices", nargs="+", default=list(list_devices("builtin")))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| device | rows | alike | reports: as it is | × 1.5 | × 4 |")
    print("|---|--:|--:|---|---|---|", flush=True)
    for each in measure(options.devices, seed=options.seed, days=options.days):
        said = " | ".join(_said(reports) for reports in each.reports)
        print(f"| {each.device} | {each.rows} | {each.correlation:.0f} | {said} |", flush=True)


if __name__ == "__main__":
    main()
