"""Numbers that are printed stand on the safe side of the computed ones."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from secagg.dp.printed import at_least, at_most

ODD = [1.2340000000005, 1.234, 0.1, 9.9991, 99995.0, 123456.7, 1e-7, 3e-320, 1e300, 4.0, 0.29]


@pytest.mark.req("B-12")
@pytest.mark.parametrize("places", [None, 2])
def test_no_rounding_crosses_the_exact_value(places: int | None) -> None:
    drawn = np.random.default_rng(3).lognormal(0, 4, 2000).tolist()
    for value in [*ODD, *drawn, *(round(each, 3) for each in drawn)]:
        high, low = at_least(value, places=places), at_most(value, places=places)
        assert Decimal(low) <= Decimal(value) <= Decimal(high)
        step = 0.01 if places else value / 999 + 5e-324
        assert float(high) - float(low) <= step * 1.001


@pytest.mark.req("B-12")
def test_a_hair_above_a_printed_number_is_the_next_one() -> None:
    assert at_least(1.2340000000005) == "1.235"
    assert at_least(9.9991) == "10"
    assert at_least(2.0000000001, places=2) == "2.01"


def test_what_is_exact_stays() -> None:
    assert [at_least(each) for each in (0.0, 0.5, 8.0, float("inf"))] == ["0", "0.5", "8", "inf"]
    assert [at_most(each, places=2) for each in (0.0, 0.25, 100.0)] == ["0", "0.25", "100"]
