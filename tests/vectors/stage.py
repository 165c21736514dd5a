"""Plays a round of the real state machines and writes down everything that happens.

All secrets follow from labels, ML-KEM's included, so a recording is a function of its cast and of
the changes that are made to messages on their way.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from secagg.masking.coordinator import MaskingCoordinator
from secagg.masking.graph import Graph
from secagg.wire.codec import decode, encode
from secagg.wire.messages import Message
from tests.vectors.files import REFERENCE, Operation
from tests.vectors.mlkem import encapsulate
from tests.vectors.real import (
    Encapsulate,
    RealCoordinator,
    RealMaskingNode,
    RealNode,
    TestIdentity,
    setup_of,
)
from tests.vectors.slow import COORDINATOR, Refused, Reply

__all__ = [
    "Cast",
    "Change",
    "Recording",
    "Rewrite",
    "Silence",
    "compact",
    "drawn",
    "pieces_of",
    "play",
    "write",
]

Rewrite: TypeAlias = (
    "Callable[[Cast, Any], Sequence[tuple[str, Message | bytes]] | Message | bytes]"
)
"""(cast, message) to what arrives instead: a message, or several as (sender, message)."""


Silence: TypeAlias = Mapping[str, tuple[type[Message], int]]
"""Node to the message that it fails to send, and how many of that type it sent before."""


def drawn(*labels: object, size: int = 32) -> bytes:
    """Return the bytes that labels stand for, at most 64."""
    label = "/".join(["secagg vectors", *map(str, labels)])
    return hashlib.sha512(label.encode()).digest()[:size]


class Cast:
    """The parties of a round: parameters, identities, inputs and secrets, all from labels."""

    def __init__(self, name: str, n: int, **parameters: Any) -> None:
        self.name = name
        self.cohort = tuple(f"node-{chr(ord('a') + index)}" for index in range(n))
        self.identities = {
            node: TestIdentity(node, drawn("identity", node)) for node in self.cohort
        }
        self.setup = {
            "run_id": drawn(name, "run", size=16).hex(),
            "round_id": 7,
            "offer_hash": drawn(name, "offer").hex(),
            "cohort": list(self.cohort),
            "signing_keys": {node: each.public.hex() for node, each in self.identities.items()},
            **parameters,
        }
        self.checked = setup_of(self.setup)
        self.nodes = {node: self._node(node) for node in self.cohort}
        self.capsules: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self.pieces: dict[str, bytes] = {}
        """What messages have in common, by name."""

    def coordinator(self) -> RealCoordinator:
        return RealCoordinator(self.checked)

    def role(self, node: str, encapsulate: Encapsulate) -> RealNode:
        written = self.nodes[node]
        return RealMaskingNode(self.checked, node, node=written, encapsulate=encapsulate)

    def learn(self, sender: str, message: Message) -> None:
        """Note the pieces of a message that others will have as well."""

    def _node(self, node: str) -> dict[str, Any]:
        single = ("round_secret", "self_seed", "coin_seed", "agreement")
        secrets = {secret: drawn(self.name, node, secret).hex() for secret in single}
        polynomials = {
            polynomial: [
                drawn(self.name, node, polynomial, power, size=49).hex()
                for power in range(1, self.checked.threshold)
            ]
            for polynomial in ("round_polynomial", "self_polynomial")
        }
        values = (
            drawn(self.name, node, "input", index, size=4) for index in range(self.checked.dim)
        )
        modulus = 1 << self.checked.ring_bits
        return {
            "identity": drawn("identity", node).hex(),
            **secrets,
            **polynomials,
            "input": [int.from_bytes(value, "little") % modulus for value in values],
        }

    def encapsulate(self, initiator: str, responder: str, key: bytes) -> tuple[bytes, bytes]:
        """Return the pair's (secret, capsule), the same whenever it is asked for."""
        pair = initiator, responder
        if pair not in self.capsules:
            self.capsules[pair] = _encapsulate(key, drawn(self.name, *pair, "capsule"))
        return self.capsules[pair]

    def secret(self, node: str, name: str) -> bytes:
        return bytes.fromhex(self.nodes[node][name])


