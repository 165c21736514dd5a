"""Every message of the protocol, its type number, its fields in order and their limits.

Each class is an msgspec Struct encoded as a MessagePack array whose first element is the type
number. `secagg.wire.codec` turns them into bytes and refuses any other spelling of the same
values, so a message has exactly one encoding (W-03).
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from secagg.types import MAX_COHORT

__all__ = [
    "MAX_ATTEMPTS",
    "MAX_CHUNK",
    "MESSAGE_TYPES",
    "MODEL_CHUNK",
    "UPLOAD_SLOTS",
    "AdvertList",
    "Announcement",
    "CipherChunk",
    "CkksTerms",
    "Coin",
    "CommitteeKeys",
    "DealtShare",
    "DealtShares",
    "Encapsulations",
    "Farewell",
    "Heartbeat",
    "Hello",
    "KeyAdvert",
    "MaskedChunk",
    "Message",
    "ModelChunk",
    "OpenRequest",
    "PeerEncapsulations",
    "PeerKeys",
    "PeerShares",
    "PlainChunk",
    "Probe",
    "Refusal",
    "RosterUpdate",
    "RoundClosed",
    "RoundMessage",
    "RoundOffer",
    "RunFinished",
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
    "Welcome",
]

MAX_CHUNK = 1 << 19
"""Bytes of vector data in one message: a slow link still sends it within seconds."""
MODEL_CHUNK = 1 << 18
"""Bytes of every `ModelChunk` but the last."""
MAX_ATTEMPTS = 4
"""Times that nodes toss coins for a graph until all of them arrive (M-06)."""
UPLOAD_SLOTS = 8
"""Uploads that a coordinator takes at a time: what it must hold besides the sum (M-22)."""
_MAX_ROSTER = 1 << 22  # 10 000 members of some 400 bytes

Id = Annotated[str, Meta(max_length=63)]
Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
KemKey = Annotated[bytes, Meta(min_length=1184, max_length=1184)]  # FIPS 203, ML-KEM-768
Capsule = Annotated[bytes, Meta(min_length=1088, max_length=1088)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Share = Annotated[bytes, Meta(min_length=33, max_length=33)]
RunId = Annotated[bytes, Meta(min_length=16, max_length=16)]
Counter = Annotated[int, Meta(ge=0, le=2**53)]
Index = Annotated[int, Meta(ge=0, le=2**20)]
Count = Annotated[int, Meta(ge=1, le=2**20)]
ModelDim = Annotated[int, Meta(ge=1, le=1 << 26)]
Chunk = Annotated[bytes, Meta(min_length=1, max_length=MAX_CHUNK)]
Text = Annotated[str, Meta(max_length=500)]
Word = Annotated[str, Meta(max_length=64)]
Seconds = Annotated[float, Meta(gt=0, le=1e6)]
Ids = Annotated[tuple[Id, ...], Meta(max_length=MAX_COHORT)]


class _Base(msgspec.Struct, frozen=True, array_like=True, eq=False):
    """Common options: immutable, encoded by position, silent.

    No equality and no field in the repr, since some messages carry shares and vectors.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Hello(_Base, frozen=True, tag=0x01):
    """Node to coordinator: here I am (specs/60-session.md section 2)."""

    software: Word
    protocol: Index
    roster_version: Counter
    wall_time: float


class Welcome(_Base, frozen=True, tag=0x02):
    """Coordinator to node: you are in; this is the run."""

    run: RunId
    software: Word
    roster_version: Counter
    wall_time: float
    heartbeat: Seconds
    rounds_done: Counter
    rounds_total: Counter


class RosterUpdate(_Base, frozen=True, tag=0x03):
    """Coordinator to node: a newer signed roster, verified by the node against its pinned root."""

    document: Annotated[bytes, Meta(max_length=_MAX_ROSTER)]


class Heartbeat(_Base, frozen=True, tag=0x04):
    """Either way: still here."""

    round_id: Counter
    state: Word


class Refusal(_Base, frozen=True, tag=0x05):
    """Node to coordinator: my policy forbids this offer, and why."""

    round_id: Counter
    reason: Word
    explanation: Text


class CkksTerms(msgspec.Struct, frozen=True, array_like=True):
    """The parameters of a round of `ckks`; specs/35-ckks-parameters.md names and bounds them."""

    coordinator_weighs: bool
    max_weight: Annotated[int, Meta(ge=1, le=255)]
    degree: Annotated[int, Meta(ge=1, le=1 << 16)]
    modulus_bits: Annotated[int, Meta(ge=1, le=64)]
    values_per_coefficient: Annotated[int, Meta(ge=1, le=64)]
    field_bits: Annotated[int, Meta(ge=1, le=64)]
    noise_bits: Annotated[int, Meta(ge=1, le=64)]
    secret_terms: Annotated[int, Meta(ge=1, le=64)]
    error_terms: Annotated[int, Meta(ge=1, le=64)]
    committee_size: Count
    committee_threshold: Count
    committee_pack: Count
    committee_silent: Index
    committee_modulus: Annotated[int, Meta(ge=2, le=1 << 31)]


