"""What embeddings give away: how well somebody who sees them can tell the site they come from.

Source: seed 000 ("Contrastive Learning for Privacy Enhancements in Industrial IoT", 2026),
mechanism 2; specs/90-learning.md section 13 (L-80).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_core.errors import DataError

__all__ = ["Leakage", "site_leakage"]

_LEAST_ROWS = 4
_MOST_ROWS = 500
_HELD_OUT = 0.5


@dataclass(frozen=True, slots=True)
class Leakage:
    """How often a reader of embeddings names the right site."""

    accuracy: float
    """Mean over sites of the share of held-out embeddings that are traced to their site."""

    chance: float
    """What guessing reaches: one over the number of sites."""

    @property
    def advantage(self) -> float:
        """Accuracy above chance, as a share of what there is above chance; 0 tells nothing."""
        return (self.accuracy - self.chance) / (1 - self.chance)


def site_leakage(embeddings: Sequence[NDArray[np.float64]], *, seed: int) -> Leakage:
    """Train a reader on half of each site's embeddings and try it on the other half.

    The reader is a logistic regression: strong enough to find any direction in which sites lie
    apart, and the same for every encoder. It bounds what leaks from below.

    Args:
        embeddings: Of at least two sites, shape (n, k) each, n >= 4; at most 500 rows are taken.
        seed: Draws the halves.

    Raises:
        DataError: fewer than two sites, or a site with too few rows.
    """
    from sklearn.linear_model import LogisticRegression  # on use: see fl_core.metrics
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    if len(embeddings) < 2 or min(map(len, embeddings)) < _LEAST_ROWS:
        raise DataError(
            "sites cannot be told apart: too few of them, or too few rows",
            hint=f"give two sites or more with at least {_LEAST_ROWS} rows each",
        )
    rng = np.random.default_rng(seed)
    taken = [each[rng.permutation(len(each))[:_MOST_ROWS]] for each in embeddings]
    rows = np.concatenate(taken)
    sites = np.repeat(np.arange(len(taken)), [len(each) for each in taken])
    seen, unseen, seen_sites, unseen_sites = train_test_split(
        rows, sites, test_size=_HELD_OUT, stratify=sites, random_state=seed
    )
    scaler = StandardScaler().fit(seen)
    reader = LogisticRegression(max_iter=1000, class_weight="balanced")
    reader.fit(scaler.transform(seen), seen_sites)
    guesses = reader.predict(scaler.transform(unseen))
    return Leakage(float(balanced_accuracy_score(unseen_sites, guesses)), 1 / len(taken))
