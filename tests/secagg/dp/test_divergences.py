"""The theorems against divergences computed from the definition."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from secagg.dp.divergences import (
    NearGaussian,
    fold_discrete_gaussians,
    log_theta,
    renyi_discrete_gaussians,
    renyi_skellam,
    smoothing_variance,
)
from tests.secagg.dp.exact import discrete_gaussian, renyi, shifts, skellam, sum_of

ORDERS = np.array([1.05, 1.5, 2, 3, 4.5, 8, 16, 40])
SUMS = [
    [0.25] * 2,
    [0.25] * 6,
    [0.5] * 3,
    [0.1] * 4,
    [1.0] * 4,
    [2.0] * 10,
    [0.25, 1.0, 2.0],  # levels of a share, of two nodes
    [0.3, 0.3, 0.7, 0.7, 2.0, 2.0],
    [4.0, 0.2, 0.2],
    [0.05, 1.0],
]
MARGIN = 1 + 1e-12  # float error of the definition


def exact_sum(variances: list[float], reach: int) -> np.ndarray:
    wide = 2 * reach
    return sum_of([discrete_gaussian(v, wide) for v in variances], reach)


def kairouz(
    orders: np.ndarray, variance: float, n: int, l2: float, l1: float, d: int
) -> np.ndarray:
    """Return the bound of Kairouz, Liu and Steinke 2021, proposition 14, as printed."""
    tau = 10 * sum(math.exp(-2 * math.pi**2 * variance * k / (k + 1)) for k in range(1, n))
    s = math.sqrt(n * variance)
    return np.minimum.reduce(
        [
            orders * l2**2 / (2 * s**2) + tau * d,
            orders / 2 * (l2**2 / s**2 + 2 * l1 * tau / s + tau**2 * d),
            orders / 2 * (l2 / s + tau * math.sqrt(d)) ** 2,
        ]
    )


@pytest.mark.parametrize("c", [0.02, 0.1, 0.159, 0.16, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("at", [0.0, 0.5])
def test_log_theta_is_its_definition(c: float, at: float) -> None:
    with mpmath.workdps(50):
        # The Gaussians themselves: the other side of Poisson summation.
        total = mpmath.nsum(lambda x: mpmath.exp(-((x - at) ** 2) / (2 * c)), [-60, 60])
        wanted = mpmath.log(total / mpmath.sqrt(2 * mpmath.pi * c))
    assert log_theta(np.array([c]), at)[0] == pytest.approx(float(wanted), rel=1e-12)


@pytest.mark.req("Z-04")
@pytest.mark.parametrize("variances", SUMS, ids=str)
def test_a_sum_stays_within_its_interval_around_a_discrete_gaussian(variances: list[float]) -> None:
    near = fold_discrete_gaussians(variances)
    assert near.variance == pytest.approx(sum(variances), rel=1e-15)
    reach = int(8 * math.sqrt(near.variance)) + 2
    ratio = exact_sum(variances, reach) - discrete_gaussian(near.variance, reach)
    assert ratio.min() >= near.low - 1e-12
    assert ratio.max() <= near.high + 1e-12
    if variances == [0.25] * 2:  # a single θ_c(z/2), so both ends are met
        assert ratio.max() == pytest.approx(near.high, abs=1e-12)
    assert near.low <= 0 <= near.high


@pytest.mark.req("Z-04")
def test_the_span_is_kept_where_it_is_far_below_float_rounding() -> None:
    near = fold_discrete_gaussians([4.0] * 1000)
    leading = sum(4 * math.exp(-2 * math.pi**2 * 4 * k / (k + 1)) for k in range(1, 1000))
    assert near.span == pytest.approx(leading, rel=1e-6)
    assert fold_discrete_gaussians([0.3]) == NearGaussian(0.3, 0.0, 0.0)


@pytest.mark.req("Z-05")
@pytest.mark.parametrize("variances", SUMS, ids=str)
def test_no_shift_of_a_sum_of_discrete_gaussians_exceeds_the_bound(variances: list[float]) -> None:
    near = fold_discrete_gaussians(variances)
    logs = exact_sum(variances, reach=int(3 * ORDERS[-1] + 12 * math.sqrt(near.variance)))
    alone = {s: np.array([renyi(logs, s, order) for order in ORDERS]) for s in (1, 2, 3)}
    alone[0] = np.zeros(len(ORDERS))
    tightest = 0.0
    for dim in (1, 2, 3):
        for shift in shifts(dim, 3):
            exact = np.sum([alone[s] for s in shift], axis=0)
            l2, l1 = math.sqrt(sum(s * s for s in shift)), float(sum(shift))
            bound = renyi_discrete_gaussians(ORDERS, near, l2=l2, l1=l1, dim=dim)
            assert (exact <= bound * MARGIN).all(), (shift, exact / bound)
            tightest = max(tightest, float((exact / bound).max()))
            if len(set(variances)) == 1 and variances[0] >= 0.25:
                paper = kairouz(ORDERS, variances[0], len(variances), l2, l1, dim)
                assert (bound <= paper * (1 + 2e-9)).all()
    assert tightest > 0.99


@pytest.mark.req("Z-05")
def test_at_moderate_noise_the_bound_is_the_divergence() -> None:
    near = fold_discrete_gaussians([2.0] * 5)
    logs = exact_sum([2.0] * 5, reach=200)
    for shift in (1, 4):
        bound = renyi_discrete_gaussians(ORDERS, near, l2=shift, l1=shift, dim=1)
        exact = [renyi(logs, shift, order) for order in ORDERS]
        assert bound == pytest.approx(np.array(exact), rel=1e-6)


@pytest.mark.req("Z-06")
@pytest.mark.parametrize("variance", [0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 100.0])
def test_no_shift_of_skellam_noise_exceeds_the_bound(variance: float) -> None:
    logs = skellam(variance, reach=int(80 + 25 * math.sqrt(variance)))
    alone = {s: np.array([renyi(logs, s, order) for order in ORDERS]) for s in (1, 2, 3, 8)}
    alone[0] = np.zeros(len(ORDERS))
    for shift in [*shifts(3, 3), *shifts(2, 3), (1,), (3,), (8,), (8, 1, 0), (8, 8, 8), (8, 3, 1)]:
        exact = np.sum([alone[s] for s in shift], axis=0)
        l2, l1 = math.sqrt(sum(s * s for s in shift)), float(sum(shift))
        bound = renyi_skellam(ORDERS, variance, l2=l2, l1=l1)
        assert (exact <= bound * MARGIN).all(), (shift, exact / bound)


@pytest.mark.req("Z-06")
def test_skellam_at_large_variance_is_tight_and_fractions_take_the_next_whole_order() -> None:
    logs = skellam(100.0, reach=400)
    bound = renyi_skellam(np.array([2.0, 3.0, 8.0]), 100.0, l2=5, l1=5)
    exact = np.array([renyi(logs, 5, order) for order in (2.0, 3.0, 8.0)])
    assert (exact >= 0.95 * bound).all()
    odd = renyi_skellam(np.array([1.05, 2.5, 7.1]), 100.0, l2=5, l1=5)
    assert odd == pytest.approx(bound)


@pytest.mark.req("Z-06")
def test_shares_of_skellam_add_up_to_one_of_the_total_variance() -> None:
    three = sum_of([skellam(v, 120) for v in (0.3, 0.7, 1.0)], 30)
    assert three == pytest.approx(skellam(2.0, 30), abs=1e-10)


@pytest.mark.req("Z-10")
@pytest.mark.parametrize("smooth", [0.2, 0.4, 0.6])
def test_a_rounded_gaussian_is_within_its_factor_of_a_discrete_one(smooth: float) -> None:
    narrow = 0.05  # a wider one would blur the factors, and the test could not fail
    variance = narrow + smooth
    y, step = np.linspace(-4, 4, 16_001, retstep=True)
    density = np.exp(-(y**2) / (2 * narrow))
    density /= density.sum() * step
    integers = np.arange(-20, 21)
    kernel = np.exp(-((integers[:, None] - y) ** 2) / (2 * smooth))
    rounded = (kernel / kernel.sum(axis=0)) @ density * step
    inside = np.abs(integers) <= 3
    ratio = np.log(rounded[inside]) - discrete_gaussian(variance, 20)[inside]
    span = log_theta(np.array([smooth]), 0.0) - log_theta(np.array([smooth]), 0.5)
    assert np.ptp(ratio) <= span[0] * (1 + 1e-6)
    assert np.ptp(ratio) >= span[0] / 6


@pytest.mark.req("Z-10")
@pytest.mark.parametrize(("coordinates", "loss"), [(1.0, 1.0), (1e3, 1e-3), (1e13, 1e-9)])
def test_smoothing_costs_no_more_than_was_asked(coordinates: float, loss: float) -> None:
    at = np.array([smoothing_variance(coordinates, loss)])
    assert coordinates * float((log_theta(at, 0.0) - log_theta(at, 0.5))[0]) <= loss
