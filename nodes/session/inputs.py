"""What a node gives to a round, and what the coordinator makes of the sum, by the offer alone.

Rounds with client-level noise and rounds without have vectors of their own layout; this is the one
place where they part.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Final

import numpy as np

from nodes.session.contribution import RoundMean, encode_update, read_sum
from nodes.session.noised import (
    Contribution,
    correlated_input,
    noised_input,
    read_correlated_sum,
    read_noised_sum,
)
from nodes.session.offer import encoding_of, noised_encoding_of
from secagg.dp.correlated import CorrelatedShare
from secagg.errors import LocalProtocolError
from secagg.round_setup import RoundSetup
from secagg.steps import SumReady
from secagg.types import Rng
from secagg.wire.messages import DpTerms, RoundOffer

if TYPE_CHECKING:
    from fl_core.training import LocalUpdate

__all__ = ["Contribution", "mean_of", "nothing_to_give", "to_give"]

_FLOATS: Final = (np.float16, np.float32, np.float64)
_NUMBERS: Final = (int, float, np.integer, np.floating)
_RANGES: Final = {
    "weight": (0.0, 1.0),
    "distance": (-sys.float_info.max, sys.float_info.max),  # cut to its range where it is told
    "loss": (-math.inf, math.inf),  # cut as well
    "samples": (0, 1 << 53),
}


def to_give(
    update: LocalUpdate,
    offer: RoundOffer,
    setup: RoundSetup,
    rng: Rng,
    share: CorrelatedShare | None = None,
) -> Contribution:
    """Return what a node puts into the sum.

    Args:
        update: What training gave.
        offer: The round.
        setup: What both sides run of it.
        rng: The operating system's generator.
        share: Of the noise of an epoch, if the round is of one.

    Raises:
        LocalProtocolError: this is no update that training can give; the message tells no value.
            Nothing of `share` was drawn.
    """
    _check(update, offer)
    if offer.dp is not None:
        return _noised(update, offer, offer.dp, setup, rng, share)
    weighted_here = not setup.coordinator_weighs
    vector = encode_update(update, encoding_of(offer), rng, weighted_here=weighted_here)
    return Contribution(vector)


def _check(update: LocalUpdate, offer: RoundOffer) -> None:
    """Refuse what could be no update of the offered model, before anything reads it (S-21).

    Whoever gets this abstains, so that what training made of the rows does not show.
    """
    sizes = {"delta": offer.model_dim, "centroid": len(offer.reference) // 4}
    for name, size in sizes.items():
        vector = getattr(update, name, None)
        if not isinstance(vector, np.ndarray) or vector.dtype not in _FLOATS:
            kind = getattr(vector, "dtype", type(vector).__name__)
            raise LocalProtocolError(f"{name} of an update is {kind}, no array of floats")
        if vector.shape != (size,):
            raise LocalProtocolError(f"{name} of an update has shape {vector.shape}, not ({size},)")
        if not np.isfinite(vector).all():
            raise LocalProtocolError(f"{name} of an update is not finite")
    for name, (least, most) in _RANGES.items():  # NaN is in none of them
        value = getattr(update, name, None)
        if not isinstance(value, _NUMBERS) or not least <= value <= most:
            raise LocalProtocolError(f"{name} of an update is no number in its range")


def nothing_to_give(
    offer: RoundOffer, setup: RoundSetup, rng: Rng, share: CorrelatedShare | None = None
) -> Contribution:
    """Return what stands for no update: zeros, under noise as any other vector."""
    if offer.dp is not None:
        return _noised(None, offer, offer.dp, setup, rng, share)
    return Contribution(np.zeros(setup.dim, dtype=np.uint32))


def _noised(
    update: LocalUpdate | None,
    offer: RoundOffer,
    dp: DpTerms,
    setup: RoundSetup,
    rng: Rng,
    share: CorrelatedShare | None,
) -> Contribution:
    encoding = noised_encoding_of(offer, dp)
    if dp.correlated is None:
        return noised_input(update, encoding, setup, rng)
    if share is None:
        raise LocalProtocolError("a round of an epoch without a share of its noise")
    return correlated_input(update, encoding, dp, share, ring_bits=setup.ring_bits, rng=rng)


def mean_of(result: SumReady, offer: RoundOffer, setup: RoundSetup) -> RoundMean | None:
    """Decode a sum into the weighted mean; None if the weights sum to nearly nothing."""
    if offer.dp is not None:
        encoding = noised_encoding_of(offer, offer.dp)
        if offer.dp.correlated is not None:
            return read_correlated_sum(result, encoding, offer.dp, ring_bits=setup.ring_bits)
        return read_noised_sum(result, encoding, setup)
    return read_sum(result.total, result.weights, encoding_of(offer))
