"""Who holds shares in a round, what everybody must have been shown alike, and its co-signatures.

Source: specs/36-ckks.md sections 2 and 5.
"""

from __future__ import annotations

from collections.abc import Sequence

from secagg.ckks.parameters import CkksParameters
from secagg.errors import LocalProtocolError
from secagg.primitives.kdf import digest
from secagg.primitives.signing import sign, verify
from secagg.round_setup import RoundSetup
from secagg.tags import COMMITTEE, COMMITTEE_KEYS, PUBLIC_ELEMENTS, WEIGHTED_SURVIVORS
from secagg.types import NodeId, Signer
from secagg.wire.codec import encode
from secagg.wire.messages import CommitteeKeys, SealingKey

__all__ = [
    "committee_of",
    "elements_seed",
    "keys_digest",
    "sign_view",
    "terms_of",
    "verify_view",
    "view_digest",
]


def terms_of(setup: RoundSetup) -> CkksParameters:
    """Return the terms of the round.

    Raises:
        LocalProtocolError: the round is one of another scheme.
    """
    if setup.ckks is None:
        raise LocalProtocolError("a round of ckks without its terms")
    return setup.ckks


def committee_of(setup: RoundSetup) -> tuple[NodeId, ...]:
    """Return the members of the committee, sorted; their places are their evaluation points (H-03).

    The whole cohort, or the nodes whose hashes under the offer are least.
    """
    size = terms_of(setup).committee.size
    if size == len(setup.cohort):
        return setup.cohort
    drawn = sorted(setup.cohort, key=lambda node: digest(COMMITTEE, *setup.context, node.encode()))
    return tuple(sorted(drawn[:size]))


def elements_seed(setup: RoundSetup) -> bytes:
    """Return the seed of the public elements a_j, which nobody chose (32 bytes) (H-06)."""
    return digest(PUBLIC_ELEMENTS, *setup.context)


def keys_digest(setup: RoundSetup, keys: Sequence[SealingKey]) -> bytes:
    """Return the hash of the members' keys that secrets are dealt to (32 bytes)."""
    return digest(COMMITTEE_KEYS, encode(CommitteeKeys(setup.round_id, tuple(keys))))


def view_digest(keys: bytes, survivors: Sequence[NodeId], weights: bytes) -> bytes:
    """Return the hash of all that nodes must have been shown alike (32 bytes) (H-10).

    Args:
        keys: From `keys_digest`.
        survivors: Whose inputs the sum holds, sorted.
        weights: One byte for each of them.
    """
    return digest(WEIGHTED_SURVIVORS, keys, weights, *(node.encode() for node in survivors))


def sign_view(setup: RoundSetup, signer: Signer, view: bytes) -> bytes:
    """Co-sign a view of the round, from `view_digest` (H-10)."""
    return sign(signer, WEIGHTED_SURVIVORS, *setup.context, view)


def verify_view(setup: RoundSetup, node: NodeId, signature: bytes, view: bytes) -> None:
    """Check the co-signature of `node` (H-10).

    Raises:
        AuthenticationError: blames `node`.
    """
    key = setup.signing_keys.get(node, b"")
    verify(key, signature, WEIGHTED_SURVIVORS, *setup.context, view, signer=node)
