"""One choice of numbers for packed sharing, and what tests of sharing and of opening both need."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.primitives import packed
from secagg.primitives.packed import Opened, Share
from tests.support.randomness import InsecureLabelledRng

LARGEST_PRIME = 2**31 - 1
ints = np.random.default_rng


class Words:
    """Gives the words that are drawn, then nothing."""

    def __init__(self, words: list[int]) -> None:
        self._data = b"".join(word.to_bytes(4, "little") for word in words)

    def __call__(self, size: int) -> bytes:
        assert size <= len(self._data), "more is drawn than expected"
        out, self._data = self._data[:size], self._data[size:]
        return out


class Code:
    """One choice of numbers, and sharing and opening with it."""

    def __init__(self, threshold: int, pack: int, holders: int, size: int, bound: int) -> None:
        self.threshold, self.pack, self.holders = threshold, pack, holders
        self.size, self.bound = size, bound
        self.prime = packed.smallest_field(bound, holders, pack)

    def share(self, secret: NDArray[np.int64], label: str = "share") -> Share:
        return packed.share(
            secret,
            prime=self.prime,
            threshold=self.threshold,
            pack=self.pack,
            holders=self.holders,
            rng=InsecureLabelledRng(1, label),
        )

    def open(self, shares: Mapping[int, Share]) -> Opened | None:
        return packed.open_shares(
            shares,
            prime=self.prime,
            threshold=self.threshold,
            pack=self.pack,
            size=self.size,
            bound=self.bound,
        )

    def secret(self, seed: int) -> NDArray[np.int64]:
        return ints(seed).integers(-self.bound, self.bound, self.size, endpoint=True)


@st.composite
def codes(draw: st.DrawFn) -> Code:
    threshold, pack = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    holders = threshold + pack + draw(st.integers(0, 6))
    bound = draw(st.sampled_from([1, 40, 4_000, 10**6, 2**30 - 100]))
    return Code(threshold, pack, holders, draw(st.integers(1, 40)), bound)


def values_at(points: Mapping[int, int], targets: list[int], prime: int) -> list[int]:
    """Lagrange's formula, in integers and one place at a time."""
    values = []
    for target in targets:
        value = 0
        for i, term in points.items():
            for j in points:
                if j != i:
                    term = term * (target - j) * pow(i - j, -1, prime) % prime
            value += term
        values.append(value % prime)
    return values


def opened_as(found: Opened | None, secret: NDArray[np.int64], wrong: set[int]) -> bool:
    return found is not None and found.wrong == wrong and np.array_equal(found.secret, secret)
