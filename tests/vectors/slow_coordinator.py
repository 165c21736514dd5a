"""The coordinator of specs/30-masking.md a second time, slowly; nothing of `secagg`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any, Final

from tests.vectors import slow_parts as parts
from tests.vectors import slow_wire as wire
from tests.vectors.slow import (
    SLOTS,
    Refused,
    Reply,
    advert_digest,
    graph_seed,
    is_valid_advert,
    message,
    over_names,
)

__all__ = ["Coordinator"]

TOSSES: Final = 4
ACCEPTS: Final = {
    "keys": "KeyAdvert",
    "coins": "Coin",
    "agreement": "Encapsulations",
    "shares": "SealedShares",
    "input": "MaskedChunk",
    "signatures": "SurvivorSignature",
    "unmask": "UnmaskAnswer",
}
FAILS: Final = {
    "keys": "too_few_keys",
    "coins": "too_few_keys",
    "agreement": "too_few_agreements",
    "shares": "too_few_shares",
    "input": "too_few_inputs",
    "signatures": "too_few_signatures",
    "unmask": "too_few_unmask_answers",
}


class _CostsPlaceError(Exception):
    """A message that costs its sender its place."""


def _require(holds: bool) -> None:
    if not holds:
        raise _CostsPlaceError


class Coordinator:
    """The coordinator in one round; it keeps everything it is given."""

    def __init__(self, setup: parts.Setup) -> None:
        self.setup, self.phase = setup, "new"
        self.waiting: set[str] = set()
        self.answered: set[str] = set()
        self.toss = 0
        self.given: dict[str, dict[str, list[Any]]] = {name: {} for name in ACCEPTS.values()}
        self.turns: list[str] = []
        self.queue: list[str] = []
        self.chunks: dict[str, list[bytes]] = {}
        self.inputs: dict[str, list[int]] = {}

    def start(self) -> Reply:
        """Wait for the cohort's adverts."""
        reply = Reply()
        self._enter("keys", self.setup.cohort, reply)
        return reply

    def receive(self, sender: str, data: bytes) -> Reply:
        """Take a message of an authenticated node."""
        try:
            kind, *fields = wire.decode(data)
        except wire.MalformedError:
            raise Refused("decode", sender) from None
        name = wire.table()[kind][0]
        if ACCEPTS.get(self.phase) != name:
            raise Refused("protocol", sender)
        if fields[0] != self.setup.round_id or sender in self.answered:
            raise Refused("replay", sender)
        if sender not in self.waiting:
            raise Refused("protocol", sender)
        reply = Reply()
        try:
            complete = self.TAKES[name](self, sender, [kind, *fields])
        except _CostsPlaceError:
            self._forget(sender)
            reply.events.append(["blamed", sender])
        else:
            if complete:
                self.given[name][sender] = [kind, *fields]
                self._forget(sender)
                self.answered.add(sender)
        return self._settle(reply)

    def on_timeout(self) -> Reply:
        """Time is up for all that are waited for, or for all whose turn it is."""
        late = sorted(self.turns if self.phase == "input" else self.waiting)
        phase = self.phase
        for node in late:
            self._forget(node)
        return self._settle(Reply(events=[["missed", phase, late]] if late else []))

    def _forget(self, node: str) -> None:
        self.waiting.discard(node)
        self.chunks.pop(node, None)
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

    def _take_advert(self, sender: str, advert: list[Any]) -> bool:
        _require(advert[2] == sender and is_valid_advert(self.setup, advert))
        return True

    def _take_coin(self, sender: str, coin: list[Any]) -> bool:
        commitment = self.given["KeyAdvert"][sender][8]
        if coin[2] != self.toss:
            raise Refused("replay", sender)
        _require(parts.coin_fits(coin[3], commitment, self.toss))
        return True

    def _take_encapsulations(self, sender: str, capsules: list[Any]) -> bool:
        _require([item[0] for item in capsules[2]] == sorted(self.circle.successors(sender)))
        return True

    def _take_shares(self, sender: str, shares: list[Any]) -> bool:
        due = sorted(self.circle.neighbours(sender) & set(self.agreed))
        _require([item[0] for item in shares[2]] == due)
        return True

    def _take_chunk(self, sender: str, chunk: list[Any]) -> bool:
        setup, (_, _, index, signature, data) = self.setup, chunk
        if sender not in self.turns:
            raise Refused("protocol", sender)
        taken = self.chunks.setdefault(sender, [])
        if index < len(taken):
            raise Refused("replay", sender)
        if taken:
            _require(signature == b"")
        else:
            signed = (*setup.context, self.digest)
            _require(parts.holds(setup.signing_keys[sender], signature, "sharers", *signed))
            self.sharers_signatures[sender] = signature
        _require(index == len(taken) and index < setup.chunks)
        _require(len(data) == -(-setup.chunk_dim(index) // 8) * setup.ring_bits)
        taken.append(data)
        if len(taken) < setup.chunks:
            return False
        values: list[int] = []
        for index, data in enumerate(taken):
            piece = parts.unpack(data, setup.chunk_dim(index), setup.ring_bits)
            if piece is None:
                raise _CostsPlaceError
            values += piece
        self.inputs[sender] = values
        return True

    def _take_signature(self, sender: str, signature: list[Any]) -> bool:
        signed = (*self.setup.context, self.view)
        key = self.setup.signing_keys[sender]
        _require(parts.holds(key, signature[2], "survivors", *signed))
        return True

    def _take_answer(self, sender: str, answer: list[Any]) -> bool:
        near = self.circle.neighbours(sender) | {sender}
        dropped = set(self.sharers) - set(self.survivors)
        for shares, owners in ((answer[2], set(self.survivors)), (answer[3], dropped)):
            named = [owner for owner, _ in shares]
            _require(named == sorted(set(named)) and set(named) <= near & owners)
        return True

    # --- phases ----------------------------------------------------------------------------------

    def _settle(self, reply: Reply) -> Reply:
        """Let the next upload, and close phases until somebody is waited for."""
        while self.phase not in ("new", "over"):
            if self.phase == "input":
                while self.queue and len(self.turns) < SLOTS:
                    self.turns.append(self.queue.pop(0))
                    turn = message("UploadTurn", self.setup.round_id)
                    reply.sends.append((self.turns[-1], turn))
            if self.waiting:
                break
            late = self.phase in ("signatures", "unmask")
            if len(self.answered) < (self.setup.cosigners if late else self.setup.quorum):
                self._fail(FAILS[self.phase], reply)
            else:
                self.CLOSES[self.phase](self, reply)
        return reply

    def _close_keys(self, reply: Reply) -> None:
        nodes = sorted(self.given["KeyAdvert"])
        if parts.Circle(nodes, self.setup.neighbours, b"").sparse:
            self._toss(nodes, reply)
        else:
            self._send_keys(nodes, [], reply)

    def _toss(self, nodes: list[str], reply: Reply) -> None:
        self.toss, self.tossing = self.toss + 1, nodes
        self.given["Coin"].clear()
        entries = []
        for node in nodes:
            advert = self.given["KeyAdvert"][node]
            entries.append([node, advert_digest(advert), advert[8]])
        listed = message("AdvertList", self.setup.round_id, self.toss, entries)
        reply.sends += [(node, listed) for node in nodes]
        self._enter("coins", nodes, reply)

    def _close_coins(self, reply: Reply) -> None:
        coins = self.given["Coin"]
        if set(coins) == set(self.tossing):
            self._send_keys(self.tossing, [coins[node][3] for node in self.tossing], reply)
        elif self.toss == TOSSES:
            self._fail("coins_missing", reply)
        else:
            self._toss(sorted(coins), reply)

    def _send_keys(self, nodes: list[str], coins: list[bytes], reply: Reply) -> None:
        adverts = self.given["KeyAdvert"]
        digests = [[node, advert_digest(adverts[node])] for node in nodes]
        self.places, self.seed = nodes, graph_seed(self.setup, digests, coins)
        self.circle = parts.Circle(nodes, self.setup.neighbours, self.seed)
        for node in nodes:
            near = [adverts[peer] for peer in sorted(self.circle.neighbours(node))]
            keys = message("PeerKeys", self.setup.round_id, digests, coins, near)
            reply.sends.append((node, keys))
        self._enter("agreement", nodes, reply)

    def _close_agreement(self, reply: Reply) -> None:
        given = self.given["Encapsulations"]
        self.agreed = sorted(given)
        for node in self.agreed:
            capsules = [
                [sender, capsule, confirmation]
                for sender in self.agreed
                for receiver, capsule, confirmation in given[sender][2]
                if receiver == node
            ]
            fields = (self.setup.round_id, self.agreed, capsules)
            reply.sends.append((node, message("PeerEncapsulations", *fields)))
        self._enter("shares", self.agreed, reply)

    def _close_shares(self, reply: Reply) -> None:
        given = self.given["SealedShares"]
        self.sharers = sorted(given)
        self.digest = over_names("sharers", self.seed, self.sharers)
        self.sharers_signatures: dict[str, bytes] = {}
        for node in self.sharers:
            boxes = [
                [sender, box]
                for sender in self.sharers
                for receiver, box in given[sender][2]
                if receiver == node
            ]
            fields = (self.setup.round_id, self.sharers, boxes)
            reply.sends.append((node, message("PeerShares", *fields)))
        self.queue = list(self.sharers)
        self._enter("input", self.sharers, reply)

    def _close_input(self, reply: Reply) -> None:
        self.survivors = sorted(self.inputs)
        if not self.circle.is_whole(self.survivors, self.setup.threshold):
            self._fail("graph_too_thin", reply)
            return
        self.view = over_names("survivors", self.digest, self.survivors)
        for node in self.survivors:
            near = sorted(self.circle.neighbours(node) & set(self.survivors))
            signatures = [[peer, self.sharers_signatures[peer]] for peer in near]
            fields = (self.setup.round_id, self.survivors, signatures)
            reply.sends.append((node, message("Survivors", *fields)))
        self._enter("signatures", self.survivors, reply)

    def _close_signatures(self, reply: Reply) -> None:
        given = self.given["SurvivorSignature"]
        signers = sorted(given)
        chosen = [[node, given[node][2]] for node in signers[: self.setup.cosigners]]
        request = message("UnmaskRequest", self.setup.round_id, chosen)
        reply.sends += [(node, request) for node in signers]
        self._enter("unmask", signers, reply)

    def _close_unmask(self, reply: Reply) -> None:
        liars: set[str] = set()
        misfits: list[tuple[str, str, int]] = []
        masks: list[tuple[int, bytes]] | None = []
        secrets = {owner: self._reconstruct(owner, misfits, liars) for owner in self.sharers}
        if None in secrets.values():
            masks = None
        for owner, secret in secrets.items():
            if masks is None or secret is None:
                break
            if owner in self.survivors:
                masks.append((-1, parts.hkdf(secret, "self-mask", *self.setup.context)))
            elif (found := self._pair_masks(owner, secret)) is not None:
                masks += found
            else:
                liars.add(owner)
                masks = None
        reply.events += [["blamed", node] for node in sorted(self._blame(misfits, liars))]
        if masks is None:
            self._fail("bad_shares", reply)
            return
        total = [sum(column) for column in zip(*self.inputs.values(), strict=True)]
        reply.total = parts.masked(total, masks, self.setup.ring_bits)
        reply.events.append(["sum", self.survivors])
        self.phase = "over"

    def _reconstruct(
        self, owner: str, misfits: list[tuple[str, str, int]], liars: set[str]
    ) -> bytes | None:
        """Return an owner's secret; note whose shares of it do not fit, or that it lied (M-19).

        A misfit is owner, holder, and how many others lied if these two did not.
        """
        survived = owner in self.survivors
        purpose, place = ("self-commitment", 7) if survived else ("round-commitment", 6)
        commitment = self.given["KeyAdvert"][owner][place]
        shares = {
            self.places.index(holder) + 1: value
            for holder, answer in self.given["UnmaskAnswer"].items()
            for named, value in answer[2 if survived else 3]
            if named == owner
        }
        spare = len(shares) - self.setup.threshold
        if spare < 0:
            return None
        together = parts.interpolate(shares)
        if (secret := self._as_secret(together)) and parts.sha(purpose, secret) == commitment:
            return secret
        near: int | None = None
        fitting: list[tuple[int, list[int], bytes]] = []
        for chosen in itertools.combinations(shares, self.setup.threshold):
            good = {point: shares[point] for point in chosen}
            missed = [
                point
                for point, share in shares.items()
                if parts.interpolate(good, point) != int.from_bytes(share, "little")
            ]
            if (secret := self._as_secret(parts.interpolate(good))) is None:
                continue
            if parts.sha(purpose, secret) == commitment:
                fitting.append((len(missed), missed, secret))
            elif 2 * len(missed) <= spare:
                near = len(missed)
        if not fitting:
            bound = self._collude()
            if (2 * bound if near is None else near + bound) <= spare:
                liars.add(owner)
            return None
        count, missed, found = min(fitting)
        misfits += [(owner, self.places[point - 1], spare + 2 - count) for point in missed]
        return found

    @staticmethod
    def _as_secret(value: int) -> bytes | None:
        return None if value >> 256 else value.to_bytes(32, "little")

    def _collude(self) -> int:
        """Return how many of a node's neighbours may lie, at least one."""
        return max(1, min(self.setup.colluders, self.setup.threshold - 1))

    def _blame(self, misfits: list[tuple[str, str, int]], liars: set[str]) -> set[str]:
        """Return who is proven to lie, and the holders in misfits that this does not explain."""
        against: dict[str, set[str]] = {}
        for owner, holder, others in misfits:
            if others > self._collude():
                against.setdefault(owner, set()).add(holder)
                against.setdefault(holder, set()).add(owner)
        proven = set(liars)
        for node, nodes in against.items():
            if node in nodes or len(nodes) > self._collude():
                proven.add(node)
        return proven | {
            holder for owner, holder, _ in misfits if owner not in proven and holder not in proven
        }

    def _pair_masks(self, owner: str, round_secret: bytes) -> list[tuple[int, bytes]] | None:
        """Return the masks of a dropped node toward survivors; None if its backup is wrong."""
        key = parts.backup_key(round_secret, self.setup.context, owner)
        seeds = parts.unseal(key, self.given["SealedShares"][owner][3])
        peers = sorted(self.circle.neighbours(owner) & set(self.agreed))
        if seeds is None or len(seeds) != 32 * len(peers):
            return None
        found = []
        for index, peer in enumerate(peers):
            seed = seeds[32 * index : 32 * index + 32]
            if peer not in self.survivors:
                continue
            ahead = peer in self.circle.successors(owner)
            first, second = (owner, peer) if ahead else (peer, owner)
            capsules = self.given["Encapsulations"][first][2]
            confirmation = next(item[2] for item in capsules if item[0] == second)
            if parts.sha("pair-confirmation", seed) != confirmation:
                return None
            found.append((1 if peer > owner else -1, seed))
        return found

    TAKES: Final[dict[str, Callable[[Any, str, list[Any]], bool]]] = {
        "KeyAdvert": _take_advert,
        "Coin": _take_coin,
        "Encapsulations": _take_encapsulations,
        "SealedShares": _take_shares,
        "MaskedChunk": _take_chunk,
        "SurvivorSignature": _take_signature,
        "UnmaskAnswer": _take_answer,
    }
    CLOSES: Final[dict[str, Callable[[Any, Reply], None]]] = {
        "keys": _close_keys,
        "coins": _close_coins,
        "agreement": _close_agreement,
        "shares": _close_shares,
        "input": _close_input,
        "signatures": _close_signatures,
        "unmask": _close_unmask,
    }
