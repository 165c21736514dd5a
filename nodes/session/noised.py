"""A contribution under client-level noise, and the sum of such contributions.

Only what the noise covers travels: the weighted update and centroid, the weight, and whether the
vector was within the clip where the clip adapts; under correlated noise the update alone. Source:
specs/50-dp.md, specs/54-correlated-noise.md, specs/55-excess-noise.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fl_core.server_opt import within_ball
from nodes.session.contribution import RoundMean
from nodes.session.epoch_terms import divisor_of, epoch_signs
from nodes.session.offer import SURE
from nodes.session.privacy import components_of
from secagg import ring, tags
from secagg.dp.adaptive import within_fraction
from secagg.dp.correlated import CorrelatedShare
from secagg.dp.encoding import WITHIN, PrivateEncoding
from secagg.dp.excess import draw_noise, new_seeds, remove_excess
from secagg.primitives.kdf import digest
from secagg.round_setup import RoundSetup
from secagg.steps import SumReady
from secagg.types import RingVector, Rng
from secagg.wire.messages import DpTerms

if TYPE_CHECKING:
    from fl_core.training import LocalUpdate

__all__ = [
    "Contribution",
    "correlated_input",
    "noised_input",
    "read_correlated_sum",
    "read_noised_sum",
]


@dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """What a node puts into the sum."""

    vector: RingVector = field(repr=False)
    """Shape (dim,), values below 2^ring_bits."""
    excess: tuple[bytes, ...] = field(default=(), repr=False)
    """Seeds of the parts of its noise that may be taken back."""


def noised_input(
    update: LocalUpdate | None,
    encoding: PrivateEncoding,
    setup: RoundSetup,
    rng: Rng,
) -> Contribution:
    """Clip, round and noise a node's update.

    Args:
        update: What training gave, or None for zeros, which are noised as anything else.
        encoding: Layout of the vector.
        setup: The round.
        rng: The operating system's generator: of rounding and noise.

    Raises:
        LocalProtocolError: a vector has the wrong shape or is not finite.
    """
    integers = encoding.encode(_weighted(update, encoding), rng, signs_seed=_signs(setup))
    parts = components_of(encoding, len(setup.cohort), setup.colluders)
    seeds = new_seeds(parts, rng)
    noise = draw_noise(parts, encoding.dim, rng, seeds)  # V-11: all of it, anew in each round
    return Contribution(encoding.noised(integers, noise, ring_bits=setup.ring_bits), seeds)


def correlated_input(
    update: LocalUpdate | None,
    encoding: PrivateEncoding,
    dp: DpTerms,
    share: CorrelatedShare,
    *,
    ring_bits: int,
    rng: Rng,
) -> Contribution:
    """Clip, round and noise a node's update; the noise takes back some of earlier rounds'.

    Args:
        update: What training gave; zeros go into the sum instead if it is None or the node is not
            to give data in this round (C-06).
        encoding: Layout of the vector.
        dp: Terms of the round.
        share: This node's share of the epoch's noise; it moves on to the next round.
        ring_bits: Of the round.
        rng: The operating system's generator: of rounding and noise.

    Raises:
        LocalProtocolError: the update has the wrong shape or is not finite; nothing was drawn.
    """
    integers = np.zeros(encoding.dim, dtype=np.int64)
    if update is not None and share.gives_data:
        integers = encoding.encode({"update": update.delta}, rng, signs_seed=epoch_signs(dp))
    noise = share.draw(encoding.dim, rng)
    return Contribution(encoding.noised(integers, noise, ring_bits=ring_bits))


def read_correlated_sum(
    result: SumReady, encoding: PrivateEncoding, dp: DpTerms, *, ring_bits: int
) -> RoundMean:
    """Decode the sum of a round of an epoch, over a divisor that all its rounds share (C-13)."""
    integers = ring.to_signed(result.total, ring_bits)
    sums = encoding.decode(integers, signs_seed=epoch_signs(dp))
    return RoundMean(
        delta=sums["update"] / divisor_of(dp),
        centroid=None,
        weight=1.0,
        loss=None,
        clipped=None,
        samples=None,
    )


def _weighted(
    update: LocalUpdate | None, encoding: PrivateEncoding
) -> dict[str, NDArray[np.floating]]:
    if update is None:
        return {segment.name: np.zeros(segment.dim) for segment in encoding.segments}
    return {
        "update": update.weight * update.delta.astype(np.float64),
        "centroid": update.weight * update.centroid.astype(np.float64),
        "weight": np.array([update.weight], dtype=np.float64),
    }


def read_noised_sum(
    result: SumReady, encoding: PrivateEncoding, setup: RoundSetup
) -> RoundMean | None:
    """Decode a noised sum into the weighted mean; None if the weights drown in their noise."""
    n = len(result.contributors)
    parts = components_of(encoding, len(setup.cohort), setup.colluders)
    total = remove_excess(result.total, result.excess, parts, setup.ring_bits)
    sums = encoding.decode(ring.to_signed(total, setup.ring_bits), signs_seed=_signs(setup))
    weight = float(sums["weight"][0])
    if weight < SURE * encoding.std("weight", n):
        return None
    within = within_fraction(float(sums[WITHIN][0]), n) if WITHIN in sums else None
    return RoundMean(
        delta=sums["update"] / weight,
        centroid=within_ball(sums["centroid"] / weight),
        weight=weight / n,
        loss=None,
        clipped=None if within is None else round(n * (1 - min(max(within, 0.0), 1.0))),
        samples=None,
        within=within,
    )


def _signs(setup: RoundSetup) -> bytes:
    """Return the public seed of the rotation: another in every offer (D-06)."""
    return digest(tags.ROTATION, *setup.context)
