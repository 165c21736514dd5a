"""The coordinator's side of one masked round.

::

    NEW ─start→ KEYS → SHARES → INPUT → SIGNATURES → UNMASK → OVER

A phase closes when every node still in the round has answered, or at its deadline with those who
have. With fewer than the quorum the round ends as `RoundFailed` and nothing is released (M-14).
Inputs are folded into one running sum and not kept. Source: specs/30-masking.md section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

import numpy as np

from secagg import ring
from secagg.errors import AuthenticationError, LocalProtocolError, RemoteProtocolError, ReplayError
from secagg.masking import masks
from secagg.masking.graph import graph_seed, neighbours_of
from secagg.masking.recovery import Recovery
from secagg.steps import (
    Event,
    Outgoing,
    PeerBlamed,
    PeersMissed,
    PhaseEntered,
    RoundFailed,
    Step,
    SumReady,
)
from secagg.types import (
    AbortReason,
    NodeId,
    RoundSetup,
)
from secagg.wire.messages import (
    KeyAdvert,
    MaskedChunk,
    Message,
    PeerKeys,
    PeerShares,
    RoundMessage,
    SealedShares,
    Survivors,
    SurvivorSignature,
    UnmaskAnswer,
    UnmaskRequest,
)

__all__ = ["MaskingCoordinator", "Phase"]


class Phase(StrEnum):
    """Where the round is; see the figure above."""

    NEW = "new"
    KEYS = "keys"
    SHARES = "shares"
    INPUT = "input"
    SIGNATURES = "signatures"
    UNMASK = "unmask"
    OVER = "over"


class _Fault(Exception):
    """A message that costs its sender its place in the round."""


class MaskingCoordinator:
    """State machine of the coordinator in one round; see `secagg.roles.CoordinatorRole`."""

    def __init__(self, setup: RoundSetup) -> None:
        self._setup = setup
        self._phase = Phase.NEW
        self._waiting: set[NodeId] = set()  # still owe this phase's message
        self._gone: set[NodeId] = set()  # dropped for good: no later phase waits for them
        self._answered: set[NodeId] = set()  # gave it
        self._adverts: dict[NodeId, KeyAdvert] = {}
        self._neighbours: dict[NodeId, frozenset[NodeId]] = {}
        self._boxes: dict[NodeId, dict[NodeId, bytes]] = {}  # receiver -> sender -> sealed shares
        self._graph_seed = b""
        self._sharers: tuple[NodeId, ...] = ()
        self._sharers_digest = self._view = b""
        self._sharers_signatures: dict[NodeId, bytes] = {}
        self._chunks: dict[NodeId, list[bytes]] = {}  # uploads in progress, packed
        self._total = np.zeros(setup.dim, dtype=np.uint32)
        self._survivors: tuple[NodeId, ...] = ()
        self._signatures: dict[NodeId, bytes] = {}
        self._recovery: Recovery | None = None

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self._phase

    def start(self, now: float) -> Step:
        """Wait for the cohort's key adverts; local training happens in this phase."""
        if self._phase is not Phase.NEW:
            raise LocalProtocolError("a masking coordinator starts once")
        return self._enter(Phase.KEYS, self._setup.cohort, now + self._setup.input_timeout)

    def receive(self, sender: NodeId, message: Message, now: float) -> Step:
        """Take a message of a node; see `secagg.roles.CoordinatorRole.receive`."""
        accepted = self._ACCEPTS.get(self._phase)
        if accepted is None or not isinstance(message, accepted[0]):
            raise RemoteProtocolError(sender, f"{type(message).__name__} while {self._phase.value}")
        if message.round_id != self._setup.round_id:
            raise ReplayError(sender, f"{type(message).__name__} of round {message.round_id}")
        if sender in self._answered:
            raise ReplayError(sender, f"a second {type(message).__name__}")
        if sender not in self._waiting:
            raise RemoteProtocolError(sender, f"not in the round while {self._phase.value}")
        try:
            complete = accepted[1](self, sender, message)
        except (_Fault, AuthenticationError) as fault:
            self._waiting.discard(sender)
            self._chunks.pop(sender, None)
            return self._advance(now, PeerBlamed(sender, str(fault)))
        if complete:
            self._waiting.discard(sender)
            self._answered.add(sender)
        return self._advance(now)

    def drop(self, node: NodeId, now: float) -> Step:
        """Stop waiting for `node`, in this phase and in every later one."""
        self._gone.add(node)
        self._waiting.discard(node)
        self._chunks.pop(node, None)
        return self._advance(now)

    def on_timeout(self, now: float) -> Step:
        """Close the phase with those who answered (M-15)."""
        late = tuple(sorted(self._waiting))
        self._waiting.clear()
        self._chunks.clear()
        missed = (PeersMissed(self._phase.value, late),) if late else ()
        return self._advance(now, *missed)

    # --- what each message does; the result says whether the node has given all it owes ---------

    def _on_advert(self, sender: NodeId, message: KeyAdvert) -> bool:
        if message.node_id != sender:
            raise _Fault("its advert names another node")
        masks.verify_advert(self._setup, message)  # M-04
        self._adverts[sender] = message
        return True

    def _on_shares(self, sender: NodeId, message: SealedShares) -> bool:
        receivers = [receiver for receiver, _ in message.boxes]
        if receivers != sorted(self._neighbours[sender]):
            raise _Fault("its shares are not for exactly its neighbours")
        for receiver, box in message.boxes:
            self._boxes.setdefault(receiver, {})[sender] = box
        return True

    def _on_chunk(self, sender: NodeId, message: MaskedChunk) -> bool:
        setup, chunks = self._setup, self._chunks.setdefault(sender, [])
        if message.index < len(chunks):
            raise ReplayError(sender, f"chunk {message.index} a second time")
        if message.index > len(chunks):
            raise _Fault(f"chunk {message.index} where {len(chunks)} was due")
        if len(message.data) != ring.packed_size(self._chunk_dim(message.index), setup.ring_bits):
            raise _Fault(f"chunk {message.index} has {len(message.data)} bytes")
        if message.index == 0:
            signature = message.sharers_signature
            masks.verify_sharers(setup, sender, signature, self._sharers_digest)  # M-24
            self._sharers_signatures[sender] = signature
        elif message.sharers_signature != self._sharers_signatures[sender]:
            raise _Fault("its chunks carry different signatures")
        chunks.append(message.data)
        if len(chunks) < setup.n_chunks:
            return False
        parts = [
            ring.unpack(data, self._chunk_dim(index), setup.ring_bits)
            for index, data in enumerate(self._chunks.pop(sender))
        ]
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):  # all or nothing of a node enters the sum
            raise _Fault("its upload has padding bits set")
        start = 0
        for part in whole:
            self._total[start : start + len(part)] += part
            start += len(part)
        return True

    def _on_signature(self, sender: NodeId, message: SurvivorSignature) -> bool:
        masks.verify_survivors(self._setup, sender, message.signature, self._view)  # M-11
        self._signatures[sender] = message.signature
        return True

    def _on_answer(self, sender: NodeId, message: UnmaskAnswer) -> bool:
        if self._recovery is None:
            raise LocalProtocolError("no recovery in the unmask phase")
        fault = self._recovery.take(sender, message)
        if fault:
            raise _Fault(fault)
        return True

    # --- phases --------------------------------------------------------------------------------

    def _advance(self, now: float, *events: Event) -> Step:
        """Close the phase if nobody is waited for any more."""
        if self._waiting or self._phase in (Phase.NEW, Phase.OVER):
            return Step(events=events, deadline=self._deadline, done=self._phase is Phase.OVER)
        reason, close = self._CLOSES[self._phase]
        if len(self._answered) < self._setup.quorum:  # M-14
            return self._fail(reason, *events)
        step = close(self, now)
        closed = Step(step.send, (*events, *step.events), step.deadline, step.done)
        if self._waiting or step.done:
            return closed
        after = self._advance(now)  # all that the new phase would wait for are gone
        events = (*closed.events, *after.events)
        return Step(closed.send + after.send, events, after.deadline, after.done)

    def _close_keys(self, now: float) -> Step:
        nodes = sorted(self._adverts)
        digests = tuple((node, masks.advert_digest(self._adverts[node])) for node in nodes)
        self._graph_seed = seed = graph_seed(self._setup.offer_hash, digests)
        degree = self._setup.neighbours
        self._neighbours = {
            node: neighbours_of(node, nodes, degree=degree, seed=seed) for node in nodes
        }
        send = []
        for node in nodes:
            adverts = tuple(self._adverts[peer] for peer in sorted(self._neighbours[node]))
            send.append(Outgoing(node, PeerKeys(self._setup.round_id, digests, adverts)))
        return self._enter_next(Phase.SHARES, nodes, now, send)

    def _close_shares(self, now: float) -> Step:
        self._sharers = tuple(sorted(self._answered))
        self._sharers_digest = masks.sharers_digest(self._graph_seed, self._sharers)
        send = []
        for node in self._sharers:
            boxes = tuple(sorted(self._boxes.get(node, {}).items()))
            send.append(Outgoing(node, PeerShares(self._setup.round_id, self._sharers, boxes)))
        self._boxes.clear()
        return self._enter_next(Phase.INPUT, self._sharers, now, send)

    def _close_input(self, now: float) -> Step:
        self._survivors = tuple(sorted(self._answered))
        self._view = masks.view_digest(self._sharers_digest, self._survivors)
        survivors, send = set(self._survivors), []
        for node in self._survivors:
            owners = sorted(self._neighbours[node] & survivors)
            signatures = tuple((owner, self._sharers_signatures[owner]) for owner in owners)
            message = Survivors(self._setup.round_id, self._survivors, signatures)
            send.append(Outgoing(node, message))
        return self._enter_next(Phase.SIGNATURES, self._survivors, now, send)

    def _close_signatures(self, now: float) -> Step:
        self._recovery = Recovery(
            self._setup,
            self._adverts,
            self._neighbours,
            frozenset(self._sharers),
            frozenset(self._survivors),
        )
        signatures = tuple(sorted(self._signatures.items()))
        message = UnmaskRequest(self._setup.round_id, signatures)
        signers = sorted(self._signatures)
        return self._enter_next(
            Phase.UNMASK, signers, now, [Outgoing(node, message) for node in signers]
        )

    def _close_unmask(self, now: float) -> Step:
        if self._recovery is None:
            raise LocalProtocolError("no recovery in the unmask phase")
        events = self._recovery.unmask(self._total)
        if events is None:
            return self._fail(AbortReason.BAD_SHARES)
        self._phase = Phase.OVER
        total = ring.reduce(self._total, self._setup.ring_bits)
        return Step(events=(*events, SumReady(total, self._survivors)), done=True)

    # --- small parts ---------------------------------------------------------------------------

    def _enter_next(
        self,
        phase: Phase,
        nodes: tuple[NodeId, ...] | list[NodeId],
        now: float,
        send: list[Outgoing],
    ) -> Step:
        step = self._enter(phase, nodes, now + self._setup.phase_timeout)
        return Step(tuple(send), step.events, step.deadline)

    def _enter(
        self, phase: Phase, nodes: tuple[NodeId, ...] | list[NodeId], deadline: float
    ) -> Step:
        self._phase, self._deadline = phase, deadline
        self._waiting, self._answered = set(nodes) - self._gone, set()
        return Step(events=(PhaseEntered(phase.value, tuple(nodes)),), deadline=deadline)

    def _fail(self, reason: AbortReason, *events: Event) -> Step:
        alive = len(self._answered)
        self._phase = Phase.OVER
        self._total = np.zeros(0, dtype=np.uint32)
        failed = RoundFailed(reason, alive, self._setup.quorum)
        return Step(events=(*events, failed), done=True)

    def _chunk_dim(self, index: int) -> int:
        step = self._setup.chunk_values
        return max(0, min(step, self._setup.dim - index * step))

    _deadline: float | None = None
    _ACCEPTS: Final[dict[Phase, tuple[type[RoundMessage], Callable[[Any, NodeId, Any], bool]]]] = {
        Phase.KEYS: (KeyAdvert, _on_advert),
        Phase.SHARES: (SealedShares, _on_shares),
        Phase.INPUT: (MaskedChunk, _on_chunk),
        Phase.SIGNATURES: (SurvivorSignature, _on_signature),
        Phase.UNMASK: (UnmaskAnswer, _on_answer),
    }
    _CLOSES: Final[dict[Phase, tuple[AbortReason, Callable[[Any, float], Step]]]] = {
        Phase.KEYS: (AbortReason.TOO_FEW_KEYS, _close_keys),
        Phase.SHARES: (AbortReason.TOO_FEW_SHARES, _close_shares),
        Phase.INPUT: (AbortReason.TOO_FEW_INPUTS, _close_input),
        Phase.SIGNATURES: (AbortReason.TOO_FEW_SIGNATURES, _close_signatures),
        Phase.UNMASK: (AbortReason.TOO_FEW_UNMASK_ANSWERS, _close_unmask),
    }
