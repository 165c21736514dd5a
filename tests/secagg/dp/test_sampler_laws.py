"""Probabilities: the laws against independent formulas, and what the code really accepts."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from secagg.dp.laws import DiscreteGaussian, Law, Skellam
from secagg.dp.resolve import Resolver, Uniform
from secagg.dp.tables import BAND, SCALE_BITS, SLOTS, BlockTable, build
from secagg.errors import LocalProtocolError
from tests.secagg.dp.probabilities import debye, reference

KEY = bytes(32)
LAWS = (DiscreteGaussian, Skellam)


@pytest.mark.req("N-01")
@pytest.mark.parametrize("kind", LAWS)
@pytest.mark.parametrize("variance", [2.0**-4, 0.3, 1.0, 5.5, 150.0, 10_000.0])
def test_a_law_is_enclosed_to_any_precision(kind: type[Law], variance: float) -> None:
    law = kind(variance)
    with mpmath.workprec(900):
        for x in (0, 1, -2, 3, 17, -40, 1000):
            for bits in (1, 64, 200, 400):
                exact = reference(law, x) * mpmath.mpf(2) ** bits
                assert abs(law.scaled(x, bits) - exact) < 1


@pytest.mark.req("N-01")
@pytest.mark.parametrize("variance", [1e9, 1e12 + 0.5, 2.0**44])
def test_skellam_of_large_means_agrees_with_debyes_expansion(variance: float) -> None:
    law, deviation = Skellam(variance), math.isqrt(int(variance))
    with mpmath.workprec(400):
        for x in (0, 1, deviation // 3, 5 * deviation, 9 * deviation + 1, 30 * deviation):
            exact = debye(x, variance)
            found = mpmath.mpf(law.scaled(x, 900)) / mpmath.mpf(2) ** 900
            assert abs(found / exact - 1) < mpmath.mpf(variance) ** -3


def boundary(resolver: Resolver, law: Law, x: int, odds: Fraction) -> Fraction:
    """Return the probability with which the code keeps x, bisected to 2^-128 from its decisions."""
    low, high = 0, 1 << 128
    while high - low > 1:
        middle = (low + high) // 2
        number = Uniform(KEY, 0, known=middle, bits=128)
        low, high = (middle, high) if resolver.keeps(x, odds, number) else (low, middle)
    return Fraction(high, 1 << 128)


def kept(law: Law, table: BlockTable) -> dict[int, Fraction]:
    """Return integer to the probability that a proposal gives it, as the code decides."""
    resolver = Resolver(law, table, KEY)
    slots = np.bincount(table.slots, minlength=table.blocks + 1)
    found = {}
    for block in range(table.blocks):
        odds = Fraction(table.scale, table.weights[block] << SCALE_BITS)
        for place in range(table.width):
            x = int(table.centre[block]) + place - (table.width >> 1)
            proposed = Fraction(int(slots[block]), SLOTS * table.width)
            found[x] = proposed * boundary(resolver, law, x, odds)
    return found


@pytest.mark.req("N-01")
@pytest.mark.parametrize("kind", LAWS)
@pytest.mark.parametrize("variance", [2.0**-4, 1.0, 2.5, 12.75])
def test_the_probabilities_are_the_laws_to_1e_30(kind: type[Law], variance: float) -> None:
    law = kind(variance)
    table = build(law)
    found = kept(law, table)
    assert sorted(found) == list(range(-table.cut, table.cut))
    with mpmath.workprec(300):
        total = sum(mpmath.mpf(p.numerator) / p.denominator for p in found.values())
        exact = {x: reference(law, x) for x in found}
        norm = sum(exact.values())
        distance = sum(
            abs(mpmath.mpf(p.numerator) / p.denominator / total - exact[x] / norm)
            for x, p in found.items()
        )
    assert distance / 2 < 1e-30


def test_a_wrong_slot_is_seen_in_the_probabilities() -> None:
    """The negative control of the test above: one slot of 4096 in the wrong place."""
    law = DiscreteGaussian(1.0)
    table = build(law)
    right = kept(law, table)
    slots = table.slots.copy()
    slots[np.flatnonzero(slots == table.blocks // 2)[0]] += 1
    object.__setattr__(table, "slots", slots)
    wrong = kept(law, table)
    assert sum(abs(wrong[x] - right[x]) for x in right) > Fraction(1, SLOTS)


@pytest.mark.req("N-07")
@pytest.mark.parametrize("kind", LAWS)
@pytest.mark.parametrize("variance", [2.0**-4, 7.0, 143.9, 144.0, 577.0, 1e6, 2.0**44])
def test_every_probability_of_keeping_is_at_most_one(kind: type[Law], variance: float) -> None:
    law = kind(variance)
    table = build(law)
    assert sum(table.weights) == SLOTS
    assert np.bincount(table.slots, minlength=table.blocks + 1).tolist() == list(table.weights)
    k = table.width
    for block, weight in enumerate(table.weights[:-1]):
        first = int(table.centre[block]) - (k >> 1)
        for x in (first, first + k // 2, first + k - 1):
            assert table.scale * (law.scaled(x, 256) + 1) <= weight << SCALE_BITS + 256
    tail = table.scale * 4
    for step in range(4):  # each block of the tail: half as often proposed as the one before
        most = law.scaled(table.cut + step * k, 256) + 1
        assert (tail << step) * most <= table.weights[-1] << SCALE_BITS + 256
    assert law.scaled(table.cut, 256) << 64 <= law.scaled(0, 256)


@pytest.mark.req("N-04")
@pytest.mark.parametrize("kind", LAWS)
@pytest.mark.parametrize("variance", [144.0, 577.0, 2303.0, 5000.0, 1e6, 2.0**44])
def test_floats_err_by_less_than_two_thirds_of_the_band(kind: type[Law], variance: float) -> None:
    from secagg.dp.sampler import _exp_of_minus

    law = kind(variance)
    table = build(law)
    reach = table.width >> 1
    steps = np.unique(np.linspace(-reach, reach - 1, 9).round()).astype(np.float32)
    unit = 2.0 ** (31 - SCALE_BITS - 160)
    for block in range(0, table.blocks, 3):
        y = steps * (steps * table.curve[block] + table.slope[block])
        out = np.empty_like(y)
        _exp_of_minus(y, out)
        near = [law.scaled(int(table.centre[block]) + int(s), 160) for s in steps]
        exact = np.array([table.scale * n / table.weights[block] * unit for n in near])
        for side, sign in ((table.under, -1), (table.over, 1)):
            error = (out * side[block]).astype(np.float64) / (exact * (1 + sign * BAND)) - 1
            assert np.abs(error).max() < 2.0**-18.8


@pytest.mark.req("N-07")
def test_a_law_that_no_table_fits_is_refused() -> None:
    class Flat:
        variance = 1.0

        def scaled(self, x: int, bits: int) -> int:
            return 1 << bits >> (abs(x) // 9)

    with pytest.raises(LocalProtocolError, match="no table"):
        build(Flat())
