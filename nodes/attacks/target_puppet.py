"""The semi-honest target with an attacker as its server, as `Puppet` is the coordinator here.

It plays the same moves where nobody checks anything. What a single node or the network gains at
the target is for `nodes.attacks.target_stage`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from nodes.attacks.base_puppet import true_inputs
from nodes.attacks.knowledge import VALUE_BITS, Loot, Upload, pair_id, summary
from nodes.attacks.report import NOTHING
from nodes.attacks.semi_honest import BothShares, PublicKeys, TargetNode, pair_seed
from secagg import ring
from secagg.encoding import ring_bits_for
from secagg.primitives import agreement, shamir
from secagg.types import NodeId, RingVector, Rng

__all__ = ["TargetPuppet"]


class TargetPuppet:
    """A round of the target with an attacker as its server.

    Args:
        n: Nodes.
        dim: Coordinates of an input.
        seed: Of the inputs.
        rng: Source of the nodes' secrets.
        accomplices: How many nodes, the last ones, are the attacker's.
        threshold: What the server says it is; a majority by default.
    """

    def __init__(
        self,
        n: int,
        dim: int,
        seed: int,
        *,
        rng: Rng,
        accomplices: int = 0,
        threshold: int | None = None,
    ) -> None:
        self.bits = ring_bits_for(n, VALUE_BITS)
        self.names = [f"node-{index:02d}" for index in range(n)]
        self.inputs = true_inputs(self.names, dim, seed)
        self.dim = dim
        self.threshold = threshold or n // 2 + 1
        self.accomplices = self.names[n - accomplices :]
        self.nodes = {
            name: TargetNode(name, self.inputs[name], bits=self.bits, rng=rng)
            for name in self.names
        }
        self.keys = {name: node.advertise() for name, node in self.nodes.items()}
        self.points = {name: index for index, name in enumerate(self.names, start=1)}
        self.loot = Loot(self.bits)
        self._shares: dict[NodeId, tuple[dict[int, bytes], dict[int, bytes]]] = {
            name: ({}, {}) for name in self.names
        }
        self._shown: dict[NodeId, Mapping[NodeId, PublicKeys]] = {}

    def run(
        self,
        *,
        neighbours: Mapping[NodeId, Collection[NodeId]] | None = None,
        keys_for: Mapping[NodeId, Mapping[NodeId, PublicKeys]] | None = None,
        masked_with: Mapping[NodeId, Collection[NodeId]] | None = None,
    ) -> None:
        """Go up to the uploads.

        Args:
            neighbours: Who neighbours whom; everybody by default.
            keys_for: Node to the keys it is shown, where they are not the true ones.
            masked_with: Node to those whose boxes it is given, where not its neighbours'.
        """
        boxes: dict[NodeId, dict[NodeId, bytes]] = {}
        for name, node in self.nodes.items():
            around = [n for n in self.names if n != name]
            if neighbours is not None:
                around = sorted(neighbours[name])
            shown = (keys_for or {}).get(name) or {peer: self.keys[peer] for peer in around}
            self._shown[name] = shown
            boxes[name] = node.share(shown, self.points, self.threshold)
        for name, node in self.nodes.items():
            told = (masked_with or {}).get(name)
            if told is None:
                told = [sender for sender in self._shown[name] if name in boxes[sender]]
            honest = name not in (keys_for or {})
            given = {sender: boxes[sender][name] for sender in sorted(told)} if honest else {}
            packed = node.upload(given)
            vector = ring.unpack(packed, self.dim, self.bits)
            if vector is None:
                raise ValueError("the target sent a vector that does not unpack")
            on_it = {pair_id(name, name): False}
            on_it |= {pair_id(name, peer): peer < name for peer in given}
            self.loot.uploads[name] = Upload(vector, on_it)
        for name in self.accomplices:
            self.loot.inputs[name] = self.inputs[name]
            self._take(name, self.nodes[name].reveal(self.names, self.names))

    def ask(
        self, nodes: Collection[NodeId], *, active: Collection[NodeId], dead: Collection[NodeId]
    ) -> None:
        """Ask nodes to reveal: self-mask shares of `active`, key shares of `dead`."""
        for name in nodes:
            self._take(name, self.nodes[name].reveal(active, dead))

    def _take(self, holder: NodeId, answer: BothShares) -> None:
        point = self.points[holder]
        for owner, share in answer.self_shares.items():
            self._shares[owner][0][point] = share
        for owner, share in answer.key_shares.items():
            self._shares[owner][1][point] = share

    def private_keys(self) -> dict[NodeId, bytes]:
        """Return the mask keys that the revealed shares give, as far as they are right."""
        found = {}
        for owner, (_, key_shares) in self._shares.items():
            secret = self._combined(key_shares)
            if secret is None:
                continue
            public = agreement.public_key(agreement.private_key(secret))
            if public == self.keys[owner].mask_key:
                found[owner] = secret
        return found

    def _combined(self, shares: Mapping[int, bytes]) -> bytes | None:
        if len(shares) < self.threshold:
            return None
        return shamir.combine(dict(sorted(shares.items())[: self.threshold]))

    def gained(
        self, *, known: Mapping[NodeId, RingVector] | None = None, least: int | None = None
    ) -> str:
        """Return what the server can compute beyond one sum over at least `least` inputs."""
        for owner, (self_shares, _) in self._shares.items():
            secret = self._combined(self_shares)
            if secret is not None:
                self.loot.seeds.setdefault(pair_id(owner, owner), secret)
        for owner, private in self.private_keys().items():
            for peer, public in self._shown[owner].items():
                if peer in self.keys and public == self.keys[peer]:
                    seed = pair_seed(private, public.mask_key)
                    self.loot.seeds.setdefault(pair_id(owner, peer), seed)
        self.loot.inputs |= known or {}
        least = least or max(2, self.threshold - len(self.accomplices))
        exposures = self.loot.exposures(self.inputs, least=least)
        return summary(exposures) or NOTHING

    def zeros(self, but: Collection[NodeId]) -> dict[NodeId, RingVector]:
        """Return inputs of zero for all but some nodes: what a model without gradients gives."""
        return {n: np.zeros(self.dim, dtype=np.uint32) for n in self.names if n not in but}
