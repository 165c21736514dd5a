"""A coordinator that poses to one node as all the others: what a key without a signature allows.

The victim is shown adverts of the impostor's making. If it takes them, every secret that it agrees
on, every share that it seals and every mask on its upload are the impostor's to compute, and
nobody else need be asked anything.
"""

from __future__ import annotations

import os

from nodes.attacks.knowledge import pair_id
from nodes.attacks.puppet import Puppet
from secagg.errors import AuthenticationError
from secagg.masking import masks, pairs
from secagg.masking.adverts import advert_digest, graph_seed
from secagg.masking.graph import Graph, build_graph
from secagg.primitives import aead, shamir
from secagg.types import NodeId
from secagg.wire.messages import (
    Encapsulations,
    KeyAdvert,
    MaskedChunk,
    PairCapsule,
    PeerEncapsulations,
    PeerKeys,
    PeerShares,
    SealedShares,
    UploadTurn,
)

__all__ = ["Impostor", "changed"]


def changed(advert: KeyAdvert, **changes: object) -> KeyAdvert:
    """Return `advert` with other fields and the signature that it had."""
    fields = {name: getattr(advert, name) for name in advert.__struct_fields__}
    return KeyAdvert(**{**fields, **changes})


class Impostor:
    """Plays all other nodes to the victim of `puppet`, whose adverts are in.

    Args:
        puppet: The round; what the victim gives away ends in its tape and `loot`.
        swapped: Which keys of an advert are replaced, "agreement_key" and "kem_key".
        past: Adverts of an earlier round to show instead, nothing replaced.
    """

    def __init__(
        self,
        puppet: Puppet,
        *,
        swapped: tuple[str, ...] = (),
        past: dict[NodeId, KeyAdvert] | None = None,
    ) -> None:
        self._puppet = puppet
        self._victim = puppet.victim
        others = [node for node in puppet.nodes if node != self._victim]
        self._keys = {node: pairs.NodeKeys(node, os.urandom(32)) for node in others}
        self._adverts = {
            node: self._forged(puppet.tape.adverts[node], swapped) for node in others
        } | (past or {})
        self._secrets: dict[NodeId, pairs.PairSecret] = {}
        digests = {node: advert_digest(advert) for node, advert in self._adverts.items()}
        digests[self._victim] = advert_digest(puppet.tape.adverts[self._victim])
        self._digests = tuple(sorted(digests.items()))
        self._seed = graph_seed(puppet.setup.offer_hash, self._digests, ())
        self._graph: Graph = build_graph(
            puppet.nodes, degree=puppet.setup.neighbours, seed=self._seed
        )

    def _forged(self, advert: KeyAdvert, swapped: tuple[str, ...]) -> KeyAdvert:
        agreement_key, kem_key = self._keys[advert.node_id].public
        own = {"agreement_key": agreement_key, "kem_key": kem_key}
        return changed(advert, **{name: own[name] for name in swapped})

    def play(self) -> None:
        """Take the victim as far as its upload, and put all that follows into the loot."""
        setup, victim = self._puppet.setup, self._victim
        shown = tuple(self._adverts[node] for node in sorted(self._adverts))
        keys = PeerKeys(setup.round_id, self._digests, (), shown)
        for out in self._puppet.tell(victim, keys):
            if isinstance(out, Encapsulations):
                self._agree(out)
        capsules = tuple(sorted(self._own_capsules()))
        agreed = tuple(sorted(self._puppet.nodes))
        message = PeerEncapsulations(setup.round_id, agreed, capsules)
        for shares in self._puppet.tell(victim, message):
            if isinstance(shares, SealedShares):
                self._open(shares)
        boxes = tuple((node, bytes(82)) for node in sorted(self._adverts))
        self._puppet.tell(victim, PeerShares(setup.round_id, agreed, boxes))
        chunks = [
            out
            for out in self._puppet.tell(victim, UploadTurn(setup.round_id))
            if isinstance(out, MaskedChunk)
        ]
        if chunks:
            self._puppet.tape.chunks[victim] = chunks
            self._puppet.tape.masked_with[victim] = tuple(sorted(self._adverts))
        for node, secret in self._secrets.items():
            self._puppet.spoils[pair_id(victim, node)] = secret.mask_seed

    @property
    def _binding(self) -> tuple[bytes, ...]:
        return *self._puppet.setup.context, self._seed

    def _agree(self, message: Encapsulations) -> None:
        """Answer as the victim's successors would, with what keys there are."""
        advert = self._puppet.tape.adverts[self._victim]
        for receiver, capsule, confirmation in message.capsules:
            secret = self._keys[receiver].respond(advert, capsule, self._binding)
            if pairs.confirmation(secret.mask_seed) == confirmation:
                self._secrets[receiver] = secret

    def _own_capsules(self) -> list[PairCapsule]:
        advert = self._puppet.tape.adverts[self._victim]
        capsules = []
        for node in self._graph.predecessors(self._victim):
            secret, capsule = self._keys[node].initiate(advert, self._binding)
            self._secrets[node] = secret
            capsules.append((node, capsule, pairs.confirmation(secret.mask_seed)))
        return capsules

    def _open(self, message: SealedShares) -> None:
        """Open the boxes that are sealed to the impostor, and combine what is in them."""
        point = {node: index for index, node in enumerate(sorted(self._puppet.nodes), start=1)}
        found = {}
        for node, box in message.boxes:
            if node not in self._secrets:
                continue
            key = self._secrets[node].seal_key(sender=self._victim, receiver=node)
            try:
                plaintext = aead.unseal(key, box, b"", sender=self._victim)
            except AuthenticationError:
                continue
            found[point[node]] = plaintext[shamir.SHARE_SIZE :]
        threshold = self._puppet.setup.threshold
        if len(found) < threshold:
            return
        secret = shamir.combine(dict(sorted(found.items())[:threshold]))
        if secret is not None:
            seed, _ = masks.self_mask(secret, self._puppet.setup.context)
            self._puppet.spoils[pair_id(self._victim, self._victim)] = seed
