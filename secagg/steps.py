"""What a role returns: messages to send, what happened, and when to call it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from secagg.types import AbortReason, NodeId, RingVector
from secagg.wire.messages import Message

__all__ = [
    "Event",
    "InputRejected",
    "Outgoing",
    "PeerBlamed",
    "PeersMissed",
    "PhaseEntered",
    "RoundFailed",
    "Step",
    "SumReady",
    "ViewFixed",
]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message for one peer; the session seals it, the transport carries it."""

    to: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class PhaseEntered:
    """The coordinator's role moved on."""

    phase: str
    waiting_for: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class PeerBlamed:
    """A peer broke the protocol and is out of the round."""

    peer: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class PeersMissed:
    """Peers that had not given a phase's message when its time was up."""

    phase: str
    peers: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class InputRejected:
    """A node learnt that its input is not part of this round's sum."""

    reason: str


@dataclass(frozen=True, slots=True)
class ViewFixed:
    """This step's messages bind the node to one view of the round, and its one answer follows.

    The session MUST have `digest` on disk before it sends any of them, and send nothing if the
    journal already holds a view of this round (S-14).
    """

    digest: bytes
    """32 bytes: SHA-256 over the view; with the node's secrets it decides the answer."""


@dataclass(frozen=True, slots=True, eq=False)
class SumReady:
    """The one result of a round: the sum modulo 2^ring_bits over `contributors`."""

    total: RingVector = field(repr=False)
    contributors: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class RoundFailed:
    """The round ended without a result; nothing was released."""

    reason: AbortReason
    alive: int
    needed: int


Event: TypeAlias = (
    PhaseEntered | PeerBlamed | PeersMissed | InputRejected | ViewFixed | SumReady | RoundFailed
)


@dataclass(frozen=True, slots=True)
class Step:
    """All a state machine has to say after one input.

    Attributes:
        send: Messages to send, in order.
        events: What happened, in order.
        deadline: Time at which to call `on_timeout`, or None to leave it unset.
        done: The machine accepts nothing more.
    """

    send: tuple[Outgoing, ...] = ()
    events: tuple[Event, ...] = ()
    deadline: float | None = None
    done: bool = False
