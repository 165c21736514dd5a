"""How good a detector is, from scores of benign rows and of attack rows."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.errors import ModelError

__all__ = ["TARGET_TPR", "DetectionQuality", "fpr_at_tpr", "quality"]

TARGET_TPR: Final = 0.999
"""Share of attacks that must be caught in `fpr_at_tpr_999`."""


@dataclass(frozen=True, slots=True)
class DetectionQuality:
    """Quality of one score with one threshold on one device's test rows; attacks are positive."""

    auc: float
    """Area under the ROC curve, ties counted half."""

    auc_pr: float
    """Average precision; depends on the share of attacks, so compare within one table only."""

    f1: float
    """Harmonic mean of precision and recall at the threshold; depends on that share as well."""

    recall: float
    """Share of attacks whose score is above the threshold."""

    fpr: float
    """Share of benign rows whose score is above the threshold."""

    fpr_at_tpr_999: float
    """False-positive rate when 99.9 % of attacks are caught; see `fpr_at_tpr`."""

    threshold: float
    """The threshold, from benign validation rows only."""

    n_benign: int
    """Benign test rows."""

    n_attack: int
    """Attack test rows."""

    def to_dict(self) -> dict[str, float | int]:
        """Return the fields as JSON-ready values."""
        return dataclasses.asdict(self)


def _scores(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0 or not np.isfinite(array).all():
        raise ModelError(f"{name}: need at least one score, all finite")
    return array


def fpr_at_tpr(benign: ArrayLike, attack: ArrayLike, tpr: float = TARGET_TPR) -> float:
    """Return the smallest false-positive rate of a threshold that catches a share `tpr` of attacks.

    The rule is `alarm if score >= t`, and t is the largest attack score that still has at least
    ceil(tpr * n_attack) attacks at or above it. A benign score equal to t counts as a false
    positive: ties count against the detector, and nothing is interpolated between thresholds.

    Args:
        benign: Scores of benign rows, shape (n,), n >= 1.
        attack: Scores of attack rows, shape (m,), m >= 1.
        tpr: In (0, 1].

    Returns:
        In [0, 1].

    Raises:
        ModelError: empty, not finite, or `tpr` out of range.
    """
    if not 0.0 < tpr <= 1.0:
        raise ModelError(f"tpr is {tpr}", hint="use a number above 0, at most 1")
    quiet, loud = _scores(benign, "benign"), np.sort(_scores(attack, "attack"))[::-1]
    needed = max(1, math.ceil(tpr * len(loud) - 1e-9))
    return float(np.mean(quiet >= loud[needed - 1]))  # L-14


def quality(benign: ArrayLike, attack: ArrayLike, threshold: float) -> DetectionQuality:
    """Measure scores against labels; an alarm is a score strictly above the threshold.

    Args:
        benign: Scores of benign test rows, shape (n,).
        attack: Scores of attack test rows, shape (m,).
        threshold: Chosen without these rows.

    Raises:
        ModelError: no scores, a score or threshold that is not finite.
    """
    quiet, loud = _scores(benign, "benign"), _scores(attack, "attack")
    if not math.isfinite(threshold):
        raise ModelError(f"the threshold is {threshold}")
    labels = np.concatenate((np.zeros(len(quiet), int), np.ones(len(loud), int)))
    scores = np.concatenate((quiet, loud))
    # Loading scikit-learn takes as long as training a round: only whoever measures pays for it.
    from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

    return DetectionQuality(
        auc=float(roc_auc_score(labels, scores)),
        auc_pr=float(average_precision_score(labels, scores)),
        f1=float(f1_score(labels, scores > threshold, zero_division=0.0)),
        recall=float(np.mean(loud > threshold)),
        fpr=float(np.mean(quiet > threshold)),
        fpr_at_tpr_999=fpr_at_tpr(quiet, loud),
        threshold=float(threshold),
        n_benign=len(quiet),
        n_attack=len(loud),
    )
