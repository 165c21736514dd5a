"""Settings that `choose` makes, over sizes and fractions, and what of them `insecurity` takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict

from secagg.masking.parameters import MaskingParameters, choose

SETTINGS = ((0.05, 0.05), (0.1, 0.1), (0.1, 0.3), (0.0, 0.45), (0.4, 0.05))
SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
NAMES = ("neighbours", "threshold", "quorum", "colluders")
"""What a node judges of a setting."""


def chosen() -> Iterator[tuple[int, MaskingParameters]]:
    """Yield cohort size and choice for every size and every pair of fractions."""
    for n, (collusion, dropout) in itertools.product(SIZES, SETTINGS):
        yield n, choose(n, collusion=collusion, dropout=dropout)


def judged(made: MaskingParameters) -> dict[str, int]:
    """Return the settings that `insecurity` takes."""
    return {name: value for name, value in asdict(made).items() if name in NAMES}
