"""Watches the scores of a device at detection time: do they still come from where they came from?

Two questions, because an attack is not drift. Scores below the threshold are compared with the
reference in the head by a Kolmogorov-Smirnov test; the number of alerts is compared with what a
threshold from n benign scores lets through. Both look at the last `WINDOW` rows, every `HOP`,
and each look's error is so small that all looks at `SPAN` rows together raise a false report with
probability `FALSE_ALARMS` at most (Bonferroni), whatever part the windows share.

That holds for exchangeable rows. Real traffic is correlated from row to row, so a window counts as
as many as it is worth (`correlation_length`), at most its length: the bound stays, and a stream
that dwells on one thing for a while is not taken for another device.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.detector import Head
from fl_core.errors import ModelError
from fl_core.score_reference import MIN_SCORES, ScoreReference, correlation_length
from fl_core.scoring import threshold_rank

__all__ = [
    "ALERT_RATE",
    "FALSE_ALARMS",
    "HOP",
    "SCORES",
    "SPAN",
    "WINDOW",
    "DriftMonitor",
    "DriftReport",
    "excess_probability",
    "unwatched",
]

WINDOW: Final = 1000
"""Rows looked at together: enough to tell a shift of 0.1 in the distribution function."""

HOP: Final = 250
"""New rows from one look to the next: a shift is seen soon, and a look costs little a row."""

SPAN: Final = 100_000
FALSE_ALARMS: Final = 0.01
"""Probability of any false report of a device in `SPAN` exchangeable rows, at most."""

SCORES: Final = "scores"
ALERT_RATE: Final = "alert_rate"

_NOTHING: Final = 2.0**-53  # what added to 1 leaves 1
_ALPHA: Final = FALSE_ALARMS / (2 * SPAN // HOP)
"""Error of one look (L-65): two tests, `SPAN` / `HOP` looks each."""


@dataclass(frozen=True, slots=True)
class DriftReport:
    """One look that cannot be explained by chance."""

    device: str
    """Whose scores."""

    seen: int
    """Rows of this device up to the look, counted from 1."""

    kind: str
    """`SCORES`: the scores below the threshold moved. `ALERT_RATE`: more alerts than the
    threshold was set for, by attacks or because it does not fit any more."""

    value: float
    """Distance of the distribution functions, or alerts in the window."""

    limit: float
    """The most that chance explains."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values, marked as an event."""
        return {
            "event": "drift",
            "device": self.device,
            "kind": self.kind,
            "seen": self.seen,
            "value": self.value,
            "limit": self.limit,
        }


def unwatched(head: Head) -> str | None:
    """Say why a head's scores cannot be watched, or return None where they can."""
    reference = head.reference
    if reference is None and head.n_validation < MIN_SCORES:
        return f"{head.n_validation} validation rows are too few, {MIN_SCORES} are needed"
    if reference is None:
        return "the model has no reference scores: an older version wrote it"
    if reference.limit(WINDOW, _ALPHA) >= 1.0:  # L-67: no distance is above 1
        return f"its validation rows are worth only {reference.effective:.0f} independent ones"
    return None


def excess_probability(alerts: float, rows: float, above: float, below: float) -> float:
    """Return the probability of at least so many alerts among benign rows.

    The threshold is the k-th smallest of n benign scores, so the part of benign rows above it
    is a draw from Beta(n + 1 - k, k), and the alerts are beta-binomial: a binomial bound that also
    counts in how well n rows can place a threshold.

    Args:
        alerts: Alerts among `rows`, 0 or more; rounded down.
        rows: Rows looked at, above 0; rounded up.
        above: n + 1 - k, above 0, or a part of it where validation rows are correlated.
        below: k, above 0, or the same part of it.
    """
    n = math.ceil(rows)
    first = min(math.floor(alerts), n)
    term = math.exp(
        math.lgamma(n + 1)
        - math.lgamma(first + 1)
        - math.lgamma(n - first + 1)
        + _log_beta(first + above, n - first + below)
        - _log_beta(above, below)
    )
    total = term
    for k in range(first, n):
        ratio = (n - k) * (k + above) / ((k + 1) * (n - k - 1 + below))
        term *= ratio
        total += term
        if ratio < 1.0 <= below and (n - k) * term <= total * _NOTHING:
            break  # with `below` from 1 on terms that fall go on falling
    return min(1.0, total)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


