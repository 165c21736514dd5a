"""Where floats give out nothing is proved: such events are infinite, whatever they come with."""

from __future__ import annotations

import math

import pytest

from secagg.dp.accountant import epsilon_of
from secagg.dp.events import PrivacyEvent, SampledGaussian, SumNoise
from secagg.dp.terms import DISCRETE_GAUSSIAN, SKELLAM

DELTA = 1e-5
COSTLY = SampledGaussian(0.05, 0.5, 1000)
CHEAP = SampledGaussian(2.0, 0.01, 10)


@pytest.mark.req("Z-13")
@pytest.mark.parametrize(
    "event",
    [
        SampledGaussian(1e-160, 0.5, 60),
        SampledGaussian(5e-324, 0.5, 60),
        SampledGaussian(1e-300, 1.0, 1),
        SumNoise(DISCRETE_GAUSSIAN, 2.5e-309, 300, 12.0, 40.0, 10),
        SumNoise(DISCRETE_GAUSSIAN, 1e-300, 3, 1e9, 1e9, 10),
        SumNoise(SKELLAM, 5e-324, 3, 1e9, 1e9, 10),
    ],
)
def test_an_event_beyond_floats_is_infinite_and_stays_so(event: PrivacyEvent) -> None:
    """No sum with it may come out as no number, which compares as within every budget."""
    assert epsilon_of([event], DELTA) == math.inf
    assert epsilon_of([CHEAP, event], DELTA) == math.inf
    assert epsilon_of({event: 1, COSTLY: 100}, DELTA) == math.inf


def test_costly_events_within_floats_are_costly() -> None:
    assert epsilon_of([COSTLY], DELTA) > 100
    assert epsilon_of([CHEAP], DELTA) < 1
