"""Rounds of ckks for tests: terms, a round played by hand, nodes that break the rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from secagg.assumptions import DEFAULT_COLLUSION, DEFAULT_DROPOUT
from secagg.ckks import rlwe
from secagg.ckks.client import CkksClient, Phase
from secagg.ckks.opening import Opening
from secagg.ckks.parameters import CkksParameters, choose
from secagg.ckks.ring import Ring, ring_of
from secagg.ckks.sealing import dealer_of
from secagg.ckks.uploads import Layout
from secagg.ckks.views import committee_of
from secagg.encoding import ring_bits_for
from secagg.errors import RemoteProtocolError
from secagg.primitives import packed
from secagg.round_setup import RoundSetup
from secagg.schemes import SCHEMES
from secagg.steps import Step
from secagg.types import NodeId, RingVector
from secagg.wire.codec import decode, encode
from secagg.wire.messages import (
    Announcement,
    CipherChunk,
    CommitteeKeys,
    DealtShares,
    Message,
    OpenRequest,
    SealedSecret,
    SealingKey,
    SumShare,
    SurvivorSignature,
    UploadTurn,
    WeightedSurvivors,
)
from tests.support.fleet import COORDINATOR, Fleet, TestSigner, make_setup
from tests.support.randomness import InsecureLabelledRng

CKKS = SCHEMES["ckks"]
Nodes = Sequence[NodeId]


def ckks_setup(
    n: int = 5,
    *,
    dim: int = 40,
    value_bits: int = 16,
    max_weight: int = 1,
    weighs: bool = False,
    dropout: float = DEFAULT_DROPOUT,
    collusion: float = DEFAULT_COLLUSION,
    committee: Mapping[str, int] | None = None,
    **changes: object,
) -> RoundSetup:
    """Return a round with the terms that real rounds get, but for `committee` and `changes`."""
    terms = choose(
        n, value_bits=value_bits, max_weight=max_weight, dropout=dropout, collusion=collusion
    )
    terms = replace(terms, committee=replace(terms.committee, **(committee or {})))
    values: dict[str, object] = {
        "ring_bits": ring_bits_for(n * max_weight, value_bits),
        "quorum": terms.quorum,
        "colluders": terms.colluders,
        "ckks": terms,
        "coordinator_weighs": weighs,
    }
    return make_setup(n, dim=dim, **{**values, **changes})  # type: ignore[arg-type]


def terms_in(setup: RoundSetup) -> CkksParameters:
    assert setup.ckks is not None
    return setup.ckks


def ring_in(setup: RoundSetup) -> Ring:
    terms = terms_in(setup)
    return ring_of(terms.ring.degree, terms.ring.modulus_bits)


class ByHand:
    """Real clients of one round; the test plays the coordinator, step by step.

    Args:
        setup: The round.
        seed: As for `Fleet`.
        inputs: As for `Fleet`.
    """

    def __init__(
        self,
        setup: RoundSetup,
        *,
        seed: int = 1,
        inputs: Mapping[NodeId, RingVector] | None = None,
    ) -> None:
        self.fleet = Fleet(CKKS, setup, seed=seed, inputs=inputs)
        self.setup, self.committee = setup, committee_of(setup)
        self.announcements: dict[NodeId, Announcement] = {}
        for node, client in self.fleet.clients.items():
            (out,) = client.start(0.0).send
            assert isinstance(out.message, Announcement)
            self.announcements[node] = out.message
        self.keys = {node: said.key for node, said in self.announcements.items()}
        self.boxes: dict[NodeId, dict[NodeId, bytes]] = {}
        """Dealer to member to what it sealed for it."""
        self.chunks: dict[NodeId, list[CipherChunk]] = {}
        self.shown: tuple[SealingKey, ...] = tuple(self.keys[node] for node in self.committee)
        self.signatures: dict[NodeId, bytes] = {}

    def client(self, node: NodeId) -> CkksClient:
        client = self.fleet.clients[node]
        assert isinstance(client, CkksClient)
        return client

    def tell(self, node: NodeId, message: Message) -> Step:
        """Bring a message to a client as the wire does; keep what it sends."""
        step = self.client(node).receive(decode(encode(message), sender=COORDINATOR), 0.0)
        for out in step.send:
            self._keep(node, out.message)
        return step

    def _keep(self, node: NodeId, sent: Message) -> None:
        if isinstance(sent, SealedSecret):
            others = [key.node_id for key in self.shown if key.node_id != node]
            members = others[sent.start : sent.start + len(sent.boxes)]
            self.boxes.setdefault(node, {}).update(zip(members, sent.boxes, strict=True))
        elif isinstance(sent, CipherChunk):
            self.chunks.setdefault(node, []).append(sent)
        elif isinstance(sent, SurvivorSignature):
            self.signatures[node] = sent.signature

    def show(self, nodes: Nodes | None = None, members: Nodes | None = None) -> None:
        """Show `nodes` the keys of `members`; by default everybody those of the committee."""
        if members is not None:
            self.shown = tuple(self.keys[node] for node in members)
        for node in self.setup.cohort if nodes is None else nodes:
            self.tell(node, CommitteeKeys(self.setup.round_id, self.shown))

    def collect(self, nodes: Nodes | None = None) -> None:
        """Let `nodes` upload."""
        for node in self.setup.cohort if nodes is None else nodes:
            self.tell(node, self.turn)

    def deal(self) -> ByHand:
        """Let everybody see the committee and upload."""
        self.show()
        self.collect()
        return self

    @property
    def turn(self) -> UploadTurn:
        return UploadTurn(self.setup.round_id)

    def weighted(
        self, survivors: Nodes | None = None, weights: Iterable[int] | None = None
    ) -> WeightedSurvivors:
        names = self.setup.cohort if survivors is None else tuple(survivors)
        factors = [1] * len(names) if weights is None else weights
        return WeightedSurvivors(self.setup.round_id, names, bytes(factors))

    def cosign(self, view: WeightedSurvivors | None = None, nodes: Nodes | None = None) -> ByHand:
        """Show `nodes` a view; keep their co-signatures."""
        shown = self.weighted() if view is None else view
        for node in self.setup.cohort if nodes is None else nodes:
            self.tell(node, shown)
        return self

    def dealt(
        self,
        member: NodeId,
        survivors: Nodes | None = None,
        *,
        start: int = 0,
        boxes: Mapping[NodeId, bytes] | None = None,
        keys: Mapping[NodeId, SealingKey] | None = None,
    ) -> DealtShares:
        """Return what survivors sealed for `member`, with other boxes and keys of some."""
        shares = []
        for node in self.setup.cohort if survivors is None else survivors:
            if node != member:
                dealer = dealer_of({**self.keys, **(keys or {})}[node])
                box = {node: self.boxes[node].get(member, b""), **(boxes or {})}[node]
                shares.append((dealer.agreement_key, dealer.kem_digest, dealer.signature, box))
        return DealtShares(self.setup.round_id, start, tuple(shares))

    def request(self, signatures: Mapping[NodeId, bytes] | None = None) -> OpenRequest:
        """Return a request with c of the co-signatures that were kept, or with these."""
        if signatures is None:
            signatures = dict(sorted(self.signatures.items())[: self.setup.cosigners])
        return OpenRequest(self.setup.round_id, tuple(signatures.items()))

    def answer(
        self, member: NodeId, dealt: DealtShares | None = None, request: OpenRequest | None = None
    ) -> SumShare:
        """Let a member open what was dealt to it."""
        self.tell(member, self.dealt(member) if dealt is None else dealt)
        (out,) = self.tell(member, self.request() if request is None else request).send
        assert isinstance(out.message, SumShare)
        return out.message

    def total(self, weighted: Mapping[NodeId, int]) -> rlwe.Residues:
        """Return the weighted sum of the ciphertexts."""
        ring = ring_in(self.setup)
        layout = Layout.of(self.setup, ring)
        total = np.zeros((layout.blocks, ring.degree), dtype=np.uint64)
        for node, weight in weighted.items():
            for chunk in self.chunks[node]:
                part = layout.chunk(chunk.index)
                values = rlwe.unpack(chunk.data, len(part), ring)
                assert values is not None
                rlwe.add(total[part.start : part.stop], values, ring, weight=weight)
        return total

    def opening(self, weighted: Mapping[NodeId, int] | None = None) -> Opening:
        chosen = dict.fromkeys(self.setup.cohort, 1) if weighted is None else weighted
        return Opening(self.setup, ring_in(self.setup), chosen)


def share_of(setup: RoundSetup, answer: SumShare) -> packed.Share:
    terms = terms_in(setup)
    share = packed.decode(answer.share, terms.committee.modulus, terms.share_length)
    assert share is not None
    return share


def lie(setup: RoundSetup, answer: SumShare, seed: int = 1) -> SumShare:
    """Return an answer that differs from this one in every place."""
    prime = terms_in(setup).committee.modulus
    share = share_of(setup, answer).astype(np.int64)
    offset = np.random.default_rng(seed).integers(1, prime, share.shape)
    return shifted(setup, answer, offset)


def shifted(setup: RoundSetup, answer: SumShare, offset: NDArray[np.int64] | int) -> SumShare:
    """Return an answer that is off by `offset`."""
    prime = terms_in(setup).committee.modulus
    share = (share_of(setup, answer).astype(np.int64) + offset) % prime
    return SumShare(answer.round_id, packed.encode(share.astype(np.uint32), prime), ())


def evil_client(fleet: Fleet, node: NodeId, kind: Callable[..., CkksClient]) -> CkksClient:
    """Put a node that breaks the rules in the place of another; return it."""
    client = kind(
        fleet.setup,
        fleet.inputs[node],
        TestSigner(node),
        coordinator=COORDINATOR,
        rng=InsecureLabelledRng(fleet.seed, node),
        distance=fleet.distances[node] if fleet.setup.coordinator_weighs else None,
        excess=fleet.excess[node],
    )
    fleet.clients[node] = client
    return client


class OtherShares(CkksClient):
    """A dealer whose shares are those of another secret than its ciphertext's."""

    def _boxes(self, secret: rlwe.Secret, keys: tuple[SealingKey, ...]) -> list[bytes]:
        other = rlwe.Secret.fresh(self._ring, self._terms.ring.secret_terms)
        return super()._boxes(other, keys)