class _Window:
    """The last `WINDOW` values, and how many came since the last look."""

    def __init__(self) -> None:
        self._values = np.empty(0)
        self._fresh = 0

    def add(self, values: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Take values; return the window where it is full and a look is due."""
        self._values = np.concatenate((self._values, values))[-WINDOW:]
        self._fresh += len(values)
        if self._fresh < HOP or len(self._values) < WINDOW:
            return None
        self._fresh = 0
        return self._values


class DriftMonitor:
    """Watches one device's scores in bounded memory: two windows, whatever the stream.

    Args:
        head: The head that scores.

    Raises:
        ModelError: `unwatched` has an objection to the head.

    Source: specs/90-learning.md L-65 to L-67.
    """

    def __init__(self, head: Head) -> None:
        problem, reference = unwatched(head), head.reference
        if problem or reference is None:
            raise ModelError(
                f"{head.device}: drift cannot be watched: {problem}",
                hint="fit the head on more validation rows with this version",
            )
        self._head = head
        self._reference: ScoreReference = reference
        rank = threshold_rank(head.n_calibration, head.max_fpr)
        self._below = rank / reference.correlation
        self._above = (head.n_calibration + 1 - rank) / reference.correlation  # L-66
        self._flags, self._quiet = _Window(), _Window()
        self._seen = 0
        self._drifting: set[str] = set()

    @property
    def seen(self) -> int:
        """Scores taken so far."""
        return self._seen

    def observe(self, scores: ArrayLike) -> list[DriftReport]:
        """Take the next scores in order, shape (n,); return what cannot be chance.

        A drift that lasts is reported once, and again if it has ended in between.
        """
        values = np.asarray(scores, dtype=np.float64)
        reports: list[DriftReport] = []
        for start in range(0, len(values), HOP):
            part = values[start : start + HOP]
            self._seen += len(part)
            flags = self._flags.add((part > self._head.threshold).astype(np.float64))
            if flags is not None:
                reports += self._changed(self._judge_alerts(flags))
            quiet = self._quiet.add(part[part < self._head.threshold])
            if quiet is not None:
                reports += self._changed(self._judge_scores(quiet))
        return reports

    def _judge_scores(self, quiet: NDArray[np.float64]) -> DriftReport:
        worth = len(quiet) / correlation_length(quiet)
        limit = self._reference.limit(worth, _ALPHA)  # L-66
        return self._report(SCORES, self._reference.distance(quiet), limit)

    def _judge_alerts(self, flags: NDArray[np.float64]) -> DriftReport:
        """Compare the alerts with the most that chance explains; look for that only if it counts.

        The rows of a window are worth fewer if alerts come in runs.
        """
        alerts, length = float(flags.sum()), correlation_length(flags)

        def explained(count: float) -> bool:  # L-66
            rows = len(flags) / length
            return excess_probability(count / length, rows, self._above, self._below) > _ALPHA

        usual = self._above / (self._above + self._below)
        if alerts <= usual * len(flags) or explained(alerts):
            return self._report(ALERT_RATE, alerts, math.inf)
        limit = bisect_left(range(int(alerts)), True, key=lambda count: not explained(count)) - 1
        return self._report(ALERT_RATE, alerts, float(max(limit, 0)))

    def _report(self, kind: str, value: float, limit: float) -> DriftReport:
        return DriftReport(self._head.device, self._seen, kind, value, limit)

    def _changed(self, look: DriftReport) -> list[DriftReport]:
        """Return the report of a look that begins a drift; remember which kinds last."""
        if look.value <= look.limit:
            self._drifting.discard(look.kind)
            return []
        if look.kind in self._drifting:
            return []
        self._drifting.add(look.kind)
        return [look]
