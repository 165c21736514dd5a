"""What the failures of ckks are made with: keys signed anew, boxes sealed anew, sums moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

import numpy as np
from msgspec.structs import replace

from secagg.ckks import rlwe, sealing, views
from secagg.ckks.ring import Ring, ring_of
from secagg.primitives import kem, packed
from secagg.primitives.hybrid import HybridKeys
from secagg.primitives.signing import sign
from secagg.tags import SEALING_KEY
from secagg.wire.messages import (
    Announcement,
    CipherChunk,
    CommitteeKeys,
    DealtShares,
    Message,
    SealedSecret,
    SealingKey,
)
from tests.vectors.ckks_cast import CkksCast
from tests.vectors.stage import Rewrite
from tests.vectors.tools import flipped

__all__ = [
    "announced",
    "dealt",
    "keys_of_node",
    "moved_residues",
    "moved_shares",
    "resigned",
    "resigned_key",
    "shown",
    "view_of",
]


def keys_of_node(cast: CkksCast, node: str) -> HybridKeys:
    return HybridKeys(cast.secret(node, "agreement"))


def resigned_key(cast: CkksCast, key: SealingKey, **changes: Any) -> SealingKey:
    """Return a key with other fields under a good signature."""
    new = replace(key, **changes)
    dealer = sealing.dealer_of(new)
    signed = (new.node_id.encode(), bytes([new.suite]), new.agreement_key, dealer.kem_digest)
    identity = cast.identities[new.node_id]
    return replace(new, signature=sign(identity, SEALING_KEY, *cast.checked.context, *signed))


def announced(change: Callable[[CkksCast, SealingKey], SealingKey]) -> Rewrite:
    """Return a rewrite of the key in an announcement."""

    def rewrite(cast: Any, message: Announcement) -> Message:
        return replace(message, key=change(cast, message.key))

    return rewrite


def resigned(**changes: Any) -> Callable[[Any, SealingKey], SealingKey]:
    """Return a change of a key's fields, and a good signature over them."""
    return lambda cast, key: resigned_key(cast, key, **changes)


def shown(node: str, change: Callable[[CkksCast, SealingKey], SealingKey]) -> Rewrite:
    """Return a rewrite of one member's key where the coordinator shows it."""

    def rewrite(cast: Any, message: CommitteeKeys) -> Message:
        keys = (change(cast, key) if key.node_id == node else key for key in message.keys)
        return replace(message, keys=tuple(keys))

    return rewrite


def dealt(index: int, place: int) -> Rewrite:
    """Return a rewrite that changes a bit of one part of what a dealer sealed."""

    def rewrite(cast: Any, message: DealtShares) -> Message:
        shares = [list(share) for share in message.shares]
        shares[index][place] = flipped(shares[index][place])
        return replace(message, shares=tuple(map(tuple, shares)))

    return rewrite


def view_of(cast: CkksCast, weights: Mapping[str, int]) -> bytes:
    """Return the view in which all members' keys were shown and these nodes survive."""
    cohort = views.committee_of(cast.checked)
    keys = []
    for node in cohort:
        key = sealing.make_key(cast.checked, cast.identities[node], keys_of_node(cast, node))
        keys.append(key)
    digest = views.keys_digest(cast.checked, keys)
    return views.view_digest(digest, tuple(weights), bytes(weights.values()))


def moved_shares(dealer: str, step: int) -> Rewrite:
    """Return a rewrite that seals shares of another secret, which the dealer's own share fits.

    To every polynomial that is `step` times (x − the dealer's point) added: it takes t + l > 1.
    """

    def rewrite(cast: Any, message: SealedSecret) -> Message:
        setup, terms = cast.checked, views.terms_of(cast.checked)
        prime, committee = terms.committee.modulus, views.committee_of(setup)
        keys, own = keys_of_node(cast, dealer), committee.index(dealer)
        others = [node for node in committee if node != dealer]
        boxes = []
        for node, box in zip(others, message.boxes, strict=True):
            theirs = keys_of_node(cast, node)
            me = sealing.make_key(setup, cast.identities[dealer], keys)
            known = sealing.open_box(setup, theirs, sealing.dealer_of(me), node, box)
            share = packed.decode(known, prime, terms.share_length)
            assert share is not None
            share = (share + np.uint32(step * (committee.index(node) - own) % prime)) % prime
            to = sealing.make_key(setup, cast.identities[node], theirs)
            capsule = cast.capsules[dealer, node]
            with patch.object(kem, "encapsulate", lambda *_, capsule=capsule: capsule):
                data = packed.encode(share.astype(np.uint32), prime)
                boxes.append(sealing.seal_box(setup, keys, dealer, to, data))
        return replace(message, boxes=tuple(boxes))

    return rewrite


def moved_residues(moves: Mapping[int, int]) -> Rewrite:
    """Return a rewrite of a ciphertext's only chunk that adds to coefficients of the message."""

    def rewrite(cast: Any, message: CipherChunk) -> Message:
        ring = _ring_of(cast)
        residues = rlwe.unpack(message.data, 1, ring)
        assert residues is not None
        added = np.zeros((1, ring.degree), dtype=np.int64)
        for place, value in moves.items():
            added[0, place] = value
        moved = ring.context.transform(ring.residues_of(added), forward=True)
        data = rlwe.pack((residues + moved) % np.uint64(ring.modulus), ring)
        return replace(message, data=data)

    return rewrite


def _ring_of(cast: CkksCast) -> Ring:
    return ring_of(cast.terms.ring.degree, cast.terms.ring.modulus_bits)
