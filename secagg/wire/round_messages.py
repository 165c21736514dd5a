"""Messages within a round, scheme by scheme; see `secagg.wire.messages`."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from secagg.types import MAX_COHORT
from secagg.wire.fields import (
    MAX_ATTEMPTS,
    MAX_LEVELS,
    MAX_STEPS,
    Base,
    Capsule,
    Chunk,
    Count,
    Counter,
    Hash,
    Id,
    Ids,
    Index,
    KemKey,
    Key,
    Share,
    Signature,
)

__all__ = [
    "AdvertList",
    "Announcement",
    "CipherChunk",
    "Coin",
    "CommitteeKeys",
    "DealtShare",
    "DealtShares",
    "Encapsulations",
    "ExcessRequest",
    "ExcessSeeds",
    "KeyAdvert",
    "MaskedChunk",
    "OpenRequest",
    "PairCapsule",
    "PeerEncapsulations",
    "PeerKeys",
    "PeerShares",
    "PlainChunk",
    "RoundMessage",
    "SealedSecret",
    "SealedShares",
    "SealingKey",
    "SumShare",
    "SurvivorSignature",
    "Survivors",
    "UnmaskAnswer",
    "UnmaskRequest",
    "UploadTurn",
    "WeightedSurvivors",
]


class KeyAdvert(Base, frozen=True, tag=0x10):
    """Node to coordinator and on to neighbours: this round's public keys and commitments (M-04)."""

    round_id: Counter
    node_id: Id
    suite: Annotated[int, Meta(ge=1, le=255)]
    agreement_key: Key
    kem_key: KemKey
    round_commitment: Hash
    self_commitment: Hash
    coin_commitment: Hash
    signature: Signature


class AdvertList(Base, frozen=True, tag=0x11):
    """Coordinator to node: every advert's digest and coin commitment; toss your coin (M-06)."""

    round_id: Counter
    attempt: Annotated[int, Meta(ge=1, le=MAX_ATTEMPTS)]
    entries: Annotated[tuple[tuple[Id, Hash, Hash], ...], Meta(max_length=MAX_COHORT)]


class Coin(Base, frozen=True, tag=0x12):
    """Node to coordinator: its part of the graph's randomness, which it had committed to."""

    round_id: Counter
    attempt: Annotated[int, Meta(ge=1, le=MAX_ATTEMPTS)]
    coin: Hash


class PeerKeys(Base, frozen=True, tag=0x13):
    """Coordinator to node: all advert digests, all coins, and the neighbours' adverts in full.

    `coins` are in order of `digests`, and empty if the graph is complete.
    """

    round_id: Counter
    digests: Annotated[tuple[tuple[Id, Hash], ...], Meta(max_length=MAX_COHORT)]
    coins: Annotated[tuple[Hash, ...], Meta(max_length=MAX_COHORT)]
    adverts: Annotated[tuple[KeyAdvert, ...], Meta(max_length=MAX_COHORT)]


PairCapsule: TypeAlias = tuple[Id, Capsule, Hash]
"""(the other node, ML-KEM ciphertext, confirmation of the pair's mask seed)."""


class Encapsulations(Base, frozen=True, tag=0x14):
    """Node to coordinator: an encapsulated key for each of its successors in the graph (M-26)."""

    round_id: Counter
    capsules: Annotated[tuple[PairCapsule, ...], Meta(max_length=MAX_COHORT)]


class PeerEncapsulations(Base, frozen=True, tag=0x15):
    """Coordinator to node: who still takes part, and what its predecessors encapsulated for it."""

    round_id: Counter
    agreed: Ids
    capsules: Annotated[tuple[PairCapsule, ...], Meta(max_length=MAX_COHORT)]


Box: TypeAlias = tuple[Id, Annotated[bytes, Meta(max_length=256)]]


class SealedShares(Base, frozen=True, tag=0x16):
    """Node to coordinator: for each neighbour its sealed shares, and the backup of the pair seeds.

    The backup is sealed under the round secret, so that it opens only if its owner drops out.
    """

    round_id: Counter
    boxes: Annotated[tuple[Box, ...], Meta(max_length=MAX_COHORT)]
    backup: Annotated[bytes, Meta(max_length=32 * MAX_COHORT + 16)]


class PeerShares(Base, frozen=True, tag=0x17):
    """Coordinator to node: everybody who shared secrets, and what each neighbour sealed for it."""

    round_id: Counter
    sharers: Ids
    boxes: Annotated[tuple[Box, ...], Meta(max_length=MAX_COHORT)]


class UploadTurn(Base, frozen=True, tag=0x18):
    """Coordinator to node: send your masked input now (M-22)."""

    round_id: Counter


class MaskedChunk(Base, frozen=True, tag=0x19):
    """Node to coordinator: a piece of the masked, bit-packed vector.

    The first carries the signature of whom it was masked with, the others an empty one.
    """

    round_id: Counter
    index: Index
    sharers_signature: Annotated[bytes, Meta(max_length=64)]
    data: Chunk


class Survivors(Base, frozen=True, tag=0x1A):
    """Coordinator to node: whose inputs the sum holds; to be co-signed.

    `sharers_signatures` are those of the receiver's neighbours among the survivors: proof that
    each masked with the same nodes as the receiver was told of.
    """

    round_id: Counter
    survivors: Ids
    sharers_signatures: Annotated[tuple[tuple[Id, Signature], ...], Meta(max_length=MAX_COHORT)]


