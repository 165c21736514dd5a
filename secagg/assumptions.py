"""What a round is built to withstand, whatever the scheme: colluding nodes, dropouts, bad luck.

Source: specs/31-thresholds.md sections 1 and 2.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = [
    "DEFAULT_COLLUSION",
    "DEFAULT_DROPOUT",
    "FAILURE_BITS",
    "SECURITY_BITS",
    "SPARSE_FROM",
    "colluders_among",
    "fraction_of",
    "shortened",
]

DEFAULT_COLLUSION: Final = 0.33
"""Just below a third: with a third of dropouts, a third of colluders would be too many."""
DEFAULT_DROPOUT: Final = 1 / 3
SECURITY_BITS: Final = 40
"""A round exposes anybody by an unlucky draw with probability at most 2^-40."""
FAILURE_BITS: Final = 20
"""A round is lost to an unlucky draw with probability at most 2^-20, below one in a million."""

SPARSE_FROM: Final = 128
"""Below so many nodes everybody is everybody's neighbour under masking (P-06), and in the committee
under ckks (R-06): to choose fewer saves little there."""


def colluders_among(members: int, collusion: float) -> int:
    """Return A: how many of `members` nodes may collude at that fraction (P-01)."""
    return math.floor(collusion * members + 1e-9)


def fraction_of(count: int, n: int) -> str:
    """Return the shortest decimal below 1/2 that stands for `count` of n nodes."""
    for digits in range(1, 10):
        scaled = -(-count * 10**digits // n)
        value = scaled / 10**digits
        if value < 0.5 and math.floor(value * n + 1e-9) == count:
            return f"{value:.{digits}f}"
    return repr(count / n)


def shortened(fraction: float) -> str:
    """Return at most four decimals, rounded down so that what a hint allows is allowed."""
    return f"{math.floor(fraction * 10**4 + 1e-9) / 10**4:g}"
