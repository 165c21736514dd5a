"""The table of detection quality on series: the same contenders, measured step by step in time.

Every series is a device of its own, or those of a group are one. No measure adjusts points.

Source: specs/90-learning.md section 12 (L-76).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fl_core.contenders import Contender
from fl_core.data.dataset import Matrix
from fl_core.data.series import Series, split_windows, step_windows
from fl_core.detector import DEFAULT_MAX_FPR
from fl_core.errors import DataError
from fl_core.series_metrics import SeriesQuality, series_quality

__all__ = ["SERIES_COLUMNS", "SeriesResult", "compare_series"]

SERIES_COLUMNS: Mapping[str, str] = {
    "auc_pr": "AUC-PR",
    "vus_pr": "VUS-PR",
    "affiliation_precision": "affiliation precision",
    "affiliation_recall": "affiliation recall",
    "affiliation_f1": "affiliation F1",
}
"""Key of a mean over series to its title. Affiliation is of the alerts at the threshold."""


@dataclass(frozen=True, slots=True)
class SeriesResult:
    """One contender under one seed."""

    name: str
    seed: int
    series: Mapping[str, SeriesQuality] = field(repr=False)
    """Series to its quality."""
    traffic: float | None
    """Bytes that a node sent a round."""

    def mean(self, column: str) -> float:
        """Return a column's mean over the series."""
        return float(np.mean([getattr(each, column) for each in self.series.values()]))


def compare_series(
    contenders: Sequence[Contender],
    series: Sequence[Series],
    *,
    window: int,
    seeds: Sequence[int],
    max_fpr: float = DEFAULT_MAX_FPR,
    groups: Sequence[Collection[str]] = (),
) -> Iterator[SeriesResult]:
    """Train every contender on the windows of all series, and measure it on each.

    Args:
        contenders: Methods; each series' windows are the rows of one device.
        series: Places with the same channels.
        window: Time steps in a row.
        seeds: One run each.
        max_fpr: Rate that thresholds are set for.
        groups: Names of the series whose windows are one device's rows together; every name is in
            one of them. None: each series is a device.

    Raises:
        DataError: a series has no anomaly to find, or is too short to learn from.
        ModelError: as the contenders.
    """
    for each in series:
        if not each.labels.any():
            raise DataError(
                f"{each.name} has no anomaly to find",
                hint="give data with labelled anomalies: what detects them is measured",
            )
    groups = groups or [(each.name,) for each in series]
    members = [[each for each in series if each.name in names] for names in groups]
    rows = [_joined([split_windows(each, window) for each in some]) for some in members]
    for seed in seeds:
        for contender in contenders:
            fitted = contender.fit(rows, seed)
            found = {}
            for index, some in enumerate(members):
                score = fitted.known(index)
                threshold = fitted.threshold(index, rows[index][1], max_fpr)
                for each in some:
                    scores = score(step_windows(each, window))
                    found[each.name] = series_quality(each.labels, scores, threshold)
            yield SeriesResult(contender.name, seed, found, fitted.traffic)


def _joined(parts: Sequence[tuple[Matrix, Matrix]]) -> tuple[Matrix, Matrix]:
    """Join the training windows of several series, and their validation windows."""
    train, validation = zip(*parts, strict=True)
    return np.concatenate(train), np.concatenate(validation)
