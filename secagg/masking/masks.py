"""The algebra of the masks: from keys to seeds, from seeds to a masked vector and back.

For nodes u < v with pair seed s_uv and self-mask seeds b_u, node u uploads::

    y_u = x_u + PRG(b_u) + sum_{v > u} PRG(s_uv) - sum_{v < u} PRG(s_uv)   mod 2^b

Summed over the survivors the pair masks cancel, and the self-masks and the pair masks toward
nodes that dropped out are removed with what t share holders reveal.

Source: specs/30-masking.md sections 4 and 5; Bonawitz et al. 2017, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from secagg.errors import AuthenticationError
from secagg.primitives import agreement
from secagg.primitives.kdf import derive, digest
from secagg.primitives.prg import accumulate
from secagg.primitives.signing import sign, verify
from secagg.tags import (
    KEY_ADVERT,
    MASK_KEY,
    PAIR_MASK,
    SELF_COMMITMENT,
    SELF_MASK,
    SHARE_SEAL,
    SHARERS,
    SURVIVORS,
)
from secagg.types import NodeId, RingVector, RoundSetup, Signer
from secagg.wire.codec import encode
from secagg.wire.messages import KeyAdvert

__all__ = [
    "SUITE_X25519",
    "add_pair_masks",
    "add_self_mask",
    "advert_digest",
    "make_advert",
    "mask_private_key",
    "seal_key",
    "self_commitment",
    "sharers_digest",
    "sign_sharers",
    "sign_survivors",
    "verify_advert",
    "verify_sharers",
    "verify_survivors",
    "view_digest",
]

SUITE_X25519 = 1
"""X25519, HKDF-SHA256, ChaCha20-Poly1305, AES-256-CTR, Ed25519. Other numbers are refused."""

Context: TypeAlias = tuple[bytes, bytes, bytes]


def mask_private_key(round_secret: bytes) -> X25519PrivateKey:
    """Derive the node's masking key of the round from its one shared secret (32 bytes) (M-05)."""
    return agreement.private_key(derive(round_secret, MASK_KEY))


def self_commitment(self_seed: bytes) -> bytes:
    """Commit to the self-mask seed; hiding because the seed has 256 bits of entropy (M-04)."""
    return digest(SELF_COMMITMENT, self_seed)


def make_advert(
    setup: RoundSetup, signer: Signer, *, mask_key: bytes, share_key: bytes, commitment: bytes
) -> KeyAdvert:
    """Return the signed advert of this round's public keys."""
    parts = _advert_parts(setup, signer.node_id, SUITE_X25519, mask_key, share_key, commitment)
    signature = sign(signer, KEY_ADVERT, *parts)
    return KeyAdvert(
        setup.round_id, signer.node_id, SUITE_X25519, mask_key, share_key, commitment, signature
    )


def verify_advert(setup: RoundSetup, advert: KeyAdvert) -> None:
    """Check an advert against the roster's key of the node it names (M-04).

    Raises:
        AuthenticationError: blames that node; it is not in the cohort, its suite is unknown, its
            signature fails, or nobody could agree on a secret with one of its keys.
    """
    if advert.suite != SUITE_X25519:
        raise AuthenticationError(advert.node_id, f"its advert is of suite {advert.suite}")
    parts = _advert_parts(
        setup,
        advert.node_id,
        advert.suite,
        advert.mask_key,
        advert.share_key,
        advert.self_commitment,
    )
    key = setup.signing_keys.get(advert.node_id, b"")
    verify(key, advert.signature, KEY_ADVERT, *parts, signer=advert.node_id)
    for public in (advert.mask_key, advert.share_key):
        agreement.check_public(advert.node_id, public)


def _advert_parts(setup: RoundSetup, node: NodeId, suite: int, *keys: bytes) -> tuple[bytes, ...]:
    return *setup.context, node.encode(), bytes([suite]), *keys


def advert_digest(advert: KeyAdvert) -> bytes:
    """Return the hash of an advert that goes into the graph seed (32 bytes)."""
    return digest(KEY_ADVERT, encode(advert))


def seal_key(
    context: Context,
    private: X25519PrivateKey,
    *,
    sender: NodeId,
    receiver: NodeId,
    peer: KeyAdvert,
) -> bytes:
    """Return the key that seals the shares of `sender` for `receiver`, and only those (M-08)."""
    secret = agreement.agree(private, peer.node_id, peer.share_key)
    return derive(secret, SHARE_SEAL, *context, sender.encode(), receiver.encode())


def _pair_seed(
    context: Context, private: X25519PrivateKey, me: NodeId, peer: NodeId, key: bytes
) -> bytes:
    low, high = sorted((me, peer))
    secret = agreement.agree(private, peer, key)
    return derive(secret, PAIR_MASK, *context, low.encode(), high.encode())  # M-07


def add_pair_masks(
    vector: RingVector,
    context: Context,
    private: X25519PrivateKey,
    *,
    me: NodeId,
    peers: Mapping[NodeId, bytes],
    negative: bool = False,
) -> None:
    """Add to `vector`, in place, the pair masks that `me` shares with `peers`.

    Args:
        vector: Shape (dim,), dtype uint32; taken modulo 2^32 (reduce afterwards).
        context: Run, round and offer.
        private: The masking key of `me`.
        me: The node whose masks these are.
        peers: Node id to public masking key.
        negative: Add the opposite; the coordinator uses it for nodes that dropped out.
    """
    for peer, key in peers.items():
        seed = _pair_seed(context, private, me, peer, key)
        accumulate(vector, seed, negative=(peer < me) != negative)


def add_self_mask(
    vector: RingVector, context: Context, self_seed: bytes, *, negative: bool = False
) -> None:
    """Add (or subtract) a node's self-mask, in place."""
    accumulate(vector, derive(self_seed, SELF_MASK, *context), negative=negative)


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
