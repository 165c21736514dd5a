"""A coordinator in the attacker's hands, before real nodes of `ckks`, or before trusting ones.

`CkksPuppet` shows each node what it likes and keeps all that comes back. Accomplices are nodes
whose secrets it reads. What it could compute in the end is in `holdings`, which
`nodes.attacks.ckks_knowledge` judges.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from nodes.attacks.base_puppet import COORDINATOR, BasePuppet, new_identities
from nodes.attacks.ckks_knowledge import Holdings, SecretId
from nodes.attacks.ckks_loot import holdings_of
from nodes.attacks.ckks_setting import ckks_setup
from nodes.attacks.ckks_tape import Accomplice, Dealt, Tape, TrustingAccomplice, View
from nodes.attacks.ckks_trusting import TrustingClient
from nodes.attacks.knowledge import summary
from nodes.attacks.report import NOTHING, Played
from nodes.ephemeral import EphemeralIdentity
from secagg.ckks import rlwe
from secagg.ckks.client import CkksClient
from secagg.ckks.sealing import dealer_of
from secagg.ckks.uploads import Layout
from secagg.ckks.views import terms_of
from secagg.primitives import packed
from secagg.primitives.hybrid import HybridKeys
from secagg.round_setup import RoundSetup
from secagg.types import NodeId
from secagg.wire.messages import (
    Announcement,
    CipherChunk,
    CommitteeKeys,
    DealtShares,
    OpenRequest,
    SealedSecret,
    SumShare,
    SurvivorSignature,
    UploadTurn,
    WeightedSurvivors,
)

__all__ = ["CkksPuppet"]


class CkksPuppet(BasePuppet):
    """Plays the coordinator, phase by phase.

    Args:
        n: Nodes.
        dim: Coordinates of an input.
        seed: Of the inputs.
        trusting: The nodes trust the server.
        accomplices: How many nodes, the last ones, are the attacker's.
        weighs: The coordinator gives nodes weights.
        distances: Node to its consistency distance, 1 by default.
        terms: Fields of the terms that differ from the defaults.
        changes: Fields of the set-up that do.
        offers: Node to another offer hash than the others got.
        identities: Of an earlier round of the same nodes; fresh ones by default.
        excess: Node to the seeds of the noise that it may give back.
    """

    def __init__(
        self,
        n: int,
        dim: int,
        seed: int,
        *,
        trusting: bool = False,
        accomplices: int = 0,
        weighs: bool = False,
        distances: Mapping[NodeId, float] | None = None,
        terms: Mapping[str, object] | None = None,
        changes: Mapping[str, object] | None = None,
        offers: Mapping[NodeId, bytes] | None = None,
        identities: Mapping[NodeId, EphemeralIdentity] | None = None,
        excess: Mapping[NodeId, tuple[bytes, ...]] | None = None,
    ) -> None:
        known = dict(identities or new_identities(n))
        setup = ckks_setup(n, dim, known, weighs=weighs, terms=terms, changes=changes)
        super().__init__(setup, known, seed=seed, accomplices=accomplices)
        honest, evil = CkksClient, Accomplice
        if trusting:
            honest, evil = TrustingClient, TrustingAccomplice
        self.roles: dict[NodeId, CkksClient] = {
            node: (evil if node in self.accomplices else honest)(
                replace(setup, offer_hash=(offers or {}).get(node, setup.offer_hash)),
                self.inputs[node],
                known[node],
                coordinator=COORDINATOR,
                rng=os.urandom,
                distance=(distances or {}).get(node, 1.0) if weighs else None,
                excess=(excess or {}).get(node, ()),
            )
            for node in self.nodes
        }
        self.clients = dict(self.roles)
        self.trusting, self.seed = trusting, seed
        self.tape = Tape()
        self.earlier: CkksPuppet | None = None
        """A round before, whose answers and shares the attacker still has."""
        self.keys_held: dict[NodeId, list[HybridKeys]] = {}
        """Keys of the attacker that nodes may have sealed shares to, by the node they pass for."""

    # --- what is known of a node -----------------------------------------------------------------

    def setup_at(self, node: NodeId) -> RoundSetup:
        """Return the round as a node sees it."""
        setup: RoundSetup = vars(self.roles[node])["_setup"]
        return setup

    def members(self, node: NodeId | None = None) -> tuple[NodeId, ...]:
        """Return the committee as a node sees it, by default the victim."""
        committee: tuple[NodeId, ...] = vars(self.roles[node or self.victim])["_committee"]
        return committee

    @property
    def committee_size(self) -> int:
        """Members of the committee."""
        return terms_of(self.setup).committee.size

    def secret_of(self, node: NodeId) -> SecretId:
        """Return the name of a node's secret in this round."""
        return self.setup.round_id, node

    # --- phases; `show` may turn what a node would be sent into something else -----------------

    def announce(self) -> None:
        """Let all nodes announce their keys."""
        for node, client in self.clients.items():
            for out in client.start(0.0).send:
                if isinstance(out.message, Announcement):
                    self.tape.keys[node] = out.message.key
                    if out.message.distance is not None:
                        self.tape.distances[node] = out.message.distance
        for node in self.accomplices:
            self.keys_held[node] = [vars(self.roles[node])["_keys"]]

    def committee(
        self, show: Callable[[NodeId, CommitteeKeys], CommitteeKeys] | None = None
    ) -> None:
        """Give every node the keys of the committee, and let it upload."""
        for node in self.alive:
            keys = tuple(self.tape.keys[member] for member in self.members(node))
            message = CommitteeKeys(self.setup.round_id, keys)
            message = show(node, message) if show else message
            self.tell(node, message)
            self.tape.shown[node] = message.keys
            self._upload(node)

    def _upload(self, node: NodeId) -> None:
        ring = vars(self.roles[node])["_ring"]
        layout = Layout.of(self.setup_at(node), ring)
        boxes: list[bytes] = []
        parts: list[rlwe.Residues] = []
        for out in self.tell(node, UploadTurn(self.setup.round_id)):
            if isinstance(out, SealedSecret):
                boxes += out.boxes
            elif isinstance(out, CipherChunk):
                part = rlwe.unpack(out.data, len(layout.chunk(out.index)), ring)
                parts += [] if part is None else [part]
        if parts:
            self.tape.ciphers[node] = np.vstack(parts)
            self.tape.boxes[node] = tuple(boxes)

    def survivors(self, views: Mapping[NodeId, View]) -> None:
        """Show each node its own survivors and weights, and keep its co-signature."""
        for node, view in views.items():
            weights = bytes(view.values())
            message = WeightedSurvivors(self.setup.round_id, tuple(view), weights)
            self.tape.views[node] = view
            for out in self.tell(node, message):
                if isinstance(out, SurvivorSignature):
                    self.tape.cosigned[node] = out.signature

    def open(
        self,
        cosigned: Mapping[NodeId, Sequence[tuple[NodeId, bytes]]],
        deal: Callable[[NodeId, NodeId], Dealt] | None = None,
    ) -> None:
        """Deal to each member of `cosigned` what its view names, and ask it to open the sum.

        Args:
            cosigned: Member to the co-signatures that it is shown.
            deal: Gives what a member (first) gets for a dealer (second); by default the dealer's.
        """
        for member, signatures in cosigned.items():
            view = self.tape.views[member]
            dealt = {
                dealer: (deal or self.box)(member, dealer) for dealer in view if dealer != member
            }
            shares = tuple(each.message for each in dealt.values())
            if shares:
                self.tell(member, DealtShares(self.setup.round_id, 0, shares))
            request = OpenRequest(self.setup.round_id, tuple(signatures))
            for out in self.tell(member, request):
                if isinstance(out, SumShare) and out.share:
                    self._keep(member, out, dealt)

    def _keep(self, member: NodeId, answer: SumShare, dealt: Mapping[NodeId, Dealt]) -> None:
        """Write an answer down, less what the attacker itself put in."""
        terms, view = terms_of(self.setup), self.tape.views[member]
        decoded = packed.decode(answer.share, terms.committee.modulus, terms.share_length)
        if decoded is None:
            return
        share: packed.Share = decoded
        weights: dict[SecretId, int] = {}
        for node, weight in view.items():
            given = dealt.get(node)
            if given is not None and given.share is not None:
                share = packed.weighted_sum(
                    [share, given.share], prime=terms.committee.modulus, weights=[1, -weight]
                )
                continue
            name = given.secret if given is not None else self.secret_of(node)
            weights[name] = weights.get(name, 0) + weight
        self.tape.answers.append((member, weights, share))
        if member not in self.accomplices:
            self.tape.asked.append(view)

    def box(self, member: NodeId, dealer: NodeId) -> Dealt:
        """Return what a dealer sealed for a member, noise if it sealed nothing."""
        key = dealer_of(self.tape.keys[dealer])
        boxes = self.tape.boxes.get(dealer, ())
        receivers = [each.node_id for each in self.tape.shown[dealer] if each.node_id != dealer]
        at = receivers.index(member) if member in receivers else len(boxes)
        sealed = boxes[at] if at < len(boxes) else os.urandom(1200)
        message = (key.agreement_key, key.kem_digest, key.signature, sealed)
        return Dealt(message, self.secret_of(dealer))

    def view(self, nodes: Collection[NodeId] | None = None, **weights: int) -> dict[NodeId, int]:
        """Return the view of these survivors, by default all who uploaded, with weights of 1."""
        chosen = self.tape.ciphers if nodes is None else nodes
        return {node: weights.get(node, 1) for node in sorted(chosen)}

    def ask(
        self,
        view: View,
        nodes: Collection[NodeId] | None = None,
        deal: Callable[[NodeId, NodeId], Dealt] | None = None,
    ) -> None:
        """Have these nodes, by default all, co-sign one view and those in the committee open it."""
        told = tuple(node for node in self.nodes if nodes is None or node in nodes)
        self.tape.cosigned.clear()
        self.survivors(dict.fromkeys(told, view))
        signed = sorted(self.tape.cosigned.items())
        self.open({node: signed for node in told if node in self.members(node)}, deal)

    def until_upload(self) -> None:
        """Do as an honest coordinator would until all inputs are in."""
        self.announce()
        self.committee()

    def finish(self) -> None:
        """Go on as an honest coordinator would, from the survivors to the end."""
        self.ask(self.view(), self.alive)

    # --- what it amounts to --------------------------------------------------------------------

    def holdings(self) -> Holdings:
        """Return everything the attacker can compute with by now."""
        return holdings_of(self)

    def judge(self, elsewhere: str) -> Played:
        """Return how the play went, from what the attacker really can compute."""
        found = self.holdings()
        exposures = found.exposures(self.inputs)
        stale = "a sum with an input of an earlier round in it" * found.mixes_rounds(self.inputs)
        return Played(
            elsewhere=elsewhere,
            here=summary(exposures) or stale or NOTHING,
            outcome=self.outcome(found.released(self.inputs)),
            blamed=tuple(sorted(self.blamed)),
            revealed=bool(exposures),
        )
