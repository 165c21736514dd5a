"""What a role returns: messages to send, what happened, and when to call it again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar, overload

from secagg.types import AbortReason, NodeId, RingVector
from secagg.wire.messages import Message

__all__ = [
    "Event",
    "InputRejected",
    "Lazy",
    "Outgoing",
    "PeerBlamed",
    "PeersMissed",
    "PhaseEntered",
    "RoundFailed",
    "Step",
    "SumReady",
    "ViewFixed",
]

T = TypeVar("T")


class Lazy(Sequence[T]):
    """Items that are made as they are read, each time anew.

    A phase's messages to a thousand nodes would take hundreds of megabytes side by side. What makes
    an item must not depend on what the state machine learns later.

    Args:
        makers: Makes one item each.
    """

    def __init__(self, makers: Iterable[Callable[[], T]]) -> None:
        self._makers = tuple(makers)

    @staticmethod
    def chain(*parts: Sequence[T]) -> Sequence[T]:
        """Return all items of `parts`; nothing is made."""
        some = [part for part in parts if part]
        if len(some) < 2:
            return some[0] if some else ()
        return Lazy(maker for part in some for maker in _makers_of(part))

    def __len__(self) -> int:
        return len(self._makers)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Lazy[T]: ...
    def __getitem__(self, index: int | slice) -> T | Lazy[T]:
        if isinstance(index, slice):
            return Lazy(self._makers[index])
        return self._makers[index]()


def _makers_of(part: Sequence[T]) -> Iterable[Callable[[], T]]:
    if isinstance(part, Lazy):
        return part._makers
    return (functools.partial(part.__getitem__, index) for index in range(len(part)))


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
    certain: bool = True
    """Whether it is proved; otherwise it may be another's fault."""


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
    contributors: tuple[NodeId, ...]
    """Whose inputs the sum is over, by this view; the node itself need not be among them."""


@dataclass(frozen=True, slots=True, eq=False)
class SumReady:
    """The one result of a round: the weighted sum modulo 2^ring_bits over `contributors`."""

    total: RingVector = field(repr=False)
    contributors: tuple[NodeId, ...]
    weights: tuple[int, ...]
    """What each input was multiplied by; 1 unless the coordinator weighs."""
    excess: Mapping[NodeId, tuple[bytes, ...]] = field(default_factory=dict, repr=False)
    """Contributor to the seeds of the last parts of its noise, still in `total` (X-08)."""


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
        send: Messages to send, in order; perhaps made only as they are read (`Lazy`), so read them
            once and let go of each.
        events: What happened, in order.
        deadline: Time at which to call `on_timeout`, or None to leave it unset.
        done: The machine accepts nothing more.
    """

    send: Sequence[Outgoing] = ()
    events: tuple[Event, ...] = ()
    deadline: float | None = None
    done: bool = False
