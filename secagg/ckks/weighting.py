"""Weights that the coordinator gives to nodes, and what the nodes allow it.

A node is far from the others if its consistency distance is; far nodes weigh less, outliers
nothing. Whatever the coordinator computes, each node asks for a sum over enough nodes of which none
outweighs the others: the effective size of a weighted cohort is (Σ w)² / Σ w² (Kish 1965).

Source: specs/36-ckks.md section 6.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

from secagg.errors import LocalProtocolError
from secagg.round_setup import RoundSetup
from secagg.types import NodeId
from secagg.wire.messages import MAX_STEPS

__all__ = [
    "DISTANCE_STEPS",
    "MAX_DISTANCE",
    "SMOOTHING",
    "coarse",
    "is_even",
    "least_effective",
    "smoothed",
    "weights_from",
]

SMOOTHING: Final = 0.5
"""What a round's distance counts in the smoothed one."""
DISTANCE_STEPS: Final = 8
"""Steps to one in which distances are disclosed."""
MAX_DISTANCE: Final = MAX_STEPS / DISTANCE_STEPS
"""Greatest distance that is disclosed: who is farther says this."""
_OUTLIER: Final = 3.0  # standard deviations, by the median absolute deviation
_DEVIATION: Final = 1.4826  # of a normal variable, in median absolute deviations
_LEAST_SPREAD: Final = 0.05  # of the median: nodes as alike as that have no outliers


def smoothed(
    before: Mapping[NodeId, float], distances: Mapping[NodeId, float]
) -> dict[NodeId, float]:
    """Return the exponential moving averages of the distances, of old and new nodes.

    Args:
        before: The averages of the round before.
        distances: What nodes disclosed in this round, at least 0.
    """
    fresh = {
        node: (1 - SMOOTHING) * before.get(node, distance) + SMOOTHING * distance
        for node, distance in distances.items()
    }
    return {**before, **fresh}


def weights_from(
    distances: Mapping[NodeId, float], *, max_weight: int, quorum: int, effective: int
) -> dict[NodeId, int]:
    """Return integer weights in proportion to 1 / (1 + distance), 0 to `max_weight`.

    Nodes beyond three standard deviations from the median get 0, the farthest first, as long as a
    quorum is left. The others get at least 1. Weights are drawn together until the nodes would open
    a sum over any quorum of them.

    Args:
        distances: Smoothed distances, at least 0.
        max_weight: W, at least 1.
        quorum: Fewest nodes with a weight above 0.
        effective: Least effective size, as `least_effective` gives it.
    """
    outliers = set(_outliers(distances)[: max(0, len(distances) - quorum)])
    kept = {node: 1 / (1 + d) for node, d in distances.items() if node not in outliers}
    top = max(kept.values(), default=1.0)
    weights = {node: max(1, round(max_weight * w / top)) for node, w in kept.items()}
    for least in range(2, max_weight + 1):
        if _stays_even(tuple(weights.values()), quorum, effective):
            break
        weights = {node: max(least, weight) for node, weight in weights.items()}
    return {node: weights.get(node, 0) for node in distances}


def _outliers(distances: Mapping[NodeId, float]) -> list[NodeId]:
    """Return the nodes that are far beyond the median, the farthest first."""
    if len(distances) < 3:
        return []
    median = statistics.median(distances.values())
    spread = _DEVIATION * statistics.median(abs(d - median) for d in distances.values())
    bound = median + _OUTLIER * max(spread, _LEAST_SPREAD * median)
    far = [node for node, distance in distances.items() if distance > bound]
    return sorted(far, key=lambda node: (-distances[node], node))


def least_effective(setup: RoundSetup) -> int:
    """Return the least effective size of a weighted cohort: two beyond all that collude (H-11)."""
    return max(3, setup.colluders + 2)


def is_even(weights: Sequence[int] | bytes, effective: int) -> bool:
    """Tell whether (Σ w)² / Σ w² is at least `effective` (H-11), in integers."""
    squares = sum(weight * weight for weight in weights)
    return squares > 0 and sum(weights) ** 2 >= effective * squares


def _stays_even(weights: Sequence[int], quorum: int, effective: int) -> bool:
    """Tell whether every `quorum` of these weights is even enough.

    As a function of one weight (Σ w)² / Σ w² rises and then falls: it is least for some of the
    lightest with some of the heaviest.
    """
    ordered = sorted(weights)
    size, sums = min(quorum, len(ordered)), [0, *itertools.accumulate(ordered)]
    squares = [0, *itertools.accumulate(weight * weight for weight in ordered)]
    for light in range(size + 1):
        heavy = len(ordered) - (size - light)  # where the heaviest begin
        total = sums[light] + sums[-1] - sums[heavy]
        if total**2 < effective * (squares[light] + squares[-1] - squares[heavy]):
            return False
    return True


def coarse(distance: float) -> int:
    """Return a distance in steps of 1 / `DISTANCE_STEPS`, 0 to 64: what a node discloses (H-16).

    A distance is a mean over private rows, of a model and a reference that the coordinator chooses:
    told exactly, round by round, it would tell the node's centroid coordinate by coordinate.

    Raises:
        LocalProtocolError: it is not a number, or below 0.
    """
    if not distance >= 0:
        raise LocalProtocolError(f"{distance} is no distance")
    return min(round(min(distance, MAX_DISTANCE) * DISTANCE_STEPS), MAX_STEPS)
