"""A coordinator in the attacker's hands, before real nodes.

`Puppet` holds the real state machines of all nodes, shows each of them what it likes, and keeps
everything that comes back. Accomplices are nodes whose secrets it reads. What it could compute in
the end is in `loot`, which `nodes.attacks.knowledge` judges.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from nodes.attacks.base_puppet import COORDINATOR, BasePuppet, new_identities
from nodes.attacks.knowledge import VALUE_BITS, Loot, MaskId, Upload, pair_id, summary
from nodes.attacks.report import NOTHING, Played
from nodes.ephemeral import EphemeralIdentity
from secagg import ring
from secagg.encoding import ring_bits_for
from secagg.errors import AuthenticationError
from secagg.masking import adverts, masks, pairs
from secagg.masking.client import MaskingClient
from secagg.masking.graph import Graph, build_graph
from secagg.masking.parameters import choose
from secagg.primitives import shamir
from secagg.roles import ClientRole
from secagg.round_setup import RoundSetup
from secagg.types import NodeId, RingVector, Rng
from secagg.wire.messages import (
    AdvertList,
    Coin,
    Encapsulations,
    KeyAdvert,
    MaskedChunk,
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

__all__ = ["Puppet", "Tape"]


def _setup(n: int, dim: int, identities: Mapping[NodeId, EphemeralIdentity]) -> RoundSetup:
    """Return the set-up that the defaults give to `n` nodes."""
    chosen = choose(n)
    return RoundSetup(
        run_id=b"attack-demo-run-",
        round_id=1,
        offer_hash=bytes(32),
        cohort=tuple(sorted(identities)),
        signing_keys={node: each.public for node, each in identities.items()},
        dim=dim,
        ring_bits=ring_bits_for(n, VALUE_BITS),
        threshold=chosen.threshold,
        quorum=chosen.quorum,
        neighbours=chosen.neighbours,
        colluders=chosen.colluders,
    )


@dataclass
class Tape:
    """Everything that reached the coordinator, by node."""

    adverts: dict[NodeId, KeyAdvert] = field(default_factory=dict)
    coins: dict[NodeId, bytes] = field(default_factory=dict)
    capsules: dict[NodeId, Encapsulations] = field(default_factory=dict)
    shares: dict[NodeId, SealedShares] = field(default_factory=dict)
    chunks: dict[NodeId, list[MaskedChunk]] = field(default_factory=dict)
    masked_with: dict[NodeId, tuple[NodeId, ...]] = field(default_factory=dict)
    cosigned: dict[NodeId, bytes] = field(default_factory=dict)
    answers: list[tuple[NodeId, UnmaskAnswer]] = field(default_factory=list)


class Puppet(BasePuppet):
    """Plays the coordinator, phase by phase.

    Args:
        n: Nodes.
        dim: Coordinates of an input.
        seed: Of the inputs.
        rng: Source of the nodes' secrets.
        accomplices: How many nodes, the last ones, are the attacker's.
        changes: Fields of the set-up that differ from the defaults.
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
        rng: Rng,
        accomplices: int = 0,
        changes: Mapping[str, object] | None = None,
        offers: Mapping[NodeId, bytes] | None = None,
        identities: Mapping[NodeId, EphemeralIdentity] | None = None,
        excess: Mapping[NodeId, tuple[bytes, ...]] | None = None,
    ) -> None:
        known = dict(identities or new_identities(n))
        setup = replace(_setup(n, dim, known), **(changes or {}))  # type: ignore[arg-type]
        super().__init__(setup, known, seed=seed, accomplices=accomplices)
        self.clients: dict[NodeId, ClientRole] = {
            node: MaskingClient(
                replace(self.setup, offer_hash=(offers or {}).get(node, self.setup.offer_hash)),
                self.inputs[node],
                self.identities[node],
                coordinator=COORDINATOR,
                rng=rng,
                excess=(excess or {}).get(node, ()),
            )
            for node in self.nodes
        }
        self.tape = Tape()
        self.graph = Graph((), 0, {})
        self.graph_seed = b""
        self.spoils: dict[MaskId, bytes] = {}  # seeds that came by another way than by shares
        self._pairs: dict[NodeId, dict[NodeId, bytes]] = {}  # of accomplices: peer -> mask seed
        self._held: dict[NodeId, dict[NodeId, tuple[bytes, bytes]]] = {}
        self._self_seeds: dict[NodeId, bytes] = {}

    # --- phases; `show` may turn what a node would be sent into something else -----------------

    def adverts(self) -> None:
        """Let all nodes advertise their keys."""
        for node, client in self.clients.items():
            (out,) = client.start(0.0).send
            if isinstance(out.message, KeyAdvert):
                self.tape.adverts[node] = out.message
            if isinstance(client, MaskingClient):
                self._self_seeds[node] = vars(client)["_self_seed"]

    def keys(self, show: Callable[[NodeId, PeerKeys], PeerKeys] | None = None) -> None:
        """Give every node its neighbours' keys, after a toss where the graph is sparse."""
        setup, tape = self.setup, self.tape
        digests = tuple((n, adverts.advert_digest(a)) for n, a in sorted(tape.adverts.items()))
        if build_graph(self.nodes, degree=setup.neighbours, seed=b"").half:
            entries = tuple((n, digest, tape.adverts[n].coin_commitment) for n, digest in digests)
            for node in self.alive:
                for coin in self.tell(node, AdvertList(setup.round_id, 1, entries)):
                    if isinstance(coin, Coin):
                        tape.coins[node] = coin.coin
        coins = tuple(tape.coins[node] for node in sorted(tape.coins))
        self.graph_seed = adverts.graph_seed(setup.offer_hash, digests, coins)
        self.graph = build_graph(self.nodes, degree=setup.neighbours, seed=self.graph_seed)
        for node in self.alive:
            peers = tuple(tape.adverts[peer] for peer in sorted(self.graph.neighbours(node)))
            message = PeerKeys(setup.round_id, digests, coins, peers)
            for out in self.tell(node, show(node, message) if show else message):
                if isinstance(out, Encapsulations):
                    tape.capsules[node] = out

    def agreement(
        self, show: Callable[[NodeId, PeerEncapsulations], PeerEncapsulations] | None = None
    ) -> None:
        """Pass the capsules on."""
        agreed = tuple(sorted(self.tape.capsules))
        for node in self.alive:
            capsules = tuple(
                (sender, capsule, confirmation)
                for sender, message in sorted(self.tape.capsules.items())
                for receiver, capsule, confirmation in message.capsules
                if receiver == node
            )
            message = PeerEncapsulations(self.setup.round_id, agreed, capsules)
            for out in self.tell(node, show(node, message) if show else message):
                if isinstance(out, SealedShares):
                    self.tape.shares[node] = out
        for node in self.accomplices:
            secrets = vars(self.clients[node])["_pairs"]
            self._pairs[node] = {peer: pair.mask_seed for peer, pair in secrets.items()}

    def sharing(self, show: Callable[[NodeId, PeerShares], PeerShares] | None = None) -> None:
        """Pass the sealed shares on, and let everybody upload."""
        sharers = tuple(sorted(self.tape.shares))
        for node in self.alive:
            boxes = tuple(
                (sender, box)
                for sender, message in sorted(self.tape.shares.items())
                for receiver, box in message.boxes
                if receiver == node
            )
            message = PeerShares(self.setup.round_id, sharers, boxes)
            shown = show(node, message) if show else message
            self.tell(node, shown)
            uploaded = self.tell(node, UploadTurn(self.setup.round_id))
            chunks = [out for out in uploaded if isinstance(out, MaskedChunk)]
            if chunks:
                self.tape.chunks[node] = chunks
                among = self.graph.neighbours(node) & set(shown.sharers)
                self.tape.masked_with[node] = tuple(sorted(among))
        for node in self.accomplices:
            self._held[node] = dict(vars(self.clients[node])["_held"])

    def survivors(self, view: Mapping[NodeId, tuple[NodeId, ...]]) -> None:
        """Show each node of `view` its own set of survivors and keep its co-signature."""
        for node, members in view.items():
            owners = sorted(self.graph.neighbours(node) & set(members))
            signatures = tuple(
                (owner, self.tape.chunks[owner][0].sharers_signature)
                for owner in owners
                if owner in self.tape.chunks
            )
            message = Survivors(self.setup.round_id, members, signatures)
            for out in self.tell(node, message):
                if isinstance(out, SurvivorSignature):
                    self.tape.cosigned[node] = out.signature

    def unmask(self, cosigners: Mapping[NodeId, Collection[NodeId]]) -> None:
        """Ask each node to unmask, with the co-signatures of the nodes given for it."""
        for node, others in cosigners.items():
            signed = {
                each: self.tape.cosigned[each] for each in others if each in self.tape.cosigned
            }
            message = UnmaskRequest(self.setup.round_id, tuple(sorted(signed.items())))
            for out in self.tell(node, message):
                if isinstance(out, UnmaskAnswer):
                    self.tape.answers.append((node, out))

    def until_upload(self) -> None:
        """Do as an honest coordinator would until all inputs are in."""
        self.adverts()
        self.keys()
        self.agreement()
        self.sharing()

    def finish(self) -> None:
        """Go on as an honest coordinator would, from the survivors to the end."""
        alive = tuple(sorted(set(self.tape.chunks) & set(self.alive)))
        self.survivors(dict.fromkeys(alive, alive))
        signed = tuple(sorted(self.tape.cosigned))
        self.unmask(dict.fromkeys(signed, signed))

    # --- what it amounts to --------------------------------------------------------------------

    def loot(self) -> Loot:
        """Return everything the attacker can compute by now."""
        loot = Loot(self.setup.ring_bits, seeds=dict(self.spoils))
        for node, chunks in self.tape.chunks.items():
            parts = [
                ring.unpack(chunk.data, min(step, self.setup.dim - at), self.setup.ring_bits)
                for step in (self.setup.chunk_values,)
                for at, chunk in zip(range(0, self.setup.dim, step), chunks, strict=True)
            ]
            vector = np.concatenate([part for part in parts if part is not None])
            on_it = {pair_id(node, node): False}
            on_it |= {pair_id(node, p): p < node for p in self.tape.masked_with[node]}
            loot.uploads[node] = Upload(vector, on_it)
        for node in self.accomplices:
            loot.inputs[node] = self.inputs[node]
            seed, _ = masks.self_mask(self._self_seeds[node], self.setup.context)
            loot.seeds[pair_id(node, node)] = seed
            for peer, seed in self._pairs.get(node, {}).items():
                loot.seeds[pair_id(node, peer)] = seed
        self._open(loot)
        return loot

    def _open(self, loot: Loot) -> None:
        """Reconstruct what t shares of the answers and of the accomplices give."""
        point = {node: index for index, node in enumerate(sorted(self.tape.adverts), start=1)}
        key_shares: dict[NodeId, dict[int, bytes]] = {}
        self_shares: dict[NodeId, dict[int, bytes]] = {}
        for node, answer in self.tape.answers:
            for owner, share in answer.self_shares:
                self_shares.setdefault(owner, {})[point[node]] = share
            for owner, share in answer.key_shares:
                key_shares.setdefault(owner, {})[point[node]] = share
        for node, held in self._held.items():
            for owner, (key_share, self_share) in held.items():
                self_shares.setdefault(owner, {})[point[node]] = self_share
                key_shares.setdefault(owner, {})[point[node]] = key_share
        for owner, shares in self_shares.items():
            secret = self._combined(shares)
            if (
                secret
                and adverts.self_commitment(secret) == self.tape.adverts[owner].self_commitment
            ):
                loot.seeds[pair_id(owner, owner)], _ = masks.self_mask(secret, self.setup.context)
        for owner, shares in key_shares.items():
            secret = self._combined(shares)
            if secret is not None and owner in self.tape.shares:
                self._open_backup(loot, owner, secret)

    def _combined(self, shares: Mapping[int, bytes]) -> bytes | None:
        if len(shares) < self.setup.threshold:
            return None
        return shamir.combine(dict(sorted(shares.items())[: self.setup.threshold]))

    def _open_backup(self, loot: Loot, owner: NodeId, round_secret: bytes) -> None:
        peers = sorted(self.graph.neighbours(owner) & set(self.tape.capsules))
        try:
            seeds = pairs.open_backup(
                round_secret, self.setup.context, owner, self.tape.shares[owner].backup, peers
            )
        except AuthenticationError:
            return
        for peer, seed in seeds.items():
            loot.seeds[pair_id(owner, peer)] = seed

    def judge(self, elsewhere: str, *, known: Mapping[NodeId, RingVector] | None = None) -> Played:
        """Return how the play went, from what the attacker really can compute."""
        loot = self.loot()
        loot.inputs |= known or {}
        least = self.setup.quorum - len(self.accomplices)
        exposures = loot.exposures(self.inputs, least=max(2, least) if not known else 2)
        gained = summary(exposures) or NOTHING
        released = loot.released(self.inputs, least=max(2, least))
        return Played(
            elsewhere=elsewhere,
            here=gained,
            outcome=self.outcome(released),
            blamed=tuple(sorted(self.blamed)),
            revealed=bool(exposures),
        )
