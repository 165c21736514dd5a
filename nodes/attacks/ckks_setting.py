"""Rounds of `ckks` as the demonstration plays them: their set-up, weights and uploads."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from nodes.attacks.knowledge import VALUE_BITS
from nodes.ephemeral import EphemeralIdentity
from secagg.ckks.committees import CommitteeParameters
from secagg.ckks.parameters import CkksParameters, choose
from secagg.ckks.ring import ring_of
from secagg.ckks.uploads import Layout
from secagg.ckks.views import terms_of
from secagg.ckks.weighting import least_effective, weights_from
from secagg.encoding import ring_bits_for
from secagg.round_setup import RoundSetup
from secagg.types import Weigh
from secagg.wire.messages import CipherChunk, MaskedChunk, Message, SealedSecret

__all__ = ["MAX_WEIGHT", "ckks_setup", "completes", "small_committee", "weigher"]

_CHUNKS: Final = 4  # as many as blocks allow
MAX_WEIGHT: Final = 4
"""Greatest weight where the coordinator weighs."""


def ckks_setup(
    n: int,
    dim: int,
    identities: Mapping[str, EphemeralIdentity],
    *,
    weighs: bool = False,
    terms: Mapping[str, object] | None = None,
    changes: Mapping[str, object] | None = None,
) -> RoundSetup:
    """Return the round that the defaults give to `n` nodes.

    Args:
        n: Cohort size; `identities` may hold more.
        dim: Coordinates.
        identities: Who signs.
        weighs: The coordinator gives nodes weights from 1 to `MAX_WEIGHT`.
        terms: Fields of the terms that differ from the defaults.
        changes: Fields of the set-up that do.
    """
    most = MAX_WEIGHT if weighs else 1
    made: CkksParameters = replace(
        choose(n, value_bits=VALUE_BITS, max_weight=most),
        **(terms or {}),  # type: ignore[arg-type]
    )
    cohort = tuple(sorted(name for name in identities if name.startswith("node")))[:n]
    setup = RoundSetup(
        run_id=secrets.token_bytes(16),
        round_id=1,
        offer_hash=secrets.token_bytes(32),
        cohort=cohort,
        signing_keys={node: identities[node].public for node in cohort},
        dim=dim,
        ring_bits=ring_bits_for(n * most, VALUE_BITS),
        threshold=made.committee.threshold,
        quorum=made.quorum,
        neighbours=n - 1,
        colluders=made.colluders,
        chunk_values=8 * -(-dim // (8 * _CHUNKS)),
        ckks=made,
        coordinator_weighs=weighs,
    )
    return replace(setup, **(changes or {}))  # type: ignore[arg-type]


def small_committee(n: int, size: int, threshold: int) -> dict[str, object]:
    """Return terms of a committee below a small cohort, which real rounds do not draw."""
    made = choose(n, value_bits=VALUE_BITS).committee
    silent = size - threshold - 1
    return {"committee": CommitteeParameters(size, threshold, 1, silent, made.modulus)}


def weigher(setup: RoundSetup) -> Weigh | None:
    """Return what gives nodes their weights, if the coordinator does."""
    if not setup.coordinator_weighs:
        return None
    return functools.partial(
        weights_from,
        max_weight=terms_of(setup).max_weight,
        quorum=setup.quorum,
        effective=least_effective(setup),
    )


def completes(setup: RoundSetup, message: Message) -> bool | None:
    """Tell whether a message is the last part of an upload; None if it is no part of one."""
    if isinstance(message, MaskedChunk):
        return message.index == setup.n_chunks - 1
    if isinstance(message, CipherChunk):
        ring = terms_of(setup).ring
        layout = Layout.of(setup, ring_of(ring.degree, ring.modulus_bits))
        return message.index == layout.chunks - 1
    return False if isinstance(message, SealedSecret) else None
