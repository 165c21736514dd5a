"""Which combination of what an attacker knows gives what it wants, modulo a prime."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["combination"]


def combination(
    rows: Sequence[Sequence[int]], target: Sequence[int], prime: int
) -> list[int] | None:
    """Return factors with which the rows add up to `target` modulo a prime; None if none do."""
    if not rows:
        return None
    width = len(rows)
    system = [[row[i] % prime for row in rows] + [goal % prime] for i, goal in enumerate(target)]
    pivots: list[int] = []
    for column in range(width):
        at = len(pivots)
        found = next((i for i in range(at, len(system)) if system[i][column]), None)
        if found is None:
            continue
        system[at], system[found] = system[found], system[at]
        scale = pow(system[at][column], -1, prime)
        system[at] = [x * scale % prime for x in system[at]]
        for i, line in enumerate(system):
            if i != at and line[column]:
                factor = line[column]
                system[i] = [
                    (x - factor * y) % prime for x, y in zip(line, system[at], strict=True)
                ]
        pivots.append(column)
    if any(line[width] for line in system[len(pivots) :]):
        return None
    factors = [0] * width
    for line, column in zip(system, pivots, strict=False):
        factors[column] = line[width]
    return factors
