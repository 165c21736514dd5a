"""A run from one round to the next: the model that a sum makes, and what is remembered of nodes.

Source: specs/60-session.md section 2, specs/36-ckks.md section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nodes.session.contribution import RoundMean
from nodes.session.events import RunState
from secagg.ckks.views import terms_of
from secagg.ckks.weighting import least_effective, smoothed, weights_from
from secagg.round_setup import RoundSetup
from secagg.types import NodeId

__all__ = ["ServerStep", "advanced", "weighed"]

ServerStep: TypeAlias = Callable[
    [NDArray[np.float32], NDArray[np.float64], dict[str, NDArray[np.float64]]],
    tuple[NDArray[np.float32], dict[str, NDArray[np.float64]]],
]
"""(params, mean update, optimiser state) -> (params, optimiser state)."""


def advanced(run: RunState, mean: RoundMean, server_step: ServerStep, *, rounds: int) -> RunState:
    """Return the run after a round with a sum, of which there are to be `rounds`."""
    params, optimiser = server_step(run.params, mean.delta, run.optimiser)
    done = run.rounds_done + 1
    return replace(
        run,
        params=params,
        reference=mean.centroid.astype(np.float32),
        optimiser=optimiser,
        rounds_done=done,
        finished=done >= rounds,
    )


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
