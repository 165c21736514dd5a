"""Tails against exact distributions, rings and values at their extremes, hints that work."""

import math
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ive

from secagg import ring
from secagg.dp import headroom
from secagg.dp.encoding import PrivateEncoding, PrivateSegment
from secagg.dp.headroom import (
    greatest_magnitude,
    greatest_noise,
    noise_tail,
    ring_bits,
    share_variance,
    sum_bound,
    value_bits,
)
from secagg.dp.rounding import sensitivity
from secagg.dp.terms import DISCRETE_GAUSSIAN, MECHANISMS, SKELLAM, NoiseTerms
from secagg.errors import ConfigError
from tests.support.randomness import InsecureLabelledRng


def terms(mechanism: str = DISCRETE_GAUSSIAN, **others: object) -> NoiseTerms:
    settings = {"clip": 1.0, "scale": 1 << 10, "noise_multiplier": 1.0, "honest": 80, **others}
    return NoiseTerms(mechanism, **settings)


def exact(mechanism: str, variance: float, reach: int) -> np.ndarray:
    """Probabilities of -reach … reach; the tails are summed from small to large by the caller."""
    k = np.arange(-reach, reach + 1)
    if mechanism == SKELLAM:
        return ive(np.abs(k), variance)
    weights = np.exp(-(k**2) / (2 * variance))
    return weights / weights.sum()


def tail(probabilities: np.ndarray, beyond: int) -> float:
    """P(|X| > beyond), without cancellation."""
    middle = len(probabilities) // 2
    return 2 * float(probabilities[middle + beyond + 1 :][::-1].sum())


@pytest.mark.req("D-11")
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("variance", [1e-3, 0.05, 0.3, 1.0, 7.0, 100.0, 4e4])
def test_the_tail_bound_holds_and_is_not_wasteful(mechanism: str, variance: float) -> None:
    for bits in (4, 20, 40, 64, 84):
        t = noise_tail(mechanism, variance, bits)
        probabilities = exact(mechanism, variance, 2 * t + 50)
        assert tail(probabilities, t) <= 2.0**-bits
        if variance >= 100 and bits >= 20:
            assert tail(probabilities, int(0.7 * t) - 1) > 2.0**-bits


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_sum_of_shares_has_the_tail_of_the_sum_of_variances(mechanism: str) -> None:
    one = exact(mechanism, 0.4, 60)
    total = np.convolve(np.convolve(one, one), one)
    for bits in (10, 30, 50):
        assert tail(total, noise_tail(mechanism, 1.2, bits)) <= 2.0**-bits


def test_skellam_noise_needs_more_than_a_gaussian_tail() -> None:
    """The planted fault: the sub-Gaussian bound does not hold for it, by orders of magnitude."""
    for variance in (0.05, 1.0, 7.0):
        t = noise_tail(DISCRETE_GAUSSIAN, variance, 64)
        assert tail(exact(SKELLAM, variance, 500), t) > 100 * 2.0**-64


numbers = st.builds(
    terms,
    st.sampled_from(MECHANISMS),
    scale=st.integers(8, 1 << 20),
    noise_multiplier=st.floats(0.01, 30),
    honest=st.integers(1, 5000),
    rotation=st.booleans(),
)


@pytest.mark.req("D-09", "D-10")
@given(numbers, st.integers(1, 1 << 21))
def test_magnitudes_are_those_of_the_specification(t: NoiseTerms, dim: int) -> None:
    bound = sensitivity(t.scale, dim)
    assert share_variance(t, dim) == pytest.approx((t.noise_multiplier * bound.l2) ** 2 / t.honest)
    size = 1 << int(math.log2(dim))
    spread = t.scale * math.sqrt(2 * math.log(2 * dim * 2**40) / size)
    assert greatest_magnitude(t, dim) == (min(t.scale, int(spread) + 1) if t.rotation else t.scale)
    log = math.log(2 * dim * 2**64)
    extra = log / 3 if t.mechanism == SKELLAM else 0
    wanted = math.sqrt(2 * share_variance(t, dim) * log) + extra
    assert wanted - 1e-6 <= greatest_noise(t, dim) <= wanted * (1 + 1e-9) + 1


@pytest.mark.req("D-11")
@given(numbers, st.integers(1, 1 << 21), st.integers(2, 10_000))
def test_bits_hold_what_they_should_and_no_bit_more(t: NoiseTerms, dim: int, nodes: int) -> None:
    b, v = headroom._ring_bits(t, dim, nodes), headroom._value_bits(t, dim)
    greatest = greatest_magnitude(t, dim) + greatest_noise(t, dim)
    assert greatest <= 2 ** (v - 1) - 1
    assert sum_bound(t, dim, nodes) <= 2 ** (b - 1) - 1
    assert v == 8 or greatest > 2 ** (v - 2) - 1
    assert b == 8 or sum_bound(t, dim, nodes) > 2 ** (b - 2) - 1
    assert b >= v  # a ring for the sum always has room for one node's value


