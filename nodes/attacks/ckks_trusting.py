"""The target of attacks on `ckks`: the same algebra among parties that trust the server.

Keys are unsigned and last for ever, shares are bound to nothing but the two parties, whoever the
server names is the committee, and a member answers every question about any set with any weights.
The server takes what it gets. It stands for key-homomorphic aggregation against a *semi-honest*
server; nothing but the demonstration may use it (A-01).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from nodes.attacks.ckks_knowledge import read_any
from secagg import ring as packing
from secagg.ckks import rlwe
from secagg.ckks.client import CkksClient
from secagg.ckks.coordinator import CkksCoordinator
from secagg.ckks.member import Member
from secagg.ckks.opening import Opened, Opening
from secagg.ckks.sealing import _box_key
from secagg.ckks.uploads import Uploads, _Upload
from secagg.errors import AuthenticationError
from secagg.primitives import aead, kem, packed
from secagg.primitives.hybrid import HybridKeys
from secagg.primitives.kdf import digest
from secagg.relay import MemorySpool
from secagg.round_setup import RoundSetup
from secagg.schemes import CkksScheme
from secagg.steps import Step
from secagg.types import AbortReason, NodeId, RingVector, Rng, Signer, Weigh
from secagg.uploads import BadUpload
from secagg.wire.messages import (
    Announcement,
    CipherChunk,
    CommitteeKeys,
    DealtShare,
    DealtShares,
    Message,
    OpenRequest,
    SealedSecret,
    SumShare,
    SurvivorSignature,
    UploadTurn,
    WeightedSurvivors,
)

__all__ = ["TRUSTING", "TrustingClient", "TrustingCoordinator"]


def _unbound(setup: RoundSetup) -> RoundSetup:
    """Return the round as if it were the same as every other."""
    return replace(setup, run_id=bytes(16), round_id=1, offer_hash=bytes(32))


class _TrustingMember(Member):
    """Opens boxes under keys that nobody signed, and takes what does not open for nothing."""

    def take(self, start: int, shares: Sequence[DealtShare]) -> str:
        """Add what opens."""
        for node, (agreement_key, _, _, box) in zip(self._dealers[start:], shares, strict=False):
            share = self._unsealed(node, agreement_key, box)
            if share is not None:
                self._fold(share, self._weighted[node])
        return ""

    def _unsealed(self, node: NodeId, agreement_key: bytes, box: bytes) -> packed.Share | None:
        capsule = box[: kem.CAPSULE_SIZE]
        try:
            shared = self._keys.decapsulate(node, agreement_key, capsule)
            key = _box_key(self._setup, shared, node, self._node, capsule)
            data = aead.unseal(key, box[kem.CAPSULE_SIZE :], b"", sender=node)
        except AuthenticationError:
            return None
        return packed.decode(data, self._prime, self._length)

    def answer(self) -> SumShare:
        """Return the sum of all that opened, as often as it is asked for."""
        return SumShare(self._setup.round_id, packed.encode(self._total, self._prime), ())


class TrustingClient(CkksClient):
    """A node that does as it is told; for the arguments see `CkksClient`."""

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
        super().__init__(
            _unbound(setup),
            vector,
            signer,
            coordinator=coordinator,
            rng=rng,
            distance=distance,
            excess=excess,
        )
        self._keys = HybridKeys(digest(b"", signer.sign(b"")))  # the same in every round

    def receive(self, message: Message, now: float) -> Step:
        """Do what a message asks for."""
        match message:
            case CommitteeKeys():
                self._committee = tuple(key.node_id for key in message.keys)
                self._upload = self._sealed_input(message.keys)
            case UploadTurn():
                return self._reply(now, *self._upload)
            case WeightedSurvivors():
                self._join(dict(zip(message.survivors, message.weights, strict=True)))
                return self._reply(now, SurvivorSignature(message.round_id, bytes(64)))
            case DealtShares() if self._member is not None:
                self._member.take(message.start, message.shares)
            case OpenRequest() if self._member is not None:
                return self._reply(now, self._member.answer())
            case _:
                pass
        return self._reply(now)

    def _join(self, weighted: dict[NodeId, int]) -> None:
        """Get ready to sum the shares of these nodes, as a member."""
        if self._me in self._committee:
            own = self._own if self._me in weighted else None
            self._member = _TrustingMember(
                self._setup, self._me, self._own_keys, own=own, weighted=weighted
            )


class _TrustingUploads(Uploads):
    """Takes every part of an upload as it comes."""

    def take(self, sender: NodeId, message: SealedSecret | CipherChunk) -> bool:
        """Store a part; fold the upload if it is whole."""
        upload = self._open.setdefault(sender, _Upload())
        if isinstance(message, SealedSecret):
            upload.boxes += message.boxes
            return False
        upload.chunks.append(message.data)
        if len(upload.chunks) < self._layout.chunks:
            return False
        try:
            self._fold(sender, upload)
        except BadUpload as error:
            raise ValueError(str(error)) from error  # it does not expect any such thing
        return True


class _TrustingOpening(Opening):
    """Opens by the first answers, whatever comes out."""

    def members(self, nodes: Iterable[NodeId]) -> None:
        """Take these nodes for the committee, as all others do that were shown their keys."""
        self._committee = tuple(nodes)

    def take(self, sender: NodeId, answer: SumShare) -> str:
        """Store an answer."""
        committee = self._terms.committee
        bits = (committee.modulus - 1).bit_length()
        share = packing.unpack(answer.share, self._terms.share_length, bits)
        if share is None:
            raise ValueError("a share of another length")
        self._shares[self._committee.index(sender)] = share % np.uint32(committee.modulus)
        return ""

    def open(self, total: rlwe.Residues) -> Opened:
        """Combine as many answers as are needed."""
        committee = self._terms.committee
        if len(self._shares) < committee.answers:
            return self._failed(AbortReason.TOO_FEW_ANSWERS, [])
        found = packed.open_shares(
            dict(sorted(self._shares.items())[: committee.answers]),
            prime=committee.modulus,
            threshold=committee.threshold,
            pack=committee.pack,
            size=self._terms.ring.degree,
            bound=(committee.modulus - 1) // 2,
        )
        if found is None:
            raise ValueError("the answers do not combine")
        opened = rlwe.open_sum(self._ring, self._secret(found), total, self._seed)
        setup = self._setup
        values = read_any(opened, self._terms, dim=setup.dim, bits=setup.ring_bits)
        return Opened(values, None, (), len(self._shares))


class TrustingCoordinator(CkksCoordinator):
    """A server that checks nothing; for the arguments see `CkksCoordinator`."""

    def __init__(self, setup: RoundSetup, *, weigh: Weigh | None = None) -> None:
        super().__init__(_unbound(setup), weigh=weigh)
        self._uploads = _TrustingUploads(self._setup, self._ring, MemorySpool())

    def receive(self, sender: NodeId, message: Message, now: float) -> Step:
        """Take what comes."""
        if self._take(sender, message):
            self._waiting.discard(sender)
            self._answered.add(sender)
        return self._advance(now)

    def _take(self, sender: NodeId, message: Message) -> bool:
        """Store a message; tell whether the node has given all it owes in this phase."""
        match message:
            case Announcement():
                self._keys[message.key.node_id] = message.key
                self._distances[sender] = message.distance or 0
            case SealedSecret() | CipherChunk():
                return self._uploads.take(sender, message)
            case SurvivorSignature():
                self._signatures[sender] = message.signature
            case SumShare():
                if not isinstance(self._opening, _TrustingOpening):
                    self._opening = _TrustingOpening(self._setup, self._ring, self._weights)
                    self._opening.members(key.node_id for key in self._members)
                self._opening.take(sender, message)
            case _:
                return False
        return True


class _TrustingScheme(CkksScheme):
    """Parties that trust the server."""

    name = "trusting"

    def client(
        self,
        setup: RoundSetup,
        vector: RingVector,
        signer: Signer,
        *,
        coordinator: NodeId,
        rng: Rng,
        distance: float | None = None,
        excess: tuple[bytes, ...] = (),
    ) -> TrustingClient:
        """Return a node's role."""
        return TrustingClient(
            setup,
            vector,
            signer,
            coordinator=coordinator,
            rng=rng,
            distance=distance,
            excess=excess,
        )

    def coordinator(self, setup: RoundSetup, *, weigh: Weigh | None = None) -> TrustingCoordinator:
        """Return the server's role."""
        return TrustingCoordinator(setup, weigh=weigh)


TRUSTING: Final = _TrustingScheme()
"""As a scheme, for the stage."""
