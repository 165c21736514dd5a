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
from nodes.session.events import RoundDone, RunState
from nodes.session.open_round import OpenRound
from nodes.session.plan import RunPlan
from secagg.ckks.views import terms_of
from secagg.ckks.weighting import least_effective, smoothed, weights_from
from secagg.dp.adaptive import next_clip
from secagg.round_setup import RoundSetup
from secagg.steps import SumReady
from secagg.types import NodeId
from secagg.wire.messages import RoundOffer

__all__ = ["ServerStep", "advanced", "after_offer", "done_event", "weighed"]

ServerStep: TypeAlias = Callable[
    [NDArray[np.float32], NDArray[np.float64], dict[str, NDArray[np.float64]]],
    tuple[NDArray[np.float32], dict[str, NDArray[np.float64]]],
]
"""(params, mean update, optimiser state) -> (params, optimiser state)."""


def after_offer(run: RunState, offer: RoundOffer) -> RunState:
    """Return the run once a round is offered: its id is used, and its noise is that of the run."""
    run = replace(run, next_round=offer.round_id + 1)
    if offer.dp is None:
        return run
    return replace(run, clip=offer.dp.clip, noise_multiplier=offer.dp.noise_multiplier)


def advanced(run: RunState, mean: RoundMean, server_step: ServerStep, plan: RunPlan) -> RunState:
    """Return the run after a round with a sum."""
    params, optimiser = server_step(run.params, mean.delta, run.optimiser)
    done = run.rounds_done + 1
    return replace(
        run,
        params=params,
        reference=run.reference if mean.centroid is None else mean.centroid.astype(np.float32),
        optimiser=optimiser,
        rounds_done=done,
        finished=done >= plan.rounds,
        clip=_next_clip(run.clip, mean, plan),
    )


def done_event(
    run: RunState,
    plan: RunPlan,
    opened: OpenRound,
    result: SumReady,
    mean: RoundMean,
    epsilon: float | None,
) -> RoundDone:
    """Return what is reported of a round that moved `run`."""
    return RoundDone(
        opened.offer.round_id,
        run.rounds_done,
        plan.rounds,
        result.contributors,
        mean.loss,
        mean.weight,
        mean.clipped,
        result.weights,
        tuple(sorted(opened.outliers)),
        epsilon,
    )


def _next_clip(clip: float, mean: RoundMean, plan: RunPlan) -> float:
    """Return the clip of the next round, which adapts where nodes tell if they were within it."""
    if mean.within is None:
        return clip
    return next_clip(clip, mean.within, plan.privacy.quantile, plan.privacy.clip_rate)


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
