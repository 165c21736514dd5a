"""Every message of the protocol, its type number, its fields in order and their limits (W-11).

Each class is an msgspec Struct encoded as a MessagePack array whose first element is the type
number. `secagg.wire.codec` turns them into bytes and refuses any other spelling of the same
values, so a message has exactly one encoding (W-03).
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from secagg.wire.fields import (
    MAX_ATTEMPTS,
    MAX_CHUNK,
    MAX_ROSTER,
    MAX_STEPS,
    MODEL_CHUNK,
    UPLOAD_SLOTS,
    Base,
    Chunk,
    Count,
    Counter,
    EpochId,
    Hash,
    Ids,
    Index,
    ModelDim,
    Receipt,
    RunId,
    Seconds,
    Text,
    Word,
)
from secagg.wire.round_messages import (
    AdvertList,
    Announcement,
    CipherChunk,
    Coin,
    CommitteeKeys,
    DealtShare,
    DealtShares,
    Encapsulations,
    ExcessRequest,
    ExcessSeeds,
    KeyAdvert,
    MaskedChunk,
    OpenRequest,
    PairCapsule,
    PeerEncapsulations,
    PeerKeys,
    PeerShares,
    PlainChunk,
    RoundMessage,
    SealedSecret,
    SealedShares,
    SealingKey,
    SumShare,
    Survivors,
    SurvivorSignature,
    UnmaskAnswer,
    UnmaskRequest,
    UploadTurn,
    WeightedSurvivors,
)

__all__ = [
    "MAX_ATTEMPTS",
    "MAX_CHUNK",
    "MAX_STEPS",
    "MESSAGE_TYPES",
    "MODEL_CHUNK",
    "UPLOAD_SLOTS",
    "AdvertList",
    "Announcement",
    "CipherChunk",
    "CkksTerms",
    "Coin",
    "CommitteeKeys",
    "CorrelatedTerms",
    "DealtShare",
    "DealtShares",
    "DpTerms",
    "Encapsulations",
    "ExcessRequest",
    "ExcessSeeds",
    "Farewell",
    "Heartbeat",
    "Hello",
    "KeyAdvert",
    "MaskedChunk",
    "Message",
    "ModelChunk",
    "OpenRequest",
    "PairCapsule",
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


class Hello(Base, frozen=True, tag=0x01):
    """Node to coordinator: here I am (specs/60-session.md section 2)."""

    software: Word
    protocol: Index
    roster_version: Counter
    wall_time: float
    receipt: Receipt = b""
    """Of the node's privacy ledger, signed by the node (B-07); empty if it has none."""


class Welcome(Base, frozen=True, tag=0x02):
    """Coordinator to node: you are in; this is the run."""

    run: RunId
    software: Word
    roster_version: Counter
    wall_time: float
    heartbeat: Seconds
    rounds_done: Counter
    rounds_total: Counter
    receipt: Receipt = b""
    """The newest that the coordinator has of this node, given back; empty if none."""


class RosterUpdate(Base, frozen=True, tag=0x03):
    """Coordinator to node: a newer signed roster, verified by the node against its pinned root."""

    document: Annotated[bytes, Meta(max_length=MAX_ROSTER)]


class Heartbeat(Base, frozen=True, tag=0x04):
    """Either way: still here."""

    round_id: Counter
    state: Word
    receipt: Receipt = b""
    """Of a ledger that has grown since the last one; otherwise empty. A coordinator gives none."""


class Refusal(Base, frozen=True, tag=0x05):
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


class CorrelatedTerms(msgspec.Struct, frozen=True, array_like=True):
    """Noise that takes part of itself back in later rounds (specs/54-correlated-noise.md)."""

    epoch: EpochId
    position: Annotated[int, Meta(ge=0, lt=1024)]
    """Rounds of the epoch before this one."""
    band: Annotated[tuple[Annotated[int, Meta(ge=-1024, le=1024)], ...], Meta(max_length=8)]
    smoothing: Annotated[float, Meta(gt=0, le=1e6)]
    """Standard deviation of the noise that no other round has, over the L2 sensitivity."""
    rounds: Annotated[int, Meta(ge=2, le=1024)]
    separation: Annotated[int, Meta(ge=1, le=1024)]
    nodes: Count
    """Size of the cohort of the epoch's first round; the sums' divisor follows from it."""


class DpTerms(msgspec.Struct, frozen=True, array_like=True):
    """Noise of the unit "client" in a round; `secagg.dp.terms.NoiseTerms` names and bounds it."""

    mechanism: Word
    clip: Seconds
    scale: Annotated[int, Meta(ge=8, lt=1 << 24)]
    noise_multiplier: Annotated[float, Meta(gt=0, le=1e6)]
    honest: Count
    rotation: bool
    within: bool
    """Whether the nodes tell, in the sum, if their vectors were within the clip."""
    drop_levels: Annotated[tuple[Index, ...], Meta(max_length=16)]
    correlated: CorrelatedTerms | None


class RoundOffer(Base, frozen=True, tag=0x06):
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
    dp: DpTerms | None = None
    """Noise that protects whole nodes; None where there is none."""


class ModelChunk(Base, frozen=True, tag=0x07):
    """Coordinator to node: `MODEL_CHUNK` bytes of the little-endian float32 parameter vector."""

    round_id: Counter
    index: Index
    data: Chunk


class RoundClosed(Base, frozen=True, tag=0x08):
    """Coordinator to node: how the round ended; `outcome` is "done" or an abort reason."""

    round_id: Counter
    outcome: Word
    contributors: Ids


class RunFinished(Base, frozen=True, tag=0x09):
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


class Farewell(Base, frozen=True, tag=0x0A):
    """Node to coordinator: I have the final model and leave, or I leave early."""

    round_id: Counter


class Probe(Base, frozen=True, tag=0x0B):
    """Node to coordinator: answer with a `Welcome`, but do not count me in (preflight)."""

    software: Word
    protocol: Index


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
MESSAGE_TYPES: tuple[type[Base], ...] = tuple(
    sorted(Base.__subclasses__(), key=lambda kind: kind.__struct_config__.tag or 0)
)
