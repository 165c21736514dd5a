"""What nodes must have been shown alike, as hashes, and their signatures under them.

Source: specs/30-masking.md sections 4.4 and 4.5; Bonawitz et al. 2017, figure 4.
"""

from __future__ import annotations

from secagg.primitives.kdf import digest
from secagg.primitives.signing import sign, verify
from secagg.round_setup import RoundSetup
from secagg.tags import SHARERS, SURVIVORS
from secagg.types import NodeId, Signer

__all__ = [
    "sharers_digest",
    "sign_sharers",
    "sign_survivors",
    "verify_sharers",
    "verify_survivors",
    "view_digest",
]


def sharers_digest(graph_seed: bytes, sharers: tuple[NodeId, ...]) -> bytes:
    """Return the hash of who masks with whom: all adverts, and who shared secrets (32 bytes)."""
    return digest(SHARERS, graph_seed, *(node.encode() for node in sharers))


def sign_sharers(setup: RoundSetup, signer: Signer, sharers: bytes) -> bytes:
    """Sign what one's own input was masked under, from `sharers_digest` (M-24)."""
    return sign(signer, SHARERS, *setup.context, sharers)


def verify_sharers(setup: RoundSetup, node: NodeId, signature: bytes, sharers: bytes) -> None:
    """Check that `node` masked its input under the same `sharers_digest` (M-24).

    Raises:
        AuthenticationError: blames `node`.
    """
    key = setup.signing_keys.get(node, b"")
    verify(key, signature, SHARERS, *setup.context, sharers, signer=node)


def view_digest(sharers: bytes, survivors: tuple[NodeId, ...]) -> bytes:
    """Return the hash of all that nodes must have been shown alike (32 bytes) (M-11).

    Args:
        sharers: From `sharers_digest`.
        survivors: Whose inputs the sum holds.
    """
    return digest(SURVIVORS, sharers, *(node.encode() for node in survivors))


def sign_survivors(setup: RoundSetup, signer: Signer, view: bytes) -> bytes:
    """Co-sign a view of the round, from `view_digest` (M-11)."""
    return sign(signer, SURVIVORS, *setup.context, view)


def verify_survivors(setup: RoundSetup, node: NodeId, signature: bytes, view: bytes) -> None:
    """Check the co-signature of `node`.

    Raises:
        AuthenticationError: blames `node`.
    """
    key = setup.signing_keys.get(node, b"")
    verify(key, signature, SURVIVORS, *setup.context, view, signer=node)
