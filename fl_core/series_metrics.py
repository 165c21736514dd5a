"""How good a score is on a series, where an anomaly is a range of time steps and not a row.

No number here adjusts points: a range is never counted as found because one of its steps was.

*AUC-PR* counts every time step for itself: average precision.

*VUS-PR* forgives alerts a little before or after a range, whose borders a person set. Around every
range lies a buffer in which the label falls off, and the area under precision and recall is
averaged over buffer lengths.

*Affiliation* judges alerts, not scores, by their distance in time from the ranges, against what a
random alert would have.

Sources: Paparrizos et al. 2022, "Volume Under the Surface: A New Accuracy Evaluation Measure for
Time-Series Anomaly Detection"; Huet, Navarro and Rossi 2022, "Local Evaluation of Time Series
Anomaly Detection Algorithms".
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.errors import ModelError

__all__ = [
    "MAX_BUFFER",
    "Affiliation",
    "SeriesQuality",
    "affiliation",
    "anomaly_ranges",
    "auc_pr",
    "range_auc_pr",
    "series_quality",
    "vus_pr",
]

MAX_BUFFER: Final = 100
"""Longest buffer of VUS-PR in time steps: 50 before a range and 50 after it. One number for every
series, so that tables compare; it does not follow a series' period or the length of its anomalies.
"""

_CELLS: Final = 4
"""Parts of a time step: between the borders of quarter steps every distance and every probability
of `affiliation` is linear, so the middle of each quarter gives the integral exactly."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Affiliation:
    """How near alerts lie to anomalies, in [0, 1]; see `affiliation`."""

    precision: float
    """Mean over the ranges that have alerts near: how much nearer than random ones these lie."""

    recall: float
    """Mean over all ranges: how near their time steps have an alert."""

    f1: float
    """Harmonic mean of both; 0 where both are."""


@dataclass(frozen=True, slots=True)
class SeriesQuality:
    """Quality of one score with one threshold on one series."""

    auc_pr: float
    """Average precision of the time steps."""

    vus_pr: float
    """Volume under the surface of precision, recall and buffer length."""

    affiliation_precision: float
    """Of the alerts at the threshold."""

    affiliation_recall: float
    """Of the alerts at the threshold."""

    affiliation_f1: float
    """Of the alerts at the threshold."""

    threshold: float
    """An alert is a score strictly above it."""

    n_steps: int
    """Time steps."""

    n_ranges: int
    """Anomalies."""

    def to_dict(self) -> dict[str, float | int]:
        """Return the fields as JSON-ready values."""
        return dataclasses.asdict(self)


def anomaly_ranges(labels: ArrayLike) -> NDArray[np.intp]:
    """Return the runs of anomalous steps: shape (k, 2), first step and the step after the last."""
    flags = np.concatenate(([0], np.asarray(labels, dtype=np.int8), [0]))
    return np.flatnonzero(np.diff(flags)).reshape(-1, 2)


