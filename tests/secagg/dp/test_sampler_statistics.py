"""Samples against the laws, at one stated rate of false alarms; and faults that must be seen.

The p-values of one sample are held against RATE (1e-6) divided by their number. Seeds are fixed, so
an honest sampler passes always or never. Chi-square cells expect 20 draws at least.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import bdtrc, chdtrc, ndtr

from secagg.dp.laws import DiscreteGaussian, Law, Skellam
from secagg.dp.resolve import Resolver
from secagg.dp.sampler import NoiseSampler
from secagg.dp.tables import build
from tests.support.randomness import InsecureLabelledRng

RATE = 1e-6
COUNT = 1_000_000
_LEAST = 20
BITS = 200


def sampler(law: Law) -> NoiseSampler:
    return NoiseSampler(law, build(law))


def probabilities(law: Law, reach: int) -> np.ndarray:
    """Return P(-reach) to P(reach), from the enclosures that test_sampler_laws.py checks."""
    half = [law.scaled(x, BITS) for x in range(reach + 1)]
    total = half[0] + 2 * sum(half[1:])
    right = np.array([n / total for n in half])
    return np.concatenate([right[:0:-1], right])


def cells(law: Law) -> tuple[np.ndarray, np.ndarray]:
    """Return (upper ends of cells, their probabilities): single integers, or of equal mass."""
    deviation = math.sqrt(law.variance)
    if deviation <= 40:
        reach = int(12 * deviation) + 20
        return np.arange(-reach, reach + 1), probabilities(law, reach)
    # Where the deviation is 1000 and more both laws are a normal one, rounded, to a relative 1e-6
    ends = np.unique(np.round(deviation * np.linspace(-4.5, 4.5, 400)))
    below = np.concatenate([[0.0], ndtr((ends + 0.5) / deviation), [1.0]])
    return np.append(ends, np.inf), np.diff(below)


def p_values(values: np.ndarray, law: Law) -> dict[str, float]:
    """Return p-values of the sample under the law: cells, mean, variance, tails, neighbours."""
    n, deviation = len(values), math.sqrt(law.variance)
    ends, mass = cells(law)
    counts = np.bincount(np.searchsorted(ends, values), minlength=len(ends) + 1).astype(float)
    if counts[len(ends) :].sum():
        return {"beyond all cells": 0.0}
    enough = n * mass >= _LEAST
    expected = np.append(n * mass[enough], max(n * mass[~enough].sum(), 1e-300))
    found = np.append(counts[: len(ends)][enough], counts[: len(ends)][~enough].sum())
    if expected[-1] < _LEAST:  # too few: with the last cell that has enough
        expected, found = _merged(expected), _merged(found)
    statistic = float(np.sum((found - expected) ** 2 / expected))
    p = {"cells": float(chdtrc(len(found) - 1, statistic))}
    scaled = values / deviation
    p["mean"] = min(1.0, 2 * math.exp(-(scaled.sum() ** 2) / n / 2.2))  # sub-Gaussian, nearly
    if deviation > 40:
        z = (np.mean(scaled**2) - 1) * math.sqrt(n / 2)
        p["variance"] = 2 * float(ndtr(-abs(z)))
        for at in (2, 3, 4):
            edge = math.ceil(at * deviation)
            hits = int(np.count_nonzero(np.abs(values) >= edge))
            chance = 2 * float(ndtr((0.5 - edge) / deviation))
            above = float(bdtrc(hits - 1, n, chance)) if hits else 1.0
            p[f"beyond {at}"] = 2 * min(above, 1 - float(bdtrc(hits, n, chance)), 0.5)
    z = float(np.dot(scaled[1:], scaled[:-1])) / math.sqrt(n)
    p["neighbours"] = 2 * float(ndtr(-abs(z) / 1.05))
    return p


def _merged(cells_: np.ndarray) -> np.ndarray:
    return np.append(cells_[:-2], cells_[-2:].sum())


def alarms(values: np.ndarray, law: Law) -> list[str]:
    found = p_values(values, law)
    return [name for name, p in found.items() if p < RATE / len(found)]


@pytest.mark.req("N-01")
@pytest.mark.parametrize("kind", [DiscreteGaussian, Skellam])
@pytest.mark.parametrize(
    "variance", [2.0**-4, 0.25, 1.0, 6.25, 143.9, 144.0, 600.0, 1e6, 3e8, 1e12, 2.0**44]
)
def test_a_million_draws_follow_the_law(kind: Callable[[float], Law], variance: float) -> None:
    law = kind(variance)
    values = sampler(law).draw(COUNT, InsecureLabelledRng(7, f"{kind.__name__} {variance}"))
    assert alarms(values, law) == []


@pytest.mark.req("N-01")
@pytest.mark.parametrize("kind", [DiscreteGaussian, Skellam])
@pytest.mark.parametrize("variance", [1.0, 1.5, 3.0])
def test_the_slow_paths_follow_the_law(kind: Callable[[float], Law], variance: float) -> None:
    """A table that ends within two standard deviations, and a band of a fourth."""
    law = kind(variance)
    table = build(law, tail_bits=2, band=0.25)
    assert table.cut <= 3
    values = NoiseSampler(law, table).draw(20_000, InsecureLabelledRng(7, "slow"))
    assert np.count_nonzero(values >= table.cut) > 100  # the tail: here 3, below from -4 on
    assert np.count_nonzero(values < -table.cut) > 10
    assert alarms(values, law) == []


# --- negative controls: what is wrong is seen ------------------------------------------------


class Faulty:
    """A law with a fault planted in its probabilities."""

    def __init__(self, law: Law, fault: Callable[[int, int], int]) -> None:
        self.variance = law.variance
        self._law, self._fault = law, fault

    def scaled(self, x: int, bits: int) -> int:
        return self._fault(x, self._law.scaled(x, bits))


FAULTS: dict[str, Callable[[Law], Law]] = {
    "zero half as likely": lambda law: Faulty(law, lambda x, n: n if x else n // 2),
    "zero three halves as likely": lambda law: Faulty(law, lambda x, n: n * 2 // 3 if x else n),
    "hardly a tail beyond 3 deviations": lambda law: Faulty(
        law, lambda x, n: n if abs(x) <= 3 * math.sqrt(law.variance) else n >> 10
    ),
    "2 % less deviation": lambda law: type(law)(law.variance * 0.98**2),
    "2 % more deviation": lambda law: type(law)(law.variance * 1.02**2),
    "one value 3 % rarer": lambda law: Faulty(law, lambda x, n: n if x != 2 else n * 97 // 100),
}


@pytest.mark.parametrize("kind", [DiscreteGaussian, Skellam])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(kind: Callable[[float], Law], fault: str) -> None:
    law = kind(9.0)
    values = sampler(FAULTS[fault](law)).draw(COUNT, InsecureLabelledRng(7, "fault"))
    assert alarms(values, law)


@pytest.mark.parametrize("kind", [DiscreteGaussian, Skellam])
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_another_deviation_is_seen_where_it_is_large(
    kind: Callable[[float], Law], factor: float
) -> None:
    values = sampler(kind(1e12 * factor**2)).draw(COUNT, InsecureLabelledRng(7, "fault"))
    assert {"cells", "variance"} <= set(alarms(values, kind(1e12)))


@pytest.mark.parametrize("kind", [DiscreteGaussian, Skellam])
def test_a_doubled_zero_is_seen(kind: Callable[[float], Law]) -> None:
    """What comes of a magnitude and a sign where -0 is kept as 0."""
    law = kind(9.0)
    rng = InsecureLabelledRng(7, "zero")
    values = sampler(law).draw(COUNT, rng)
    doubled = np.append(values, np.zeros(np.count_nonzero(values == 0), np.int32))
    assert "cells" in alarms(doubled, law)


@pytest.mark.parametrize(("name", "factor"), [("under", 0.9), ("slope", -1), ("centre", 2)])
def test_a_fault_in_the_table_is_seen(name: str, factor: float) -> None:
    law = DiscreteGaussian(1e6)
    honest = build(law)
    array = getattr(honest, name).copy()
    where = slice(None) if name == "slope" else honest.blocks // 2 + 3
    array[where] *= np.array(factor, array.dtype)
    broken = replace(honest, **{name: array, "over": array if name == "under" else honest.over})
    values = NoiseSampler(law, broken).draw(COUNT, InsecureLabelledRng(7, "table"))
    assert alarms(values, law)


def test_a_dropped_tail_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    law = DiscreteGaussian(1.5)
    table = build(law, tail_bits=2)
    resolve = Resolver.resolve

    def without_tail(self: Resolver, index: int, block: int, x: int, uniform: int) -> int | None:
        return None if block == table.blocks else resolve(self, index, block, x, uniform)

    monkeypatch.setattr(Resolver, "resolve", without_tail)
    values = NoiseSampler(law, table).draw(20_000, InsecureLabelledRng(7, "tail"))
    assert "cells" in alarms(values, law)