def refusal(bits: Callable[[NoiseTerms], int], t: NoiseTerms) -> str | None:
    """The hint of a refusal, None if there is none."""
    try:
        bits(t)
    except ConfigError as error:
        return error.hint
    return None


@pytest.mark.req("D-11")
@given(numbers, st.integers(1, 1 << 21), st.integers(2, 10_000))
def test_what_does_not_fit_is_refused_with_hints_that_work(
    t: NoiseTerms, dim: int, nodes: int
) -> None:
    for bits, most in (
        (lambda other: ring_bits(other, dim, nodes), 32),
        (lambda other: value_bits(other, dim), 24),
    ):
        hint = refusal(bits, t)
        if hint is None:
            assert 8 <= bits(t) <= most
            continue
        advised = 0
        if "set rotation" in hint:
            advised += bits(replace(t, rotation=True))
        if found := re.search(r"scale of at most (\d+)", hint):
            advised += bits(replace(t, scale=int(found[1])))
        if found := re.search(r"noise_multiplier of at most ([\d.]+),", hint):
            advised += bits(replace(t, noise_multiplier=float(found[1])))
        assert advised or "together" in hint


@pytest.mark.req("D-11")
def test_the_hints_say_which_number_to_change() -> None:
    wide = terms(scale=1 << 22, honest=1000)  # 2^32 / 1024
    with pytest.raises(ConfigError, match="takes 33 bits") as caught:
        ring_bits(wide, 1000, 1000)
    assert re.fullmatch(
        r"set rotation = true, or use a scale of at most 21\d{5}", caught.value.hint
    )  # (2^31 - tail) / 1000; less noise alone would not do
    with pytest.raises(ConfigError, match="noised value takes") as caught:
        value_bits(terms(scale=1 << 20, noise_multiplier=500.0, honest=100), 100)
    assert re.fullmatch(
        r"use a scale of at most \d+, or a noise_multiplier of at most [\d.]+, for less privacy",
        caught.value.hint,
    )
    with pytest.raises(ConfigError) as caught:
        value_bits(terms(scale=1 << 23, noise_multiplier=1e9, honest=1), 1 << 20)
    assert "together" in caught.value.hint


def extremes(dim: int) -> dict[str, np.ndarray]:
    spike = np.zeros(dim)
    spike[3] = 5.0
    return {"constant": np.ones(dim), "spike": spike, "negative": -np.ones(dim)}


@pytest.mark.req("D-09", "D-11")
@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("dim", [5, 1000, 1025])
def test_sums_of_extreme_vectors_do_not_wrap(mechanism: str, rotated: bool, dim: int) -> None:
    """All nodes give the same worst vector, and noise at its tail in the same direction."""
    nodes = 50
    t = terms(mechanism, scale=1 << 12, honest=40, rotation=rotated)
    encoding = PrivateEncoding((PrivateSegment("update", dim, 1.0),), t)
    b, v = encoding.ring_bits(nodes), encoding.value_bits()
    at_tail = sum_bound(t, dim, nodes) - nodes * greatest_magnitude(t, dim)
    for name, x in extremes(dim).items():
        rng, seed = InsecureLabelledRng(7, name), name.encode().ljust(32)
        z = [encoding.encode({"update": x}, rng, signs_seed=seed) for _ in range(nodes)]
        exactly = np.sum(z, axis=0)
        noise = np.where(exactly < 0, -1, 1) * at_tail
        residues = ring.from_signed(exactly + noise, b)
        assert np.array_equal(ring.to_signed(residues, b), exactly + noise)
        one = encoding.noised(z[0], np.sign(noise).astype(np.int32) * (1 << 30), ring_bits=b)
        assert np.abs(ring.to_signed(one, b)).max() < 1 << (v - 1)


@pytest.mark.req("D-11")
def test_one_bit_less_would_wrap() -> None:
    """The planted fault: at the extremes the ring is tight."""
    t = terms(scale=1 << 12, honest=40)
    encoding = PrivateEncoding((PrivateSegment("update", 1000, 1.0),), t)
    b = encoding.ring_bits(50) - 1
    z = encoding.encode(
        {"update": extremes(1000)["spike"]}, InsecureLabelledRng(7, ""), signs_seed=b""
    )
    total = 50 * z
    assert not np.array_equal(ring.to_signed(ring.from_signed(total, b), b), total)


@pytest.mark.req("D-11")
def test_rotation_saves_bits() -> None:
    """A million coordinates, a thousand nodes: 20 bits in place of 25."""
    plain = terms(scale=1 << 14, honest=800)
    assert ring_bits(plain, 1_000_000, 1000) == 25
    assert ring_bits(replace(plain, rotation=True), 1_000_000, 1000) == 20
    assert value_bits(plain, 1_000_000) == 16
    assert value_bits(replace(plain, rotation=True), 1_000_000) == 14
