"""The coordinator's side of one round of `ckks`.

::

    NEW ─start→ KEYS → INPUT → SIGNATURES → OPENING → EXCESS → OVER
                                              └── no excess ──┘

A phase closes when every node still in the round has answered, or at its deadline with those who
have. With too few the round ends as `RoundFailed` and nothing is released (H-15). Ciphertexts are
folded into one running sum and not kept. Source: specs/36-ckks.md.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar, Final

import numpy as np

from secagg.ckks.opening import Opening
from secagg.ckks.ring import ring_of
from secagg.ckks.sealing import BOX_OVERHEAD, dealer_of, verify_key
from secagg.ckks.uploads import Uploads
from secagg.ckks.views import (
    committee_of,
    keys_digest,
    terms_of,
    verify_view,
    view_digest,
)
from secagg.ckks.weighting import DISTANCE_STEPS, is_even, least_effective
from secagg.errors import LocalProtocolError, RemoteProtocolError
from secagg.phases import Accepts, Closes, Fault, PhasedCoordinator, same
from secagg.relay import MakeSpool, MemorySpool
from secagg.round_setup import RoundSetup
from secagg.steps import (
    Lazy,
    Outgoing,
    Step,
    SumReady,
)
from secagg.types import AbortReason, NodeId, Weigh
from secagg.uploads import Turns
from secagg.wire.messages import (
    MAX_CHUNK,
    UPLOAD_SLOTS,
    Announcement,
    CipherChunk,
    CommitteeKeys,
    DealtShare,
    DealtShares,
    ExcessSeeds,
    OpenRequest,
    SealedSecret,
    SealingKey,
    SumShare,
    SurvivorSignature,
    UploadTurn,
    WeightedSurvivors,
)

__all__ = ["CkksCoordinator", "Phase"]

_DEALER_SIZE: Final = 32 + 32 + 64  # keys and signature beside a box
_IN_FLIGHT: Final = 1 << 24
"""Bytes of dealt shares that are under way, unless that is less than eight members' (H-18)."""


class Phase(StrEnum):
    """Where the round is; see the figure above."""

    NEW = "new"
    KEYS = "keys"
    INPUT = "input"
    SIGNATURES = "signatures"
    OPENING = "opening"
    EXCESS = "excess"
    OVER = "over"


