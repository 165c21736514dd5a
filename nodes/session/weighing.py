"""The coordinator's weights: from what nodes disclose in a round and what it remembers of them.

Source: specs/36-ckks.md section 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nodes.session.events import RunState
from secagg.ckks.views import terms_of
from secagg.ckks.weighting import least_effective, smoothed, weights_from
from secagg.types import NodeId, RoundSetup

__all__ = ["weighed"]


def weighed(
    run: RunState, setup: RoundSetup, distances: Mapping[NodeId, float]
) -> tuple[RunState, dict[NodeId, int]]:
    """Return the run with the distances smoothed in, and the weights that follow (H-11)."""
    known = smoothed(run.distances, distances)
    weights = weights_from(
        {node: known[node] for node in distances},
        max_weight=terms_of(setup).max_weight,
        quorum=setup.quorum,
        effective=least_effective(setup),
    )
    return replace(run, distances=known), weights
