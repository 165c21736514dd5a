"""A TARGET, NOT A PROTOCOL: secure aggregation that trusts its server. Never use it.

It is what open implementations of today do, written down small: double masking with recovery of
dropped nodes as in Bonawitz et al. 2017, the semi-honest variant. Public keys come unsigned from
the server, the server says who neighbours whom and what the threshold is, masks are bound to
nothing but the two keys, there is no consistency check, and a node answers whatever it is asked, as
often as it is asked. `secagg attack-demo` breaks it to show what the same moves gain elsewhere;
nothing else imports it, which a test checks (A-01).

The arithmetic is not weakened: keys, seeds and shares have 256 bits, and the same stream cipher
expands the masks. Implementations with 28-bit seeds fall to less than what is played here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from secagg import ring
from secagg.primitives import aead, agreement, shamir
from secagg.primitives.kdf import derive
from secagg.primitives.prg import accumulate
from secagg.types import NodeId, RingVector, Rng

__all__ = [
    "BothShares",
    "PublicKeys",
    "TargetNode",
    "TargetServer",
    "expand",
    "pair_seed",
    "seal_key",
]

_PAIR: Final = b"semi-honest target: pair mask"
_SEAL: Final = b"semi-honest target: share"


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """What a node advertises, unsigned."""

    mask_key: bytes
    """X25519, 32 bytes; its private half is shared among the neighbours."""
    share_key: bytes
    """X25519, 32 bytes; boxes with shares are sealed to it."""


@dataclass(slots=True)
class BothShares:
    """One holder's answer: shares by owner, of the self-mask seed and of the private mask key."""

    self_shares: dict[NodeId, bytes] = field(default_factory=dict, repr=False)
    key_shares: dict[NodeId, bytes] = field(default_factory=dict, repr=False)


def seal_key(shared: bytes, receiver: NodeId) -> bytes:
    """Return the key of a box for `receiver`, from the X25519 secret of the two."""
    return derive(shared, _SEAL, receiver.encode())


def pair_seed(private: bytes, public: bytes) -> bytes:
    """Return the seed of the mask between two nodes: bound to no round and no model."""
    return derive(agreement.agree(agreement.private_key(private), "peer", public), _PAIR)


def expand(vector: RingVector, seed: bytes, *, negative: bool) -> None:
    """Add or subtract one mask, in place."""
    accumulate(vector, seed, negative=negative)


class TargetNode:
    """A node that does what it is told.

    Args:
        node: Its id.
        vector: Its input, shape (dim,), dtype uint32.
        bits: Sums are modulo 2^bits.
        rng: Source of its secrets.
    """

    def __init__(self, node: NodeId, vector: RingVector, *, bits: int, rng: Rng) -> None:
        self._me, self._vector, self._bits, self._rng = node, vector.copy(), bits, rng
        self._mask_private, self._share_private = rng(32), rng(32)
        self._self_seed = rng(32)
        self._peers: dict[NodeId, PublicKeys] = {}
        self._held: dict[NodeId, tuple[bytes, bytes]] = {}

    def advertise(self) -> PublicKeys:
        """Return this round's keys."""
        public = (
            agreement.public_key(agreement.private_key(secret))
            for secret in (self._mask_private, self._share_private)
        )
        return PublicKeys(*public)

    def share(
        self, peers: Mapping[NodeId, PublicKeys], points: Mapping[NodeId, int], threshold: int
    ) -> dict[NodeId, bytes]:
        """Share both secrets among itself and `peers`; return receiver to sealed box."""
        self._peers = dict(peers)
        holders = {point: node for node, point in points.items() if node in {*peers, self._me}}
        seeds = shamir.split(self._self_seed, list(holders), threshold, self._rng)
        keys = shamir.split(self._mask_private, list(holders), threshold, self._rng)
        boxes = {}
        for point, node in holders.items():
            if node == self._me:
                self._held[node] = seeds[point], keys[point]
            else:
                boxes[node] = aead.seal(self._seal_key(node, node), seeds[point] + keys[point], b"")
        return boxes

    def upload(self, boxes: Mapping[NodeId, bytes]) -> bytes:
        """Keep the shares in `boxes`, mask the input toward their owners, and return it packed."""
        for owner, box in boxes.items():
            plaintext = aead.unseal(self._seal_key(owner, self._me), box, b"", sender=owner)
            self._held[owner] = plaintext[: shamir.SHARE_SIZE], plaintext[shamir.SHARE_SIZE :]
        masked = self._vector.copy()
        expand(masked, self._self_seed, negative=False)
        for peer in boxes:
            seed = pair_seed(self._mask_private, self._peers[peer].mask_key)
            expand(masked, seed, negative=peer < self._me)
        return ring.pack(ring.reduce(masked, self._bits), self._bits)

    def reveal(self, active: Collection[NodeId], dead: Collection[NodeId]) -> BothShares:
        """Reveal shares of the self-mask seeds of `active` and of the keys of `dead`."""
        return BothShares(
            {owner: self._held[owner][0] for owner in active if owner in self._held},
            {owner: self._held[owner][1] for owner in dead if owner in self._held},
        )

    def _seal_key(self, peer: NodeId, receiver: NodeId) -> bytes:
        private = agreement.private_key(self._share_private)
        shared = agreement.agree(private, peer, self._peers[peer].share_key)
        return seal_key(shared, receiver)


class TargetServer:
    """A server that follows the protocol and checks nothing.

    Args:
        keys: Node to advertised keys.
        dim: Coordinates.
        bits: Sums are modulo 2^bits.
        threshold: Shares that make a secret.
    """

    def __init__(
        self, keys: Mapping[NodeId, PublicKeys], *, dim: int, bits: int, threshold: int
    ) -> None:
        self._keys, self._dim, self._bits, self._threshold = dict(keys), dim, bits, threshold
        self._points = {node: index for index, node in enumerate(sorted(keys), start=1)}
        self.total: RingVector = np.zeros(dim, dtype=np.uint32)

    def add(self, data: bytes) -> None:
        """Add an upload to the sum, whoever sent it, how often soever.

        Raises:
            ValueError: it has another size than the sum, which nobody expected.
        """
        vector = ring.unpack(data, self._dim, self._bits)
        if vector is None:
            raise ValueError(f"could not broadcast {len(data)} bytes into {self._dim} values")
        self.total += vector

    def unmask(
        self,
        answers: Mapping[NodeId, BothShares],
        *,
        active: Sequence[NodeId],
        dead: Sequence[NodeId],
        neighbours: Mapping[NodeId, Collection[NodeId]],
    ) -> RingVector:
        """Return the sum without masks; with wrong shares it is noise, and nothing tells."""
        for node in active:
            shares = {
                self._points[holder]: answer.self_shares[node]
                for holder, answer in answers.items()
                if node in answer.self_shares
            }
            expand(self.total, self._combine(shares), negative=True)
        for node in dead:
            shares = {
                self._points[holder]: answer.key_shares[node]
                for holder, answer in answers.items()
                if node in answer.key_shares
            }
            private = self._combine(shares)
            for peer in set(neighbours[node]) & set(active):
                seed = pair_seed(private, self._keys[peer].mask_key)
                expand(self.total, seed, negative=peer < node)
        return ring.reduce(self.total, self._bits)

    def _combine(self, shares: Mapping[int, bytes]) -> bytes:
        chosen = dict(sorted(shares.items())[: self._threshold])
        if len(chosen) < self._threshold:
            raise ValueError(f"{len(chosen)} shares, {self._threshold} needed")
        return shamir.combine(chosen) or bytes(shamir.SECRET_SIZE)