class SurvivorSignature(Base, frozen=True, tag=0x1B):
    """Node to coordinator: its signature under the survivor set."""

    round_id: Counter
    signature: Signature


class UnmaskRequest(Base, frozen=True, tag=0x1C):
    """Coordinator to node: the co-signatures, and with them the request to unmask."""

    round_id: Counter
    signatures: Annotated[tuple[tuple[Id, Signature], ...], Meta(max_length=MAX_COHORT)]


OwnedShare: TypeAlias = tuple[Id, Share]


class UnmaskAnswer(Base, frozen=True, tag=0x1D):
    """Node to coordinator: for each peer one share, of its self-mask seed or round secret."""

    round_id: Counter
    self_shares: Annotated[tuple[OwnedShare, ...], Meta(max_length=MAX_COHORT)]
    key_shares: Annotated[tuple[OwnedShare, ...], Meta(max_length=MAX_COHORT)]


class SealingKey(msgspec.Struct, frozen=True, array_like=True, eq=False):
    """Under which a node's share of other nodes' secrets is sealed, signed by it (H-04)."""

    node_id: Id
    suite: Annotated[int, Meta(ge=1, le=255)]
    agreement_key: Key
    kem_key: KemKey
    signature: Signature


class Announcement(Base, frozen=True, tag=0x30):
    """Node to coordinator under `ckks`: I have trained, and this is my key of the round.

    `distance` is disclosed only where the coordinator weighs the nodes (H-16).
    """

    round_id: Counter
    key: SealingKey
    distance: Annotated[int, Meta(ge=0, le=MAX_STEPS)] | None


class CommitteeKeys(Base, frozen=True, tag=0x31):
    """Coordinator to node: the keys of the members of the committee that have announced one."""

    round_id: Counter
    keys: Annotated[tuple[SealingKey, ...], Meta(max_length=MAX_COHORT)]


ShareBox = Annotated[bytes, Meta(max_length=1 << 14)]
"""ML-KEM ciphertext and sealed share; the longest share is 4096 coefficients of 3 bytes."""
ShareBoxes: TypeAlias = Annotated[tuple[ShareBox, ...], Meta(max_length=MAX_COHORT)]


class SealedSecret(Base, frozen=True, tag=0x32):
    """Node to coordinator: shares of its secret, sealed to members `start` and on.

    Members are counted in order of `CommitteeKeys`, the sender itself left out.
    """

    round_id: Counter
    start: Index
    boxes: ShareBoxes


class CipherChunk(Base, frozen=True, tag=0x33):
    """Node to coordinator: whole blocks of its ciphertext, bit-packed residues."""

    round_id: Counter
    index: Index
    data: Chunk


class WeightedSurvivors(Base, frozen=True, tag=0x34):
    """Coordinator to node: whose inputs the sum holds and by what weights; to be co-signed."""

    round_id: Counter
    survivors: Ids
    weights: Annotated[bytes, Meta(max_length=MAX_COHORT)]


DealtShare: TypeAlias = tuple[Key, Hash, Signature, ShareBox]
"""A dealer's X25519 key, hash of its ML-KEM key, signature under both, and what it sealed."""


class DealtShares(Base, frozen=True, tag=0x35):
    """Coordinator to member: what survivors `start` and on sealed for it, itself left out."""

    round_id: Counter
    start: Index
    shares: Annotated[tuple[DealtShare, ...], Meta(max_length=MAX_COHORT)]


class OpenRequest(Base, frozen=True, tag=0x36):
    """Coordinator to member: the co-signatures, and with them the request to open the sum."""

    round_id: Counter
    signatures: Annotated[tuple[tuple[Id, Signature], ...], Meta(max_length=MAX_COHORT)]


class SumShare(Base, frozen=True, tag=0x37):
    """Member to coordinator: its share of the weighted sum of secrets, its one answer.

    Empty if some share could not be opened; `unopened` names whose.
    """

    round_id: Counter
    share: Annotated[bytes, Meta(max_length=1 << 14)]
    unopened: Ids


class PlainChunk(Base, frozen=True, tag=0x20):
    """Node to coordinator under `insecure-plain`: a piece of the vector in the clear."""

    round_id: Counter
    index: Index
    data: Chunk


class ExcessRequest(Base, frozen=True, tag=0x40):
    """Coordinator to contributor: so many are in the sum; give back what noise is too much (X-04).

    `signatures` are co-signatures of the view that the sum is over; none under `insecure-plain`.
    """

    round_id: Counter
    contributors: Count
    signatures: Annotated[tuple[tuple[Id, Signature], ...], Meta(max_length=MAX_COHORT)]


class ExcessSeeds(Base, frozen=True, tag=0x41):
    """Node to coordinator: the seeds of the last parts of its noise, in order of their level."""

    round_id: Counter
    seeds: Annotated[tuple[Hash, ...], Meta(max_length=MAX_LEVELS - 1)]


RoundMessage: TypeAlias = (
    KeyAdvert
    | AdvertList
    | Coin
    | PeerKeys
    | Encapsulations
    | PeerEncapsulations
    | SealedShares
    | PeerShares
    | UploadTurn
    | MaskedChunk
    | Survivors
    | SurvivorSignature
    | UnmaskRequest
    | UnmaskAnswer
    | Announcement
    | CommitteeKeys
    | SealedSecret
    | CipherChunk
    | WeightedSurvivors
    | DealtShares
    | OpenRequest
    | SumShare
    | PlainChunk
    | ExcessRequest
    | ExcessSeeds
)
