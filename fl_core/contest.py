"""The table of detection quality: contenders on devices, seeds, and a device left out.

Thresholds and settings see benign rows only; test rows are read once, to be scored.

Source: specs/90-learning.md section 12.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from fl_core.baselines import ScoreFunction
from fl_core.contenders import Contender, Fitted, Rows
from fl_core.data.dataset import DeviceData
from fl_core.detector import DEFAULT_MAX_FPR
from fl_core.errors import DataError
from fl_core.leakage import site_leakage
from fl_core.metrics import DetectionQuality, fpr_at_tpr, quality

__all__ = [
    "COLUMNS",
    "Result",
    "Row",
    "Spread",
    "columns_of",
    "compare",
    "honest_rate",
    "markdown",
    "rate_interval",
    "summary",
    "thin_out",
]

COLUMNS: Mapping[str, str] = {
    "auc": "AUC",
    "auc_pr": "AUC-PR",
    "accuracy": "accuracy",
    "f1": "F1",
    "recall": "recall",
    "fpr": "FPR",
    "fpr_at_tpr_999": "FPR at TPR 0.999",
    "left_out": "the same, device left out",
    "unknown": "the same, no row of it known",
    "leakage": "site told from embedding",
}
"""Key of a mean over devices to its title. Accuracy, F1, recall and FPR are at the threshold."""

_KIND = "kind:"  # before the name of a kind, in the key of its column
_CONFIDENCE = 0.95
_MANY_ROWS = 500
_DOUBLE = 2.0


class Row(Protocol):
    """What a table needs of a result."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def traffic(self) -> float | None: ...  # noqa: D102
    def mean(self, column: str) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Result:
    """One contender under one seed."""

    name: str
    seed: int
    devices: Mapping[str, DetectionQuality] = field(repr=False)
    """Device to its quality."""
    left_out: Mapping[str, float] = field(repr=False)
    """Device to the FPR at TPR 0.999 when the others alone were trained on; empty if not asked
    or if they are too few."""
    traffic: float | None
    """Bytes that a node sent a round."""
    kinds: Mapping[str, float] = field(default_factory=dict, repr=False)
    """Kind of attack to the AUC against it, mean over the devices that have it; empty if not
    asked."""
    leakage: float = math.nan
    """How often a reader of embeddings names the site; not a number without embeddings."""
    unknown: Mapping[str, float] = field(default_factory=dict, repr=False)
    """As `left_out`, where not even validation rows of the device are known: by others' heads."""

    def mean(self, column: str) -> float:
        """Return a column's mean over devices; not a number if it was not measured."""
        if column == "leakage":
            return self.leakage
        if column.startswith(_KIND):
            return self.kinds[column.removeprefix(_KIND)]
        if column in ("left_out", "unknown"):
            found = getattr(self, column).values()
            return float(np.mean(list(found))) if found else math.nan
        if column == "accuracy":
            return float(np.mean([_accuracy(each) for each in self.devices.values()]))
        return float(np.mean([getattr(each, column) for each in self.devices.values()]))


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over seeds."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "–"
        return f"{self.mean:.4f} ({self.low:.4f}–{self.high:.4f})"


def compare(
    contenders: Sequence[Contender],
    load: Callable[[int], Sequence[DeviceData]],
    *,
    seeds: Sequence[int],
    left_out: bool = True,
    max_fpr: float = DEFAULT_MAX_FPR,
    by_kind: bool = False,
) -> Iterator[Result]:
    """Train and measure every contender under every seed.

    Args:
        contenders: Methods.
        load: Seed to devices, all with the same columns; the seed draws validation rows.
        seeds: One run each.
        left_out: Also train without each device in turn, and score it by a head on its validation
            rows: the benign rows that its threshold takes anyway; and by the others' heads alone.
            Not measured of a contender that takes more devices than are left.
        max_fpr: Rate that thresholds are set for.
        by_kind: Also measure each kind of attack for itself.

    Raises:
        DataError: a device has no attack rows, or the devices cannot be learnt from.
        ModelError: as the contenders.
    """
    for seed in seeds:
        devices = load(seed)
        for device in devices:
            if not len(device.test_attack) or not len(device.test_benign):
                raise DataError(
                    f"{device.device} has no attack rows to test on, or no benign ones",
                    hint="give data with labelled attacks: what detects them is measured",
                )
        for contender in contenders:
            yield _measure(
                contender, devices, seed, left_out=left_out, max_fpr=max_fpr, by_kind=by_kind
            )


def columns_of(results: Sequence[Result]) -> dict[str, str]:
    """Return the columns of a table of these results: `COLUMNS`, and one a kind of attack."""
    kinds = sorted({kind for result in results for kind in result.kinds})
    return {**COLUMNS, **{f"{_KIND}{kind}": f"AUC, {kind}" for kind in kinds}}


