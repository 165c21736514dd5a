"""What a node gives to a round, and what the coordinator makes of the sum, by the offer alone.

Rounds with client-level noise and rounds without have vectors of their own layout; this is the one
place where they part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nodes.session.contribution import RoundMean, encode_update, read_sum
from nodes.session.noised import Contribution, noised_input, read_noised_sum
from nodes.session.offer import encoding_of, noised_encoding_of
from secagg.round_setup import RoundSetup
from secagg.steps import SumReady
from secagg.types import Rng
from secagg.wire.messages import RoundOffer

if TYPE_CHECKING:
    from fl_core.training import LocalUpdate

__all__ = ["Contribution", "mean_of", "nothing_to_give", "to_give"]


def to_give(update: LocalUpdate, offer: RoundOffer, setup: RoundSetup, rng: Rng) -> Contribution:
    """Return what a node puts into the sum.

    Raises:
        LocalProtocolError: a vector has the wrong shape or is not finite.
    """
    if offer.dp is not None:
        return noised_input(update, noised_encoding_of(offer, offer.dp), setup, rng)
    weighted_here = not setup.coordinator_weighs
    vector = encode_update(update, encoding_of(offer), rng, weighted_here=weighted_here)
    return Contribution(vector)


def nothing_to_give(offer: RoundOffer, setup: RoundSetup, rng: Rng) -> Contribution:
    """Return what stands for no update: zeros, under noise as any other vector."""
    if offer.dp is not None:
        return noised_input(None, noised_encoding_of(offer, offer.dp), setup, rng)
    return Contribution(np.zeros(setup.dim, dtype=np.uint32))


def mean_of(result: SumReady, offer: RoundOffer, setup: RoundSetup) -> RoundMean | None:
    """Decode a sum into the weighted mean; None if the weights sum to nearly nothing."""
    if offer.dp is not None:
        return read_noised_sum(result, noised_encoding_of(offer, offer.dp), setup)
    return read_sum(result.total, result.weights, encoding_of(offer))
