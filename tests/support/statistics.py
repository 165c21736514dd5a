"""Tests of uniformity and independence with one stated rate of false alarms for all of them.

A `Battery` collects p-values and raises an alarm where one is below RATE divided by their number
(Bonferroni), so that a battery over honest data alarms with probability at most RATE, however many
statistics it holds.

Sums of ±1 coins, of uniform residues and of cosines of uniform angles are strictly sub-Gaussian:
P(|S| ≥ z·σ) ≤ 2 exp(−z²/2), at any sample size. Chi-square tails are asymptotic; with the 16 and
more that each cell expects here, they hold to within a small factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import (  # type: ignore[import-untyped]  # scikit-learn brings scipy
    bdtrc,
    chdtrc,
    gammainc,
)

from secagg.ring import reduce, to_signed
from secagg.types import RingVector

__all__ = ["RATE", "Battery"]

RATE: Final = 1e-6
"""Probability at most that a battery alarms without cause."""
_CELLS: Final = 256
_LEAST_EXPECTED: Final = 16


@dataclass
class Battery:
    """Statistics of one claim, and what they alarm of."""

    p_values: dict[str, float] = field(default_factory=dict)

    def alarms(self, rate: float = RATE) -> list[str]:
        """Return the labels of those statistics that are too unlikely."""
        limit = rate / max(1, len(self.p_values))
        return [label for label, p in self.p_values.items() if p < limit]

    # --- uniformity ----------------------------------------------------------------------------

    def uniform(self, label: str, vector: RingVector, bits: int) -> None:
        """Claim that the coordinates are independent and uniform modulo 2^bits.

        Tests the mean, every bit, the low and the high byte, and pairs of coordinates that follow
        each other.

        Args:
            label: What it is.
            vector: Shape (dim,), any dtype of unsigned integers, values below 2^bits.
            bits: At least 8.
        """
        dim = len(vector)
        centred = 2 * vector.astype(np.float64) - ((1 << bits) - 1)
        deviation = math.sqrt(dim * (4.0**bits - 1) / 3)
        self._bounded(f"{label}: mean", float(centred.sum()) / deviation)
        for bit in range(bits):
            ones = int(np.count_nonzero(vector >> bit & 1))
            self._bounded(f"{label}: bit {bit}", (2 * ones - dim) / math.sqrt(dim))
        low = (vector & 0xFF).astype(np.int64)
        self._cells(f"{label}: low byte", low)
        self._cells(f"{label}: high byte", (vector >> (bits - 8)).astype(np.int64))
        pairs = (low[0 : dim - 1 : 2] & 15) << 4 | low[1:dim:2] & 15
        self._cells(f"{label}: neighbours", pairs)

    def uniform_bytes(self, label: str, data: bytes) -> None:
        """Claim that the bytes are independent and uniform."""
        self.uniform(label, np.frombuffer(data, dtype=np.uint8).astype(np.uint32), 8)

    def unrelated(self, label: str, one: RingVector, other: RingVector, bits: int) -> None:
        """Claim that the difference and the sum of two vectors are uniform modulo 2^bits."""
        self.uniform(f"{label}, difference", reduce(one - other, bits), bits)
        self.uniform(f"{label}, sum", reduce(one + other, bits), bits)

    def no_coincidences(self, label: str, vectors: NDArray[np.uint32], bits: int) -> None:
        """Claim that no two rows of (n, dim) agree, or cancel, in more coordinates than by chance.

        Catches seeds that were drawn from few: n rows show a space of up to about n²/2 seeds.
        """
        negated = (-vectors.astype(np.int64) % (1 << bits)).astype(np.uint32)
        for index, row in enumerate(vectors[:-1]):
            for kind, others in (("equal", vectors), ("cancel", negated)):
                hits = int(np.max(np.count_nonzero(others[index + 1 :] == row, axis=1)))
                p = float(bdtrc(hits - 1, len(row), 2.0**-bits)) if hits else 1.0
                rows = len(vectors) - 1 - index
                self.p_values[f"{label}: row {index} {kind}"] = min(1.0, rows * p)

    # --- independence --------------------------------------------------------------------------

    def independent(self, label: str, masked: RingVector, plain: RingVector, bits: int) -> None:
        """Claim that `masked` is uniform whatever `plain` is: no linear and no circular relation.

        Args:
            label: What it is.
            masked: Shape (dim,).
            plain: Shape (dim,).
            bits: Of the ring.
        """
        centred = masked.astype(np.float64) - ((1 << bits) - 1) / 2
        weights = to_signed(plain, bits).astype(np.float64)
        weights -= weights.mean()
        norm = math.sqrt(float(np.sum(weights**2)) * (4.0**bits - 1) / 12)
        if norm:
            self._bounded(f"{label}: correlation", float(centred @ weights) / norm)
        turn = 2 * math.pi * reduce(masked - plain, bits) / (1 << bits)
        scale = math.sqrt(len(turn) / 2)
        self._bounded(f"{label}: cosine", float(np.cos(turn).sum()) / scale)
        self._bounded(f"{label}: sine", float(np.sin(turn).sum()) / scale)

    def guesses(self, label: str, right: int, of: int) -> None:
        """Claim that `right` of `of` fair guesses are right."""
        extreme = max(right, of - right)
        self.p_values[f"{label}: guesses"] = min(1.0, 2 * float(bdtrc(extreme - 1, of, 0.5)))

    def alike(self, label: str, one: NDArray[Any], other: NDArray[Any]) -> None:
        """Claim that two samples of bytes come from the same distribution."""
        a = np.bincount(one.ravel(), minlength=_CELLS).astype(np.float64)
        b = np.bincount(other.ravel(), minlength=_CELLS).astype(np.float64)
        both = a + b
        held = both > 0
        ratio = math.sqrt(b.sum() / a.sum())
        statistic = float(np.sum((a[held] * ratio - b[held] / ratio) ** 2 / both[held]))
        self.p_values[f"{label}: homogeneity"] = float(chdtrc(int(held.sum()) - 1, statistic))

    def distinct(self, label: str, items: Iterable[bytes]) -> None:
        """Claim that no two strings are equal; they are too long to be so by chance."""
        listed = list(items)
        self.p_values[f"{label}: distinct"] = 0.0 if len(set(listed)) < len(listed) else 1.0

    def rare(self, label: str, hits: int, *, of: int, chance: float) -> None:
        """Claim that each of `of` cases hits with no more than `chance`, two by two independent.

        The number of hits is taken for Poisson, which it nearly is as long as hits are rare.
        """
        p = float(gammainc(hits, of * chance)) if hits else 1.0
        self.p_values[label] = p

    # --- parts ---------------------------------------------------------------------------------

    def _bounded(self, label: str, z: float) -> None:
        self.p_values[label] = min(1.0, 2 * math.exp(-z * z / 2))

    def _cells(self, label: str, values: NDArray[np.int64]) -> None:
        expected = len(values) / _CELLS
        if expected < _LEAST_EXPECTED:
            raise ValueError(f"{label}: {len(values)} values are too few for {_CELLS} cells")
        counts = np.bincount(values, minlength=_CELLS)
        statistic = float(np.sum((counts - expected) ** 2) / expected)
        self.p_values[label] = float(chdtrc(_CELLS - 1, statistic))
