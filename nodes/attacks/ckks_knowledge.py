"""What an attacker on `ckks` can compute from all it got, and whether that is more than it should.

Nothing here knows which attack was played. The attacker holds ciphertexts, single shares of secrets
and shares of weighted sums of secrets. A weighted sum opens if enough holders' shares of it can be
combined from what there is; what opens is subtracted from what else opens, in all ways. The sums of
inputs that follow are held against the true ones: a claim that is not right reveals nothing.

Shares that are more than t and fewer than t + l give combinations of secrets; they are not used.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nodes.attacks.knowledge import Exposure, compared
from nodes.attacks.linear import combination
from secagg.ckks import rlwe
from secagg.ckks.coefficients import read_sum
from secagg.ckks.parameters import CkksParameters
from secagg.ckks.ring import Ring
from secagg.primitives import packed
from secagg.types import NodeId, RingVector

__all__ = ["Answer", "Holdings", "SecretId", "Weights", "read_any"]

SecretId: TypeAlias = tuple[int, NodeId]
"""Whose secret of which round."""
Weights: TypeAlias = Mapping[SecretId, int]
_ANY_WEIGHT: Final = 1 << 40
"""Lets `read_sum` read sums that no round could have: differences, and sums of nonsense."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A holder's share of a weighted sum of secrets."""

    holder: int
    weights: Weights
    share: packed.Share = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Sum:
    """A weighted sum of secrets that was opened."""

    weights: Weights
    secret: NDArray[np.int64] = field(repr=False)


