"""Hypergeometric tails, counted exactly in integers: floats only print them (P-08).

X is how many of `marked` are among those drawn of a population without putting back.
"""

from __future__ import annotations

import math
from functools import lru_cache

__all__ = ["bars", "failure_bits_of", "tail"]


@lru_cache(maxsize=64)
def bars(population: int, marked: int, *, odds: int, most: int) -> tuple[int, ...]:
    """Return the least b with odds · P[X ≥ b] ≤ 1, for each number of draws 1 … `most`.

    X is hypergeometric: how many of `marked` are among h drawn of `population`. From h to h + 1
    the bar stays or rises by one, so that tail, point mass and C(population, h), all as integers,
    follow from those before by a multiplication and an exact division with small numbers. The
    point mass is never 0: bar - 1 is a count that can be drawn, or the bar would be lower.
    """
    found: list[int] = []
    bar, above, total = 1, 0, 1
    point = 1  # ways to draw bar - 1 marked ones
    for draws in range(1, most + 1):
        rest = population - draws + 1
        above = (above * rest + point * (marked - bar + 1)) // draws
        total = total * rest // draws
        point = point * (rest - marked + bar - 1) // (draws - bar + 1)
        if above * odds > total:
            point = _next_point(population, marked, draws=draws, bar=bar, point=point)
            above -= point
            bar += 1
        found.append(bar)
    return tuple(found)


def _next_point(population: int, marked: int, *, draws: int, bar: int, point: int) -> int:
    """Return the ways to draw `bar` marked ones, from the `point` > 0 ways to draw one fewer."""
    others = population - marked
    up = (marked - bar + 1) * (draws - bar + 1)
    return point * up // (bar * (others - draws + bar))


def tail(population: int, marked: int, draws: int, bar: int) -> int:
    """Return in how many of the C(population, draws) ways at least `bar` marked ones are drawn."""
    others = population - marked
    count = max(bar, draws - others, 0)
    if count > min(marked, draws):
        return 0
    point = math.comb(marked, count) * math.comb(others, draws - count)
    ways = 0
    while point:
        ways += point
        count += 1
        point = _next_point(population, marked, draws=draws, bar=count, point=point)
    return ways


def failure_bits_of(ways: int, total: int) -> float:
    """Return -log2 of `ways` out of `total`, at least 0; infinite if there is none."""
    return max(0.0, math.log2(total) - math.log2(ways)) if ways else math.inf