_encapsulate = functools.cache(encapsulate)


@dataclass(frozen=True)
class Change:
    """What is done to the n-th message of a type from one party to another."""

    sender: str
    receiver: str
    kind: type[Message]
    rewrite: Rewrite
    nth: int = 1


@dataclass
class Recording:
    """What happened, and what was used."""

    operations: list[Operation] = field(default_factory=list)
    used: set[tuple[str, str]] = field(default_factory=set)
    total: list[int] | None = None
    graph: Graph | None = None

    def outcome(self) -> dict[str, Any]:
        """Return who was refused or blamed and how it ended, as `expect` of a file says it."""
        found: dict[str, Any] = {}
        for operation in self.operations:
            if operation.refused:
                found["refused"] = [operation.at, *operation.refused]
            for kind, *what in operation.events:
                if kind == "blamed":
                    blamed = found.setdefault("blamed", [])
                    blamed += [what[0]] if what[0] not in blamed else []
                elif kind in ("failed", "sum"):
                    found[kind] = what[0]
        return found


def play(
    cast: Cast,
    changes: Sequence[Change] = (),
    *,
    silent: Silence | None = None,
    to_the_end: bool = True,
) -> Recording:
    """Play a round.

    Args:
        cast: Who takes part.
        changes: What is done to messages on their way.
        silent: Node to the message that it fails to send, and how many of that type it sent
            before; from there on it sends and receives nothing.
        to_the_end: False to stop after the first changed message.
    """
    return _Play(cast, changes, silent or {}, to_the_end).run()


class _Play:
    def __init__(
        self,
        cast: Cast,
        changes: Sequence[Change],
        silent: Silence,
        to_the_end: bool,
    ) -> None:
        self.cast, self.changes, self.silent, self.to_the_end = cast, changes, silent, to_the_end
        self.recording = Recording()
        self.coordinator = cast.coordinator()
        self.nodes = {node: self._make(node) for node in cast.cohort}
        self.queue: deque[tuple[str, str, bytes]] = deque()
        self.counts: Counter[tuple[str, str, type]] = Counter()
        self.dead: set[str] = set()
        self.over = False

    def _make(self, me: str) -> RealNode:
        def encapsulated(responder: str, key: bytes) -> tuple[bytes, bytes]:
            self.recording.used.add((me, responder))
            return self.cast.encapsulate(me, responder, key)

        return self.cast.role(me, encapsulated)

    def run(self) -> Recording:
        self._note(Operation(COORDINATOR, "start"), self.coordinator.start)
        for node, role in self.nodes.items():
            self._note(Operation(node, "start"), role.start)
        while not self.over:
            if self.queue:
                self._deliver(*self.queue.popleft())
            else:
                self._note(Operation(COORDINATOR, "timeout"), self.coordinator.on_timeout)
        if isinstance(self.coordinator.role, MaskingCoordinator):
            self.recording.graph = self.coordinator.role._seen.graph
        return self.recording

    def _deliver(self, sender: str, receiver: str, data: bytes) -> None:
        message = decode(data, sender=sender)
        kind, key = type(message), (sender, receiver, type(message))
        if self.silent.get(sender) == (kind, self.counts[key]):
            self.dead.add(sender)
        if self.dead & {sender, receiver}:
            return
        self.counts[key] += 1
        arriving: list[tuple[str, Message | bytes]] = [(sender, data)]
        changed = False
        for change in self.changes:
            if (change.sender, change.receiver, change.kind, change.nth) == (
                *key,
                self.counts[key],
            ):
                instead = change.rewrite(self.cast, message)
                changed = True
                arriving = instead if isinstance(instead, list) else [(sender, instead)]
        for source, each in arriving:
            raw = each if isinstance(each, bytes) else encode(each)
            self._receive(source, receiver, raw)
        self.over = self.over or (changed and not self.to_the_end)

    def _receive(self, sender: str, receiver: str, data: bytes) -> None:
        role = self.coordinator if receiver == COORDINATOR else self.nodes[receiver]
        operation = Operation(receiver, "receive", sender, data)
        self._note(operation, lambda: role.receive(sender, data))

    def _note(self, operation: Operation, act: Callable[[], Reply]) -> None:
        try:
            reply = act()
        except Refused as refusal:
            if operation.at != COORDINATOR:
                self.dead.add(operation.at)
            operation = replace(operation, refused=(refusal.layer, refusal.blames))
        else:
            events = tuple(tuple(event) for event in reply.events)
            operation = replace(operation, sends=tuple(reply.sends), events=events)
            self.queue.extend((operation.at, to, data) for to, data in reply.sends)
            self.over |= any(event[0] in ("failed", "sum") for event in events)
            self.recording.total = reply.total or self.recording.total
        self.recording.operations.append(operation)


