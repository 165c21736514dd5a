"""The coordinator of specs/36-ckks.md a second time, slowly; nothing of `secagg`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from tests.vectors import slow_ckks_parts as ckks
from tests.vectors import slow_ckks_ring as ring
from tests.vectors import slow_parts as parts
from tests.vectors import slow_wire as wire
from tests.vectors.slow import SLOTS, Refused, Reply, is_sorted_part, message
from tests.vectors.slow_ckks import is_valid_key, keys_digest

__all__ = ["Coordinator"]

DEALER: Final = 32 + 32 + 64
IN_FLIGHT: Final = 1 << 24
ACCEPTS: Final = {
    "keys": ("Announcement",),
    "input": ("SealedSecret", "CipherChunk"),
    "signatures": ("SurvivorSignature",),
    "opening": ("SumShare",),
}
FAILS: Final = {
    "keys": "too_few_keys",
    "input": "too_few_inputs",
    "signatures": "too_few_signatures",
    "opening": "too_few_answers",
}


class _CostsPlaceError(Exception):
    """A message that costs its sender its place."""


def _require(holds: bool) -> None:
    if not holds:
        raise _CostsPlaceError


class Coordinator:
    """The coordinator in one round; it keeps everything it is given.

    Args:
        setup: The checked offer.
        weights: What it gives to nodes where it weighs, 0 to the greatest weight.
    """

    def __init__(self, setup: ckks.Setup, weights: Mapping[str, int] | None = None) -> None:
        self.setup, self.given_weights, self.phase = setup, weights or {}, "new"
        self.waiting: set[str] = set()
        self.answered: set[str] = set()
        self.keys: dict[str, list[Any]] = {}
        self.slots = SLOTS
        self.turns: list[str] = []
        self.queue: list[str] = []
        self.boxes: dict[str, list[bytes]] = {}
        self.chunks: dict[str, list[bytes]] = {}
        self.inputs: dict[str, list[ring.Polynomial]] = {}
        self.signatures: dict[str, bytes] = {}
        self.shares: dict[int, list[int]] = {}
        self.accused: set[str] = set()

    def start(self) -> Reply:
        """Wait for the cohort's keys."""
        reply = Reply()
        self._enter("keys", self.setup.cohort, reply)
        return reply

    def receive(self, sender: str, data: bytes) -> Reply:
        """Take a message of an authenticated node (H-17)."""
        try:
            kind, *fields = wire.decode(data)
        except wire.MalformedError:
            raise Refused("decode", sender) from None
        name = wire.table()[kind][0]
        if name not in ACCEPTS.get(self.phase, ()):
            raise Refused("protocol", sender)
        if fields[0] != self.setup.round_id or sender in self.answered:
            raise Refused("replay", sender)
        if sender not in self.waiting:
            raise Refused("protocol", sender)
        reply = Reply()
        try:
            complete = self.TAKES[name](self, sender, *fields[1:])
        except _CostsPlaceError:
            self._forget(sender)
            reply.events.append(["blamed", sender])
        else:
            if complete:
                self._forget(sender)
                self.answered.add(sender)
        return self._settle(reply)

    def on_timeout(self) -> Reply:
        """Time is up for all that are waited for, or for all whose turn it is (H-15)."""
        in_turns = self.phase in ("input", "opening")
        late, phase = sorted(self.turns if in_turns else self.waiting), self.phase
        for node in late:
            self._forget(node)
        return self._settle(Reply(events=[["missed", phase, late]] if late else []))

    def _forget(self, node: str) -> None:
        self.waiting.discard(node)
        for line in (self.turns, self.queue):
            if node in line:
                line.remove(node)

    def _enter(self, phase: str, nodes: Iterable[str], reply: Reply) -> None:
        self.phase, self.waiting, self.answered = phase, set(nodes), set()
        reply.events.append(["entered", phase])

    def _fail(self, reason: str, reply: Reply) -> None:
        self.phase = "over"
        reply.events.append(["failed", reason])

    # --- messages: whether the sender has given all that it owes ---------------------------------

    def _take_announcement(self, sender: str, key: list[Any], distance: int | None) -> bool:
        _require(key[0] == sender and is_valid_key(self.setup, key))
        _require(self.setup.coordinator_weighs is (distance is not None))
        self.keys[sender] = key
        return True

    def _receivers(self, dealer: str) -> list[str]:
        return [member for member in self.members if member != dealer]

    def _take_boxes(self, sender: str, start: int, boxes: list[bytes]) -> bool:
        if sender not in self.turns:
            raise Refused("protocol", sender)
        setup, taken = self.setup, self.boxes.setdefault(sender, [])
        if start < len(taken):
            raise Refused("replay", sender)
        _require(start == len(taken) and not self.chunks.get(sender))
        batch = max(1, ckks.LONGEST // setup.box_size)
        _require(len(boxes) == min(batch, len(self._receivers(sender)) - start))
        _require(all(len(box) == setup.box_size for box in boxes))
        taken += boxes
        return False

    def _take_chunk(self, sender: str, index: int, data: bytes) -> bool:
        if sender not in self.turns:
            raise Refused("protocol", sender)
        setup, taken = self.setup, self.chunks.setdefault(sender, [])
        if index < len(taken):
            raise Refused("replay", sender)
        _require(len(self.boxes.get(sender, ())) == len(self._receivers(sender)))
        first = index * setup.blocks_in_chunk
        blocks = min(setup.blocks_in_chunk, setup.blocks - first)
        _require(index == len(taken))
        _require(len(data) == blocks * setup.degree * setup.modulus_bits // 8)
        taken.append(data)
        if len(taken) < setup.chunks:
            return False
        residues: list[int] = []
        for each in taken:
            count = len(each) * 8 // setup.modulus_bits
            found = ring.unpack_residues(each, count, setup.modulus_bits, setup.modulus)
            if found is None:
                raise _CostsPlaceError
            residues += found
        step = setup.degree
        starts = range(0, len(residues), step)
        self.inputs[sender] = [tuple(residues[at : at + step]) for at in starts]
        return True

    def _take_signature(self, sender: str, signature: bytes) -> bool:
        signed = (*self.setup.context, self.view)
        key = self.setup.signing_keys[sender]
        _require(parts.holds(key, signature, "weighted-survivors", *signed))
        self.signatures[sender] = signature
        return True

    def _take_answer(self, sender: str, share: bytes, unopened: list[str]) -> bool:
        _require(is_sorted_part(unopened, set(self.weights) - {sender}))
        _require(bool(share) is not bool(unopened))
        if share:
            values = ckks.decode_share(share, self.setup)
            if values is None:
                raise _CostsPlaceError
            self.shares[self.setup.committee.index(sender) + 1] = values
        self.accused |= set(unopened)
        return True

    # --- phases ----------------------------------------------------------------------------------

    def _settle(self, reply: Reply) -> Reply:
        """Let the next upload, and close phases until somebody is waited for."""
        while self.phase not in ("new", "over"):
            while self.queue and len(self.turns) < self.slots:
                self.turns.append(self.queue.pop(0))
                reply.sends += self._asked(self.turns[-1])
            if self.waiting:
                break
            needed = {"signatures": self.setup.cosigners, "opening": self.setup.answers}
            if len(self.answered) < needed.get(self.phase, self.setup.quorum):
                self._fail(FAILS[self.phase], reply)
            else:
                self.CLOSES[self.phase](self, reply)
        return reply

    def _close_keys(self, reply: Reply) -> None:
        setup, nodes = self.setup, sorted(self.keys)
        self.members = [node for node in setup.committee if node in self.keys]
        if len(self.members) < setup.answers:
            self._fail("committee_too_small", reply)
            return
        shown = [self.keys[node] for node in self.members]
        self.keys_digest = keys_digest(setup, shown)
        data = message("CommitteeKeys", setup.round_id, shown)
        reply.sends += [(node, data) for node in nodes]
        weights = self.given_weights if setup.coordinator_weighs else dict.fromkeys(nodes, 1)
        self.weights = {node: weights[node] for node in nodes if weights[node]}
        self.queue = list(self.weights)
        self._enter("input", self.weights, reply)

    def _close_input(self, reply: Reply) -> None:
        survivors = sorted(self.inputs)
        self.weights = {node: self.weights[node] for node in survivors}
        weights = bytes(self.weights.values())
        if not ckks.is_even(weights, self.setup.colluders):
            self._fail("cohort_too_uneven", reply)
            return
        self.view = ckks.view_digest(self.keys_digest, survivors, weights)
        data = message("WeightedSurvivors", self.setup.round_id, survivors, weights)
        told = sorted({*survivors, *self.members})
        reply.sends += [(node, data) for node in told]
        self._enter("signatures", told, reply)

    def _close_signatures(self, reply: Reply) -> None:
        setup, signers = self.setup, sorted(self.signatures)
        self.queue = [node for node in self.members if node in signers]
        self.slots = max(SLOTS, IN_FLIGHT // (len(setup.cohort) * (setup.box_size + DEALER)))
        self._enter("opening", self.queue, reply)

    def _asked(self, node: str) -> list[tuple[str, bytes]]:
        """Return what a node gets when it is its turn: to upload, or to open (H-08, H-18)."""
        setup, asked = self.setup, []
        if self.phase == "input":
            return [(node, message("UploadTurn", setup.round_id))]
        dealers = [dealer for dealer in self.weights if dealer != node]
        step = max(1, ckks.LONGEST // (setup.box_size + DEALER))
        for start in range(0, len(dealers), step):
            shares = [self._dealt(dealer, node) for dealer in dealers[start : start + step]]
            asked.append((node, message("DealtShares", setup.round_id, start, shares)))
        chosen = [[other, self.signatures[other]] for other in sorted(self.signatures)]
        request = message("OpenRequest", setup.round_id, chosen[: setup.cosigners])
        return [*asked, (node, request)]

    def _dealt(self, dealer: str, member: str) -> list[bytes]:
        _, _, agreement_key, kem_key, signature = self.keys[dealer]
        box = self.boxes[dealer][self._receivers(dealer).index(member)]
        return [agreement_key, ckks.kem_digest(kem_key), signature, box]

    def _close_opening(self, reply: Reply) -> None:
        """Find the secret that opens the sum, and everybody whose answer is wrong (H-13, H-14)."""
        setup, weight = self.setup, sum(self.weights.values())
        reply.events += [["blamed", node] for node in sorted(self.accused)]
        spare = len(self.shares) - setup.answers
        if spare < 0:
            self._fail("too_few_answers", reply)
            return
        total, words = self._total(), ckks.words(self.shares, setup=setup)
        true = next((word for word in words if self._opens(word.secret, total)), None)
        near = next((word for word in words if 2 * len(word.wrong) <= spare), None)
        if true is None:
            agreed = near is not None and len(near.wrong) + setup.colluders <= spare
            self._fail("sum_out_of_range" if agreed else "bad_shares", reply)
            return
        misfits = [setup.committee[point - 1] for point in sorted(true.wrong)]
        reply.events += [["blamed", node] for node in misfits]
        values = ckks.read_sum(self._opened(true.secret, total), setup, weight)
        if values is None:
            self._fail("sum_out_of_range", reply)
            return
        given = list(self.weights.values())
        reply.total = values
        reply.events.append(["sum", list(self.weights), *([given] if set(given) != {1} else [])])
        self.phase = "over"

    def _total(self) -> list[ring.Polynomial]:
        blocks = [[0] * self.setup.degree for _ in range(self.setup.blocks)]
        for node, weight in self.weights.items():
            for block, one in zip(blocks, self.inputs[node], strict=True):
                block[:] = [x + weight * y for x, y in zip(block, one, strict=True)]
        return [tuple(x % self.setup.modulus for x in block) for block in blocks]

    def _opened(self, secret: ring.Polynomial, total: Sequence[ring.Polynomial]) -> list[list[int]]:
        seed, q = self.setup.elements_seed, self.setup.modulus
        return ring.open_blocks(total, secret, seed=seed, q=q)

    def _opens(self, secret: ring.Polynomial, total: Sequence[ring.Polynomial]) -> bool:
        """Tell whether a secret is possible, and what it makes of the first block."""
        weight = sum(self.weights.values())
        if max(map(abs, secret)) > weight * self.setup.secret_terms:
            return False
        opened = self._opened(secret, total[:1])
        return ckks.read_blocks(opened, self.setup, weight) is not None

    TAKES: Final[dict[str, Callable[..., bool]]] = {
        "Announcement": _take_announcement,
        "SealedSecret": _take_boxes,
        "CipherChunk": _take_chunk,
        "SurvivorSignature": _take_signature,
        "SumShare": _take_answer,
    }
    CLOSES: Final[dict[str, Callable[[Any, Reply], None]]] = {
        "keys": _close_keys,
        "input": _close_input,
        "signatures": _close_signatures,
        "opening": _close_opening,
    }
