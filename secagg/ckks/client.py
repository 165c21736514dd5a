"""A node's side of one round of `ckks`.

::

    NEW ─start→ ANNOUNCED ─CommitteeKeys→ SEALED ─UploadTurn→ UPLOADED ─WeightedSurvivors→ SIGNED
        ─DealtShares…, OpenRequest→ ANSWERED ─ExcessRequest→ OVER

A member of the committee may go from SEALED to SIGNED: it need not have an input in the sum. Who is
no member has answered once it has co-signed. An answer is the end where no noise is to be given
back. What does not fit the phase ends the round for this node. Nothing leads back, so there is one
ciphertext under the round's secret, one co-signature and one answer (H-12). Source:
specs/36-ckks.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar, Final

import numpy as np

from secagg.ckks import rlwe
from secagg.ckks.coefficients import to_message
from secagg.ckks.member import Member
from secagg.ckks.ring import ring_of
from secagg.ckks.sealing import make_key, seal_box, verify_key
from secagg.ckks.uploads import Layout
from secagg.ckks.views import (
    committee_of,
    elements_seed,
    keys_digest,
    sign_view,
    terms_of,
    verify_view,
    view_digest,
)
from secagg.ckks.weighting import coarse, is_even, least_effective
from secagg.errors import AuthenticationError, LocalProtocolError
from secagg.phases import PhasedClient, Takes
from secagg.primitives import packed
from secagg.primitives.hybrid import HybridKeys
from secagg.round_setup import RoundSetup
from secagg.steps import Event, PeerBlamed, Step, ViewFixed
from secagg.types import NodeId, RingVector, Rng, Signer
from secagg.wire.messages import (
    Announcement,
    CipherChunk,
    CommitteeKeys,
    DealtShares,
    ExcessRequest,
    Message,
    OpenRequest,
    SealedSecret,
    SealingKey,
    SurvivorSignature,
    UploadTurn,
    WeightedSurvivors,
)

__all__ = ["CkksClient", "Phase"]

_SECRET_SIZE: Final = 32


class Phase(StrEnum):
    """Where the client is; see the figure above."""

    NEW = "new"
    ANNOUNCED = "announced"
    SEALED = "sealed"
    UPLOADED = "uploaded"
    SIGNED = "signed"
    ANSWERED = "answered"
    OVER = "over"


class CkksClient(PhasedClient):
    """State machine of one node in one round; see `secagg.roles.ClientRole`.

    Args:
        setup: The checked offer.
        vector: This node's input, shape (setup.dim,), values below 2^ring_bits.
        signer: This node's identity.
        coordinator: Where messages go.
        rng: Source of the round's key and of the shares; SEAL and ML-KEM draw their own.
        distance: This node's consistency distance, at least 0, where the coordinator weighs; only a
            coarse one is disclosed.
        excess: Seeds of the noise that may be given back; see `PhasedClient`.

    Raises:
        LocalProtocolError: vector or seeds do not fit the set-up, the node is not in the cohort, or
            a distance is missing where one is due, or given where none is.
    """

    def __init__(
        self,
        setup: RoundSetup,
        vector: RingVector,
        signer: Signer,
        *,
        coordinator: NodeId,
        rng: Rng,
        distance: float | None = None,
        excess: tuple[bytes, ...] = (),
    ) -> None:
        super().__init__(setup, vector, signer, coordinator=coordinator, rng=rng, excess=excess)
        if (distance is not None) is not setup.coordinator_weighs:  # H-16
            raise LocalProtocolError("a distance is disclosed just where the coordinator weighs")
        terms = terms_of(setup)
        self._terms = terms
        self._distance = None if distance is None else coarse(distance)
        self._ring = ring_of(terms.ring.degree, terms.ring.modulus_bits)
        self._message = to_message(
            vector, terms.ring, ring_bits=setup.ring_bits, value_bits=terms.value_bits
        )
        self._committee = committee_of(setup)
        self._phase = Phase.NEW
        self._keys: HybridKeys | None = HybridKeys(rng(_SECRET_SIZE))
        self._key: SealingKey | None = None
        self._upload: list[Message] = []
        self._own: packed.Share | None = None
        self._keys_digest = self._view = b""
        self._survivors: tuple[NodeId, ...] = ()
        self._member: Member | None = None

    def start(self, now: float) -> Step:
        """Announce this round's key, and the distance where it is to be disclosed."""
        if self._phase is not Phase.NEW:
            raise LocalProtocolError("a ckks client starts once")
        self._key = make_key(self._setup, self._signer, self._own_keys)
        self._phase = Phase.ANNOUNCED
        return self._reply(now, Announcement(self._setup.round_id, self._key, self._distance))

    # --- upload ------------------------------------------------------------------------------

    @property
    def _own_keys(self) -> HybridKeys:
        if self._keys is None:
            raise LocalProtocolError("the keys of this round are forgotten")
        return self._keys

    def _on_committee_keys(self, message: CommitteeKeys, now: float) -> Step:
        members = [key.node_id for key in message.keys]
        if members != sorted(set(members)) or not set(members) <= set(self._committee):  # H-03
            raise self._fault("the keys are not of a sorted part of the committee")
        if len(members) < self._terms.committee.answers:
            raise self._fault(
                f"{len(members)} members with keys, {self._terms.committee.answers} needed"
            )
        for key in message.keys:
            try:
                verify_key(self._setup, key)  # H-04
            except AuthenticationError as error:
                raise self._fault(f"relayed a forged key ({error})") from error
            if key.node_id == self._me and not self._is_mine(key):
                raise self._fault("my own key is altered")
        if self._me in self._committee and self._me not in members:
            raise self._fault("my own key is missing")
        self._keys_digest = keys_digest(self._setup, message.keys)
        self._upload = self._sealed_input(message.keys)
        self._phase = Phase.SEALED
        return self._reply(now)

    def _is_mine(self, key: SealingKey) -> bool:
        mine = self._key
        return mine is not None and (mine.agreement_key, mine.kem_key) == (
            key.agreement_key,
            key.kem_key,
        )

    def _sealed_input(self, keys: tuple[SealingKey, ...]) -> list[Message]:
        """Encrypt the input under a fresh secret, share the secret, and forget both (H-06)."""
        terms, layout = self._terms, Layout.of(self._setup, self._ring)
        secret = rlwe.Secret.fresh(self._ring, terms.ring.secret_terms)
        boxes = self._boxes(secret, keys)
        cipher = secret.encrypt(
            self._message, elements_seed(self._setup), error_terms=terms.ring.error_terms
        )
        self._message = np.empty((0, 0), dtype=np.int64)
        round_id, step = self._setup.round_id, layout.boxes_in_batch
        upload: list[Message] = [
            SealedSecret(round_id, start, tuple(boxes[start : start + step]))
            for start in range(0, len(boxes), step)
        ]
        for index in range(layout.chunks):
            part = layout.chunk(index)
            data = rlwe.pack(cipher[part.start : part.stop], self._ring)
            upload.append(CipherChunk(round_id, index, data))
        return upload

    def _boxes(self, secret: rlwe.Secret, keys: tuple[SealingKey, ...]) -> list[bytes]:
        committee = self._terms.committee
        shares = packed.share(
            secret.coefficients,
            prime=committee.modulus,
            threshold=committee.threshold,
            pack=committee.pack,
            holders=committee.size,
            rng=self._rng,
        )
        boxes = []
        for key in keys:
            share = shares[self._committee.index(key.node_id)]
            if key.node_id == self._me:
                self._own = share
                continue
            data = packed.encode(share, committee.modulus)
            boxes.append(seal_box(self._setup, self._own_keys, self._me, key, data))  # H-05
        return boxes

    def _on_upload_turn(self, message: UploadTurn, now: float) -> Step:
        del message
        upload, self._upload = self._upload, []
        self._phase = Phase.UPLOADED
        return self._reply(now, *upload)

    # --- opening -----------------------------------------------------------------------------

    def _on_survivors(self, message: WeightedSurvivors, now: float) -> Step:
        setup, survivors, weights = self._setup, message.survivors, message.weights
        if list(survivors) != sorted(set(survivors)) or not set(survivors) <= set(setup.cohort):
            raise self._fault("the survivor set is not a sorted part of the cohort")
        if len(survivors) < setup.quorum:  # H-09
            raise self._fault(f"{len(survivors)} survivors, {setup.quorum} needed")
        if len(weights) != len(survivors):
            raise self._fault("there is not one weight for each survivor")
        most = self._terms.max_weight if setup.coordinator_weighs else 1
        if not all(1 <= weight <= most for weight in weights):  # H-11
            raise self._fault(f"a weight is not 1 to {most}")
        if not is_even(weights, least_effective(setup)):  # H-11
            raise self._fault("the weights let a few nodes outweigh all others")
        uploaded = self._phase is Phase.UPLOADED
        if self._me in survivors and not uploaded:
            raise self._fault("the survivor set names me, who gave no input")
        if self._me not in survivors and self._me not in self._committee:
            raise self._fault("the survivor set leaves me out")
        self._upload.clear()
        if self._me in self._committee:
            own = self._own if self._me in survivors else None
            weighted = dict(zip(survivors, weights, strict=True))
            self._member = Member(setup, self._me, self._own_keys, own=own, weighted=weighted)
        self._own = None
        self._survivors = survivors
        self._phase = Phase.SIGNED
        self._view = view_digest(self._keys_digest, survivors, weights)
        signature = sign_view(setup, self._signer, self._view)
        cosigned = SurvivorSignature(setup.round_id, signature)
        if self._member is None:
            self._settle(len(survivors))  # nothing is left that the sum needs
        return self._reply(now, cosigned, events=(ViewFixed(self._view, survivors),))  # H-12

    def _on_dealt_shares(self, message: DealtShares, now: float) -> Step:
        if self._member is None:
            raise self._fault("shares for a node that is not in the committee")
        fault = self._member.take(message.start, message.shares)
        if fault:
            raise self._fault(fault)
        return self._reply(now)

    def _on_open_request(self, message: OpenRequest, now: float) -> Step:
        if self._member is None or not self._member.complete:
            raise self._fault("asked to open before all shares have come")
        self._check_view(message.signatures)  # H-10
        answer, events = self._member.answer(), self._accusations(self._member)
        if self._me in self._survivors:
            self._settle(len(self._survivors))
        else:
            self._end()  # none of its noise is in the sum
        return self._reply(now, answer, events=events)

    def _check_view(self, signatures: Sequence[tuple[NodeId, bytes]]) -> None:
        self._check_cosigners(signatures, self._setup.cohort, self._verify_view)

    def _verify_view(self, node: NodeId, signature: bytes) -> None:
        verify_view(self._setup, node, signature, self._view)

    # --- small parts -------------------------------------------------------------------------

    @staticmethod
    def _accusations(member: Member) -> tuple[Event, ...]:
        reason = "its share does not open, or was altered on the way"
        return tuple(PeerBlamed(node, reason, certain=False) for node in member.unopened)

    def _end(self) -> None:
        """Forget what the round was about."""
        self._phase = Phase.OVER
        self._keys = self._own = self._member = None
        self._excess = ()
        self._upload.clear()
        self._message = np.empty((0, 0), dtype=np.int64)

    _TRAINING = Phase.ANNOUNCED
    _TURNS = (Phase.SEALED, Phase.UPLOADED, Phase.SIGNED, Phase.ANSWERED)
    _ANSWERED = Phase.ANSWERED
    _ACCEPTS: ClassVar[Takes] = {
        (Phase.ANNOUNCED, CommitteeKeys): _on_committee_keys,
        (Phase.SEALED, UploadTurn): _on_upload_turn,
        (Phase.SEALED, WeightedSurvivors): _on_survivors,
        (Phase.UPLOADED, WeightedSurvivors): _on_survivors,
        (Phase.SIGNED, DealtShares): _on_dealt_shares,
        (Phase.SIGNED, OpenRequest): _on_open_request,
        (Phase.ANSWERED, ExcessRequest): PhasedClient._on_excess_request,
    }