class OffPolynomial(CkksClient):
    """A dealer who gives the first `BAD` members shares that fit nobody else's."""

    BAD = 1

    def _boxes(self, secret: rlwe.Secret, keys: tuple[SealingKey, ...]) -> list[bytes]:
        boxes = super()._boxes(secret, keys)
        other = rlwe.Secret.fresh(self._ring, self._terms.ring.secret_terms)
        kept = self._own
        bad = super()._boxes(other, keys)
        self._own = kept
        return [*bad[: self.BAD], *boxes[self.BAD :]]


def new_client(
    setup: RoundSetup | None = None,
    values: int | list[int] = 1,
    node: NodeId | None = None,
    distance: float | None = None,
) -> CkksClient:
    """Return a client with these values, of five nodes the second unless said otherwise."""
    setup = setup or ckks_setup(5)
    node = node or setup.cohort[1]
    mask = (1 << setup.ring_bits) - 1
    vector = np.broadcast_to(np.array(values, np.int64) & mask, setup.dim).astype(np.uint32)
    rng = InsecureLabelledRng(1, node)
    return CkksClient(
        setup, vector, TestSigner(node), coordinator=COORDINATOR, rng=rng, distance=distance
    )


def refused(by_hand: ByHand, node: NodeId, message: Message, match: str | None = None) -> None:
    """Check that a node blames the coordinator, and takes part no further."""
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        by_hand.tell(node, message)
    assert caught.value.peer == COORDINATOR
    client = by_hand.client(node)
    assert client.phase is Phase.OVER
    assert (client._keys, client._own, client._member) == (None, None, None)
    assert not client._message.size
    assert not client._upload
