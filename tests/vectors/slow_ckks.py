"""A node of specs/36-ckks.md a second time, slowly; nothing of `secagg`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.vectors import slow_ckks_parts as ckks
from tests.vectors import slow_ckks_ring as ring
from tests.vectors import slow_parts as parts
from tests.vectors import slow_wire as wire
from tests.vectors.slow import ANY_SCALAR, COORDINATOR, Refused, Reply, is_sorted_part, message

__all__ = ["Node", "Secrets", "is_valid_key", "keys_digest"]


@dataclass(frozen=True)
class Secrets:
    """All that a node draws in a round, and its identity."""

    identity: bytes
    agreement: bytes
    secret: tuple[int, ...]
    errors: tuple[tuple[int, ...], ...]
    sharing: bytes

    @classmethod
    def read(cls, node: Mapping[str, Any]) -> Secrets:
        """Read the secrets of a node in a vector file."""
        identity, agreement, sharing = (
            bytes.fromhex(node[name]) for name in ("identity", "agreement", "sharing")
        )
        errors = tuple(small(block) for block in node["errors"])
        return cls(identity, agreement, small(node["secret"]), errors, sharing)


def small(text: str) -> tuple[int, ...]:
    """Return integers of one byte each, with a sign, as vector files write them."""
    return tuple(byte - 256 if byte > 127 else byte for byte in bytes.fromhex(text))


def is_valid_key(setup: ckks.Setup, key: Sequence[Any]) -> bool:
    """Check a sealing key's suite, signature and usability (H-04)."""
    node, suite, agreement_key, kem_key, signature = key
    if suite != 1 or node not in setup.signing_keys:
        return False
    signed = ckks.key_parts(setup, node, agreement_key, ckks.kem_digest(kem_key))
    return (
        parts.holds(setup.signing_keys[node], signature, "sealing-key", *signed)
        and parts.x25519(ANY_SCALAR, agreement_key) is not None
        and parts.is_kem_key(kem_key)
    )


def keys_digest(setup: ckks.Setup, keys: Sequence[Any]) -> bytes:
    return parts.sha("committee-keys", message("CommitteeKeys", setup.round_id, keys))


