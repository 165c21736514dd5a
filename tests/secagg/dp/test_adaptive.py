"""The clip follows the quantile, within limits, and its cost is that of the paper."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.dp.adaptive import (
    MAX_CLIP,
    MIN_CLIP,
    QUANTILE,
    RATE,
    WITHIN_SHARE,
    count_noise,
    free_multiplier,
    next_clip,
    within_fraction,
)
from secagg.errors import ConfigError


@pytest.mark.req("D-05", "D-13")
@given(st.floats(1e-3, 1e3))
def test_the_noise_is_split_as_in_the_paper(z: float) -> None:
    """Andrew et al. 2021, theorem 1: z_Δ = (z^-2 - (2σ_b)^-2)^(-1/2)."""
    split = (z**-2 - (2 * count_noise(z)) ** -2) ** -0.5
    assert free_multiplier(z) == pytest.approx(split, rel=1e-12)


@pytest.mark.req("D-05")
def test_the_count_costs_half_a_percent_of_noise() -> None:
    assert WITHIN_SHARE == 0.1
    assert free_multiplier(1.0) == pytest.approx(1.0050, abs=5e-5)
    assert count_noise(1.0) == 5.0  # n/20 for n = 100


@pytest.mark.req("D-13")
@given(st.floats(1e-5, 1e5), st.floats(0, 1), st.floats(0.1, 0.9), st.floats(0.01, 2))
def test_the_step_is_geometric(clip: float, fraction: float, quantile: float, rate: float) -> None:
    after = next_clip(clip, fraction, quantile, rate)
    assert math.log(after / clip) == pytest.approx(-rate * (fraction - quantile), abs=1e-9)


@pytest.mark.req("D-13")
@pytest.mark.parametrize("fraction", [-1e9, -3.0, 4.0, 1e300])
def test_noise_moves_the_clip_by_a_bounded_factor(fraction: float) -> None:
    assert abs(math.log(next_clip(1.0, fraction))) == pytest.approx(RATE)


@pytest.mark.req("D-13")
def test_the_clip_stays_in_its_range() -> None:
    low = high = 1.0
    for _ in range(200):
        low, high = next_clip(low, 1.0, rate=1.0), next_clip(high, 0.0, rate=1.0)
    assert (low, high) == (MIN_CLIP, MAX_CLIP)
    assert next_clip(1e-20, 0.5) == MIN_CLIP


@pytest.mark.req("D-13")
@pytest.mark.parametrize("start", [0.01, 100.0])
@pytest.mark.parametrize("quantile", [0.5, 0.8])
def test_it_converges_to_the_quantile_under_noise(start: float, quantile: float) -> None:
    """Log-normal norms of 1000 nodes, noise of z = 1; the last 100 clips within 10 %."""
    rng = np.random.default_rng(1)
    norms = rng.lognormal(size=1000)
    clip, seen = start, []
    for _ in range(300):
        within = float(np.sum(np.where(norms <= clip, 0.5, -0.5))) + rng.normal() * count_noise(1.0)
        clip = next_clip(clip, within_fraction(within, 1000), quantile)
        seen.append(clip)
    assert np.median(seen[-100:]) == pytest.approx(np.quantile(norms, quantile), rel=0.1)


def test_fractions_are_counted_from_halves() -> None:
    assert within_fraction(5.0, 10) == 1.0
    assert within_fraction(-5.0, 10) == 0.0
    assert within_fraction(0.0, 10) == 0.5


@pytest.mark.parametrize(
    "arguments",
    [
        (0.0, 0.5),
        (-1.0, 0.5),
        (math.inf, 0.5),
        (math.nan, 0.5),
        (1.0, math.nan),
        (1.0, math.inf),
        (1.0, 0.5, 0.0),
        (1.0, 0.5, 1.0),
        (1.0, 0.5, math.nan),
        (1.0, 0.5, QUANTILE, 0.0),
        (1.0, 0.5, QUANTILE, 11.0),
        (1.0, 0.5, QUANTILE, math.nan),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError):
        next_clip(*arguments)
