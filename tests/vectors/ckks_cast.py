"""The parties of a round of ckks, all that they draw from labels, and the casts of the files."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import msgspec

from secagg.ckks.parameters import CkksParameters, choose
from secagg.encoding import ring_bits_for
from secagg.primitives.kem import CAPSULE_SIZE
from secagg.wire.messages import Announcement, CipherChunk, Message, SealedSecret
from tests.vectors.ckks_terms import written_terms
from tests.vectors.real import Encapsulate, RealCoordinator, RealNode
from tests.vectors.real_ckks import RealCkksNode
from tests.vectors.stage import Cast, drawn

__all__ = [
    "FIVE",
    "OUTSIDER",
    "THREE",
    "WEIGHTED",
    "CkksCast",
    "ckks_casts",
    "stream",
]

THREE, FIVE, OUTSIDER, WEIGHTED = "ckks-3", "ckks-5", "ckks-4-outsider", "ckks-5-weighted"
_COINS: Final = 21


def stream(*labels: object, size: int) -> bytes:
    """Return as many bytes as wanted that labels stand for."""
    label = "/".join(["secagg vectors", *map(str, labels)])
    return hashlib.shake_256(label.encode()).digest(size)


class CkksCast(Cast):
    """A round of ckks.

    Args:
        name: Of its first file.
        terms: Ring and committee.
        dim: Coordinates.
        weights: What the coordinator gives to nodes, in order, if it weighs them.
    """

    def __init__(
        self, name: str, terms: CkksParameters, *, dim: int, weights: tuple[int, ...] = ()
    ) -> None:
        self.terms = terms
        names = (f"node-{chr(ord('a') + index)}" for index in range(terms.nodes))
        given = {"weights": dict(zip(names, weights, strict=True))} if weights else {}
        super().__init__(
            name,
            terms.nodes,
            dim=dim,
            value_bits=terms.value_bits,
            ring_bits=ring_bits_for(terms.nodes * terms.max_weight, terms.value_bits),
            chunk_values=1 << 15,
            quorum=terms.quorum,
            colluders=terms.colluders,
            coordinator_weighs=bool(weights),
            **given,
            ckks=written_terms(terms),
        )

    def coordinator(self) -> RealCoordinator:
        return RealCoordinator(self.checked, self.setup.get("weights"))

    def role(self, node: str, encapsulate: Encapsulate) -> RealNode:
        written = self.nodes[node]
        return RealCkksNode(self.checked, node, node=written, encapsulate=encapsulate)

    def weighing(self, weights: tuple[int, ...]) -> CkksCast:
        """Return the same parties with other weights."""
        other = copy.copy(self)
        other.setup = {**self.setup, "weights": dict(zip(self.cohort, weights, strict=True))}
        return other

    def error_at(self, node: str, index: int) -> int:
        """Return the error in a coefficient of a node's first block."""
        byte = bytes.fromhex(self.nodes[node]["errors"][0])[index]
        return byte - 256 if byte > 127 else byte

    def learn(self, sender: str, message: Message) -> None:
        """Note sealing keys, boxes and ciphertexts."""
        if isinstance(message, Announcement):
            self.pieces[f"{sender}/key"] = msgspec.msgpack.encode(message.key)
        elif isinstance(message, CipherChunk):
            self.pieces[f"{sender}/cipher.{message.index}"] = message.data
        elif isinstance(message, SealedSecret):
            of = {capsule: pair for pair, (_, capsule) in self.capsules.items()}
            for box in message.boxes:
                dealer, member = of[box[:CAPSULE_SIZE]]
                self.pieces[f"{dealer}>{member}/box"] = box

    def _node(self, node: str) -> dict[str, Any]:
        ring = self.terms.ring
        blocks = -(-self.checked.dim // (ring.degree * ring.values_per_coefficient))
        written: dict[str, Any] = {
            "identity": drawn("identity", node).hex(),
            "agreement": drawn(self.name, node, "agreement").hex(),
            "sharing": drawn(self.name, node, "sharing").hex(),
        }
        if self.checked.coordinator_weighs:
            written["distance"] = drawn(self.name, node, "distance", size=1)[0] / 25
        return {
            **written,
            "input": self._input(node),
            "secret": _text(self._secret(node)),
            "errors": [_text(self._errors(node, block)) for block in range(blocks)],
        }

    def _input(self, node: str) -> list[int]:
        """Return values of the whole range, its ends for everybody in the first two places."""
        bits, modulus = self.terms.value_bits, 1 << self.checked.ring_bits
        raw = stream(self.name, node, "input", size=4 * self.checked.dim)
        values = [value % (1 << bits) - (1 << (bits - 1)) for value in _words(raw)]
        values[:2] = [-(1 << (bits - 1)), (1 << (bits - 1)) - 1]
        return [value % modulus for value in values]

    def _secret(self, node: str) -> list[int]:
        ring = self.terms.ring
        keys = [
            _words(stream(self.name, node, "secret", term, size=4 * ring.degree))
            for term in range(ring.secret_terms)
        ]
        return [sum(word % 3 - 1 for word in column) for column in zip(*keys, strict=True)]

    def _errors(self, node: str, block: int) -> list[int]:
        """Return sums of centred binomials, 21 coins less 21 coins each."""
        ring, mask = self.terms.ring, (1 << _COINS) - 1
        found = [0] * ring.degree
        for term in range(ring.error_terms):
            words = list(
                _words(stream(self.name, node, "error", block, term, size=8 * ring.degree))
            )
            for i in range(ring.degree):
                heads, tails = words[2 * i] & mask, words[2 * i + 1] & mask
                found[i] += heads.bit_count() - tails.bit_count()
        return found


def _words(raw: bytes) -> Iterator[int]:
    return (int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4))


def _text(values: list[int]) -> str:
    """Return small integers as one byte each, with a sign."""
    return bytes(value % 256 for value in values).hex()


@functools.cache
def ckks_casts() -> dict[str, CkksCast]:
    """Return the casts by name."""
    four = choose(4, collusion=0, dropout=0.25)
    bytes_only = choose(5, value_bits=8, collusion=0.2, dropout=0.2)
    weighted = choose(5, max_weight=2, collusion=0.4, dropout=0.2)
    casts = (
        CkksCast(THREE, choose(3, collusion=0, dropout=0), dim=21),
        CkksCast(FIVE, _committee(bytes_only, pack=2), dim=19),
        CkksCast(WEIGHTED, _committee(weighted, pack=2), dim=9, weights=(2, 1, 2, 1, 1)),
        CkksCast(OUTSIDER, _committee(four, size=3, pack=2), dim=10),
    )
    return {cast.name: cast for cast in casts}


def _committee(made: CkksParameters, **changed: int) -> CkksParameters:
    return replace(made, committee=replace(made.committee, **changed))
