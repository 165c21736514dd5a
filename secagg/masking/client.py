"""A node's side of one masked round.

::

    NEW ─start→ KEYED ─PeerKeys→ AGREEING ─PeerEncapsulations→ SHARED ─PeerShares→ MASKED
                  └─AdvertList→ TOSSED ─PeerKeys┘ (sparse graph: up to four tosses)
        ─UploadTurn→ UPLOADED ─Survivors→ SIGNED ─UnmaskRequest→ ANSWERED ─ExcessRequest→ OVER
                                                           └────── no excess ─────────┘

What does not fit the phase ends the round for this node. Nothing leads back, so there is one input
and one unmask answer (M-13). Source: specs/30-masking.md section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar

import numpy as np

from secagg import ring
from secagg.errors import AuthenticationError, LocalProtocolError
from secagg.masking import adverts, masks, pairs, views
from secagg.masking.graph import Graph, build_graph
from secagg.phases import PhasedClient, Takes
from secagg.primitives import aead, shamir
from secagg.round_setup import RoundSetup
from secagg.steps import Event, PeerBlamed, Step, ViewFixed
from secagg.types import NodeId, RingVector, Rng, Signer
from secagg.wire.messages import (
    AdvertList,
    Coin,
    Encapsulations,
    ExcessRequest,
    KeyAdvert,
    MaskedChunk,
    Message,
    PeerEncapsulations,
    PeerKeys,
    PeerShares,
    SealedShares,
    Survivors,
    SurvivorSignature,
    UnmaskAnswer,
    UnmaskRequest,
    UploadTurn,
)

__all__ = ["MaskingClient", "Phase"]


class Phase(StrEnum):
    """Where the client is; see the figure above."""

    NEW = "new"
    KEYED = "keyed"
    TOSSED = "tossed"
    AGREEING = "agreeing"
    SHARED = "shared"
    MASKED = "masked"
    UPLOADED = "uploaded"
    SIGNED = "signed"
    ANSWERED = "answered"
    OVER = "over"


class MaskingClient(PhasedClient):
    """State machine of one node in one round; see `secagg.roles.ClientRole`.

    Args:
        setup: The checked offer.
        vector: This node's input, shape (setup.dim,), values below 2^ring_bits; copied.
        signer: This node's identity.
        coordinator: Where messages go.
        rng: Source of all secrets of the round but those inside ML-KEM capsules.
        excess: Seeds of the noise that may be given back; see `PhasedClient`.

    Raises:
        LocalProtocolError: vector or seeds do not fit the set-up, or the node is not in the cohort.
    """

    def __init__(
        self,
        setup: RoundSetup,
        vector: RingVector,
        signer: Signer,
        *,
        coordinator: NodeId,
        rng: Rng,
        excess: tuple[bytes, ...] = (),
    ) -> None:
        super().__init__(setup, vector, signer, coordinator=coordinator, rng=rng, excess=excess)
        self._vector = vector.copy()
        self._phase = Phase.NEW
        self._round_secret = rng(shamir.SECRET_SIZE)
        self._self_seed = rng(shamir.SECRET_SIZE)
        self._coin_seed = rng(shamir.SECRET_SIZE)
        self._keys: pairs.NodeKeys | None = pairs.NodeKeys(self._me, rng(shamir.SECRET_SIZE))
        self._advert: KeyAdvert | None = None
        self._entries: tuple[adverts.Entry, ...] = ()  # of the last toss
        self._attempt = 0
        self._peers: dict[NodeId, KeyAdvert] = {}  # neighbours with keys
        self._graph = Graph((), 0, {})
        self._graph_seed = b""
        self._pairs: dict[NodeId, pairs.PairSecret] = {}  # neighbours that agreed on one
        self._agreed: frozenset[NodeId] = frozenset()  # everybody who got that far
        self._sharers: tuple[NodeId, ...] = ()  # everybody who shared secrets
        self._held: dict[NodeId, tuple[bytes, bytes]] = {}  # owner -> (key share, self share)
        self._upload: list[Message] = []
        self._survivors: tuple[NodeId, ...] = ()
        self._sharers_digest = self._view = b""

    def start(self, now: float) -> Step:
        """Advertise this round's keys."""
        if self._phase is not Phase.NEW:
            raise LocalProtocolError("a masking client starts once")
        agreement_key, kem_key = self._own_keys.public
        self._advert = adverts.make_advert(
            self._setup,
            self._signer,
            agreement_key=agreement_key,
            kem_key=kem_key,
            commitments=(
                adverts.round_commitment(self._round_secret),
                adverts.self_commitment(self._self_seed),
                adverts.coin_at(self._coin_seed, 0),
            ),
        )
        self._phase = Phase.KEYED
        return self._reply(now, self._advert)

    # --- keys and graph ----------------------------------------------------------------------

    def _on_advert_list(self, message: AdvertList, now: float) -> Step:
        entries, first = message.entries, not self._attempt
        self._check_list([node for node, _, _ in entries])
        if message.attempt != self._attempt + 1:
            raise self._fault(f"toss {message.attempt} of the coins after {self._attempt}")
        if not first and not set(entries) < set(self._entries):  # M-06
            raise self._fault("the list of adverts grew or changed between two tosses")
        if self._advert is None or (
            self._me,
            adverts.advert_digest(self._advert),
            self._advert.coin_commitment,
        ) not in set(entries):
            raise self._fault("my own advert is missing or altered")  # M-06
        self._entries, self._attempt = entries, message.attempt
        self._phase = Phase.TOSSED
        coin = adverts.coin_at(self._coin_seed, self._attempt)
        return self._reply(now, Coin(self._setup.round_id, self._attempt, coin))

    def _on_peer_keys(self, message: PeerKeys, now: float) -> Step:
        setup, nodes = self._setup, [node for node, _ in message.digests]
        self._check_list(nodes)
        digests = dict(message.digests)
        if self._advert is None or digests.get(self._me) != adverts.advert_digest(self._advert):
            raise self._fault("my own advert is missing or altered")  # M-06
        self._check_coins(message)
        self._graph_seed = adverts.graph_seed(setup.offer_hash, message.digests, message.coins)
        self._graph = build_graph(nodes, degree=setup.neighbours, seed=self._graph_seed)
        if self._graph.half and not message.coins:
            raise self._fault("a sparse graph without coins")  # M-06
        neighbours = self._graph.neighbours(self._me)
        if [advert.node_id for advert in message.adverts] != sorted(neighbours):
            raise self._fault("the adverts are not those of my neighbours")
        if len(neighbours) + 1 < setup.threshold:
            raise self._fault("fewer share holders than the threshold")
        for advert in message.adverts:
            if adverts.advert_digest(advert) != digests[advert.node_id]:
                raise self._fault(f"the advert of {advert.node_id} differs from its digest")
            try:
                adverts.verify_advert(setup, advert)  # M-04
            except AuthenticationError as error:
                raise self._fault(f"relayed a forged advert ({error})") from error
            self._peers[advert.node_id] = advert
        return self._initiate(now)

    def _check_list(self, nodes: list[NodeId]) -> None:
        if nodes != sorted(set(nodes)) or not set(nodes) <= set(self._setup.cohort):
            raise self._fault("the list of adverts is not a sorted part of the cohort")
        if len(nodes) < self._setup.quorum:  # M-03
            raise self._fault(
                f"only {len(nodes)} nodes advertised keys, {self._setup.quorum} needed"
            )

    def _check_coins(self, message: PeerKeys) -> None:
        """Check that the coins are those that were committed to before mine was revealed."""
        if not message.coins and not self._attempt:
            return
        if tuple(entry[:2] for entry in self._entries) != message.digests:
            raise self._fault("the adverts are not those that the coins were tossed for")
        if len(message.coins) != len(self._entries):
            raise self._fault("there is not one coin for each advert")
        for (node, _, commitment), coin in zip(self._entries, message.coins, strict=True):
            if not adverts.coin_fits(coin, commitment, self._attempt):  # M-06
                raise self._fault(f"the coin of {node} is not the one it committed to")

    # --- pair secrets ------------------------------------------------------------------------

    @property
    def _own_keys(self) -> pairs.NodeKeys:
        if self._keys is None:
            raise LocalProtocolError("the keys of this round are forgotten")
        return self._keys

    @property
    def _binding(self) -> tuple[bytes, ...]:
        return *self._setup.context, self._graph_seed

    def _initiate(self, now: float) -> Step:
        capsules = []
        for node in sorted(self._graph.successors(self._me)):  # M-26
            try:
                secret, capsule = self._own_keys.initiate(self._peers[node], self._binding)
            except AuthenticationError as error:
                raise self._fault(f"relayed an unusable key ({error})") from error  # M-04
            self._pairs[node] = secret
            capsules.append((node, capsule, pairs.confirmation(secret.mask_seed)))
        self._phase = Phase.AGREEING
        return self._reply(now, Encapsulations(self._setup.round_id, tuple(capsules)))

    def _on_peer_encapsulations(self, message: PeerEncapsulations, now: float) -> Step:
        agreed, senders = message.agreed, [sender for sender, _, _ in message.capsules]
        advertised = self._graph.place
        if list(agreed) != sorted(set(agreed)) or not set(agreed) <= set(advertised):
            raise self._fault("those who agreed are not a sorted part of those with adverts")
        if self._me not in agreed or len(agreed) < self._setup.quorum:  # M-03
            raise self._fault(f"{len(agreed)} nodes agreed, {self._setup.quorum} with me needed")
        if senders != sorted(self._graph.predecessors(self._me) & set(agreed)):
            raise self._fault("the capsules are not those of my predecessors that agreed")
        self._agreed = frozenset(agreed)
        live = sorted(self._agreed & set(self._peers))
        if len(live) + 1 < self._setup.threshold:
            raise self._fault(f"only {len(live)} neighbours agreed on a key")
        for sender, capsule, confirmation in message.capsules:
            try:
                secret = self._own_keys.respond(self._peers[sender], capsule, self._binding)
            except AuthenticationError as error:
                raise self._fault(f"relayed an unusable key ({error})") from error  # M-04
            if pairs.confirmation(secret.mask_seed) != confirmation:  # M-26
                raise self._fault(f"the key of {sender} is altered or was wrong from the start")
            self._pairs[sender] = secret
        self._pairs = {node: self._pairs[node] for node in live}
        self._keys = None  # all pairs have agreed
        self._phase = Phase.SHARED
        return self._reply(now, self._sealed_shares())

    def _sealed_shares(self) -> SealedShares:
        point = {node: index for index, node in enumerate(sorted(self._graph.circle), start=1)}
        points = [point[node] for node in sorted({*self._pairs, self._me})]
        threshold = self._setup.threshold
        key_shares = shamir.split(self._round_secret, points, threshold, self._rng)
        self_shares = shamir.split(self._self_seed, points, threshold, self._rng)
        boxes = []
        for node, secret in self._pairs.items():
            key = secret.seal_key(sender=self._me, receiver=node)
            plaintext = key_shares[point[node]] + self_shares[point[node]]
            boxes.append((node, aead.seal(key, plaintext, b"")))
        self._held[self._me] = key_shares[point[self._me]], self_shares[point[self._me]]
        seeds = [secret.mask_seed for secret in self._pairs.values()]
        backup = pairs.seal_backup(self._round_secret, self._setup.context, self._me, seeds)
        return SealedShares(self._setup.round_id, tuple(boxes), backup)

    # --- input -------------------------------------------------------------------------------

    def _on_peer_shares(self, message: PeerShares, now: float) -> Step:
        sharers, senders = message.sharers, [sender for sender, _ in message.boxes]
        if list(sharers) != sorted(set(sharers)) or not set(sharers) <= self._agreed:
            raise self._fault("the sharers are not a sorted part of those who agreed on keys")
        if self._me not in sharers or len(sharers) < self._setup.quorum:  # M-03
            raise self._fault(f"{len(sharers)} sharers, {self._setup.quorum} with me needed")
        if senders != sorted(set(self._pairs) & set(sharers)):  # M-09
            raise self._fault("relayed shares are not from exactly my neighbours among the sharers")
        if len(senders) + 1 < self._setup.threshold:  # M-09
            raise self._fault(f"only {len(senders)} neighbours shared their secrets")
        self._sharers = sharers
        self._sharers_digest = views.sharers_digest(self._graph_seed, sharers)
        events: list[Event] = []
        for sender, box in message.boxes:
            try:
                key = self._pairs[sender].seal_key(sender=sender, receiver=self._me)
                plaintext = aead.unseal(key, box, b"", sender=sender)
            except AuthenticationError:
                plaintext = b""
            if len(plaintext) != 2 * shamir.SHARE_SIZE:  # M-10: its shares are lost, not the round
                events.append(PeerBlamed(sender, "its sealed shares do not open", certain=False))
                continue
            self._held[sender] = plaintext[: shamir.SHARE_SIZE], plaintext[shamir.SHARE_SIZE :]
        self._phase = Phase.MASKED
        self._upload = self._masked_chunks()
        return self._reply(now, events=tuple(events))

    def _masked_chunks(self) -> list[Message]:
        """Mask the input, forget it, and cut the result into packed chunks."""
        setup, sharers = self._setup, set(self._sharers)
        due = [masks.self_mask(self._self_seed, setup.context)]  # M-23
        due += [
            masks.pair_mask(secret.mask_seed, me=self._me, peer=node)
            for node, secret in self._pairs.items()
            if node in sharers
        ]
        masks.apply_masks(self._vector, due)
        masked, self._vector = self._vector, np.empty(0, dtype=np.uint32)
        self._pairs.clear()
        step = setup.chunk_values
        signature = views.sign_sharers(setup, self._signer, self._sharers_digest)
        return [
            MaskedChunk(
                setup.round_id,
                index,
                b"" if index else signature,
                ring.pack(masked[index * step : (index + 1) * step], setup.ring_bits),
            )
            for index in range(setup.n_chunks)
        ]

    def _on_upload_turn(self, message: UploadTurn, now: float) -> Step:
        del message
        chunks, self._upload = self._upload, []
        self._phase = Phase.UPLOADED
        return self._reply(now, *chunks)

    # --- survivors and unmasking -------------------------------------------------------------

    def _on_survivors(self, message: Survivors, now: float) -> Step:
        survivors = message.survivors
        if list(survivors) != sorted(set(survivors)) or not set(survivors) <= set(self._sharers):
            raise self._fault("the survivor set is not a sorted part of the sharers")
        if self._me not in survivors:
            raise self._fault("the survivor set leaves me out")
        if len(survivors) < self._setup.quorum:  # M-03
            raise self._fault(f"{len(survivors)} survivors, {self._setup.quorum} needed")
        if not self._graph.is_whole(survivors, self._setup.threshold):  # M-25
            raise self._fault("the survivors leave a gap in the graph")
        due = sorted(set(self._peers) & set(survivors))
        if [node for node, _ in message.sharers_signatures] != due:  # M-24
            raise self._fault("the sharers' signatures are not those of my surviving neighbours")
        for node, signature in message.sharers_signatures:
            try:
                views.verify_sharers(self._setup, node, signature, self._sharers_digest)
            except AuthenticationError as error:
                raise self._fault(f"showed another list of sharers to {node}") from error
        self._survivors = survivors
        self._phase = Phase.SIGNED
        self._view = views.view_digest(self._sharers_digest, survivors)
        signature = views.sign_survivors(self._setup, self._signer, self._view)
        cosigned = SurvivorSignature(self._setup.round_id, signature)
        return self._reply(now, cosigned, events=(ViewFixed(self._view, survivors),))  # M-28

    def _on_unmask_request(self, message: UnmaskRequest, now: float) -> Step:
        self._check_view(message.signatures)  # M-11
        survivors = frozenset(self._survivors)
        held = sorted(self._held.items())
        answer = UnmaskAnswer(  # M-12: for each owner one share, of one kind
            self._setup.round_id,
            self_shares=tuple((owner, shares[1]) for owner, shares in held if owner in survivors),
            key_shares=tuple(
                (owner, shares[0]) for owner, shares in held if owner not in survivors
            ),
        )
        self._settle(len(self._survivors))
        return self._reply(now, answer)

    def _check_view(self, signatures: Sequence[tuple[NodeId, bytes]]) -> None:
        self._check_cosigners(signatures, self._survivors, self._verify_view)

    def _verify_view(self, node: NodeId, signature: bytes) -> None:
        views.verify_survivors(self._setup, node, signature, self._view)

    # --- small parts -------------------------------------------------------------------------

    def _end(self) -> None:
        """Forget what the round was about."""
        self._phase = Phase.OVER
        self._keys = None
        self._held.clear()
        self._pairs.clear()
        self._upload.clear()
        self._vector = np.empty(0, dtype=np.uint32)
        self._round_secret = self._self_seed = self._coin_seed = b""
        self._excess = ()

    _TRAINING = Phase.KEYED
    _ANSWERED = Phase.ANSWERED
    _TURNS = (Phase.MASKED, Phase.UPLOADED)
    _ACCEPTS: ClassVar[Takes] = {
        (Phase.KEYED, PeerKeys): _on_peer_keys,
        (Phase.KEYED, AdvertList): _on_advert_list,
        (Phase.TOSSED, AdvertList): _on_advert_list,
        (Phase.TOSSED, PeerKeys): _on_peer_keys,
        (Phase.AGREEING, PeerEncapsulations): _on_peer_encapsulations,
        (Phase.SHARED, PeerShares): _on_peer_shares,
        (Phase.MASKED, UploadTurn): _on_upload_turn,
        (Phase.UPLOADED, Survivors): _on_survivors,
        (Phase.SIGNED, UnmaskRequest): _on_unmask_request,
        (Phase.ANSWERED, ExcessRequest): PhasedClient._on_excess_request,
    }
