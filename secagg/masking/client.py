"""A node's side of one masked round.

::

    NEW ─start→ KEYED ─PeerKeys→ SHARED ─PeerShares→ UPLOADED
        ─Survivors→ SIGNED ─UnmaskRequest→ OVER

One message is accepted in each phase; any other ends the round for this node. Nothing leads back,
so there is one input and one unmask answer (M-13). Source: specs/30-masking.md section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

import numpy as np

from secagg import ring
from secagg.errors import AuthenticationError, LocalProtocolError, RemoteProtocolError
from secagg.masking import masks
from secagg.masking.graph import graph_seed, neighbours_of
from secagg.primitives import aead, agreement, shamir
from secagg.steps import (
    Event,
    InputRejected,
    Outgoing,
    PeerBlamed,
    Step,
)
from secagg.types import (
    NodeId,
    RingVector,
    Rng,
    RoundSetup,
    Signer,
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

__all__ = ["MaskingClient", "Phase"]


class Phase(StrEnum):
    """Where the client is; see the figure above."""

    NEW = "new"
    KEYED = "keyed"
    SHARED = "shared"
    UPLOADED = "uploaded"
    SIGNED = "signed"
    OVER = "over"


class MaskingClient:
    """State machine of one node in one round; see `secagg.roles.ClientRole`.

    Args:
        setup: The checked offer.
        vector: This node's input, shape (setup.dim,), values below 2^ring_bits; copied.
        signer: This node's identity.
        coordinator: Where messages go.
        rng: Source of all secrets of the round.

    Raises:
        LocalProtocolError: the vector does not fit the set-up or the node is not in the cohort.
    """

    def __init__(
        self,
        setup: RoundSetup,
        vector: RingVector,
        signer: Signer,
        *,
        coordinator: NodeId,
        rng: Rng,
    ) -> None:
        if vector.shape != (setup.dim,) or vector.dtype != np.uint32:
            raise LocalProtocolError(
                f"an input of shape {vector.shape} for {setup.dim} coordinates"
            )
        if setup.ring_bits < 32 and vector.max(initial=0) >> setup.ring_bits:
            raise LocalProtocolError("an input coordinate lies outside the ring")
        if signer.node_id not in setup.cohort:
            raise LocalProtocolError(f"{signer.node_id} is not in the cohort")
        self._setup, self._signer, self._coordinator, self._rng = setup, signer, coordinator, rng
        self._me = signer.node_id
        self._vector = vector.copy()
        self._phase = Phase.NEW
        self._round_secret = rng(shamir.SECRET_SIZE)
        self._self_seed = rng(shamir.SECRET_SIZE)
        self._mask_key = masks.mask_private_key(self._round_secret)
        self._share_key = agreement.private_key(rng(agreement.KEY_SIZE))  # never shared
        self._advert: KeyAdvert | None = None
        self._peers: dict[NodeId, KeyAdvert] = {}  # neighbours with keys
        self._graph_seed = b""
        self._sharers: tuple[NodeId, ...] = ()  # everybody who shared secrets
        self._held: dict[NodeId, tuple[bytes, bytes]] = {}  # owner -> (key share, self share)
        self._survivors: tuple[NodeId, ...] = ()
        self._advertised: frozenset[NodeId] = frozenset()
        self._sharers_digest = self._view = b""

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self._phase

    def start(self, now: float) -> Step:
        """Advertise this round's keys."""
        if self._phase is not Phase.NEW:
            raise LocalProtocolError("a masking client starts once")
        self._advert = masks.make_advert(
            self._setup,
            self._signer,
            mask_key=agreement.public_key(self._mask_key),
            share_key=agreement.public_key(self._share_key),
            commitment=masks.self_commitment(self._self_seed),
        )
        self._phase = Phase.KEYED
        return self._reply(now, self._advert)

    def receive(self, message: Message, now: float) -> Step:
        """Take the next message of the coordinator; see `secagg.roles.ClientRole.receive`."""
        accepted = self._ACCEPTS.get(self._phase)
        if accepted is None or not isinstance(message, accepted[0]):
            raise self._fault(f"{type(message).__name__} while {self._phase.value}")
        if message.round_id != self._setup.round_id:
            raise self._fault(f"{type(message).__name__} of round {message.round_id}")
        return accepted[1](self, message, now)

    def on_timeout(self, now: float) -> Step:
        """Give up: the coordinator has been silent for too long."""
        if self._phase is Phase.OVER:
            return Step(done=True)
        silent_in, self._phase = self._phase, Phase.OVER
        reason = f"the coordinator was silent while {silent_in.value}"
        return Step(events=(InputRejected(reason),), done=True)

    # --- exchanges ---------------------------------------------------------------------------

    def _on_peer_keys(self, message: PeerKeys, now: float) -> Step:
        setup, nodes = self._setup, [node for node, _ in message.digests]
        if nodes != sorted(set(nodes)) or not set(nodes) <= set(setup.cohort):
            raise self._fault("the list of adverts is not a sorted part of the cohort")
        if len(nodes) < setup.quorum:  # M-03
            raise self._fault(f"only {len(nodes)} nodes advertised keys, {setup.quorum} needed")
        digests = dict(message.digests)
        if self._advert is None or digests.get(self._me) != masks.advert_digest(self._advert):
            raise self._fault("my own advert is missing or altered")  # M-06
        self._graph_seed = graph_seed(setup.offer_hash, message.digests)
        neighbours = neighbours_of(self._me, nodes, degree=setup.neighbours, seed=self._graph_seed)
        self._advertised = frozenset(nodes)
        if {advert.node_id for advert in message.adverts} != neighbours:
            raise self._fault("the adverts are not those of my neighbours")
        if len(neighbours) + 1 < setup.threshold:
            raise self._fault("fewer share holders than the threshold")
        for advert in message.adverts:
            if masks.advert_digest(advert) != digests[advert.node_id]:
                raise self._fault(f"the advert of {advert.node_id} differs from its digest")
            try:
                masks.verify_advert(setup, advert)  # M-04
            except AuthenticationError as error:
                raise self._fault(f"relayed a forged advert ({error})") from error
            self._peers[advert.node_id] = advert
        self._phase = Phase.SHARED
        return self._reply(now, SealedShares(setup.round_id, self._seal_shares(nodes)))

    def _seal_shares(self, nodes: list[NodeId]) -> tuple[tuple[NodeId, bytes], ...]:
        point = {node: index for index, node in enumerate(nodes, start=1)}
        points = [point[node] for node in sorted({*self._peers, self._me})]
        key_shares = shamir.split(self._round_secret, points, self._setup.threshold, self._rng)
        self_shares = shamir.split(self._self_seed, points, self._setup.threshold, self._rng)
        boxes = []
        for node in sorted(self._peers):
            key = self._seal_key(node, sender=self._me, receiver=node)
            plaintext = key_shares[point[node]] + self_shares[point[node]]
            boxes.append((node, aead.seal(key, plaintext, b"")))
        self._held[self._me] = key_shares[point[self._me]], self_shares[point[self._me]]
        return tuple(boxes)

    def _seal_key(self, peer: NodeId, *, sender: NodeId, receiver: NodeId) -> bytes:
        return masks.seal_key(
            self._setup.context,
            self._share_key,
            sender=sender,
            receiver=receiver,
            peer=self._peers[peer],
        )

    def _on_peer_shares(self, message: PeerShares, now: float) -> Step:
        sharers, senders = message.sharers, [sender for sender, _ in message.boxes]
        if list(sharers) != sorted(set(sharers)) or not set(sharers) <= self._advertised:
            raise self._fault("the sharers are not a sorted part of those who advertised keys")
        if self._me not in sharers or len(sharers) < self._setup.quorum:  # M-03
            raise self._fault(f"{len(sharers)} sharers, {self._setup.quorum} with me needed")
        if senders != sorted(set(self._peers) & set(sharers)):  # M-09
            raise self._fault("relayed shares are not from exactly my neighbours among the sharers")
        if len(senders) + 1 < self._setup.threshold:  # M-09
            raise self._fault(f"only {len(senders)} neighbours shared their secrets")
        self._sharers = sharers
        self._sharers_digest = masks.sharers_digest(self._graph_seed, sharers)
        events: list[Event] = []
        for sender, box in message.boxes:
            try:
                key = self._seal_key(sender, sender=sender, receiver=self._me)
                plaintext = aead.unseal(key, box, b"", sender=sender)
            except AuthenticationError:
                plaintext = b""
            if len(plaintext) != 2 * shamir.SHARE_SIZE:  # M-10: its shares are lost, not the round
                events.append(PeerBlamed(sender, "its sealed shares do not open"))
                continue
            self._held[sender] = plaintext[: shamir.SHARE_SIZE], plaintext[shamir.SHARE_SIZE :]
        self._phase = Phase.UPLOADED
        return self._reply(now, *self._masked_chunks(), events=tuple(events))

    def _masked_chunks(self) -> list[Message]:
        """Mask the input, forget it, and cut the result into packed chunks."""
        setup, context = self._setup, self._setup.context
        sharers = set(self._sharers)
        keys = {n: peer.mask_key for n, peer in sorted(self._peers.items()) if n in sharers}
        masks.add_self_mask(self._vector, context, self._self_seed)
        masks.add_pair_masks(self._vector, context, self._mask_key, me=self._me, peers=keys)
        masked = ring.reduce(self._vector, setup.ring_bits)
        self._vector = np.empty(0, dtype=np.uint32)
        step = setup.chunk_values
        signature = masks.sign_sharers(setup, self._signer, self._sharers_digest)
        return [
            MaskedChunk(
                setup.round_id,
                index,
                signature,
                ring.pack(masked[index * step : (index + 1) * step], setup.ring_bits),
            )
            for index in range(setup.n_chunks)
        ]

    def _on_survivors(self, message: Survivors, now: float) -> Step:
        survivors = message.survivors
        if list(survivors) != sorted(set(survivors)) or not set(survivors) <= set(self._sharers):
            raise self._fault("the survivor set is not a sorted part of the sharers")
        if self._me not in survivors:
            raise self._fault("the survivor set leaves me out")
        if len(survivors) < self._setup.quorum:  # M-03
            raise self._fault(f"{len(survivors)} survivors, {self._setup.quorum} needed")
        due = sorted(set(self._peers) & set(survivors))
        if [node for node, _ in message.sharers_signatures] != due:  # M-24
            raise self._fault("the sharers' signatures are not those of my surviving neighbours")
        for node, signature in message.sharers_signatures:
            try:
                masks.verify_sharers(self._setup, node, signature, self._sharers_digest)
            except AuthenticationError as error:
                raise self._fault(f"showed another list of sharers to {node}") from error
        self._survivors = survivors
        self._phase = Phase.SIGNED
        self._view = masks.view_digest(self._sharers_digest, survivors)
        signature = masks.sign_survivors(self._setup, self._signer, self._view)
        return self._reply(now, SurvivorSignature(self._setup.round_id, signature))

    def _on_unmask_request(self, message: UnmaskRequest, now: float) -> Step:
        signers = [node for node, _ in message.signatures]
        if signers != sorted(set(signers)) or not set(signers) <= set(self._survivors):
            raise self._fault("the co-signers are not distinct survivors")
        if len(signers) < self._setup.quorum:  # M-11
            raise self._fault(f"{len(signers)} co-signatures, {self._setup.quorum} needed")
        for node, signature in message.signatures:
            try:
                masks.verify_survivors(self._setup, node, signature, self._view)
            except AuthenticationError as error:
                raise self._fault(f"showed a false co-signature ({error})") from error
        survivors = frozenset(self._survivors)
        held = sorted(self._held.items())
        answer = UnmaskAnswer(  # M-12: for each owner one share, of one kind
            self._setup.round_id,
            self_shares=tuple((owner, shares[1]) for owner, shares in held if owner in survivors),
            key_shares=tuple(
                (owner, shares[0]) for owner, shares in held if owner not in survivors
            ),
        )
        self._phase = Phase.OVER
        self._held.clear()
        return Step(send=(Outgoing(self._coordinator, answer),), done=True)

    # --- small parts -------------------------------------------------------------------------

    def _reply(self, now: float, *messages: Message, events: tuple[Event, ...] = ()) -> Step:
        # The coordinator may use up each phase; the first one holds everybody's training.
        longest = self._setup.input_timeout if self._phase is Phase.KEYED else 0.0
        deadline = now + longest + 3 * self._setup.phase_timeout
        send = tuple(Outgoing(self._coordinator, message) for message in messages)
        return Step(send, events, deadline)

    def _fault(self, what: str) -> RemoteProtocolError:
        """End the round for this node and blame the coordinator."""
        self._phase = Phase.OVER
        return RemoteProtocolError(self._coordinator, what)

    _ACCEPTS: Final[dict[Phase, tuple[type[RoundMessage], Callable[[Any, Any, float], Step]]]] = {
        Phase.KEYED: (PeerKeys, _on_peer_keys),
        Phase.SHARED: (PeerShares, _on_peer_shares),
        Phase.UPLOADED: (Survivors, _on_survivors),
        Phase.SIGNED: (UnmaskRequest, _on_unmask_request),
    }
