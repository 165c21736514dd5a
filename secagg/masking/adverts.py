"""What a node says of itself at the start of a round: its public keys, commitments and coins.

An advert is signed with the node's identity key over run, round and offer, so no unsigned key is
ever used. Coins are the graph's randomness: each node commits to a chain of them in its advert and
reveals the next one only after it has seen the list of all commitments.

Source: specs/30-masking.md sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from secagg.errors import AuthenticationError
from secagg.primitives import hybrid
from secagg.primitives.hybrid import SUITE_HYBRID
from secagg.primitives.kdf import digest
from secagg.primitives.signing import sign, verify
from secagg.round_setup import RoundSetup
from secagg.tags import COIN, GRAPH, KEY_ADVERT, ROUND_COMMITMENT, SELF_COMMITMENT
from secagg.types import NodeId, Signer
from secagg.wire.codec import encode
from secagg.wire.messages import MAX_ATTEMPTS, KeyAdvert

__all__ = [
    "SUITE_HYBRID",
    "Entry",
    "advert_digest",
    "check_keys",
    "coin_at",
    "coin_fits",
    "graph_seed",
    "make_advert",
    "round_commitment",
    "self_commitment",
    "verify_advert",
]

Entry: TypeAlias = tuple[NodeId, bytes, bytes]
"""One node in the list of adverts: id, advert digest, coin commitment."""


def round_commitment(round_secret: bytes) -> bytes:
    """Commit to the round secret; hiding because it has 256 bits of entropy (M-04)."""
    return digest(ROUND_COMMITMENT, round_secret)


def self_commitment(self_seed: bytes) -> bytes:
    """Commit to the self-mask seed; hiding because the seed has 256 bits of entropy (M-04)."""
    return digest(SELF_COMMITMENT, self_seed)


def coin_at(seed: bytes, attempt: int) -> bytes:
    """Return the coin of the given attempt, 1 to MAX_ATTEMPTS; attempt 0 is the commitment.

    A later coin hashes to the one before it, so a coin that was revealed says nothing about the
    next one.
    """
    for _ in range(MAX_ATTEMPTS - attempt):
        seed = digest(COIN, seed)
    return seed


def coin_fits(coin: bytes, commitment: bytes, attempt: int) -> bool:
    """Tell whether `coin` is what `commitment` promised for `attempt` (M-06)."""
    for _ in range(attempt):
        coin = digest(COIN, coin)
    return coin == commitment


def make_advert(
    setup: RoundSetup,
    signer: Signer,
    *,
    agreement_key: bytes,
    kem_key: bytes,
    commitments: tuple[bytes, bytes, bytes],
) -> KeyAdvert:
    """Return the signed advert of this round's public keys.

    Args:
        setup: The round.
        signer: The node that advertises.
        agreement_key: X25519, 32 bytes.
        kem_key: ML-KEM-768, 1184 bytes.
        commitments: To the round secret, the self-mask seed and the coins.
    """
    parts = (agreement_key, kem_key, *commitments)
    signed = _signed_parts(setup, signer.node_id, SUITE_HYBRID, parts)
    signature = sign(signer, KEY_ADVERT, *signed)
    return KeyAdvert(setup.round_id, signer.node_id, SUITE_HYBRID, *parts, signature)


def verify_advert(setup: RoundSetup, advert: KeyAdvert) -> None:
    """Check an advert against the roster's key of the node it names (M-04).

    Raises:
        AuthenticationError: blames that node; it is not in the cohort, its suite is unknown, or
            its signature fails.
    """
    if advert.suite != SUITE_HYBRID:
        raise AuthenticationError(advert.node_id, f"its advert is of suite {advert.suite}")
    parts = (
        advert.agreement_key,
        advert.kem_key,
        advert.round_commitment,
        advert.self_commitment,
        advert.coin_commitment,
    )
    signed = _signed_parts(setup, advert.node_id, advert.suite, parts)
    key = setup.signing_keys.get(advert.node_id, b"")
    verify(key, advert.signature, KEY_ADVERT, *signed, signer=advert.node_id)


def check_keys(advert: KeyAdvert) -> None:
    """Refuse an advert with whose keys nobody could agree on a secret (M-04).

    A node need not ask: it finds out when it agrees.

    Raises:
        AuthenticationError: blames the node of the advert.
    """
    hybrid.check_public(advert.node_id, advert.agreement_key, advert.kem_key)


def _signed_parts(
    setup: RoundSetup, node: NodeId, suite: int, parts: tuple[bytes, ...]
) -> tuple[bytes, ...]:
    return *setup.context, node.encode(), bytes([suite]), *parts


def advert_digest(advert: KeyAdvert) -> bytes:
    """Return the hash of an advert that goes into the graph seed (32 bytes)."""
    return digest(KEY_ADVERT, encode(advert))


def graph_seed(
    offer_hash: bytes, digests: Sequence[tuple[NodeId, bytes]], coins: Sequence[bytes]
) -> bytes:
    """Return the 32-byte seed over the offer, all adverts in order of node id, and their coins.

    On the complete graph there are no coins: the seed only names the adverts (M-06).
    """
    parts = [part for node, advert in digests for part in (node.encode(), advert)]
    return digest(GRAPH, offer_hash, *parts, *coins)
