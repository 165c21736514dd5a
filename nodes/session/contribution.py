"""What a node puts into the sum, and what the coordinator reads out of it.

Every quantity that depends on one node's data travels inside the protected vector: the weighted
update and centroid, the weight itself, the loss, the size of the data set as a count in buckets,
and whether the update was clipped (E-01).
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fl_core.server_opt import within_ball
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
    centroid: NDArray[np.float64] | None = field(repr=False)
    """Shape (embedding_dim,): Σ w·centroid / Σ w, cut to a mean square of 1; the next reference.
    None where no centroids are summed: the reference stays."""
    weight: float
    """Mean weight: the consistency weights, or those that the coordinator gave."""
    loss: float | None
    """Mean loss; None where noise would have to cover it too."""
    clipped: int | None
    """Nodes whose vector was clipped; None where it is not summed."""
    samples: tuple[int, ...] | None
    """Nodes by bucket of `SAMPLE_BUCKETS`; None where noise would have to cover them too."""
    within: float | None = None
    """About which fraction of the nodes was within the clip, where it adapts."""


def encode_update(
    update: LocalUpdate, encoding: FixedPoint, rng: Rng, *, weighted_here: bool = True
) -> RingVector:
    """Return the ring vector of one node's local update.

    Args:
        update: What training gave.
        encoding: Layout of the vector.
        rng: Randomness of the rounding.
        weighted_here: The node applies its consistency weight; otherwise it is 1, and the
            coordinator multiplies.

    Raises:
        LocalProtocolError: a vector has the wrong shape or is not finite.
    """
    weight = update.weight if weighted_here else 1.0
    weighted = weight * update.delta.astype(np.float64)
    bounds = {segment.name: segment.bound for segment in encoding.segments}
    bucket = bisect.bisect_right(SAMPLE_BUCKETS, update.samples) - 1
    values = {
        "update": weighted,
        "centroid": weight * update.centroid.astype(np.float64),
        "weight": np.array([weight]),
        "loss": np.array([min(max(update.loss, -MAX_LOSS), MAX_LOSS)]),
        "samples": np.eye(len(SAMPLE_BUCKETS))[bucket],
        "clipped": np.array([float(np.linalg.norm(weighted) > bounds["update"])]),
    }
    return encoding.encode(values, rng).vector


def read_sum(total: RingVector, weights: Sequence[int], encoding: FixedPoint) -> RoundMean | None:
    """Decode a sum into the weighted mean; None if the weights sum to nearly nothing.

    Args:
        total: Sum modulo 2^ring_bits.
        weights: By what each contributor's vector was multiplied: 1, unless the coordinator weighs.
            Then the counts of clipped nodes and of samples are shares of the weight, scaled to the
            contributors and rounded.
        encoding: Layout of the vector.
    """
    sums = encoding.decode(total)
    n, weight = len(weights), float(sums["weight"][0])
    share = n / sum(weights)
    if weight / n < MIN_WEIGHT:
        return None
    return RoundMean(
        delta=sums["update"] / weight,
        centroid=within_ball(sums["centroid"] / weight),
        weight=weight / n,
        loss=float(sums["loss"][0]) / sum(weights),
        clipped=round(float(sums["clipped"][0]) * share),
        samples=tuple(round(float(count) * share) for count in sums["samples"]),
    )
