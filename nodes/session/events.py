"""What a session reports to the daemon around it; progress display, logs and stores live on these.

Counts, ids, sizes and phases only: no event carries a vector of one node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg.steps import Lazy
from secagg.types import NodeId
from secagg.wire.envelope import Envelope
from secagg.wire.messages import RoundOffer

__all__ = [
    "Abstained",
    "Checkpoint",
    "FinalModel",
    "Joined",
    "Left",
    "NodeRefused",
    "OfferRejected",
    "OfferSeen",
    "ParticipantState",
    "PeerRejected",
    "PhaseChanged",
    "ReceiptKept",
    "Remember",
    "RosterOffered",
    "RoundDone",
    "RoundEnded",
    "RoundLost",
    "RoundStarted",
    "RunOver",
    "RunState",
    "SessionEvent",
    "SessionStep",
    "TrainRequested",
    "WaitingForNodes",
]


@dataclass(frozen=True, slots=True, eq=False)
class RunState:
    """All of a run that must survive a restart of the coordinator."""

    run_id: bytes
    next_round: int
    """The id the next offer takes; on disk before the offer leaves, so no id is used twice."""
    rounds_done: int
    params: NDArray[np.float32] = field(repr=False)
    reference: NDArray[np.float32] = field(repr=False)
    optimiser: dict[str, NDArray[np.float64]] = field(repr=False)
    finished: bool = False
    distances: dict[NodeId, float] = field(default_factory=dict, repr=False)
    """Smoothed consistency distances that nodes disclosed, where the coordinator weighs."""
    clip: float = 0.0
    """Clip of the next round under client-level noise; 0 before the first."""
    noise_multiplier: float = 0.0
    """Of all rounds of the run, once the first fixed it."""


@dataclass(frozen=True, slots=True)
class ParticipantState:
    """All that a node must not forget over a restart."""

    rounds: dict[bytes, int] = field(repr=False)
    """Run id to the newest round of it that this node was offered; no older or equal one is ever
    joined (S-05)."""
    last_sum: tuple[NodeId, ...] | None = None
    """Contributors of the last sum that this node co-signed and was in (G-07)."""
    begun: tuple[float, ...] = ()
    """Wall times at which rounds of the last day were accepted, Unix seconds (G-08)."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Coordinator: store this before anything of the same step is sent."""

    state: RunState


@dataclass(frozen=True, slots=True)
class Remember:
    """Node: store this before anything of the same step is sent."""

    state: ParticipantState


@dataclass(frozen=True, slots=True)
class ReceiptKept:
    """Coordinator: keep this for the node, to be given back (B-07)."""

    node: NodeId
    receipt: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WaitingForNodes:
    """Coordinator: no round can start yet."""

    joined: tuple[NodeId, ...]
    needed: int


@dataclass(frozen=True, slots=True)
class Joined:
    """Coordinator: a node said hello. Node: the coordinator welcomed us."""

    peer: NodeId
    rounds_done: int


@dataclass(frozen=True, slots=True)
class Left:
    """Coordinator: a node said goodbye, fell silent, or was revoked."""

    node: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class RoundStarted:
    """An offer went out."""

    round_id: int
    rounds_done: int
    rounds_total: int
    cohort: tuple[NodeId, ...]
    quorum: int


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """The round's phase, and who is still waited for."""

    round_id: int
    phase: str
    waiting_for: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class RoundDone:
    """A sum was opened and the model updated."""

    round_id: int
    rounds_done: int
    rounds_total: int
    contributors: tuple[NodeId, ...]
    loss: float | None
    """Mean over the contributors, from the protected sum; None where noise would have to cover it
    as well."""
    weight: float
    """Mean consistency weight over the contributors, from the protected sum."""
    clipped: int | None
    """Contributors whose update was longer than the bound; about as many under noise, None where it
    is not summed."""
    weights: tuple[int, ...]
    """What each contributor was multiplied by; 1 unless the coordinator weighs."""
    outliers: tuple[NodeId, ...] = ()
    """Nodes that the coordinator gave no weight."""
    epsilon: float | None = None
    """What the coordinator's ledger has spent so far, if the run has a unit of privacy."""


@dataclass(frozen=True, slots=True)
class RoundLost:
    """The round aborted; nothing was released."""

    round_id: int
    reason: str
    alive: int
    needed: int


@dataclass(frozen=True, slots=True)
class NodeRefused:
    """A node's policy forbids the offer."""

    node: NodeId
    reason: str
    explanation: str


@dataclass(frozen=True, slots=True)
class PeerRejected:
    """A peer broke the protocol; its message changed nothing or cost it its place."""

    peer: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class RunOver:
    """The last round is done (or given up) and the session wants nothing more."""

    complete: bool
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class TrainRequested:
    """Node: train on this; answer with `trained`, `abstain` or `refuse_training`."""

    run: bytes = field(repr=False)
    offer: RoundOffer = field(repr=False)
    params: NDArray[np.float32] = field(repr=False)
    reference: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, slots=True)
class OfferSeen:
    """Node: a new round was offered to us, whether we take it or not (G-11)."""

    offer: RoundOffer = field(repr=False)


@dataclass(frozen=True, slots=True)
class OfferRejected:
    """Node: our own policy forbids the offer."""

    round_id: int
    reason: str
    explanation: str


@dataclass(frozen=True, slots=True)
class Abstained:
    """Node: training gave nothing, so a masked zero went into the sum; never told to anybody."""

    round_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class RoundEnded:
    """Node: how the round ended, as the coordinator tells it."""

    round_id: int
    outcome: str
    included: bool


@dataclass(frozen=True, slots=True, eq=False)
class FinalModel:
    """Node: the run is over and this is its model."""

    training: bytes = field(repr=False)
    params: NDArray[np.float32] = field(repr=False)
    reference: NDArray[np.float32] = field(repr=False)
    rounds_done: int


@dataclass(frozen=True, slots=True)
class RosterOffered:
    """Node: the coordinator has a newer roster; verify it and call `set_roster`."""

    document: bytes = field(repr=False)


SessionEvent: TypeAlias = (
    Checkpoint
    | Remember
    | ReceiptKept
    | WaitingForNodes
    | Joined
    | Left
    | RoundStarted
    | PhaseChanged
    | RoundDone
    | RoundLost
    | NodeRefused
    | PeerRejected
    | RunOver
    | TrainRequested
    | OfferRejected
    | OfferSeen
    | RoundEnded
    | Abstained
    | FinalModel
    | RosterOffered
)


@dataclass(frozen=True, slots=True)
class SessionStep:
    """All a session has to say after one input.

    The daemon handles `events` first, `Checkpoint` and `Remember` durably, and then sends. What is
    to be sent may be made and sealed only as it is read (`secagg.steps.Lazy`).
    """

    send: Sequence[tuple[NodeId, Envelope]] = ()
    events: tuple[SessionEvent, ...] = ()

    def __add__(self, other: SessionStep) -> SessionStep:
        return SessionStep(Lazy.chain(self.send, other.send), (*self.events, *other.events))
