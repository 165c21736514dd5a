"""What an attacker can compute from all it got, and whether that is more than it should have.

Nothing here knows which attack was played. The attacker's loot is a set of masked vectors, each
with the names of the masks on it, and the seeds it knows. A sum of some vectors can be opened if
and only if the masks that are left cancel in it; a pair's mask lies on two vectors at most, so the
sets that can be opened are connected components. What is opened is then compared with the true
inputs: a claim that does not hold reveals nothing (A-02).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np

from secagg import ring
from secagg.primitives.prg import accumulate
from secagg.types import NodeId, RingVector

__all__ = [
    "VALUE_BITS",
    "Exposure",
    "Loot",
    "MaskId",
    "Upload",
    "beats_chance",
    "compared",
    "pair_id",
    "summary",
]

VALUE_BITS: Final = 16
"""Inputs are drawn uniformly from so many bits: a guess hits a coordinate with chance 2^-16."""
_FALSE_ALARM: Final = 1e-9

MaskId: TypeAlias = tuple[NodeId, NodeId]
"""(u, u) is the self-mask of u, (u, v) with u < v the mask of the pair."""


def pair_id(one: NodeId, other: NodeId) -> MaskId:
    """Return the name of the mask between two nodes."""
    return min(one, other), max(one, other)


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """A masked vector and what masks lie on it."""

    vector: RingVector = field(repr=False)
    masks: Mapping[MaskId, bool]
    """Mask to whether it was subtracted."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """A sum over few nodes that the attacker has computed and that is right."""

    nodes: tuple[NodeId, ...]
    """Whose inputs it holds, those that the attacker knew before left out."""
    equal: float
    """Fraction of the coordinates that are exactly right."""
    max_error: int
    """Largest absolute difference of a coordinate."""

    def __str__(self) -> str:
        what = (
            f"input of {self.nodes[0]} recovered"
            if len(self.nodes) == 1
            else f"sum of {len(self.nodes)} nodes opened apart"
        )
        rest = "" if self.max_error == 0 else f", {self.equal:.0%} of its coordinates"
        return f"{what}, max error {self.max_error}{rest}"


def summary(exposures: Sequence[Exposure]) -> str:
    """Say in a few words what was gained; "" if nothing."""
    if len(exposures) < 2:
        return "".join(str(each) for each in exposures)
    worst = max(each.max_error for each in exposures)
    single = [each.nodes[0] for each in exposures if len(each.nodes) == 1]
    parts = [f"inputs of {len(single)} nodes recovered"] if len(single) > 1 else []
    parts += [f"input of {single[0]} recovered"] if len(single) == 1 else []
    sums = len(exposures) - len(single)
    parts += [f"{sums} partial sum{'s' if sums > 1 else ''} opened"] if sums else []
    return f"{', '.join(parts)}, max error {worst}"


@dataclass(slots=True)
class Loot:
    """All that an attacker and its accomplices hold at the end of a round."""

    bits: int
    """Sums are modulo 2^bits."""
    uploads: dict[NodeId, Upload] = field(default_factory=dict)
    seeds: dict[MaskId, bytes] = field(default_factory=dict, repr=False)
    inputs: dict[NodeId, RingVector] = field(default_factory=dict, repr=False)
    """Inputs that the attacker knows anyway: of its accomplices, or forced by the model."""

    def opened(self) -> list[tuple[tuple[NodeId, ...], RingVector]]:
        """Return (nodes, their sum) of every component whose masks are gone.

        Inputs that the attacker knows are taken out of nodes and sum.
        """
        residues = {node: self._residue(node) for node in self.uploads}
        found = []
        for component in self._components():
            if not self._cancels(component):
                continue
            total = np.zeros_like(residues[component[0]])
            for node in component:
                total += residues[node]
                if node in self.inputs:
                    total -= self.inputs[node]
            unknown = tuple(node for node in component if node not in self.inputs)
            if unknown:
                found.append((unknown, ring.reduce(total, self.bits)))
        return found

    def exposures(self, truth: Mapping[NodeId, RingVector], *, least: int) -> list[Exposure]:
        """Return what was opened beyond one sum over at least `least` unknown inputs.

        Args:
            truth: Every input as it was.
            least: Honest inputs that a released sum must hold.
        """
        opened = sorted(self.opened(), key=lambda each: -len(each[0]))
        found = []
        for index, (nodes, guess) in enumerate(opened):
            compared = self._compare(nodes, guess, truth)
            if (index or len(nodes) < least) and compared is not None:
                found.append(compared)
        singled_out = {node for each in found for node in each.nodes}
        for node in self.uploads:
            if node not in self.inputs and node not in singled_out:
                compared = self._compare((node,), self._residue(node), truth)
                found += [compared] if compared is not None else []
        return found

    def released(self, truth: Mapping[NodeId, RingVector], *, least: int) -> int:
        """Return how many unknown inputs the one sum that may be opened holds, 0 if none was."""
        for nodes, guess in self.opened():
            if len(nodes) >= least and self._compare(nodes, guess, truth) is not None:
                return len(nodes)
        return 0

    def best_guess(self, truth: Mapping[NodeId, RingVector]) -> float:
        """Return the largest fraction of one unknown input's coordinates that the loot shows."""
        guesses = {node: self._residue(node) for node in self.uploads if node not in self.inputs}
        guesses |= {nodes[0]: guess for nodes, guess in self.opened() if len(nodes) == 1}
        return max(
            (float(np.mean(guess == truth[node])) for node, guess in guesses.items()), default=0.0
        )

    def _compare(
        self, nodes: tuple[NodeId, ...], guess: RingVector, truth: Mapping[NodeId, RingVector]
    ) -> Exposure | None:
        return compared(dict.fromkeys(nodes, 1), guess, truth, self.bits, len(self.uploads) + 1)

    def _residue(self, node: NodeId) -> RingVector:
        upload = self.uploads[node]
        vector = upload.vector.copy()
        for name, negative in upload.masks.items():
            if name in self.seeds:
                accumulate(vector, self.seeds[name], negative=not negative)
        return ring.reduce(vector, self.bits)

    def _left(self, node: NodeId) -> set[MaskId]:
        return set(self.uploads[node].masks) - set(self.seeds)

    def _components(self) -> Iterator[list[NodeId]]:
        carriers: dict[MaskId, list[NodeId]] = {}
        for node in self.uploads:
            for name in self._left(node):
                carriers.setdefault(name, []).append(node)
        todo = dict.fromkeys(self.uploads)
        while todo:
            component, edge = [], [next(iter(todo))]
            while edge:
                node = edge.pop()
                if node in todo:
                    del todo[node]
                    component.append(node)
                    edge += [each for name in self._left(node) for each in carriers[name]]
            yield sorted(component)

    def _cancels(self, component: list[NodeId]) -> bool:
        balance: dict[MaskId, int] = {}
        for node in component:
            masks = self.uploads[node].masks
            for name in self._left(node):
                balance[name] = balance.get(name, 0) + (-1 if masks[name] else 1)
        return not any(balance.values())