# --- to JSON --------------------------------------------------------------------------------------


def write(cast: Cast, recording: Recording, texts: dict[str, str]) -> list[dict[str, Any]]:
    """Return the operations as a file has them; add the messages that are new to `texts`."""
    for operation in recording.operations:
        for _, data in operation.sends:
            cast.learn(operation.at, decode(data, sender=operation.at))
    names = {_expanded(name, texts): name for name in texts}
    return [_entry(cast, operation, texts, names) for operation in recording.operations]


def _expanded(name: str, texts: Mapping[str, str]) -> tuple[str, str]:
    return name.partition("/")[0], texts[name]


def _entry(
    cast: Cast, operation: Operation, texts: dict[str, str], names: dict[tuple[str, str], str]
) -> dict[str, Any]:
    entry: dict[str, Any] = {"at": operation.at, "do": operation.do}
    if operation.do == "receive":
        text = shortened(cast, operation.data, texts)
        known = names.get((operation.sender, text))
        entry |= {"from": operation.sender, "message": f"{{{known}}}" if known else text}
    sends = []
    for to, data in operation.sends:
        text = shortened(cast, data, texts)
        key = operation.at, text
        if key not in names:
            kind = type(decode(data, sender="")).__name__
            taken = sum(name.split(".")[0] == f"{operation.at}/{kind}" for name in texts)
            names[key] = f"{operation.at}/{kind}" + (f".{taken + 1}" if taken else "")
            texts[names[key]] = text
        sends.append([to, names[key]])
    if sends:
        entry["sends"] = sends
    if operation.events:
        entry["events"] = [list(event) for event in operation.events]
    if operation.refused:
        entry["refused"] = list(operation.refused)
    return entry


ADVERT: Final = "/KeyAdvert"


def shortened(cast: Cast, data: bytes, texts: Mapping[str, str]) -> str:
    """Return `data` in hexadecimal, with references for the capsules and adverts inside."""
    text = data.hex()
    for name, piece in cast.pieces.items():
        if len(piece) < len(data):
            text = text.replace(piece.hex(), f"{{{name}}}")
    for (initiator, responder), (_, capsule) in cast.capsules.items():
        text = text.replace(capsule.hex(), f"{{{initiator}>{responder}}}")
    for name, advert in texts.items():
        if name.endswith(ADVERT) and len(text) > len(advert):
            text = text.replace(advert, f"{{{name}}}")
    return text


def pieces_of(cast: Cast, known: Mapping[str, str], *used: object) -> dict[str, str]:
    """Return the pieces that `used` refers to, as a file has them, but for those known before."""
    named = dict.fromkeys(REFERENCE.findall(repr(used)))
    return {
        name: shortened(cast, cast.pieces[name], {})
        for name in named
        if name in cast.pieces and name not in known
    }


def compact(entries: list[dict[str, Any]], base: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Replace runs of entries that the base has as well by {"base": [first, end]}."""
    matcher = difflib.SequenceMatcher(
        None, [repr(entry) for entry in base], [repr(entry) for entry in entries], autojunk=False
    )
    out: list[dict[str, Any]] = []
    done = 0
    for block in matcher.get_matching_blocks():
        out += entries[done : block.b]
        if block.size:
            out.append({"base": [block.a, block.a + block.size]})
        done = block.b + block.size
    return out