class Node:
    """One node in one round.

    Args:
        setup: The checked offer.
        name: Its id.
        secrets: All that it draws.
        vector: Its input.
        encapsulate: Member's id to the (secret, capsule) of the vector file.
        distance: What it discloses in eighths where the coordinator weighs.
    """

    def __init__(
        self,
        setup: ckks.Setup,
        name: str,
        *,
        secrets: Secrets,
        vector: Sequence[int],
        encapsulate: Callable[[str], tuple[bytes, bytes]],
        distance: float | None = None,
    ) -> None:
        self.setup, self.me, self.secrets = setup, name, secrets
        self.vector, self.encapsulate, self.distance = list(vector), encapsulate, distance
        self.phase = "new"
        self.is_member = name in setup.committee
        self.taken: list[Any] = []

    def start(self) -> Reply:
        """Announce the keys, and the distance where it is asked for (H-04, H-16)."""
        agreement_key, kem_key = parts.public_keys(self.secrets.agreement)
        signed = ckks.key_parts(self.setup, self.me, agreement_key, ckks.kem_digest(kem_key))
        signature = parts.sign(self.secrets.identity, "sealing-key", *signed)
        self.key = [self.me, 1, agreement_key, kem_key, signature]
        self.phase = "announced"
        steps = None if self.distance is None else round(8 * min(self.distance, 8))
        return self._reply(message("Announcement", self.setup.round_id, self.key, steps))

    def receive(self, sender: str, data: bytes) -> Reply:
        """Take a message of the coordinator (H-17)."""
        try:
            kind, *fields = wire.decode(data)
        except wire.MalformedError:
            raise Refused("decode", sender) from None
        step = self.ACCEPTS.get((self.phase, wire.table()[kind][0]))
        self._require(step is not None and fields[0] == self.setup.round_id)
        assert step is not None
        return step(self, *fields[1:])

    def _require(self, holds: bool) -> None:
        if not holds:
            self.phase = "over"
            raise Refused("protocol", COORDINATOR)

    def _reply(self, *messages: bytes, events: Sequence[list[Any]] = ()) -> Reply:
        return Reply([(COORDINATOR, data) for data in messages], list(events))

    # --- upload ----------------------------------------------------------------------------------

    def on_committee_keys(self, keys: list[Any]) -> Reply:
        """Check the members' keys (H-03, H-04), share the secret and encrypt (H-05 to H-08)."""
        setup = self.setup
        members = [key[0] for key in keys]
        self._require(is_sorted_part(members, setup.committee) and len(members) >= setup.answers)
        self._require(not self.is_member or self.me in members)
        for key in keys:
            self._require(is_valid_key(setup, key))
            self._require(key[0] != self.me or key[2:4] == self.key[2:4])
        self.keys_digest = keys_digest(setup, keys)
        boxes = self._boxes(keys)
        self.upload = []
        for start in range(0, len(boxes), step := max(1, ckks.LONGEST // setup.box_size)):
            batch = boxes[start : start + step]
            self.upload.append(message("SealedSecret", setup.round_id, start, batch))
        blocks = self._cipher()
        for index in range(setup.chunks):
            first = index * setup.blocks_in_chunk
            residues = [x for block in blocks[first : first + setup.blocks_in_chunk] for x in block]
            data = ring.pack_residues(residues, setup.modulus_bits)
            self.upload.append(message("CipherChunk", setup.round_id, index, data))
        self.phase = "sealed"
        return self._reply()

    def _boxes(self, keys: list[Any]) -> list[bytes]:
        setup, s = self.setup, self.secrets
        needed = setup.committee_threshold * setup.share_length
        drawn = ckks.uniform(s.sharing, needed, setup.committee_modulus)
        shares = ckks.share(s.secret, drawn, setup=setup)
        boxes = []
        for member, _, agreement_key, *_ in keys:
            mine = shares[setup.committee.index(member) + 1]
            if member == self.me:
                self.own = mine
                continue
            agreed = parts.x25519(s.agreement, agreement_key)
            assert agreed is not None
            encapsulated, capsule = self.encapsulate(member)
            key = ckks.box_key(setup, agreed, encapsulated, capsule, (self.me, member))
            boxes.append(capsule + parts.seal(key, ckks.encode_share(mine, setup)))
        return boxes

    def _cipher(self) -> list[ring.Polynomial]:
        clear = ckks.to_message(self.vector, self.setup)
        assert clear is not None
        seed, q = self.setup.elements_seed, self.setup.modulus
        return ring.encrypt(clear, self.secrets.secret, self.secrets.errors, seed=seed, q=q)

    def on_upload_turn(self) -> Reply:
        """Give the boxes, and then the chunks."""
        self.phase = "uploaded"
        return self._reply(*self.upload)

    # --- opening ---------------------------------------------------------------------------------

    def on_survivors(self, survivors: list[str], weights: bytes) -> Reply:
        """Check and co-sign survivors and weights (H-09 to H-12)."""
        setup = self.setup
        self._require(is_sorted_part(survivors, setup.cohort) and len(survivors) >= setup.quorum)
        most = setup.max_weight if setup.coordinator_weighs else 1
        self._require(len(weights) == len(survivors) and all(1 <= w <= most for w in weights))
        self._require(ckks.is_even(weights, setup.colluders))
        counted = self.me in survivors
        self._require(self.phase == "uploaded" if counted else self.is_member)
        self.weights = dict(zip(survivors, weights, strict=True))
        self.phase = "signed" if self.is_member else "over"
        self.view = ckks.view_digest(self.keys_digest, survivors, weights)
        signature = parts.sign(
            self.secrets.identity, "weighted-survivors", *setup.context, self.view
        )
        cosigned = message("SurvivorSignature", setup.round_id, signature)
        return self._reply(cosigned, events=[["view", self.view.hex()]])

    @property
    def _dealers(self) -> list[str]:
        return [node for node in self.weights if node != self.me]

    def on_dealt_shares(self, start: int, shares: list[Any]) -> Reply:
        """Check and keep the next dealers' shares (H-05)."""
        setup, dealers = self.setup, self._dealers[start : start + len(shares)]
        self._require(start == len(self.taken) and bool(shares))
        self._require(len(dealers) == len(shares))
        for dealer, (agreement_key, kem_digest, signature, _) in zip(dealers, shares, strict=True):
            signed = ckks.key_parts(setup, dealer, agreement_key, kem_digest)
            key = setup.signing_keys[dealer]
            self._require(parts.holds(key, signature, "sealing-key", *signed))
        self.taken += shares
        return self._reply()

    def on_open_request(self, signatures: list[Any]) -> Reply:
        """Give the weighted sum of the shares, or say whose do not open (H-10, H-12)."""
        setup, signers = self.setup, [node for node, _ in signatures]
        self._require(len(self.taken) == len(self._dealers))
        self._require(is_sorted_part(signers, setup.cohort) and len(signers) >= setup.cosigners)
        for node, signature in signatures:
            signed = (*setup.context, self.view)
            key = setup.signing_keys[node]
            self._require(parts.holds(key, signature, "weighted-survivors", *signed))
        self.phase = "over"
        shares = dict(zip(self._dealers, map(self._opened, self._dealers, self.taken), strict=True))
        if self.me in self.weights:
            shares[self.me] = self.own
        unopened = [dealer for dealer in self._dealers if shares[dealer] is None]
        answer = b"" if unopened else self._sum(shares)
        events = [["blamed", dealer] for dealer in unopened]
        return self._reply(message("SumShare", setup.round_id, answer, unopened), events=events)

    def _opened(self, dealer: str, dealt: Sequence[bytes]) -> list[int] | None:
        agreement_key, _, _, box = dealt
        pair, secret = (dealer, self.me), self.secrets.agreement
        data = ckks.open_box(self.setup, secret, box, agreement_key=agreement_key, pair=pair)
        return None if data is None else ckks.decode_share(data, self.setup)

    def _sum(self, shares: Mapping[str, list[int] | None]) -> bytes:
        total = [0] * self.setup.share_length
        for node, weight in self.weights.items():
            one = shares[node]
            assert one is not None
            total = [
                (x + weight * y) % self.setup.committee_modulus
                for x, y in zip(total, one, strict=True)
            ]
        return ckks.encode_share(total, self.setup)

    ACCEPTS: Final[dict[tuple[str, str], Callable[..., Reply]]] = {
        ("announced", "CommitteeKeys"): on_committee_keys,
        ("sealed", "UploadTurn"): on_upload_turn,
        ("sealed", "WeightedSurvivors"): on_survivors,
        ("uploaded", "WeightedSurvivors"): on_survivors,
        ("signed", "DealtShares"): on_dealt_shares,
        ("signed", "OpenRequest"): on_open_request,
    }
