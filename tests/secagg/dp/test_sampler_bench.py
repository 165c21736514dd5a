"""The bench of the sampler runs, and what it compares with is right; no time is judged."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import chdtrc

from bench import dp_sampler
from bench.dp_sampler import Rate, measure, textbook, time_by_magnitude
from secagg.dp.sampler import sampler_for
from secagg.dp.terms import MECHANISMS


@pytest.mark.parametrize("variance", [Fraction(1, 2), Fraction(4), Fraction(30)])
def test_the_textbooks_sampler_and_ours_have_one_law(
    variance: Fraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two samples, one by Algorithm 3 and one by us, in one chi-square test at 1e-6."""
    monkeypatch.setattr(dp_sampler, "_SYSTEM", random.Random(5))
    theirs = np.array([textbook(variance) for _ in range(3000)])
    sampler = sampler_for("discrete-gaussian", float(variance))
    ours = sampler.draw(300_000, lambda size: bytes(range(size)))
    edge = math.floor(2.5 * math.sqrt(variance))
    one, other = (
        np.bincount(np.clip(values, -edge, edge) + edge, minlength=2 * edge + 1)
        for values in (theirs, ours)
    )
    expected = other * (len(theirs) / len(ours))
    statistic = float(np.sum((one - expected) ** 2 / expected)) / 1.01
    assert chdtrc(2 * edge, statistic) > 1e-6


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_law_is_measured_without_a_peer(mechanism: str) -> None:
    rate = measure(mechanism, 3.0, count=1000, slow_count=1000, repetitions=1)
    assert rate.ours > 0
    assert rate.opendp is None
    assert (rate.textbook is None) == (mechanism == "skellam")
    assert dp_sampler._row(rate).count("|") == 10


def test_what_was_not_measured_is_a_dash() -> None:
    row = dp_sampler._row(Rate("skellam", 10.0, 0.1, 5e7, numpy=1e6))
    assert row == "| skellam | 10 | 100 | 50 | – | – | – | – | 1 |"


def test_time_that_tells_the_values_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that advances by what was drawn, and one that does not."""
    values = np.random.default_rng(1).integers(0, 50, 400)
    for related in (True, False):
        clock = iter(range(10**9))
        drawn = iter([*values[:10], *values])

        def draw(drawn: object = drawn, clock: object = clock, related: bool = related) -> object:
            x = next(drawn)
            for _ in range(int(x) if related else 7):
                next(clock)
            return np.array([x], np.int32)

        monkeypatch.setattr(dp_sampler.time, "perf_counter_ns", lambda clock=clock: next(clock))
        group = time_by_magnitude("x", draw, deviation=10.0, batches=400)
        assert list(group.magnitudes) == sorted(group.magnitudes)
        assert (abs(group.correlation) > 6 * group.noise) == related
