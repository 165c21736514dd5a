"""The coordinator's side of one masked round.

::

    NEW ─start→ KEYS → COINS → AGREEMENT → SHARES → INPUT → SIGNATURES → UNMASK → EXCESS → OVER
                 └── complete graph ─┘                                        └── no excess ──┘

A phase closes when every node still in the round has answered, or at its deadline with those who
have. With too few the round ends as `RoundFailed` and nothing is released (M-14). Inputs are
folded into one running sum and not kept. Source: specs/30-masking.md section 4.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import ClassVar

import numpy as np

from secagg import ring
from secagg.errors import LocalProtocolError, ReplayError
from secagg.masking import adverts, views
from secagg.masking.graph import build_graph
from secagg.masking.masks import Apply, apply_masks
from secagg.masking.recovery import Recovery
from secagg.masking.transcript import Transcript
from secagg.masking.uploads import Uploads
from secagg.phases import Accepts, Closes, Fault, PhasedCoordinator
from secagg.relay import MakeSpool, MemorySpool, Relay
from secagg.round_setup import RoundSetup
from secagg.steps import (
    Lazy,
    Outgoing,
    Step,
    SumReady,
)
from secagg.types import AbortReason, NodeId
from secagg.wire.messages import (
    MAX_ATTEMPTS,
    AdvertList,
    Coin,
    Encapsulations,
    ExcessSeeds,
    KeyAdvert,
    MaskedChunk,
    PeerEncapsulations,
    PeerKeys,
    PeerShares,
    RoundMessage,
    SealedShares,
    Survivors,
    SurvivorSignature,
    UnmaskAnswer,
    UnmaskRequest,
    UploadTurn,
)

__all__ = ["MaskingCoordinator", "Phase"]


class Phase(StrEnum):
    """Where the round is; see the figure above."""

    NEW = "new"
    KEYS = "keys"
    COINS = "coins"
    AGREEMENT = "agreement"
    SHARES = "shares"
    INPUT = "input"
    SIGNATURES = "signatures"
    UNMASK = "unmask"
    EXCESS = "excess"
    OVER = "over"


class MaskingCoordinator(PhasedCoordinator):
    """State machine of the coordinator in one round; see `secagg.roles.CoordinatorRole`.

    Args:
        setup: The offer.
        apply: Adds masks to a vector; daemons pass one that uses several cores.
        spool: Where to keep what nodes give for each other; daemons pass a file's.
    """

    def __init__(
        self,
        setup: RoundSetup,
        *,
        apply: Apply = apply_masks,
        spool: MakeSpool = MemorySpool,
    ) -> None:
        super().__init__(setup)
        self._apply = apply
        self._phase = Phase.NEW
        self._seen = Transcript()
        self._attempt = 0
        self._tossed: tuple[adverts.Entry, ...] = ()  # adverts that the coins are for
        self._coins: dict[NodeId, bytes] = {}
        self._graph_seed = b""
        self._capsules, self._boxes = Relay(spool()), Relay(spool())
        self._sharers_digest = self._view = b""
        self._sharers_signatures: dict[NodeId, bytes] = {}
        self._uploads = Uploads(setup)
        self._signatures: dict[NodeId, bytes] = {}
        self._recovery: Recovery | None = None

    def start(self, now: float) -> Step:
        """Wait for the cohort's key adverts; local training happens in this phase."""
        return self._begin(Phase.KEYS, now)

    # --- what each message does; the result says whether the node has given all it owes ---------

    def _on_advert(self, sender: NodeId, message: KeyAdvert) -> bool:
        if message.node_id != sender:
            raise Fault("its advert names another node")
        adverts.verify_advert(self._setup, message)  # M-04
        adverts.check_keys(message)
        self._seen.adverts[sender] = message
        return True

    def _on_coin(self, sender: NodeId, message: Coin) -> bool:
        commitment = self._seen.adverts[sender].coin_commitment
        if message.attempt != self._attempt:
            raise ReplayError(sender, f"a coin of toss {message.attempt} in {self._attempt}")
        if not adverts.coin_fits(message.coin, commitment, self._attempt):  # M-06
            raise Fault("its coin is not the one it committed to")
        self._coins[sender] = message.coin
        return True

    def _on_encapsulations(self, sender: NodeId, message: Encapsulations) -> bool:
        ahead = self._seen.graph.ahead(sender)
        given = {to: (capsule, confirmation) for to, capsule, confirmation in message.capsules}
        if [to for to, _, _ in message.capsules] != sorted(ahead):  # M-26
            raise Fault("its capsules are not for exactly its successors")
        self._capsules.put(sender, [given[to][0] for to in ahead])
        self._seen.confirmations[sender] = b"".join(given[to][1] for to in ahead)
        return True

    def _on_shares(self, sender: NodeId, message: SealedShares) -> bool:
        receivers = [receiver for receiver, _ in message.boxes]
        due = sorted(self._seen.graph.neighbours(sender) & self._seen.agreed)
        if receivers != due:
            raise Fault("its shares are not for exactly its neighbours")
        given = dict(message.boxes)
        self._boxes.put(sender, [given.get(to, b"") for to in self._seen.graph.around(sender)])
        self._seen.backups[sender] = message.backup
        return True

    def _on_chunk(self, sender: NodeId, message: MaskedChunk) -> bool:
        due = self._uploads.check_turn(sender, message)
        signature = message.sharers_signature
        if due == 0:
            views.verify_sharers(self._setup, sender, signature, self._sharers_digest)  # M-24
            self._sharers_signatures[sender] = signature
        elif signature:
            raise Fault("a chunk after the first carries a signature")
        return self._uploads.take(sender, message)

    def _on_signature(self, sender: NodeId, message: SurvivorSignature) -> bool:
        views.verify_survivors(self._setup, sender, message.signature, self._view)  # M-11
        self._signatures[sender] = message.signature
        return True

    def _on_answer(self, sender: NodeId, message: UnmaskAnswer) -> bool:
        if self._recovery is None:
            raise LocalProtocolError("no recovery in the unmask phase")
        fault = self._recovery.take(sender, message)
        if fault:
            raise Fault(fault)
        return True

    # --- phases --------------------------------------------------------------------------------

    @property
    def _needed(self) -> int:
        late = self._phase in (Phase.SIGNATURES, Phase.UNMASK)
        return self._setup.cosigners if late else self._setup.quorum

    def _close_keys(self, now: float) -> Step:
        nodes = sorted(self._seen.adverts)
        if not build_graph(nodes, degree=self._setup.neighbours, seed=b"").half:
            return self._send_peer_keys(now, nodes, ())
        return self._toss(nodes, now)

    def _toss(self, nodes: list[NodeId], now: float) -> Step:
        """Ask for coins: the graph follows from randomness that nobody chooses alone (M-06)."""
        nodes = [node for node in nodes if node not in self._gone]
        if len(nodes) < self._setup.quorum:
            return self._fail(AbortReason.TOO_FEW_KEYS)
        self._attempt += 1
        self._tossed = tuple(
            (node, adverts.advert_digest(advert), advert.coin_commitment)
            for node in nodes
            for advert in (self._seen.adverts[node],)
        )
        self._coins.clear()
        message = AdvertList(self._setup.round_id, self._attempt, self._tossed)
        return self._enter_next(Phase.COINS, nodes, now, lambda _: message)

    def _close_coins(self, now: float) -> Step:
        nodes = [node for node, _, _ in self._tossed]
        if set(self._coins) == set(nodes):
            coins = tuple(self._coins[node] for node in nodes)
            return self._send_peer_keys(now, nodes, coins)
        if self._attempt == MAX_ATTEMPTS:
            return self._fail(AbortReason.COINS_MISSING)
        # Leaving out who withheld a coin would let it choose between two graphs. All toss again.
        return self._toss(sorted(self._coins), now)

    def _send_peer_keys(self, now: float, nodes: list[NodeId], coins: tuple[bytes, ...]) -> Step:
        setup, seen = self._setup, self._seen
        seen.adverts = {node: seen.adverts[node] for node in nodes}
        digests = tuple((node, adverts.advert_digest(seen.adverts[node])) for node in nodes)
        self._graph_seed = adverts.graph_seed(setup.offer_hash, digests, coins)
        seen.graph = build_graph(nodes, degree=setup.neighbours, seed=self._graph_seed)

        def peer_keys(node: NodeId) -> PeerKeys:
            peers = tuple(seen.adverts[peer] for peer in sorted(seen.graph.neighbours(node)))
            return PeerKeys(setup.round_id, digests, coins, peers)

        return self._enter_next(Phase.AGREEMENT, nodes, now, peer_keys)

    def _close_agreement(self, now: float) -> Step:
        agreed, seen, capsules = tuple(sorted(self._answered)), self._seen, self._capsules
        seen.agreed = frozenset(agreed)
        if not seen.graph.has_holders(agreed, self._setup.threshold):  # M-02
            return self._fail(AbortReason.GRAPH_TOO_THIN)

        def peer_encapsulations(node: NodeId) -> PeerEncapsulations:
            behind = seen.agreed - seen.graph.successors(node)
            seats = sorted(item for item in seen.graph.seats(node).items() if item[0] in behind)
            given = tuple((p, capsules.get(p, s), seen.confirmation(p, s)) for p, s in seats)
            return PeerEncapsulations(self._setup.round_id, agreed, given)

        return self._enter_next(Phase.SHARES, agreed, now, peer_encapsulations)

    def _close_shares(self, now: float) -> Step:
        sharers = self._seen.sharers = tuple(sorted(self._answered))
        if not self._seen.graph.has_holders(sharers, self._setup.threshold):  # M-09
            return self._fail(AbortReason.GRAPH_TOO_THIN)
        self._sharers_digest = views.sharers_digest(self._graph_seed, sharers)
        among, graph, boxes = self._answered, self._seen.graph, self._boxes

        def peer_shares(node: NodeId) -> PeerShares:
            seats = sorted(item for item in graph.seats(node).items() if item[0] in among)
            given = tuple((dealer, boxes.get(dealer, seat)) for dealer, seat in seats)
            return PeerShares(self._setup.round_id, sharers, given)

        entered = self._enter(Phase.INPUT, sharers, None)
        self._uploads.expect(node for node in sharers if node in self._waiting)
        send = Lazy.chain(_to_each(sharers, peer_shares), self._turns(now))
        return Step(send, entered.events, self._deadline)

    def _turns(self, now: float) -> tuple[Outgoing, ...]:
        granted = self._uploads.grant(now)
        self._deadline = self._uploads.deadline
        return tuple(Outgoing(node, UploadTurn(self._setup.round_id)) for node in granted)

    def _close_input(self, now: float) -> Step:
        seen = self._seen
        seen.survivors = tuple(sorted(self._answered))
        if not seen.graph.is_whole(seen.survivors, self._setup.threshold):  # M-25
            return self._fail(AbortReason.GRAPH_TOO_THIN)
        self._view = views.view_digest(self._sharers_digest, seen.survivors)
        among, names = frozenset(seen.survivors), seen.survivors

        def survivors(node: NodeId) -> Survivors:
            owners = sorted(seen.graph.neighbours(node) & among)
            signatures = tuple((owner, self._sharers_signatures[owner]) for owner in owners)
            return Survivors(self._setup.round_id, names, signatures)

        return self._enter_next(Phase.SIGNATURES, names, now, survivors)

    def _close_signatures(self, now: float) -> Step:
        self._recovery = Recovery(self._setup, self._seen, self._apply)
        message = UnmaskRequest(self._setup.round_id, self._cosigned)
        return self._enter_next(Phase.UNMASK, sorted(self._signatures), now, lambda _: message)

    def _close_unmask(self, now: float) -> Step:
        if self._recovery is None:
            raise LocalProtocolError("no recovery in the unmask phase")
        total = self._uploads.total
        recovered = self._recovery.unmask(total)
        blamed = self._recovery.blamed
        if not recovered:
            return self._fail(AbortReason.BAD_SHARES, *blamed)
        ring.reduce(total, self._setup.ring_bits)
        names = self._seen.survivors
        return self._release(
            SumReady(total, names, (1,) * len(names)),
            now,
            asked=self._answered,
            signatures=self._cosigned,
            events=blamed,
        )

    # --- small parts ---------------------------------------------------------------------------

    @property
    def _cosigned(self) -> tuple[tuple[NodeId, bytes], ...]:
        return tuple(sorted(self._signatures.items())[: self._setup.cosigners])

    def _enter_next(
        self,
        phase: Phase,
        nodes: tuple[NodeId, ...] | list[NodeId],
        now: float,
        message: Callable[[NodeId], RoundMessage],
    ) -> Step:
        step = self._enter(phase, nodes, now + self._setup.phase_timeout)
        return Step(_to_each(nodes, message), step.events, step.deadline)

    def _late(self, now: float) -> tuple[NodeId, ...]:
        return self._uploads.expire(now) if self._phase is Phase.INPUT else super()._late(now)

    def _give_turns(self, now: float) -> Sequence[Outgoing]:
        return self._turns(now) if self._phase is Phase.INPUT else ()

    def _forget(self, node: NodeId) -> None:
        super()._forget(node)
        self._uploads.forget(node)

    def _end(self) -> None:
        self._phase = Phase.OVER
        self._uploads.total = np.zeros(0, dtype=np.uint32)

    _EXCESS = Phase.EXCESS
    _ACCEPTS: ClassVar[Accepts] = {
        Phase.KEYS: (KeyAdvert, _on_advert),
        Phase.COINS: (Coin, _on_coin),
        Phase.AGREEMENT: (Encapsulations, _on_encapsulations),
        Phase.SHARES: (SealedShares, _on_shares),
        Phase.INPUT: (MaskedChunk, _on_chunk),
        Phase.SIGNATURES: (SurvivorSignature, _on_signature),
        Phase.UNMASK: (UnmaskAnswer, _on_answer),
        Phase.EXCESS: (ExcessSeeds, PhasedCoordinator._on_excess_seeds),
    }
    _CLOSES: ClassVar[Closes] = {
        Phase.KEYS: (AbortReason.TOO_FEW_KEYS, _close_keys),
        Phase.COINS: (AbortReason.TOO_FEW_KEYS, _close_coins),
        Phase.AGREEMENT: (AbortReason.TOO_FEW_AGREEMENTS, _close_agreement),
        Phase.SHARES: (AbortReason.TOO_FEW_SHARES, _close_shares),
        Phase.INPUT: (AbortReason.TOO_FEW_INPUTS, _close_input),
        Phase.SIGNATURES: (AbortReason.TOO_FEW_SIGNATURES, _close_signatures),
        Phase.UNMASK: (AbortReason.TOO_FEW_UNMASK_ANSWERS, _close_unmask),
        Phase.EXCESS: (None, PhasedCoordinator._close_excess),
    }


def _to_each(nodes: Iterable[NodeId], message: Callable[[NodeId], RoundMessage]) -> Lazy[Outgoing]:
    """Return each node's message, made when it is sent."""
    return Lazy(functools.partial(_outgoing, node, message) for node in nodes)


def _outgoing(node: NodeId, message: Callable[[NodeId], RoundMessage]) -> Outgoing:
    return Outgoing(node, message(node))
