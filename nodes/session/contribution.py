"""What a node puts into the sum, and what the coordinator reads out of it.

Every quantity that depends on one node's data travels inside the protected vector: the weighted
update and centroid, the weight itself, the loss, the size of the data set as a count in buckets,
and whether the update was clipped (E-01).
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nodes.session.offer import MAX_LOSS, SAMPLE_BUCKETS
from secagg.encoding import FixedPoint
from secagg.types import RingVector, Rng

if TYPE_CHECKING:
    from fl_core.training import LocalUpdate

__all__ = ["MIN_WEIGHT", "RoundMean", "encode_update", "read_sum"]

MIN_WEIGHT = 1e-3
"""A mean weight below this is rounding noise: the round is void."""


@dataclass(frozen=True, slots=True, eq=False)
class RoundMean:
    """The decoded result of one round."""

    delta: NDArray[np.float64] = field(repr=False)
    """Shape (model_dim,): Σ wΔθ / Σ w."""
    centroid: NDArray[np.float64] = field(repr=False)
    """Shape (embedding_dim,): Σ w·centroid / Σ w, the next global reference."""
    weight: float
    """Mean consistency weight."""
    loss: float
    """Mean loss."""
    clipped: int
    """Nodes whose update was clipped."""
    samples: tuple[int, ...]
    """Nodes by bucket of `SAMPLE_BUCKETS`."""


def encode_update(update: LocalUpdate, encoding: FixedPoint, rng: Rng) -> RingVector:
    """Return the ring vector of one node's local update.

    Raises:
        LocalProtocolError: a vector has the wrong shape or is not finite.
    """
    weighted = update.weight * update.delta.astype(np.float64)
    bounds = {segment.name: segment.bound for segment in encoding.segments}
    bucket = bisect.bisect_right(SAMPLE_BUCKETS, update.samples) - 1
    values = {
        "update": weighted,
        "centroid": update.weight * update.centroid.astype(np.float64),
        "weight": np.array([update.weight]),
        "loss": np.array([min(max(update.loss, -MAX_LOSS), MAX_LOSS)]),
        "samples": np.eye(len(SAMPLE_BUCKETS))[bucket],
        "clipped": np.array([float(np.linalg.norm(weighted) > bounds["update"])]),
    }
    return encoding.encode(values, rng).vector


def read_sum(total: RingVector, n_contributors: int, encoding: FixedPoint) -> RoundMean | None:
    """Decode a sum into the weighted mean; None if the weights sum to nearly nothing."""
    sums = encoding.decode(total)
    weight = float(sums["weight"][0])
    if weight / n_contributors < MIN_WEIGHT:
        return None
    return RoundMean(
        delta=sums["update"] / weight,
        centroid=sums["centroid"] / weight,
        weight=weight / n_contributors,
        loss=float(sums["loss"][0]) / n_contributors,
        clipped=round(float(sums["clipped"][0])),
        samples=tuple(round(float(count)) for count in sums["samples"]),
    )