def thin_out(device: DeviceData, step: int) -> DeviceData:
    """Return a device with one in `step` of its training and validation rows; tests stay whole."""
    return replace(device, train=device.train[::step], validation=device.validation[::step])


def honest_rate(found: DetectionQuality, max_fpr: float = DEFAULT_MAX_FPR) -> bool:
    """Say whether a device's false alarms are as many as was asked for.

    They are if a binomial distribution with `max_fpr` puts their number within its central 95 %,
    or if the device has 500 rows or more and the rate is under twice `max_fpr`. (L-73)
    """
    alarms = round(found.fpr * found.n_benign)
    low, high = rate_interval(found.n_benign, max_fpr)
    if low <= alarms <= high:
        return True
    return found.n_benign >= _MANY_ROWS and found.fpr < _DOUBLE * max_fpr


def rate_interval(n_benign: int, rate: float) -> tuple[int, int]:
    """Return the fewest and the most alarms in the central 95 % of a binomial distribution.

    Args:
        n_benign: Benign rows, 1 or more.
        rate: Probability of an alarm, in (0, 1).
    """
    from scipy.stats import binom

    low, high = binom.interval(_CONFIDENCE, n_benign, rate)
    return int(low), int(high)


def summary(
    results: Sequence[Row], columns: Mapping[str, str] = COLUMNS
) -> dict[str, dict[str, Spread]]:
    """Return contender and column to mean and spread over seeds, in the order of the results."""
    found: dict[str, dict[str, Spread]] = {}
    for name in dict.fromkeys(result.name for result in results):
        mine = [result for result in results if result.name == name]
        found[name] = {}
        for column in columns:
            values = [result.mean(column) for result in mine]
            found[name][column] = Spread(float(np.mean(values)), min(values), max(values))
    return found


def markdown(results: Sequence[Row], columns: Mapping[str, str] = COLUMNS) -> str:
    """Return the table as Markdown: mean over devices and seeds, and the range over seeds."""
    traffic = {result.name: result.traffic for result in results}
    titles = [*columns.values(), "a node sends, MB a round"]
    lines = [f"| method | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for name, spreads in summary(results, columns).items():
        sent = traffic[name]
        cells = [*map(str, spreads.values()), "–" if sent is None else f"{sent / 1e6:.3f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _measure(
    contender: Contender,
    devices: Sequence[DeviceData],
    seed: int,
    *,
    left_out: bool,
    max_fpr: float,
    by_kind: bool,
) -> Result:
    fitted = contender.fit(_rows(devices), seed)
    known: dict[str, DetectionQuality] = {}
    kinds: dict[str, list[float]] = {}
    for index, device in enumerate(devices):
        score = fitted.known(index)
        threshold = fitted.threshold(index, device.validation, max_fpr)
        benign, attack = score(device.test_benign), score(device.test_attack)
        known[device.device] = quality(benign, attack, threshold)
        for kind in sorted(set(device.attack_names.tolist())) if by_kind else ():
            own = attack[device.attack_names == kind]
            kinds.setdefault(kind, []).append(quality(benign, own, threshold).auc)
    strangers: dict[str, float] = {}
    unknown: dict[str, float] = {}
    enough = len(devices) > contender.least
    for index, device in enumerate(devices if left_out and enough else ()):
        others = [*devices[:index], *devices[index + 1 :]]  # L-72
        trained = contender.fit(_rows(others), seed)
        strangers[device.device] = _fpr(trained.unseen(device.validation), device)
        heads = dict.fromkeys(trained.known(other) for other in range(len(others)))
        unknown[device.device] = _fpr(_nearest(heads), device)
    return Result(
        contender.name,
        seed,
        known,
        strangers,
        fitted.traffic,
        {kind: float(np.mean(values)) for kind, values in kinds.items()},
        _leakage(fitted, devices, seed),
        unknown,
    )


def _fpr(score: ScoreFunction, device: DeviceData) -> float:
    return fpr_at_tpr(score(device.test_benign), score(device.test_attack))


def _nearest(scores: Collection[ScoreFunction]) -> ScoreFunction:
    """Return the least score that any of several devices gives a row."""
    return lambda rows: np.asarray(np.min([score(rows) for score in scores], axis=0))


def _leakage(fitted: Fitted, devices: Sequence[DeviceData], seed: int) -> float:
    if fitted.embed is None or len(devices) < 2:
        return math.nan
    held = [fitted.embed(index, device.validation) for index, device in enumerate(devices)]
    return site_leakage(held, seed=seed).accuracy if min(map(len, held)) > 3 else math.nan


def _rows(devices: Sequence[DeviceData]) -> Rows:
    return [(device.train, device.validation) for device in devices]


def _accuracy(found: DetectionQuality) -> float:
    right = found.recall * found.n_attack + (1 - found.fpr) * found.n_benign
    return right / (found.n_attack + found.n_benign)