def compared(
    weights: Mapping[NodeId, int],
    guess: RingVector,
    truth: Mapping[NodeId, RingVector],
    bits: int,
    tries: int,
) -> Exposure | None:
    """Hold what an attacker computed against the true weighted sum; None if it is no match.

    Args:
        weights: Whose inputs `guess` is said to hold, and how often each.
        guess: What was computed.
        truth: Every input as it was.
        bits: Sums are modulo 2^bits.
        tries: How many such claims there are.
    """
    true = np.zeros_like(guess)
    for node, weight in weights.items():
        true += np.uint32(weight % (1 << bits)) * truth[node]
    true = ring.reduce(true, bits)
    hits = int(np.count_nonzero(guess == true))
    if not beats_chance(hits, len(true), tries=tries):
        return None
    difference = ring.to_signed(ring.reduce(guess - true, bits), bits)
    return Exposure(tuple(weights), hits / len(true), int(np.abs(difference).max(initial=0)))


def beats_chance(hits: int, dim: int, *, tries: int = 1) -> bool:
    """Tell whether so many of `dim` equal coordinates are no luck.

    By the union bound, luck gives them with probability at most tries · C(dim, hits) · 2^-16·hits,
    which must be below one in a billion.
    """
    if not hits:
        return False
    ways = math.lgamma(dim + 1) - math.lgamma(hits + 1) - math.lgamma(dim - hits + 1)
    log_odds = ways - hits * VALUE_BITS * math.log(2)
    return log_odds + math.log(tries) < math.log(_FALSE_ALARM)
