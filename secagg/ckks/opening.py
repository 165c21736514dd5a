"""From the members' answers to the sum: the secret that opens it, who lied, the values.

The answers are a word of a Reed-Solomon code, in which wrong ones are found as long as enough
others are right. What was decoded is then held against the ciphertexts: only the true sum of
secrets leaves errors as small as errors are. So even t + l right answers among wrong ones can be
told, by leaving some out.

Source: specs/36-ckks.md section 5.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from secagg.ckks import rlwe
from secagg.ckks.coefficients import fits, read_sum
from secagg.ckks.ring import Ring
from secagg.ckks.views import committee_of, elements_seed, terms_of
from secagg.primitives import packed
from secagg.round_setup import RoundSetup
from secagg.steps import PeerBlamed
from secagg.types import AbortReason, NodeId, RingVector
from secagg.wire.messages import SumShare

__all__ = ["Opened", "Opening"]

_MAX_TRIES: Final = 5_000
"""Choices of answers to leave out."""
_MAX_WORK: Final = 4_000_000
"""Choices times the square of the answers: two seconds or so."""


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """How an opening ended."""

    total: RingVector | None = field(repr=False)
    """The sum, or None."""
    reason: AbortReason | None
    """Why there is none."""
    blamed: tuple[PeerBlamed, ...]
    answers: int
    """Answers with a share in them."""


class Opening:
    """Collects answers and opens the sum.

    Args:
        setup: The round.
        ring: Of the ciphertexts.
        weighted: Survivors to their weights.
    """

    def __init__(self, setup: RoundSetup, ring: Ring, weighted: Mapping[NodeId, int]) -> None:
        self._setup, self._ring, self._terms = setup, ring, terms_of(setup)
        self._committee = committee_of(setup)
        self._weighted, self._weight = weighted, sum(weighted.values())
        self._seed = elements_seed(setup)
        self._shares: dict[int, packed.Share] = {}
        self._accused: dict[NodeId, list[NodeId]] = {}

    def take(self, sender: NodeId, answer: SumShare) -> str:
        """Store one answer; return what is wrong with it, or ""."""
        dealers = answer.unopened
        if list(dealers) != sorted(set(dealers)) or not set(dealers) <= set(self._weighted):
            return "its answer names dealers that are none"
        if sender in dealers or bool(dealers) == bool(answer.share):
            return "its answer is neither a share nor a reason for none"
        for dealer in dealers:
            self._accused.setdefault(dealer, []).append(sender)
        if answer.share:
            committee = self._terms.committee
            share = packed.decode(answer.share, committee.modulus, self._terms.share_length)
            if share is None:
                return "its share of the sum is malformed"
            self._shares[self._committee.index(sender)] = share
        return ""

    def open(self, total: rlwe.Residues) -> Opened:
        """Open Σ w·c; every wrong answer is named if the true secret is found (H-13)."""
        needed, spare = self._terms.committee.answers, self._spare(self._shares)
        blamed = [self._accusation(dealer) for dealer in sorted(self._accused)]
        if len(self._shares) < needed:
            return self._failed(AbortReason.TOO_FEW_ANSWERS, blamed)
        first = self._decode(self._shares)
        if first is not None and self._is_true(first, total):
            return self._read(first, first.wrong, total, blamed)
        if first is not None and len(first.wrong) + self._setup.colluders <= spare:
            # Not even all that may collude could have made these answers agree: the shares
            # that were dealt are not those of the ciphertexts.
            return self._failed(AbortReason.SUM_OUT_OF_RANGE, blamed)
        for rest in self._with_some_left_out():
            found = self._decode(rest)
            if found is not None and self._is_true(found, total):
                wrong = found.wrong | self._misfits(found, rest)
                return self._read(found, wrong, total, blamed)
        return self._failed(AbortReason.BAD_SHARES, blamed)

    def _read(
        self,
        found: packed.Opened,
        wrong: Collection[int],
        total: rlwe.Residues,
        blamed: list[PeerBlamed],
    ) -> Opened:
        blamed += self._misfitting(wrong)
        terms = self._terms
        values = read_sum(
            rlwe.open_sum(self._ring, self._secret(found), total, self._seed),
            terms.ring,
            dim=self._setup.dim,
            ring_bits=self._setup.ring_bits,
            value_bits=terms.value_bits,
            weight=self._weight,
        )
        if values is None:  # H-14
            return self._failed(AbortReason.SUM_OUT_OF_RANGE, blamed)
        return Opened(values, None, tuple(blamed), len(self._shares))

    def _accusation(self, dealer: NodeId) -> PeerBlamed:
        """Blame a dealer, beyond doubt if at least one who accuses it cannot collude."""
        accusers = self._accused[dealer]
        if len(accusers) > max(1, self._setup.colluders):
            return PeerBlamed(dealer, f"its shares do not open for {len(accusers)} members")
        reason = f"its shares do not open, or {', '.join(accusers)} says so wrongly"
        return PeerBlamed(dealer, reason, certain=False)

    def _misfitting(self, wrong: Collection[int]) -> list[PeerBlamed]:
        """Name those whose answers do not fit the true polynomials (H-13).

        Polynomials with the same secrets differ in all answers but t − 1 at least. So if those
        that were found are not the true ones, at least so many others lied.
        """
        others = len(self._shares) - len(wrong) - self._terms.committee.threshold + 1
        reason = "its answer does not fit, or was dealt not to fit"
        if others <= self._setup.colluders:
            reason += f", or at least {others} others lied"
        return [
            PeerBlamed(self._committee[holder], reason, certain=False) for holder in sorted(wrong)
        ]

    def _failed(self, reason: AbortReason, blamed: list[PeerBlamed]) -> Opened:
        return Opened(None, reason, tuple(blamed), len(self._shares))

    def _decode(self, shares: Mapping[int, packed.Share], *, size: int = 0) -> packed.Opened | None:
        committee = self._terms.committee
        return packed.open_shares(
            shares,
            prime=committee.modulus,
            threshold=committee.threshold,
            pack=committee.pack,
            size=size or self._terms.ring.degree,
            bound=(committee.modulus - 1) // 2,
        )

    def _secret(self, found: packed.Opened) -> rlwe.Secret:
        return rlwe.Secret.from_coefficients(self._ring, found.secret)

    def _is_true(self, found: packed.Opened, total: rlwe.Residues) -> bool:
        """Tell whether a decoded secret opens the first block of the sum (H-13)."""
        if np.abs(found.secret).max() > self._weight * self._terms.ring.secret_terms:
            return False
        opened = rlwe.open_sum(self._ring, self._secret(found), total[:1], self._seed)
        terms = self._terms
        return fits(opened, terms.ring, value_bits=terms.value_bits, weight=self._weight)

    def _spare(self, shares: Collection[int]) -> int:
        return len(shares) - self._terms.committee.answers

    def _with_some_left_out(self) -> Iterator[dict[int, packed.Share]]:
        """Yield answers of which some are left out, where those left lie on polynomials.

        Two that are left out are worth one more that is found. A choice is tried on one random
        combination of the polynomials first, which is a polynomial just where all of them are.
        """
        count, spare = len(self._shares), self._spare(self._shares)
        tries = min(_MAX_TRIES, _MAX_WORK // count**2)
        combined = self._combined()
        for left in range(2 - spare % 2, spare + 1, 2):
            tries -= math.comb(count, left)
            if tries < 0:
                return
            for left_out in itertools.combinations(sorted(self._shares), left):
                rest = {h: word for h, word in combined.items() if h not in left_out}
                if self._decode(rest, size=1) is not None:
                    yield {h: self._shares[h] for h in rest}

    def _combined(self) -> dict[int, packed.Share]:
        """Return each answer's combination by factors that nobody knew who gave an answer."""
        prime, stream = self._terms.committee.modulus, hashlib.shake_256()
        for holder, share in sorted(self._shares.items()):
            stream.update(holder.to_bytes(4, "little") + share.tobytes())
        length = self._terms.share_length
        words = np.frombuffer(stream.digest(8 * length), dtype="<u8")
        factors = (words % np.uint64(prime)).astype(np.int64)
        return {
            holder: np.array([np.sum(share.astype(np.int64) * factors % prime) % prime], np.uint32)
            for holder, share in self._shares.items()
        }

    def _misfits(self, found: packed.Opened, rest: Mapping[int, packed.Share]) -> set[int]:
        """Return the holders among those left out whose shares do not fit the others."""
        good = {holder: share for holder, share in rest.items() if holder not in found.wrong}
        wrong = set()
        for holder in self._shares.keys() - rest.keys():
            again = self._decode({**good, holder: self._shares[holder]})
            if again is None or again.wrong:
                wrong.add(holder)
        return wrong