class CkksCoordinator(PhasedCoordinator):
    """State machine of the coordinator in one round; see `secagg.roles.CoordinatorRole`.

    Args:
        setup: The offer.
        spool: Where to keep sealed shares; daemons pass a file's.
        weigh: Gives nodes their weights, where the coordinator does.

    Raises:
        LocalProtocolError: `weigh` is missing where the coordinator weighs.
    """

    def __init__(
        self,
        setup: RoundSetup,
        *,
        spool: MakeSpool = MemorySpool,
        weigh: Weigh | None = None,
    ) -> None:
        terms = terms_of(setup)
        if setup.coordinator_weighs and weigh is None:
            raise LocalProtocolError("the coordinator weighs, but by nothing")
        super().__init__(setup)
        self._terms, self._weigh = terms, weigh
        self._committee = committee_of(setup)
        self._ring = ring_of(terms.ring.degree, terms.ring.modulus_bits)
        self._phase = Phase.NEW
        self._keys: dict[NodeId, SealingKey] = {}
        self._distances: dict[NodeId, float] = {}
        self._members: tuple[SealingKey, ...] = ()
        self._weights: dict[NodeId, int] = {}
        self._uploads = Uploads(setup, self._ring, spool())
        self._view = b""
        self._signatures: dict[NodeId, bytes] = {}
        self._opening: Opening | None = None
        dealt = BOX_OVERHEAD + terms.share_bytes + _DEALER_SIZE
        slots = max(UPLOAD_SLOTS, _IN_FLIGHT // (len(setup.cohort) * dealt))
        self._asked = Turns(setup.phase_timeout, slots)
        self._request = OpenRequest(setup.round_id, ())

    def start(self, now: float) -> Step:
        """Wait for the cohort to announce its keys; local training happens in this phase."""
        return self._begin(Phase.KEYS, now)

    # --- what each message does; the result says whether the node has given all it owes ---------

    def _on_announcement(self, sender: NodeId, message: Announcement) -> bool:
        if message.key.node_id != sender:
            raise Fault("its key names another node")
        verify_key(self._setup, message.key)  # H-04
        if (message.distance is not None) is not self._setup.coordinator_weighs:  # H-16
            raise Fault("it disclosed a distance unasked, or none")
        self._keys[sender] = message.key
        if message.distance is not None:
            self._distances[sender] = message.distance / DISTANCE_STEPS
        return True

    def _on_upload(self, sender: NodeId, message: SealedSecret | CipherChunk) -> bool:
        return self._uploads.take(sender, message)

    def _on_signature(self, sender: NodeId, message: SurvivorSignature) -> bool:
        verify_view(self._setup, sender, message.signature, self._view)  # H-10
        self._signatures[sender] = message.signature
        return True

    def _on_answer(self, sender: NodeId, message: SumShare) -> bool:
        if not self._asked.has(sender):  # H-17
            raise RemoteProtocolError(sender, "it answers before it was asked")
        self._asked.end(sender)
        fault = self._opened.take(sender, message)
        if fault:
            raise Fault(fault)
        return True

    # --- phases --------------------------------------------------------------------------------

    @property
    def _needed(self) -> int:
        if self._phase is Phase.SIGNATURES:
            return self._setup.cosigners
        return self._terms.committee.answers if self._phase is Phase.OPENING else self._setup.quorum

    def _close_keys(self, now: float) -> Step:
        present = {node for node in self._keys if node not in self._gone}
        self._members = tuple(self._keys[node] for node in self._committee if node in present)
        needed = self._terms.committee.answers
        if len(present) < self._setup.quorum:
            return self._fail(AbortReason.TOO_FEW_KEYS, alive=len(present))
        if len(self._members) < needed:
            alive = len(self._members)
            return self._fail(AbortReason.COMMITTEE_TOO_SMALL, alive=alive, needed=needed)
        weights = self._weights_of(sorted(present))
        self._uploads.expect(weights, (key.node_id for key in self._members))
        self._weights = weights
        message = CommitteeKeys(self._setup.round_id, self._members)
        entered = self._enter(Phase.INPUT, weights, None)
        everybody = sorted(present)  # members without a weight have a part in the opening
        told = Lazy(functools.partial(Outgoing, node, message) for node in everybody)
        return Step(Lazy.chain(told, self._turns(now)), entered.events, self._deadline)

    def _weights_of(self, nodes: Sequence[NodeId]) -> dict[NodeId, int]:
        """Return the nodes that are to upload, and their weights (H-11)."""
        if not self._setup.coordinator_weighs or self._weigh is None:
            return dict.fromkeys(nodes, 1)
        given = self._weigh({node: self._distances[node] for node in nodes})
        if set(given) != set(nodes):
            raise LocalProtocolError("the weights are not those of the nodes that were asked for")
        if not all(0 <= weight <= self._terms.max_weight for weight in given.values()):
            raise LocalProtocolError(f"a weight is not 0 to {self._terms.max_weight}")
        return {node: given[node] for node in nodes if given[node]}

    def _turns(self, now: float) -> tuple[Outgoing, ...]:
        granted = self._uploads.grant(now)
        self._deadline = self._uploads.deadline
        return tuple(Outgoing(node, UploadTurn(self._setup.round_id)) for node in granted)

    def _close_input(self, now: float) -> Step:
        survivors = tuple(sorted(self._answered))
        self._weights = {node: self._weights[node] for node in survivors}
        weights = bytes(self._weights.values())
        if not is_even(weights, least_effective(self._setup)):  # H-11
            return self._fail(AbortReason.COHORT_TOO_UNEVEN, needed=least_effective(self._setup))
        self._view = view_digest(keys_digest(self._setup, self._members), survivors, weights)
        message = WeightedSurvivors(self._setup.round_id, survivors, weights)
        members = {key.node_id for key in self._members} - self._gone
        told = sorted(members | set(survivors))
        step = self._enter(Phase.SIGNATURES, told, now + self._setup.phase_timeout)
        return Step(same(told, message), step.events, step.deadline)

    def _close_signatures(self, now: float) -> Step:
        setup = self._setup
        self._opening = Opening(setup, self._ring, self._weights)
        members = [key.node_id for key in self._members if key.node_id in self._signatures]
        enough = sorted(self._signatures.items())[: setup.cosigners]
        self._request = OpenRequest(setup.round_id, tuple(enough))
        step = self._enter(Phase.OPENING, members, None)
        self._asked.expect(node for node in members if node in self._waiting)
        return Step(self._ask(now), step.events, self._deadline)

    def _ask(self, now: float) -> Sequence[Outgoing]:
        """Give the next members what was dealt to them, and ask them to open (H-18)."""
        granted = self._asked.grant(now)
        self._deadline = self._asked.deadline
        parts: list[Sequence[Outgoing]] = []
        for node in granted:
            parts += [self._dealt_to(node), (Outgoing(node, self._request),)]
        return Lazy.chain(*parts)

    def _dealt_to(self, member: NodeId) -> Lazy[Outgoing]:
        """Return what the survivors sealed for a member, in messages made as they are sent."""
        dealers = [node for node in self._weights if node != member]
        size = BOX_OVERHEAD + self._terms.share_bytes + _DEALER_SIZE
        step = max(1, MAX_CHUNK // size)
        return Lazy(
            functools.partial(self._dealt, member, start, dealers[start : start + step])
            for start in range(0, len(dealers), step)
        )

    def _dealt(self, member: NodeId, start: int, dealers: Sequence[NodeId]) -> Outgoing:
        shares: list[DealtShare] = []
        for node in dealers:
            dealer = dealer_of(self._keys[node])
            box = self._uploads.box(node, member)
            shares.append((dealer.agreement_key, dealer.kem_digest, dealer.signature, box))
        return Outgoing(member, DealtShares(self._setup.round_id, start, tuple(shares)))

    def _close_opening(self, now: float) -> Step:
        opened = self._opened.open(self._uploads.total)
        if opened.total is None:
            reason = opened.reason or AbortReason.BAD_SHARES
            return self._fail(reason, *opened.blamed, alive=opened.answers)
        members = {key.node_id for key in self._members}
        return self._release(
            SumReady(opened.total, tuple(self._weights), tuple(self._weights.values())),
            now,
            asked=(
                node
                for node in self._weights
                if node in (self._answered if node in members else self._signatures)
            ),
            signatures=self._request.signatures,
            events=opened.blamed,
        )

    # --- small parts ---------------------------------------------------------------------------

    @property
    def _opened(self) -> Opening:
        if self._opening is None:
            raise LocalProtocolError("nothing is being opened")
        return self._opening

    def _late(self, now: float) -> tuple[NodeId, ...]:
        if self._phase is Phase.INPUT:
            return self._uploads.expire(now)
        return self._asked.expired(now) if self._phase is Phase.OPENING else super()._late(now)

    def _give_turns(self, now: float) -> Sequence[Outgoing]:
        if self._phase is Phase.INPUT:
            return self._turns(now)
        return self._ask(now) if self._phase is Phase.OPENING else ()

    def _forget(self, node: NodeId) -> None:
        super()._forget(node)
        self._uploads.forget(node)
        self._asked.end(node)

    def _end(self) -> None:
        self._phase = Phase.OVER
        self._uploads.total = np.zeros((0, 0), dtype=np.uint64)

    _EXCESS = Phase.EXCESS
    _ACCEPTS: ClassVar[Accepts] = {
        Phase.KEYS: ((Announcement,), _on_announcement),
        Phase.INPUT: ((SealedSecret, CipherChunk), _on_upload),
        Phase.SIGNATURES: ((SurvivorSignature,), _on_signature),
        Phase.OPENING: ((SumShare,), _on_answer),
        Phase.EXCESS: ((ExcessSeeds,), PhasedCoordinator._on_excess_seeds),
    }
    _CLOSES: ClassVar[Closes] = {
        Phase.KEYS: (AbortReason.TOO_FEW_KEYS, _close_keys),
        Phase.INPUT: (AbortReason.TOO_FEW_INPUTS, _close_input),
        Phase.SIGNATURES: (AbortReason.TOO_FEW_SIGNATURES, _close_signatures),
        Phase.OPENING: (AbortReason.TOO_FEW_ANSWERS, _close_opening),
        Phase.EXCESS: (None, PhasedCoordinator._close_excess),
    }