def auc_pr(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the average precision of the time steps (L-33).

    Args:
        labels: Shape (T,), 0 or 1, with at least one 1.
        scores: Shape (T,), finite; higher is more anomalous. Equal scores are one threshold.

    Returns:
        In (0, 1]; the share of anomalous steps for a constant score.

    Raises:
        ModelError: No anomaly, another length, or a score that is not finite.
    """
    return range_auc_pr(labels, scores, 0)


def range_auc_pr(labels: ArrayLike, scores: ArrayLike, buffer: int) -> float:
    """Return the area under precision and recall with one buffer length (L-34).

    With l the buffer, every step has the weight w: 1 in a range, √(1 - d/l) at a distance of d
    steps from the nearest anomalous step where d <= l/2, else 0. (So where two ramps meet, the
    higher counts.) At a threshold, with A the steps at or above it:

        precision = Σ_A w / |A|
        recall    = min(1, Σ_A w / P) · found,   P = (Σ label + Σ w) / 2
        found     = share of the ranges that have, with their own buffers, a step in A

    Every distinct score is a threshold, and the area is Σ (recall - recall before) · precision,
    without interpolation. At l = 0 `found` is left out: this is average precision.

    Args:
        labels: Shape (T,), 0 or 1, with at least one 1.
        scores: Shape (T,), finite; higher is more anomalous.
        buffer: l in time steps, even, at least 0.

    Returns:
        In (0, 1]. Above l = 0 even a perfect score stays below 1: nothing is 1 in a ramp.

    Raises:
        ModelError: As `auc_pr`, or a buffer that is not even.
    """
    return _Curves(labels, scores).area(buffer)


def vus_pr(labels: ArrayLike, scores: ArrayLike, *, max_buffer: int = MAX_BUFFER) -> float:
    """Return the mean of `range_auc_pr` over the buffers 0, 2, 4, …, `max_buffer` (L-34).

    Args:
        labels: Shape (T,), 0 or 1, with at least one 1.
        scores: Shape (T,), finite; higher is more anomalous.
        max_buffer: Even, at least 0; 0 gives `auc_pr`.

    Raises:
        ModelError: As `range_auc_pr`.
    """
    curves = _Curves(labels, scores)
    curves.area(max_buffer)  # an odd one is refused before the range below rounds it down
    areas = [curves.area(buffer) for buffer in range(0, max_buffer + 1, 2)]
    return float(np.mean(areas))


def affiliation(labels: ArrayLike, alerts: ArrayLike) -> Affiliation:
    """Compare alerts with anomalies by their distance in time (L-35).

    Step t lasts from t to t + 1. The time is cut into one zone for each range, halfway between
    neighbours; a zone's range is compared with the alerts in the zone alone. With X uniform in it:

        precision = mean over alerts x of P(distance of X from the range >= that of x)
        recall    = mean over times y of the range of P(|X - y| >= distance of y from the alerts)

    Inside the range the first is 1; where no alert is in the zone, the recall is 0 and the zone
    has no precision. Precision is the mean over the zones that have one, recall the mean over all.
    Random alerts have the precision (1 + p²)/2, with p the share of the zone that is anomalous: one
    half if anomalies are short. Their recall is high if there are many, so read both together.

    Args:
        labels: Shape (T,), 0 or 1, with at least one 1.
        alerts: Shape (T,), whether a step is an alert.

    Returns:
        All 0 where there is no alert.

    Raises:
        ModelError: No anomaly, or another length.
    """
    known, raised = _labels(labels), np.asarray(alerts).astype(np.bool_)
    if raised.shape != known.shape:
        raise ModelError(f"{len(known)} labels and alerts of shape {raised.shape}")
    ranges = anomaly_ranges(known)
    cells = np.repeat(raised, _CELLS)
    middles = (ranges[:-1, 1] + ranges[1:, 0]) * (_CELLS // 2)
    edges = [0, *middles.tolist(), len(cells)]
    precisions: list[float] = []
    recalls: list[float] = []
    for (first, after), (low, high) in zip(ranges, itertools.pairwise(edges), strict=True):
        zone = cells[low:high]
        if zone.any():
            start, end = _CELLS * first - low, _CELLS * after - low
            precisions.append(_zone_precision(zone, start, end))
            recalls.append(_zone_recall(zone, start, end))
        else:
            recalls.append(0.0)
    precision = float(np.mean(precisions)) if precisions else 0.0
    recall = float(np.mean(recalls))
    both = precision + recall
    return Affiliation(precision, recall, 2.0 * precision * recall / both if both else 0.0)


def series_quality(
    labels: ArrayLike, scores: ArrayLike, threshold: float, *, max_buffer: int = MAX_BUFFER
) -> SeriesQuality:
    """Measure the scores of a series in time order.

    Args:
        labels: Shape (T,), 0 or 1, with at least one 1.
        scores: Shape (T,), finite; higher is more anomalous.
        threshold: Chosen without these steps (L-19); an alert is a score strictly above it.
        max_buffer: As `vus_pr`.

    Raises:
        ModelError: As `vus_pr`, or a threshold that is not finite.
    """
    if not math.isfinite(threshold):
        raise ModelError(f"the threshold is {threshold}")
    curves = _Curves(labels, scores)
    near = affiliation(labels, np.asarray(scores, dtype=np.float64) > threshold)
    return SeriesQuality(
        auc_pr=curves.area(0),
        vus_pr=vus_pr(labels, scores, max_buffer=max_buffer),
        affiliation_precision=near.precision,
        affiliation_recall=near.recall,
        affiliation_f1=near.f1,
        threshold=float(threshold),
        n_steps=len(curves.labels),
        n_ranges=len(curves.ranges),
    )


def _labels(values: ArrayLike) -> NDArray[np.int8]:
    labels = np.asarray(values)
    if labels.ndim != 1 or not np.isin(labels, (0, 1)).all():
        raise ModelError("labels must be one 0 or 1 for each time step")
    if not labels.any():
        raise ModelError(
            "the series has no anomaly to find", hint="measure on a series that has one"
        )
    return labels.astype(np.int8)


# ------------------------------------------------------------------------------ one series' curves


class _Curves:
    """Precision and recall of one score with any buffer; the scores are sorted once."""

    def __init__(self, labels: ArrayLike, scores: ArrayLike) -> None:
        self.labels = _labels(labels)
        self.ranges = anomaly_ranges(self.labels)
        self._scores = np.asarray(scores, dtype=np.float64)
        if self._scores.shape != self.labels.shape or not np.isfinite(self._scores).all():
            raise ModelError(f"need {len(self.labels)} scores, one for each label, all finite")
        self._distance = _distance(self.labels == 1)
        self._order = np.argsort(-self._scores, kind="stable")
        falling = self._scores[self._order]
        self._last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
        self._thresholds = falling[self._last]

    def area(self, buffer: int) -> float:
        if buffer < 0 or buffer % 2:
            raise ModelError(f"the buffer is {buffer}", hint="use an even number of time steps")
        weights = self._weights(buffer)
        caught = np.cumsum(weights[self._order])[self._last]
        precision = caught / (self._last + 1)
        positives = (int(self.labels.sum()) + weights.sum()) / 2
        recall = np.minimum(1.0, caught / positives)
        if buffer:
            recall *= self._found(buffer // 2)
        return float(np.sum(np.diff(recall, prepend=0.0) * precision))

    def _weights(self, buffer: int) -> Floats:
        weights: Floats = self.labels.astype(np.float64)
        ramp = (self._distance > 0) & (self._distance <= buffer // 2)
        weights[ramp] = np.sqrt(1.0 - self._distance[ramp] / buffer)
        return weights

    def _found(self, side: int) -> Floats:
        """Return for each threshold the share of ranges with a step at or above it."""
        peaks = [self._scores[max(0, a - side) : b + side].max() for a, b in self.ranges]
        below = np.searchsorted(np.sort(peaks), self._thresholds, side="left")
        return np.asarray(1.0 - below / len(peaks), dtype=np.float64)


def _distance(marked: Flags) -> Floats:
    """Return each cell's distance to the nearest marked one, in cells; infinite without any."""
    at = np.arange(len(marked), dtype=np.float64)
    before = np.maximum.accumulate(np.where(marked, at, -np.inf))
    after = np.minimum.accumulate(np.where(marked, at, np.inf)[::-1])[::-1]
    return np.asarray(np.minimum(at - before, after - at), dtype=np.float64)


# ------------------------------------------------------------------------------ one zone


def _zone_precision(alerts: Flags, start: int, end: int) -> float:
    """Return how near the alerts of a zone are to its range; all lengths in cells."""
    x = np.flatnonzero(alerts) + 0.5
    away = np.maximum(0.0, np.maximum(start - x, x - end))
    left, right = start, len(alerts) - end
    farther = np.maximum(0.0, left - away) + np.maximum(0.0, right - away)
    return float(np.where(away > 0, farther / len(alerts), 1.0).mean())


def _zone_recall(alerts: Flags, start: int, end: int) -> float:
    """Return how near the times of a zone's range have an alert; all lengths in cells."""
    y = np.arange(start, end) + 0.5
    away = np.maximum(0.0, _distance(alerts)[start:end] - 0.5)
    farther = np.maximum(0.0, y - away) + np.maximum(0.0, len(alerts) - y - away)
    return float(np.where(away > 0, farther / len(alerts), 1.0).mean())