class RoundOffer(_Base, frozen=True, tag=0x06):
    """Coordinator to node: everything both sides agree on before a round starts."""

    round_id: Counter
    rounds_done: Counter
    rounds_total: Counter
    roster_version: Counter
    scheme: Word
    cohort: Ids
    threshold: Count
    quorum: Count
    neighbours: Count
    colluders: Index
    value_bits: Annotated[int, Meta(ge=8, le=24)]
    ring_bits: Annotated[int, Meta(ge=8, le=32)]
    chunk_values: Annotated[int, Meta(ge=8, le=2**20)]
    update_bound: Seconds
    centroid_bound: Seconds
    phase_timeout: Seconds
    input_timeout: Seconds
    model_digest: Hash
    model_dim: ModelDim
    training: Annotated[bytes, Meta(max_length=1 << 16)]
    reference: Annotated[bytes, Meta(max_length=1 << 16)]
    ckks: CkksTerms | None
    """Terms of the scheme `ckks`; None under any other."""


class ModelChunk(_Base, frozen=True, tag=0x07):
    """Coordinator to node: `MODEL_CHUNK` bytes of the little-endian float32 parameter vector."""

    round_id: Counter
    index: Index
    data: Chunk


class RoundClosed(_Base, frozen=True, tag=0x08):
    """Coordinator to node: how the round ended; `outcome` is "done" or an abort reason."""

    round_id: Counter
    outcome: Word
    contributors: Ids


class RunFinished(_Base, frozen=True, tag=0x09):
    """Coordinator to node: the run is over.

    If it is complete, the final model follows in `ModelChunk`s under this round id.
    """

    round_id: Counter
    rounds_done: Counter
    complete: bool
    model_digest: Hash
    model_dim: ModelDim
    training: Annotated[bytes, Meta(max_length=1 << 16)]
    reference: Annotated[bytes, Meta(max_length=1 << 16)]


class Farewell(_Base, frozen=True, tag=0x0A):
    """Node to coordinator: I have the final model and leave, or I leave early."""

    round_id: Counter


class Probe(_Base, frozen=True, tag=0x0B):
    """Node to coordinator: answer with a `Welcome`, but do not count me in (preflight)."""

    software: Word
    protocol: Index


class KeyAdvert(_Base, frozen=True, tag=0x10):
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


class AdvertList(_Base, frozen=True, tag=0x11):
    """Coordinator to node: every advert's digest and coin commitment; toss your coin (M-06)."""

    round_id: Counter
    attempt: Annotated[int, Meta(ge=1, le=MAX_ATTEMPTS)]
    entries: Annotated[tuple[tuple[Id, Hash, Hash], ...], Meta(max_length=MAX_COHORT)]


class Coin(_Base, frozen=True, tag=0x12):
    """Node to coordinator: its part of the graph's randomness, which it had committed to."""

    round_id: Counter
    attempt: Annotated[int, Meta(ge=1, le=MAX_ATTEMPTS)]
    coin: Hash


class PeerKeys(_Base, frozen=True, tag=0x13):
    """Coordinator to node: all advert digests, all coins, and the neighbours' adverts in full.

    `coins` are in order of `digests`, and empty if the graph is complete.
    """

    round_id: Counter
    digests: Annotated[tuple[tuple[Id, Hash], ...], Meta(max_length=MAX_COHORT)]
    coins: Annotated[tuple[Hash, ...], Meta(max_length=MAX_COHORT)]
    adverts: Annotated[tuple[KeyAdvert, ...], Meta(max_length=MAX_COHORT)]


PairCapsule: TypeAlias = tuple[Id, Capsule, Hash]
"""(the other node, ML-KEM ciphertext, confirmation of the pair's mask seed)."""


class Encapsulations(_Base, frozen=True, tag=0x14):
    """Node to coordinator: an encapsulated key for each of its successors in the graph (M-26)."""

    round_id: Counter
    capsules: Annotated[tuple[PairCapsule, ...], Meta(max_length=MAX_COHORT)]


class PeerEncapsulations(_Base, frozen=True, tag=0x15):
    """Coordinator to node: who still takes part, and what its predecessors encapsulated for it."""

    round_id: Counter
    agreed: Ids
    capsules: Annotated[tuple[PairCapsule, ...], Meta(max_length=MAX_COHORT)]


Box: TypeAlias = tuple[Id, Annotated[bytes, Meta(max_length=256)]]


class SealedShares(_Base, frozen=True, tag=0x16):
    """Node to coordinator: for each neighbour its sealed shares, and the backup of the pair seeds.

    The backup is sealed under the round secret, so that it opens only if its owner drops out.
    """

    round_id: Counter
    boxes: Annotated[tuple[Box, ...], Meta(max_length=MAX_COHORT)]
    backup: Annotated[bytes, Meta(max_length=32 * MAX_COHORT + 16)]


class PeerShares(_Base, frozen=True, tag=0x17):
    """Coordinator to node: everybody who shared secrets, and what each neighbour sealed for it."""

    round_id: Counter
    sharers: Ids
    boxes: Annotated[tuple[Box, ...], Meta(max_length=MAX_COHORT)]


