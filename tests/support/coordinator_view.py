"""What a coordinator makes of a round: uploads, and all masks that it comes to know.

It uses only what it received; what colluding nodes add comes from `Round.pair_seeds`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from secagg import ring
from secagg.masking import masks, pairs
from secagg.primitives import shamir
from secagg.round_setup import RoundSetup
from secagg.types import NodeId, RingVector
from secagg.wire.messages import KeyAdvert, MaskedChunk, RoundMessage, SealedShares, UnmaskAnswer
from tests.support.schedules import Round

__all__ = ["View"]

M = TypeVar("M", bound=RoundMessage)


@dataclass
class View:
    """The coordinator's knowledge after a round."""

    played: Round
    uploads: dict[NodeId, RingVector] = field(default_factory=dict)
    """All that arrived, also those that came too late to count."""
    self_seeds: dict[NodeId, bytes] = field(default_factory=dict)
    """Of survivors, from the shares in the answers."""
    pair_seeds: dict[tuple[NodeId, NodeId], bytes] = field(default_factory=dict)
    """(dropped node, neighbour), from the dropped node's backup."""

    def __post_init__(self) -> None:
        chunks: dict[NodeId, dict[int, bytes]] = {}
        for sender, message in self.received(MaskedChunk):
            chunks.setdefault(sender, {})[message.index] = message.data
        for node, parts in chunks.items():
            self.uploads[node] = self._unpacked(parts)
        self._learn()

    @property
    def setup(self) -> RoundSetup:
        return self.played.setup

    @property
    def survivors(self) -> tuple[NodeId, ...]:
        return self.played.contributors

    def received(self, kind: type[M]) -> list[tuple[NodeId, M]]:
        return [(sender, m) for sender, m in self.played.seen if isinstance(m, kind)]

    def without_self_mask(self, node: NodeId) -> RingVector:
        """Return an upload less the self-mask, which must be known."""
        mask = masks.self_mask(self.self_seeds[node], self.setup.context, negative=True)
        return self._less(node, [mask])

    def residual(self, nodes: Collection[NodeId]) -> RingVector:
        """Return the sum of survivors' uploads less every mask that the coordinator learned."""
        total = np.zeros(self.setup.dim, dtype=np.uint32)
        for node in nodes:
            total += self.without_self_mask(node)
            for (dropped, peer), seed in self.pair_seeds.items():
                if peer == node:  # what the dropped node would have added cancels it
                    masks.apply_masks(total, [masks.pair_mask(seed, me=dropped, peer=node)])
        return ring.reduce(total, self.setup.ring_bits)

    def between(self, node: NodeId, peer: NodeId) -> RingVector:
        """Return what all but these two, colluding, see of `node`: its mask with `peer`, and x."""
        known = [
            self._mirrored(node, other, seed)
            for (other, me), seed in self.played.pair_seeds.items()
            if me == node and other != peer
        ]
        vector = self.without_self_mask(node)
        masks.apply_masks(vector, known)
        return ring.reduce(vector, self.setup.ring_bits)

    def self_masked(self, node: NodeId) -> RingVector:
        """Return what all other nodes, colluding, see of an upload: the self-mask, and x."""
        known = [
            self._mirrored(node, other, seed)
            for (other, me), seed in self.played.pair_seeds.items()
            if me == node
        ]
        return self._less(node, known)

    def late_upload(self, node: NodeId) -> RingVector:
        """Return a dropped node's upload less its pair masks, which the coordinator learned."""
        known = [
            self._mirrored(node, peer, seed)
            for (dropped, peer), seed in self.pair_seeds.items()
            if dropped == node
        ]
        return self._less(node, known)

    @staticmethod
    def _mirrored(node: NodeId, other: NodeId, seed: bytes) -> masks.Mask:
        """Return the mask of a pair with the sign that takes it out of the upload of `node`."""
        return masks.pair_mask(seed, me=other, peer=node)

    def _less(self, node: NodeId, known: list[masks.Mask]) -> RingVector:
        vector = self.uploads[node].copy()
        masks.apply_masks(vector, known)
        return ring.reduce(vector, self.setup.ring_bits)

    def _unpacked(self, parts: dict[int, bytes]) -> RingVector:
        setup, vectors = self.setup, []
        for index in sorted(parts):
            dim = min(setup.chunk_values, setup.dim - index * setup.chunk_values)
            vector = ring.unpack(parts[index], dim, setup.ring_bits)
            assert vector is not None
            vectors.append(vector)
        return np.concatenate(vectors)

    def _learn(self) -> None:
        """Open all secrets that the answers hold enough shares of."""
        advertised = sorted(sender for sender, _ in self.received(KeyAdvert))
        point = {node: index for index, node in enumerate(advertised, start=1)}
        shares: dict[tuple[str, NodeId], dict[int, bytes]] = {}
        for holder, answer in self.received(UnmaskAnswer):
            for kind, entries in (("self", answer.self_shares), ("key", answer.key_shares)):
                for owner, share in entries:
                    shares.setdefault((kind, owner), {})[point[holder]] = share
        backups = {sender: message.backup for sender, message in self.received(SealedShares)}
        for (kind, owner), held in shares.items():
            if len(held) < self.setup.threshold:
                continue
            secret = shamir.combine(held)
            assert secret is not None
            if kind == "self":
                self.self_seeds[owner] = secret
                continue
            peers = sorted(p for n, p in self.played.pair_seeds if n == owner and p in backups)
            seeds = pairs.open_backup(secret, self.setup.context, owner, backups[owner], peers)
            self.pair_seeds |= {(owner, peer): seed for peer, seed in seeds.items()}
