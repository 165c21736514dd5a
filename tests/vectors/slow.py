"""Node and coordinator of specs/30-masking.md a second time, slowly; nothing of `secagg`.

Messages go in and out as bytes. A party that refuses a message raises `Refused`, which names the
layer and whom it blames; all else that happens is in the events, as vector files write them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.vectors import slow_parts as parts
from tests.vectors import slow_wire as wire

__all__ = ["Node", "Refused", "Reply", "Secrets"]

COORDINATOR: Final = "coordinator"
SLOTS: Final = 8
ANY_SCALAR: Final = bytes(32)


class Refused(Exception):
    """A message that changes nothing at the coordinator, and ends the round of a node."""

    def __init__(self, layer: str, blames: str) -> None:
        super().__init__(f"{layer}: {blames}")
        self.layer, self.blames = layer, blames


@dataclass
class Reply:
    """What a party sends, as (receiver, bytes), and what happened."""

    sends: list[tuple[str, bytes]] = field(default_factory=list)
    events: list[list[Any]] = field(default_factory=list)
    total: list[int] | None = None


@dataclass(frozen=True)
class Secrets:
    """All that a node draws in a round, and its identity."""

    identity: bytes
    round_secret: bytes
    self_seed: bytes
    coin_seed: bytes
    agreement: bytes
    round_polynomial: tuple[bytes, ...]
    self_polynomial: tuple[bytes, ...]

    @classmethod
    def read(cls, node: Mapping[str, Any]) -> Secrets:
        """Read the secrets of a node in a vector file."""
        polynomials = ("round_polynomial", "self_polynomial")
        values: dict[str, Any] = {name: node[name] for name in cls.__dataclass_fields__}
        for name, value in values.items():
            several = name in polynomials
            values[name] = tuple(map(bytes.fromhex, value)) if several else bytes.fromhex(value)
        return cls(**values)


def message(name: str, *fields: object) -> bytes:
    return wire.encode([wire.number_of(name), *fields])


def advert_digest(advert: Sequence[object]) -> bytes:
    return parts.sha("key-advert", wire.encode(advert))


def is_valid_advert(setup: parts.Setup, advert: Sequence[Any]) -> bool:
    """Check an advert's suite, signature and keys (M-04)."""
    _, _, node, suite, x25519, kem, *commitments, signature = advert
    if suite != 1 or node not in setup.signing_keys:
        return False
    signed = (*setup.context, node.encode(), bytes([suite]), x25519, kem, *commitments)
    return (
        parts.holds(setup.signing_keys[node], signature, "key-advert", *signed)
        and parts.x25519(ANY_SCALAR, x25519) is not None
        and parts.is_kem_key(kem)
    )


def graph_seed(
    setup: parts.Setup, digests: Sequence[Sequence[Any]], coins: Sequence[bytes]
) -> bytes:
    listed = itertools.chain.from_iterable((node.encode(), digest) for node, digest in digests)
    return parts.sha("graph", setup.offer_hash, *listed, *coins)


def is_sorted_part(nodes: Sequence[str], whole: Sequence[str] | set[str]) -> bool:
    return list(nodes) == sorted(set(nodes)) and set(nodes) <= set(whole)


def over_names(purpose: str, first: bytes, nodes: Sequence[str]) -> bytes:
    """Return the digest of sharers or survivors."""
    return parts.sha(purpose, first, *(node.encode() for node in nodes))