class UploadTurn(_Base, frozen=True, tag=0x18):
    """Coordinator to node: send your masked input now (M-22)."""

    round_id: Counter


class MaskedChunk(_Base, frozen=True, tag=0x19):
    """Node to coordinator: a piece of the masked, bit-packed vector.

    The first carries the signature of whom it was masked with, the others an empty one.
    """

    round_id: Counter
    index: Index
    sharers_signature: Annotated[bytes, Meta(max_length=64)]
    data: Chunk


class Survivors(_Base, frozen=True, tag=0x1A):
    """Coordinator to node: whose inputs the sum holds; to be co-signed.

    `sharers_signatures` are those of the receiver's neighbours among the survivors: proof that
    each masked with the same nodes as the receiver was told of.
    """

    round_id: Counter
    survivors: Ids
    sharers_signatures: Annotated[tuple[tuple[Id, Signature], ...], Meta(max_length=MAX_COHORT)]


class SurvivorSignature(_Base, frozen=True, tag=0x1B):
    """Node to coordinator: its signature under the survivor set."""

    round_id: Counter
    signature: Signature


class UnmaskRequest(_Base, frozen=True, tag=0x1C):
    """Coordinator to node: the co-signatures, and with them the request to unmask."""

    round_id: Counter
    signatures: Annotated[tuple[tuple[Id, Signature], ...], Meta(max_length=MAX_COHORT)]


OwnedShare: TypeAlias = tuple[Id, Share]


class UnmaskAnswer(_Base, frozen=True, tag=0x1D):
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


class Announcement(_Base, frozen=True, tag=0x30):
    """Node to coordinator under `ckks`: I have trained, and this is my key of the round.

    `distance` is disclosed only where the coordinator weighs the nodes (H-16).
    """

    round_id: Counter
    key: SealingKey
    distance: Annotated[float, Meta(ge=0, le=1e9)] | None


class CommitteeKeys(_Base, frozen=True, tag=0x31):
    """Coordinator to node: the keys of the members of the committee that have announced one."""

    round_id: Counter
    keys: Annotated[tuple[SealingKey, ...], Meta(max_length=MAX_COHORT)]


ShareBox = Annotated[bytes, Meta(max_length=1 << 14)]
"""ML-KEM ciphertext and sealed share; the longest share is 4096 coefficients of 3 bytes."""
ShareBoxes: TypeAlias = Annotated[tuple[ShareBox, ...], Meta(max_length=MAX_COHORT)]


class SealedSecret(_Base, frozen=True, tag=0x32):
    """Node to coordinator: shares of its secret, sealed to members `start` and on.

    Members are counted in order of `CommitteeKeys`, the sender itself left out.
    """

    round_id: Counter
    start: Index
    boxes: ShareBoxes


class CipherChunk(_Base, frozen=True, tag=0x33):
    """Node to coordinator: whole blocks of its ciphertext, bit-packed residues."""

    round_id: Counter
    index: Index
    data: Chunk


class WeightedSurvivors(_Base, frozen=True, tag=0x34):
    """Coordinator to node: whose inputs the sum holds and by what weights; to be co-signed."""

    round_id: Counter
    survivors: Ids
    weights: Annotated[bytes, Meta(max_length=MAX_COHORT)]


DealtShare: TypeAlias = tuple[Key, Hash, Signature, ShareBox]
"""A dealer's X25519 key, hash of its ML-KEM key, signature under both, and what it sealed."""


class DealtShares(_Base, frozen=True, tag=0x35):
    """Coordinator to member: what survivors `start` and on sealed for it, itself left out."""

    round_id: Counter
    start: Index
    shares: Annotated[tuple[DealtShare, ...], Meta(max_length=MAX_COHORT)]


class OpenRequest(_Base, frozen=True, tag=0x36):
    """Coordinator to member: the co-signatures, and with them the request to open the sum."""

    round_id: Counter
    signatures: Annotated[tuple[tuple[Id, Signature], ...], Meta(max_length=MAX_COHORT)]


class SumShare(_Base, frozen=True, tag=0x37):
    """Member to coordinator: its share of the weighted sum of secrets, its one answer.

    Empty if some share could not be opened; `unopened` names whose.
    """

    round_id: Counter
    share: Annotated[bytes, Meta(max_length=1 << 14)]
    unopened: Ids


class PlainChunk(_Base, frozen=True, tag=0x20):
    """Node to coordinator under `insecure-plain`: a piece of the vector in the clear."""

    round_id: Counter
    index: Index
    data: Chunk


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
)
Message: TypeAlias = (
    RoundMessage
    | Hello
    | Welcome
    | RosterUpdate
    | Heartbeat
    | Refusal
    | RoundOffer
    | ModelChunk
    | RoundClosed
    | RunFinished
    | Farewell
    | Probe
)
MESSAGE_TYPES: tuple[type[_Base], ...] = tuple(_Base.__subclasses__())