@dataclass(slots=True)
class Holdings:
    """All that an attacker and its accomplices hold at the end of one round or several.

    Attributes:
        terms: Of the rounds.
        ring: Of their ciphertexts.
        dim: Coordinates of an input.
        bits: Sums are modulo 2^bits.
        seed: Of the public elements of the round that is attacked.
        ciphers: Ciphertexts of that round and of one before, by the secrets that they are under.
        shares: Single shares, by holder and secret.
        answers: Shares of sums.
        known: Inputs that the attacker knows anyway.
        allowed: Weightings, over all nodes, of which one may be opened.
        round_id: Of the round that is attacked.
    """

    terms: CkksParameters
    ring: Ring
    dim: int
    bits: int
    seed: bytes
    ciphers: dict[SecretId, rlwe.Residues] = field(default_factory=dict, repr=False)
    shares: dict[tuple[int, SecretId], packed.Share] = field(default_factory=dict, repr=False)
    answers: list[Answer] = field(default_factory=list, repr=False)
    known: dict[NodeId, RingVector] = field(default_factory=dict, repr=False)
    allowed: list[Weights] = field(default_factory=list)
    round_id: int = 1
    _claims: list[tuple[Weights, RingVector]] | None = None

    def exposures(self, truth: Mapping[NodeId, RingVector]) -> list[Exposure]:
        """Return what was opened beyond one sum that is allowed.

        Args:
            truth: Every input of the attacked round as it was.
        """
        found: dict[tuple[NodeId, ...], Exposure] = {}
        released = self._released()
        for weights, guess in self._opened():
            if any(round_id != self.round_id for round_id, _ in weights):
                continue  # an earlier round's sum, or a mixture
            match = self._compare(weights, guess, truth)
            if match is not None and self._unknown(weights) != released:
                found[match.nodes] = match
        for match in self._seen_in_the_clear(truth):
            found.setdefault(match.nodes, match)
        return list(found.values())

    def released(self, truth: Mapping[NodeId, RingVector]) -> int:
        """Return how many inputs the one sum that may be opened holds; 0 if none was."""
        allowed = self._released()
        for weights, guess in self._opened():
            if self._unknown(weights) == allowed and self._compare(weights, guess, truth):
                return len(allowed or ())
        return 0

    def mixes_rounds(self, truth: Mapping[NodeId, RingVector]) -> bool:
        """Tell whether a sum was opened that holds inputs of several rounds."""
        return any(
            len({round_id for round_id, _ in weights}) > 1 and self._compare(weights, guess, truth)
            for weights, guess in self._opened()
        )

    # --- what opens ----------------------------------------------------------------------------

    def _opened(self) -> list[tuple[Weights, RingVector]]:
        """Return every sum of inputs that can be computed, as a claim."""
        if self._claims is None:
            self._claims = list(self._read_all(self._sums()))
        return self._claims

    def _read_all(self, sums: Sequence[_Sum]) -> Iterator[tuple[Weights, RingVector]]:
        for found in sums:
            if set(found.weights) <= set(self.ciphers):
                yield found.weights, self._read(found)
        for found in sums:
            for name in self.ciphers.keys() - found.weights.keys():
                if list(found.weights.values()) == [1]:  # a key is tried on every lock
                    yield {name: 1}, self._read(_Sum({name: 1}, found.secret))

    def _sums(self) -> list[_Sum]:
        """Return the sums of secrets that open, those that follow from others included."""
        found: list[_Sum] = []
        for weights in self._candidates():
            secret = self._combine(weights)
            if secret is not None:
                found.append(_Sum(weights, secret))
        names = sorted({name for each in found for name in each.weights})
        rows = [[each.weights.get(name, 0) for name in names] for each in found]
        single = {next(iter(each.weights)) for each in found if len(each.weights) == 1}
        for place, name in enumerate(names):
            if name in single:
                continue
            factors = combination(rows, [int(i == place) for i in range(len(names))], self._q)
            if factors is not None:
                found.append(_Sum({name: 1}, self._linear(factors, found[: len(rows)])))
        return found

    def _candidates(self) -> list[Weights]:
        """Return weightings worth trying: those asked about, their differences, single secrets."""
        asked = _distinct(self._unowned(each.weights) for each in self.answers)
        differences = [_difference(a, b) for a, b in itertools.combinations(asked, 2)]
        names = sorted({name for _, name in self.shares} | {n for each in asked for n in each})
        return _distinct([*asked, *differences, *({name: 1} for name in names)])

    def _combine(self, weights: Weights) -> NDArray[np.int64] | None:
        """Return the weighted sum of secrets, if enough shares of it can be had."""
        committee = self.terms.committee
        shares: dict[int, packed.Share] = {}
        for holder in range(committee.size):
            share = self._share(holder, weights)
            if share is not None:
                shares[holder] = share
            if len(shares) == committee.answers:
                break
        if len(shares) < committee.answers:
            return None
        opened = packed.open_shares(
            shares,
            prime=committee.modulus,
            threshold=committee.threshold,
            pack=committee.pack,
            size=self.terms.ring.degree,
            bound=(committee.modulus - 1) // 2,
        )
        return None if opened is None else opened.secret

    def _share(self, holder: int, weights: Weights) -> packed.Share | None:
        """Return a holder's share of a weighted sum, from all that it gave or that it is."""
        known = {name: share for (at, name), share in self.shares.items() if at == holder}
        if set(weights) <= set(known):
            return self._sum([known[name] for name in weights], list(weights.values()))
        vectors: list[Weights] = []
        columns: list[packed.Share] = []
        for answer in self.answers:
            rest = {n: w for n, w in answer.weights.items() if w and n not in known}
            if answer.holder == holder and rest:
                taken = [-answer.weights.get(name, 0) for name in known]
                vectors.append(rest)
                columns.append(self._sum([answer.share, *known.values()], [1, *taken]))
        wanted = {name: weight for name, weight in weights.items() if name not in known}
        names = sorted({name for vector in vectors for name in vector})
        if not set(wanted) <= set(names):
            return None
        prime = self.terms.committee.modulus
        matrix = [[vector.get(name, 0) for name in names] for vector in vectors]
        factors = combination(matrix, [wanted.get(name, 0) for name in names], prime)
        if factors is None:
            return None
        owned = [weights.get(name, 0) for name in known]
        return self._sum([*columns, *known.values()], [*factors, *owned])

    def _unowned(self, weights: Weights) -> dict[SecretId, int]:
        """Leave out the secrets that the attacker has all shares of: its accomplices'."""
        size = self.terms.committee.size
        return {
            name: weight
            for name, weight in weights.items()
            if weight and not all((at, name) in self.shares for at in range(size))
        }

    def _sum(self, shares: Sequence[packed.Share], weights: Sequence[int]) -> packed.Share:
        return packed.weighted_sum(shares, prime=self.terms.committee.modulus, weights=weights)

    # --- what it says --------------------------------------------------------------------------

    @property
    def _q(self) -> int:
        return self.ring.modulus

    def _linear(self, factors: Sequence[int], sums: Sequence[_Sum]) -> NDArray[np.int64]:
        """Return a combination of secrets, of least magnitude modulo q."""
        total = np.zeros(self.ring.degree, dtype=object)
        for factor, each in zip(factors, sums, strict=True):
            total += factor * each.secret.astype(object)
        total %= self._q
        return np.array([x - self._q if x > self._q // 2 else x for x in total], dtype=np.int64)

    def _read(self, found: _Sum) -> RingVector:
        """Open the sum of ciphertexts that a sum of secrets is for, and take the values out."""
        total = np.zeros_like(next(iter(self.ciphers.values())))
        for name, weight in found.weights.items():
            part = self.ciphers[name]
            if weight < 0:
                part = (np.uint64(self._q) - part) % np.uint64(self._q)
            rlwe.add(total, part, self.ring, weight=abs(weight))
        secret = rlwe.Secret.from_coefficients(self.ring, found.secret)
        return self._values(rlwe.open_sum(self.ring, secret, total, self.seed))

    def _values(self, opened: NDArray[np.int64]) -> RingVector:
        return read_any(opened, self.terms, dim=self.dim, bits=self.bits)

    def _compare(
        self, weights: Weights, guess: RingVector, truth: Mapping[NodeId, RingVector]
    ) -> Exposure | None:
        for (_, node), weight in weights.items():
            if node in self.known:
                guess = guess - np.uint32(weight % (1 << self.bits)) * self.known[node]
        guess = guess & np.uint32((1 << self.bits) - 1)
        unknown = self._unknown(weights)
        if not unknown:
            return None
        return compared(unknown, guess, truth, self.bits, len(self.ciphers) + 1)

    def _seen_in_the_clear(self, truth: Mapping[NodeId, RingVector]) -> list[Exposure]:
        """Return what ciphertexts show without any secret."""
        found = []
        for (_, node), cipher in self.ciphers.items():
            message = self.ring.centred(self.ring.context.transform(cipher, forward=False))
            match = compared({node: 1}, self._values(message), truth, self.bits, len(self.ciphers))
            if node not in self.known and match is not None:
                found.append(match)
        return found

    def _unknown(self, weights: Weights) -> dict[NodeId, int]:
        return {node: w for (_, node), w in weights.items() if w and node not in self.known}

    def _released(self) -> dict[NodeId, int] | None:
        """Return the honest part of the first weighting that may be opened."""
        return self._unknown(self.allowed[0]) if self.allowed else None


def read_any(
    opened: NDArray[np.int64], terms: CkksParameters, *, dim: int, bits: int
) -> RingVector:
    """Return the values in what was opened, possible or not, shape (dim,), modulo 2^bits."""
    values = read_sum(
        opened,
        terms.ring,
        dim=opened.size * terms.ring.values_per_coefficient,
        ring_bits=bits,
        value_bits=terms.value_bits,
        weight=_ANY_WEIGHT,
    )
    return np.zeros(dim, dtype=np.uint32) if values is None else values[:dim]


def _distinct(vectors: Iterator[Weights] | Sequence[Weights]) -> list[Weights]:
    kept = {tuple(sorted((n, w) for n, w in vector.items() if w)) for vector in vectors}
    return [dict(items) for items in sorted(kept) if items]


def _difference(one: Weights, other: Weights) -> Weights:
    return {name: one.get(name, 0) - other.get(name, 0) for name in {*one, *other}}