class Node:
    """One node in one round.

    Args:
        setup: The checked offer.
        name: Its id.
        secrets: All that it draws.
        vector: Its input.
        encapsulate: Receiver's id to the (secret, capsule) of the vector file.
    """

    def __init__(
        self,
        setup: parts.Setup,
        name: str,
        *,
        secrets: Secrets,
        vector: Sequence[int],
        encapsulate: Callable[[str], tuple[bytes, bytes]],
    ) -> None:
        self.setup, self.me, self.secrets = setup, name, secrets
        self.vector, self.encapsulate = list(vector), encapsulate
        self.phase = "new"
        self.toss = 0
        self.entries: list[Any] = []
        self.roots: dict[str, bytes] = {}
        self.held: dict[str, tuple[bytes, bytes]] = {}

    def start(self) -> Reply:
        """Advertise keys."""
        s = self.secrets
        public = (
            *parts.public_keys(s.agreement),
            parts.sha("round-commitment", s.round_secret),
            parts.sha("self-commitment", s.self_seed),
            parts.coin(s.coin_seed, 0),
        )
        signed = (*self.setup.context, self.me.encode(), b"\1", *public)
        signature = parts.sign(s.identity, "key-advert", *signed)
        self.phase = "keyed"
        data = message("KeyAdvert", self.setup.round_id, self.me, 1, *public, signature)
        self.own_digest = advert_digest(wire.decode(data))
        return self._reply(data)

    def receive(self, sender: str, data: bytes) -> Reply:
        """Take a message of the coordinator."""
        try:
            kind, *fields = wire.decode(data)
        except wire.MalformedError:
            raise Refused("decode", sender) from None
        name = wire.table()[kind][0]
        step = self.ACCEPTS.get(self.phase, {}).get(name)
        self._require(step is not None and fields[0] == self.setup.round_id)
        assert step is not None
        return step(self, *fields[1:])

    def _require(self, holds: bool) -> None:
        if not holds:
            self.phase = "over"
            raise Refused("protocol", COORDINATOR)

    def _reply(self, *messages: bytes, events: Sequence[list[Any]] = ()) -> Reply:
        return Reply([(COORDINATOR, data) for data in messages], list(events))

    def _require_list(self, nodes: list[str]) -> None:
        self._require(is_sorted_part(nodes, self.setup.cohort))
        self._require(len(nodes) >= self.setup.quorum)

    def on_advert_list(self, toss: int, entries: list[Any]) -> Reply:
        """Reveal the coin of this toss (M-06)."""
        self._require_list([node for node, _, _ in entries])
        self._require(toss == self.toss + 1)
        if self.toss:
            strict = len(entries) < len(self.entries)
            self._require(strict and all(entry in self.entries for entry in entries))
        own = [self.me, self.own_digest, parts.coin(self.secrets.coin_seed, 0)]
        self._require(own in entries)
        self.toss, self.entries, self.phase = toss, entries, "tossed"
        shown = parts.coin(self.secrets.coin_seed, toss)
        return self._reply(message("Coin", self.setup.round_id, toss, shown))

    def on_peer_keys(self, digests: list[Any], coins: list[bytes], adverts: list[Any]) -> Reply:
        """Check keys and graph (M-04, M-06), and encapsulate to the successors (M-26)."""
        self._require_list([node for node, _ in digests])
        self._require([self.me, self.own_digest] in digests)
        if coins or self.toss:
            self._require([entry[:2] for entry in self.entries] == digests)
            self._require(len(coins) == len(self.entries))
            for shown, (_, _, commitment) in zip(coins, self.entries, strict=True):
                self._require(parts.coin_fits(shown, commitment, self.toss))
        self.places = sorted(node for node, _ in digests)
        self.seed = graph_seed(self.setup, digests, coins)
        self.circle = parts.Circle(self.places, self.setup.neighbours, self.seed)
        self._require(bool(coins) or not self.circle.sparse)
        self.near = self.circle.neighbours(self.me)
        self._require({advert[2] for advert in adverts} == self.near)
        self._require(len(self.near) + 1 >= self.setup.threshold)
        for advert in adverts:
            self._require([advert[2], advert_digest(advert)] in digests)
            self._require(is_valid_advert(self.setup, advert))
        self.peer_keys = {advert[2]: advert[4] for advert in adverts}
        capsules = []
        for peer in sorted(self.circle.successors(self.me)):
            shared, capsule = self.encapsulate(peer)
            root = self.roots[peer] = self._root(shared, capsule, (self.me, peer))
            capsules.append([peer, capsule, self._confirmation(root)])
        self.phase = "agreeing"
        return self._reply(message("Encapsulations", self.setup.round_id, capsules))

    def _root(self, shared: bytes, capsule: bytes, pair: tuple[str, str]) -> bytes:
        peer = next(node for node in pair if node != self.me)
        agreed = parts.x25519(self.secrets.agreement, self.peer_keys[peer])
        assert agreed is not None
        binding = parts.Binding(self.setup.context, self.seed)
        return parts.pair_root(agreed, shared, capsule, pair, binding)

    def _confirmation(self, root: bytes) -> bytes:
        return parts.sha("pair-confirmation", parts.hkdf(root, "pair-mask"))

    def on_peer_encapsulations(self, agreed: list[str], capsules: list[Any]) -> Reply:
        """Check the predecessors' keys (M-26), and share both secrets (M-08, M-18, M-27)."""
        setup = self.setup
        self._require(is_sorted_part(agreed, self.places))
        self._require(self.me in agreed and len(agreed) >= setup.quorum)
        behind = self.near - self.circle.successors(self.me)
        self._require([sender for sender, _, _ in capsules] == sorted(behind & set(agreed)))
        self.agreed, self.partners = agreed, sorted(self.near & set(agreed))
        self._require(len(self.partners) + 1 >= setup.threshold)
        for sender, capsule, confirmation in capsules:
            shared = parts.kem_key(self.secrets.agreement).decapsulate(capsule)
            root = self.roots[sender] = self._root(shared, capsule, (sender, self.me))
            self._require(self._confirmation(root) == confirmation)
        boxes = []
        for peer in self.partners:
            key = parts.seal_key(self.roots[peer], self.me, peer)
            boxes.append([peer, parts.seal(key, b"".join(self._shares_for(peer)))])
        self.held[self.me] = self._shares_for(self.me)
        seeds = b"".join(parts.hkdf(self.roots[peer], "pair-mask") for peer in self.partners)
        key = parts.backup_key(self.secrets.round_secret, setup.context, self.me)
        self.phase = "shared"
        backup = parts.seal(key, seeds)
        return self._reply(message("SealedShares", setup.round_id, boxes, backup))

    def _shares_for(self, holder: str) -> tuple[bytes, bytes]:
        s, point = self.secrets, self.places.index(holder) + 1
        return (
            parts.share(s.round_secret, s.round_polynomial, point),
            parts.share(s.self_seed, s.self_polynomial, point),
        )

    def on_peer_shares(self, sharers: list[str], boxes: list[Any]) -> Reply:
        """Open the shares (M-09, M-10), and wait for the turn to upload."""
        setup = self.setup
        self._require(is_sorted_part(sharers, self.agreed))
        self._require(self.me in sharers and len(sharers) >= setup.quorum)
        self.masking = [peer for peer in self.partners if peer in sharers]
        self._require([sender for sender, _ in boxes] == self.masking)
        self._require(len(self.masking) >= setup.threshold - 1)
        events = []
        for sender, box in boxes:
            plaintext = parts.unseal(parts.seal_key(self.roots[sender], sender, self.me), box)
            if plaintext is None or len(plaintext) != 66:
                events.append(["blamed", sender])
            else:
                self.held[sender] = plaintext[:33], plaintext[33:]
        self.sharers, self.phase = sharers, "masked"
        self.digest = over_names("sharers", self.seed, sharers)
        return self._reply(events=events)

    def on_upload_turn(self) -> Reply:
        """Mask the input and give it in chunks (M-07, M-16, M-17, M-24)."""
        setup, chunks = self.setup, []
        masks = [(1, parts.hkdf(self.secrets.self_seed, "self-mask", *setup.context))]
        for peer in self.masking:
            sign = 1 if peer > self.me else -1
            masks.append((sign, parts.hkdf(self.roots[peer], "pair-mask")))
        masked = parts.masked(self.vector, masks, setup.ring_bits)
        identity = self.secrets.identity
        signature = parts.sign(identity, "sharers", *setup.context, self.digest)
        for index in range(setup.chunks):
            start = index * setup.chunk_values
            piece = masked[start : start + setup.chunk_values]
            data = parts.pack(piece, setup.ring_bits)
            fields = (setup.round_id, index, b"" if index else signature, data)
            chunks.append(message("MaskedChunk", *fields))
        self.phase = "uploaded"
        return self._reply(*chunks)

    def on_survivors(self, survivors: list[str], signatures: list[Any]) -> Reply:
        """Check and co-sign the survivors (M-11, M-24, M-25, M-28)."""
        setup = self.setup
        self._require(is_sorted_part(survivors, self.sharers))
        self._require(self.me in survivors and len(survivors) >= setup.quorum)
        self._require(self.circle.is_whole(survivors, setup.threshold))
        due = sorted(self.near & set(survivors))
        self._require([node for node, _ in signatures] == due)
        for node, signature in signatures:
            signed = (*setup.context, self.digest)
            self._require(parts.holds(setup.signing_keys[node], signature, "sharers", *signed))
        self.survivors, self.phase = survivors, "signed"
        self.view = over_names("survivors", self.digest, survivors)
        signed = (*setup.context, self.view)
        signature = parts.sign(self.secrets.identity, "survivors", *signed)
        cosigned = message("SurvivorSignature", setup.round_id, signature)
        return self._reply(cosigned, events=[["view", self.view.hex()]])

    def on_unmask_request(self, signatures: list[Any]) -> Reply:
        """Reveal one share of each owner (M-11, M-12)."""
        setup = self.setup
        self._require(is_sorted_part([node for node, _ in signatures], self.survivors))
        self._require(len(signatures) >= setup.cosigners)
        for node, signature in signatures:
            signed = (*setup.context, self.view)
            self._require(parts.holds(setup.signing_keys[node], signature, "survivors", *signed))
        kept = sorted(self.held.items())
        own = [[owner, shares[1]] for owner, shares in kept if owner in self.survivors]
        keys = [[owner, shares[0]] for owner, shares in kept if owner not in self.survivors]
        self.phase = "over"
        return self._reply(message("UnmaskAnswer", setup.round_id, own, keys))

    ACCEPTS: Final[dict[str, dict[str, Callable[..., Reply]]]] = {
        "keyed": {"PeerKeys": on_peer_keys, "AdvertList": on_advert_list},
        "tossed": {"PeerKeys": on_peer_keys, "AdvertList": on_advert_list},
        "agreeing": {"PeerEncapsulations": on_peer_encapsulations},
        "shared": {"PeerShares": on_peer_shares},
        "masked": {"UploadTurn": on_upload_turn},
        "uploaded": {"Survivors": on_survivors},
        "signed": {"UnmaskRequest": on_unmask_request},
    }
