"""Numbers as they are printed, on the safe side of what was computed.

The exact value of the float is rounded, in decimal: a product, a quotient or a slack for either
could move it across a printed digit.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Final

__all__ = ["at_least", "at_most"]

_DIGITS: Final = 4
_WIDE: Final = Context(prec=400)
"""Any float before its point, and what is printed behind it."""


def at_least(value: float, *, places: int | None = None) -> str:
    """Return `value` with four digits, or that many decimals, never below it (B-12)."""
    return _printed(value, places, ROUND_CEILING)


def at_most(value: float, *, places: int | None = None) -> str:
    """Return `value` with four digits, or that many decimals, never above it."""
    return _printed(value, places, ROUND_FLOOR)


def _printed(value: float, places: int | None, rounding: str) -> str:
    exact = Decimal(value)
    if not exact or not exact.is_finite():
        return f"{value:g}"
    last = exact.adjusted() - _DIGITS + 1 if places is None else -places
    rounded = exact.quantize(Decimal(1).scaleb(last), rounding, _WIDE)
    return f"{float(rounded):.{_DIGITS}g}" if places is None else f"{_WIDE.normalize(rounded):f}"
