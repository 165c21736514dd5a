"""The estimates agree with those published, and what sums leave with brute force."""

from __future__ import annotations

import itertools
import math
import runpy
import sys
from collections import Counter

import pytest

from bench.common import BenchError
from bench.known_sums import (
    binomial,
    given_sum,
    left_of,
    lwe_given_sums,
    ternary_sum,
    worst_pair,
)
from bench.lattice import GUIDELINES, STANDARD, Lwe, bdd, bits_of, dual, primal

PUBLISHED = {1024: 131.6, 2048: 129.7, 4096: 128.1, 8192: 128.5}
"""Degree to the bits of the primal attack in the standard of 2018, table 1: ternary, 128 bits."""


@pytest.mark.parametrize("degree", STANDARD)
def test_the_standard_s_table_comes_out(degree: int) -> None:
    problem = Lwe(degree, STANDARD[degree], 2 / 3, 3.19**2)
    assert abs(primal(problem, "BDGL16").bits - PUBLISHED[degree]) < 0.5
    assert abs(dual(problem, "BDGL16").bits - PUBLISHED[degree]) < 3


@pytest.mark.parametrize("degree", GUIDELINES)
def test_the_guidelines_moduli_are_the_longest_with_128_bits(degree: int) -> None:
    longest, longer = (
        min(bits_of(Lwe(degree, GUIDELINES[degree] + more, 2 / 3, 3.19**2))["MATZOV"])
        for more in (0, 1)
    )
    assert longer < 128 <= longest


def test_kyber512_comes_out_as_the_estimator_documents_it() -> None:
    problem = Lwe(512, math.log2(3329), 1.5, 1.5, samples=512)
    found = primal(problem, "ADPS16")
    assert (found.beta, found.lattice, round(found.bits, 1)) == (406, 998, 118.6)
    assert round(primal(problem, "MATZOV").bits, 1) == 143.8
    assert abs(bdd(problem, "MATZOV").bits - 140.2) < 0.5


def test_a_wider_secret_or_error_helps_and_a_longer_modulus_hurts() -> None:
    base = primal(Lwe(2048, 50, 2 / 3, 10.5)).bits
    assert primal(Lwe(2048, 50, 4 / 3, 10.5)).bits > base
    assert primal(Lwe(2048, 50, 2 / 3, 21)).bits > base
    assert primal(Lwe(2048, 51, 2 / 3, 10.5)).bits < base
    assert primal(Lwe(2000, 50, 2 / 3, 10.5)).bits < base
    same = primal(Lwe(2048, 50, 10.5, 10.5))
    assert primal(Lwe(2048, 50, 99, 10.5)) == same  # n samples make it as narrow as the errors


@pytest.mark.parametrize("problem", [Lwe(2048, 50, 0, 1), Lwe(0, 50, 1, 1), Lwe(2048, 900, 1, 1)])
def test_what_the_model_does_not_fit_is_refused(problem: Lwe) -> None:
    with pytest.raises(BenchError):
        primal(problem)


def test_sums_of_ternary_draws_and_of_coins() -> None:
    seen = Counter(sum(draws) for draws in itertools.product((-1, 0, 1), repeat=3))
    assert {k: p * 27 for k, p in ternary_sum(3).items()} == seen
    error = binomial()
    assert sum(error.values()) == 1
    assert (min(error), max(error)) == (-21, 21)
    assert sum(k * k * p for k, p in error.items()) == 10.5


def variance(values: list[int]) -> float:
    return sum((x - sum(values) / len(values)) ** 2 for x in values) / len(values)


@pytest.mark.parametrize("weights", [(1, 1), (2, 1), (3, 2), (3, 3)])
def test_what_a_sum_leaves_is_what_counting_says(weights: tuple[int, int]) -> None:
    one, two = (w // math.gcd(*weights) for w in weights)
    draws = [sum(d) for d in itertools.product((-1, 0, 1), repeat=2)]
    pairs = list(itertools.product(draws, repeat=2))
    sums: dict[int, list[int]] = {}
    for x, y in pairs:
        sums.setdefault(one * x + two * y, []).append(x)
    wanted = sorted(
        (round(len(xs) / len(pairs), 12), round(variance(xs) / two**2, 12)) for xs in sums.values()
    )
    found = sorted(
        (round(s.probability, 12), round(s.variance, 12))
        for s in given_sum(ternary_sum(2), weights)
    )
    assert len(found) == len(wanted)
    for one_found, one_wanted in zip(found, wanted, strict=True):
        assert one_found == pytest.approx(one_wanted)


def test_equal_weights_leave_half_of_the_variance() -> None:
    left = left_of(4, 1, (1, 1))
    assert left.secret_mean == pytest.approx(4 * 2 / 3 / 2)
    assert left.error_mean == pytest.approx(10.5 / 2)
    assert left.fixed == pytest.approx(2 / 3**8)
    assert left.error_variance < left.error_mean  # the adversary picks its samples
    once = left_of(1, 1, (1, 1))
    assert once.fixed == pytest.approx(2 / 9)


def test_a_wide_weight_gives_narrow_secrets_away() -> None:
    """With weights 1 and 9, w₁s₁ + w₂s₂ of |s| ≤ 4 is s₁ modulo 9, that is s₁."""
    assert left_of(4, 1, (9, 1)).fixed == pytest.approx(1)
    with pytest.raises(BenchError, match="give the secret away"):
        lwe_given_sums(2048, 50, 1, max_weight=8)


@pytest.mark.parametrize("most", [2, 3, 4])
def test_the_worst_pair_of_weights_is_the_highest_with_the_one_below(most: int) -> None:
    kept = {
        pair: left_of(4, 3, pair).secret_mean
        for pair in itertools.product(range(1, most + 1), repeat=2)
        if math.gcd(*pair) == 1
    }
    assert min(kept, key=lambda pair: (round(kept[pair], 9), -pair[0])) == worst_pair(most)
    assert kept[worst_pair(most)] == min(kept.values())


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("bench.lattice", []),
        ("bench.lattice", ["--degree", "2048", "--log-q", "49"]),
        ("bench.known_sums", ["--terms", "4", "--log-q", "50"]),
    ],
)
def test_the_tables_are_printed(
    module: str,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [module, *options])
    monkeypatch.delitem(sys.modules, module)
    runpy.run_module(module, run_name="__main__")
    assert "MATZOV" in capsys.readouterr().out
