"""Rounded vectors keep their bound always, are accepted often, and are right on average."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp, mpf

from secagg.dp import rounding
from secagg.dp.rounding import MAX_DRAWS, round_bounded, sensitivity
from secagg.errors import ConfigError, LocalProtocolError
from tests.support.randomness import InsecureLabelledRng

ACCEPTED = 1 - math.exp(-0.5)


class CountedRng(InsecureLabelledRng):
    """Counts its calls."""

    calls = 0

    def __call__(self, size: int) -> bytes:
        self.calls += 1
        return super().__call__(size)


def refused(size: int) -> bytes:
    raise AssertionError("randomness was drawn")


def halves(dim: int, scale: int) -> np.ndarray:
    """Fractions of one half: the most variance, at a norm of `scale` nearly."""
    x = np.full(dim, math.floor(scale / math.sqrt(dim)) + 0.5)
    return x - (np.linalg.norm(x) > scale)


def vectors(dim: int, scale: int) -> list[np.ndarray]:
    rng = np.random.default_rng(dim)
    made = [halves(dim, scale), rng.normal(size=dim), rng.laplace(size=dim), np.ones(dim)]
    return [x * min(1, scale / np.linalg.norm(x)) if i == 0 else x * scale / np.linalg.norm(x)
            for i, x in enumerate(made)]  # fmt: skip


scales, dims = st.integers(1, 1 << 24), st.integers(1, 1 << 24)


@pytest.mark.req("D-07", "D-08")
@given(scales, dims)
def test_sensitivity_is_the_formula_rounded_the_safe_way(scale: int, dim: int) -> None:
    """Against 60 digits, and against both bounds of the paper for β = e^(-1/2)."""
    bound = sensitivity(scale, dim)
    with mp.workdps(60):
        root, log = mp.sqrt(dim), mp.mpf(1)  # √(2 ln(1/β)) = 1
        second = mpf(scale) ** 2 + mpf(dim) / 4 + log * (scale + root / 2)
        assert bound.squared == int(mp.floor(second))
        assert second < (scale + root) ** 2
        assert bound.l1 == min(bound.squared, int(mp.floor(root * mp.sqrt(bound.squared))))
    if dim > 1:
        assert Fraction(bound.l2) ** 2 >= bound.squared  # never below the true root
        assert Fraction(math.nextafter(bound.l2, 0)) ** 2 < bound.squared
    assert bound.l2 <= bound.l1


def test_one_coordinate_is_no_longer_than_scale() -> None:
    assert sensitivity(100, 1) == rounding.Sensitivity(100 * 101, 100.0, 100.0)


@pytest.mark.parametrize(("scale", "dim"), [(0, 5), (5, 0), (1 << 32, 5), (5, 1 << 32)])
def test_a_scale_or_dim_out_of_range_is_refused(scale: int, dim: int) -> None:
    with pytest.raises(ConfigError) as caught:
        sensitivity(scale, dim)
    assert caught.value.hint


@pytest.mark.req("D-07", "D-08")
@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60),
    st.sampled_from([1, 8, 100, 5000]),
    st.integers(0, 1 << 30),
)
def test_every_rounded_vector_is_within_its_bounds(x: list[float], scale: int, seed: int) -> None:
    vector = np.array(x)
    vector *= min(1.0, scale / max(np.linalg.norm(vector), 1e-9))
    z = round_bounded(vector, scale, InsecureLabelledRng(seed, "x"))
    bound = sensitivity(scale, len(x))
    assert z.dtype == np.int64
    assert np.abs(z - vector).max() < 1 + 1e-6
    assert sum(int(v) ** 2 for v in z) <= bound.squared
    assert sum(abs(int(v)) for v in z) <= bound.l1
    assert math.sqrt(sum(int(v) ** 2 for v in z)) <= bound.l2


@pytest.mark.req("D-07")
@pytest.mark.parametrize(("dim", "scale"), [(1, 9), (4, 10), (9, 12), (11, 8), (12, 40)])
def test_acceptance_and_bias_by_enumeration(dim: int, scale: int) -> None:
    """All 2^dim outcomes: 1 - e^(-1/2) of them are accepted, and the mean moves by < 1 step."""
    outcomes = np.array(list(itertools.product((0, 1), repeat=dim)))
    bound = sensitivity(scale, dim).squared
    rng, worst = np.random.default_rng(dim), 1.0
    for trial in range(200):
        x = halves(dim, scale) if trial == 0 else rng.normal(size=dim)
        x *= scale / np.linalg.norm(x) if trial else min(1, scale / np.linalg.norm(x))
        low = np.floor(x)
        chance = np.prod(np.where(outcomes, x - low, 1 - (x - low)), axis=1)
        kept = ((low + outcomes) ** 2).sum(axis=1) <= bound
        accepted = chance[kept].sum()
        bias = chance[kept] @ (low + outcomes)[kept] / accepted - x
        assert accepted >= ACCEPTED
        assert np.linalg.norm(bias) <= math.exp(-0.25) / (2 * ACCEPTED) < 1
        worst = min(worst, accepted)
    assert dim == 1 or worst < 1  # some are thrown away


@pytest.mark.req("D-07")
def test_draws_are_few_for_the_worst_vectors() -> None:
    """Draws over 600 roundings against the mean 1/(1 - e^(-1/2)); false alarm below 1e-8 each."""
    for dim, scale in ((1000, 500), (4096, 1 << 20)):
        for x in vectors(dim, scale):
            rng = CountedRng(1, "draws")
            for _ in range(600):
                round_bounded(x, scale, rng)
            deviation = math.sqrt(math.exp(-0.5)) / ACCEPTED  # of a geometric variable
            assert rng.calls <= 600 / ACCEPTED + 6 * deviation * math.sqrt(600)


@pytest.mark.req("D-07")
def test_plain_rounding_would_break_the_bound() -> None:
    """The planted fault: without the check some vectors come out too long."""
    x = np.random.default_rng(3).normal(size=4096)
    scale = 1 << 20
    x *= scale / np.linalg.norm(x)
    squared = sensitivity(scale, len(x)).squared
    seeds = [index.to_bytes(32, "little") for index in range(200)]
    assert any(rounding._squared_norm(rounding._round(x, seed)) > squared for seed in seeds)


def stubborn(scale: int, dim: int) -> tuple[np.ndarray, bytes]:
    """A vector and a seed whose draw is too long."""
    x = np.random.default_rng(4).normal(size=dim)
    x *= scale / np.linalg.norm(x)
    squared = sensitivity(scale, dim).squared
    for index in range(10_000):
        seed = index.to_bytes(32, "little")
        if rounding._squared_norm(rounding._round(x, seed)) > squared:
            return x, seed
    raise AssertionError("none")


@pytest.mark.req("D-07")
def test_when_every_draw_is_too_long_the_vector_is_cut_towards_zero() -> None:
    x, seed = stubborn(1 << 16, 200)
    calls = []
    z = round_bounded(x, 1 << 16, lambda size: calls.append(size) or seed)
    assert calls == [32] * MAX_DRAWS
    assert np.array_equal(z, np.trunc(x))
    assert int((z * z).sum()) <= sensitivity(1 << 16, 200).squared


@pytest.mark.req("D-07")
def test_a_draw_that_is_too_long_is_drawn_again() -> None:
    x, seed = stubborn(1 << 16, 200)
    good = next(
        other
        for other in (bytes([index]) * 32 for index in range(256))
        if rounding._squared_norm(rounding._round(x, other)) <= sensitivity(1 << 16, 200).squared
    )
    given_out = iter([seed, good])
    z = round_bounded(x, 1 << 16, lambda size: next(given_out))
    assert np.array_equal(z, rounding._round(x, good))


@pytest.mark.req("D-07")
def test_rounding_is_unbiased_below_the_bound() -> None:
    """z-test over 2^16 coordinates for each fraction; false alarm below 1e-8 with any seed."""
    count = 1 << 16
    rng = InsecureLabelledRng(11, "rounding")
    for fraction in (0.0, 0.001, 0.25, 0.5, 0.9, 0.999):
        for whole in (-3, 0, 7):
            z = round_bounded(np.full(count, whole + fraction), 1 << 12, rng)
            assert set(np.unique(z)) <= {whole, whole + 1}
            sigma = math.sqrt(fraction * (1 - fraction) / count)
            assert abs(z.mean() - whole - fraction) <= 6 * sigma + 1e-9


@pytest.mark.req("D-07")
def test_at_the_bound_the_mean_moves_by_less_than_a_step() -> None:
    """4000 draws of a vector of full norm: along itself, where the bias is, and everywhere."""
    dim, scale, draws = 64, 1 << 12, 4000
    x = np.random.default_rng(5).normal(size=dim)
    x *= scale / np.linalg.norm(x)
    rng = InsecureLabelledRng(12, "bound")
    mean = np.mean([round_bounded(x, scale, rng) for _ in range(draws)], axis=0)
    noise = math.sqrt(1 / (4 * ACCEPTED * draws))  # variance of a coordinate once accepted
    assert abs((mean - x) @ x / scale) < 1 + 6 * noise
    assert np.abs(mean - x).max() < 1 + 6 * noise


@pytest.mark.req("D-02", "D-07")
@pytest.mark.parametrize("bad", [[9.0, 0.0], [8.0 * (1 + 1e-8), 0.0], [math.nan, 0], [math.inf, 0]])
def test_a_vector_that_was_not_clipped_is_refused_before_a_draw(bad: list[float]) -> None:
    with pytest.raises(LocalProtocolError, match="not clipped"):
        round_bounded(np.array(bad), 8, refused)


def test_float_error_at_the_bound_is_no_error() -> None:
    z = round_bounded(np.array([8.0 * (1 + 1e-12), 0.0]), 8, InsecureLabelledRng(0, ""))
    assert z.tolist() == [8, 0]


def test_long_vectors_are_rounded_like_short_ones() -> None:
    """Work is done in blocks: the formula over the whole vector gives the same integers."""
    dim, seed = 70_001, bytes(range(32))
    x = np.random.default_rng(6).normal(size=dim)
    z = round_bounded(x, 1 << 12, lambda size: seed)
    uniform = np.zeros(dim, dtype=np.uint32)
    rounding.accumulate(uniform, seed)
    assert np.array_equal(z, np.floor(x + uniform / 2**32).astype(np.int64))
