"""Clipping, rounding, the wrap bound and the error bound of the fixed-point encoding."""

import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.encoding import FixedPoint, Segment, ring_bits_for
from secagg.errors import ConfigError, LocalProtocolError
from tests.support.randomness import InsecureLabelledRng


def always(byte: bytes):
    """Randomness that is one byte over and over: 0 rounds down, 255 up."""
    return lambda size: byte * size


def one_segment(dim: int = 3, *, bound: float = 2.0, bits: int = 16, ring: int = 20) -> FixedPoint:
    return FixedPoint((Segment("update", dim, bound),), bits, ring)


@pytest.mark.req("E-05")
@pytest.mark.parametrize("value_bits", [8, 16, 20])
def test_constant_vectors_at_the_extreme_do_not_wrap(value_bits: int) -> None:
    largest = (1 << (value_bits - 1)) - 1
    for n in (3, 4, 5, 8, 9, 10, 16, 17, 1000, 1024, 1025):
        bits = ring_bits_for(n, value_bits)
        assert n * largest < 1 << (bits - 1)
        encoding = FixedPoint((Segment("update", 1, 1.0),), value_bits, bits)
        for sign in (1.0, -1.0):
            one = encoding.encode({"update": np.array([sign])}, os.urandom).vector
            total = (one.astype(np.uint64) * n % (1 << bits)).astype(np.uint32)
            assert encoding.decode(total)["update"][0] == pytest.approx(sign * n, rel=1e-12)


@pytest.mark.req("E-05")
def test_one_bit_less_would_wrap() -> None:
    """The planted fault: the bound is tight up to one bit for a power of two of nodes."""
    n, value_bits = 1024, 16
    bits = ring_bits_for(n, value_bits) - 1
    assert n * ((1 << (value_bits - 1)) - 1) >= 1 << (bits - 1)


@pytest.mark.req("E-05")
@pytest.mark.parametrize(("n", "value_bits"), [(10_000, 24), (3, 7), (3, 25)])
def test_a_ring_that_would_wrap_is_a_config_error(n: int, value_bits: int) -> None:
    with pytest.raises(ConfigError) as caught:
        ring_bits_for(n, value_bits)
    assert caught.value.hint


def test_the_hint_of_a_full_ring_works() -> None:
    with pytest.raises(ConfigError, match="can wrap") as caught:
        ring_bits_for(10_000, 24)
    advised = int(caught.value.hint.rsplit(" ", 1)[1])
    assert ring_bits_for(10_000, advised) == 32


vectors = st.lists(st.floats(-1e3, 1e3, allow_nan=False, width=32), min_size=1, max_size=20).map(
    np.array
)


@pytest.mark.req("E-06")
@given(
    st.lists(st.integers(0, 2**32), min_size=3, max_size=7),
    st.integers(1, 12),
    st.sampled_from([8, 12, 16, 24]),
    st.floats(1e-3, 1e3),
)
def test_the_decoded_sum_is_within_the_bound(
    seeds: list[int], dim: int, value_bits: int, bound: float
) -> None:
    n = len(seeds)
    encoding = FixedPoint(
        (Segment("update", dim, bound),), value_bits, ring_bits_for(n, value_bits)
    )
    total = np.zeros(dim, dtype=np.uint64)
    exact = np.zeros(dim)
    for index, seed in enumerate(seeds):
        x = np.random.default_rng(seed).normal(size=dim)
        x *= 2 * bound * np.random.default_rng(seed + 1).random() / np.linalg.norm(x)
        exact += x * min(1.0, bound / np.linalg.norm(x))
        total += encoding.encode({"update": x}, InsecureLabelledRng(seed, str(index))).vector
    decoded = encoding.decode((total % (1 << encoding.ring_bits)).astype(np.uint32))["update"]
    slack = 1e-12 * n * bound  # of float64
    assert np.abs(decoded - exact).max() <= n * bound / encoding.largest + slack


@pytest.mark.req("E-06")
def test_a_wrong_scale_would_break_the_bound() -> None:
    """The planted fault: decoding with one bit fewer in M misses the bound."""
    encoding = one_segment(1, bound=1.0)
    vector = encoding.encode({"update": np.array([0.9])}, always(b"\0")).vector
    coarse = vector[0] * (1.0 / (encoding.largest >> 1))
    assert abs(coarse - 0.9) > 1.0 / encoding.largest


@pytest.mark.req("E-04")
def test_rounding_is_unbiased() -> None:
    """z-test of the mean over 2^16 draws at each fraction; false alarm below 1e-8 with any seed."""
    draws, encoding = 1 << 16, None
    rng = InsecureLabelledRng(11, "rounding")
    for fraction in (0.0, 0.001, 0.25, 0.5, 0.9, 0.999):
        for whole in (-3, 0, 7):
            x = whole + fraction
            # the norm stays below the bound, so nothing is clipped
            encoding = FixedPoint((Segment("update", draws, 1e4),), 16, 20)
            values = np.full(draws, x * 1e4 / encoding.largest)
            integers = encoding.encode({"update": values}, rng).vector.astype(np.int64)
            integers[integers >= 1 << 19] -= 1 << 20
            assert set(np.unique(integers)) <= {whole, whole + 1} | {whole - 1}
            sigma = math.sqrt(max(fraction * (1 - fraction), 1e-9) / draws)
            assert abs(integers.mean() - x) < 6 * sigma + 1e-4 * (fraction == 0.0)


@pytest.mark.req("E-04")
def test_rounding_to_nearest_would_fail_that_test() -> None:
    draws = 1 << 16
    x = 0.25
    sigma = math.sqrt(x * (1 - x) / draws)
    assert abs(np.rint(np.full(draws, x)).mean() - x) > 6 * sigma


@pytest.mark.req("E-04")
def test_the_randomness_decides_up_or_down() -> None:
    encoding = one_segment(1, bound=1.0)
    values = {"update": np.array([10.5 / encoding.largest])}
    assert encoding.encode(values, always(b"\0")).vector.tolist() == [10]
    assert encoding.encode(values, always(b"\xff")).vector.tolist() == [11]
    integer = {"update": np.array([0.0])}
    assert encoding.encode(integer, always(b"\xff")).vector.tolist() == [0]


@pytest.mark.req("E-04")
@pytest.mark.parametrize("length", [0.5, 0.999, 3.0])
def test_long_vectors_are_encoded_like_short_ones(length: float) -> None:
    """Work is done in blocks: the formula over the whole vector gives the same integers."""
    dims, value_bits = (70_001, 5), 24
    encoding = FixedPoint((Segment("a", dims[0], 2.0), Segment("b", dims[1], 1.0)), value_bits, 28)
    x = np.random.default_rng(5).normal(size=dims[0])
    values = {"a": x * length * 2.0 / np.linalg.norm(x), "b": np.linspace(-0.3, 0.3, dims[1])}
    drawn = np.random.default_rng(6).bytes(4 * sum(dims))
    encoded = encoding.encode(values, {4 * sum(dims): drawn}.__getitem__)
    cut = values["a"] * min(1.0, 1 / length)
    scaled = np.concatenate([cut / 2.0, values["b"]]) * encoding.largest
    floor = np.floor(scaled + np.frombuffer(drawn, dtype="<u4") / 2**32).astype(np.int64)
    integers = encoded.vector.astype(np.int64)
    integers[integers >= 1 << 27] -= 1 << 28
    assert np.count_nonzero(integers != floor) <= 3  # where float64 sees x + U on an integer
    assert np.abs(integers - floor).max() <= 1
    assert encoded.clipped == (("a",) if length > 1 else ())


@pytest.mark.req("E-03")
@pytest.mark.parametrize("bound", [1e-300, 1e-160, 1e-100, 1e-9, 1.0, 1e200])
@pytest.mark.parametrize(
    ("factor", "clipped"), [(0.5, ()), (1 - 1e-9, ()), (1 + 1e-9, ("update",)), (2.0, ("update",))]
)
def test_clipping_is_exact_at_bounds_of_any_size(
    bound: float, factor: float, clipped: tuple[str, ...]
) -> None:
    encoding = one_segment(1000, bound=bound)
    x = np.full(1000, factor * bound / math.sqrt(1000))
    encoded = encoding.encode({"update": x}, always(b"\0"))
    assert encoded.clipped == clipped


@pytest.mark.req("E-03")
def test_a_long_vector_is_scaled_to_its_bound_and_named() -> None:
    encoding = FixedPoint((Segment("a", 2, 5.0), Segment("b", 2, 5.0)), 16, 20)
    values = {"a": np.array([30.0, 40.0]), "b": np.array([3.0, 4.0])}
    encoded = encoding.encode(values, always(b"\0"))
    assert encoded.clipped == ("a",)
    sums = encoding.decode(encoded.vector)
    step = 5.0 / encoding.largest
    assert np.abs(sums["a"] - [3.0, 4.0]).max() <= step
    assert np.abs(sums["b"] - [3.0, 4.0]).max() <= step


@pytest.mark.req("E-03")
@pytest.mark.parametrize("huge", [1e30, 1e160, 1e300])
def test_clipping_survives_values_whose_square_is_not_a_float(huge: float) -> None:
    encoding = one_segment(2, bound=1.0)
    encoded = encoding.encode({"update": np.array([huge, 0.0])}, always(b"\0"))
    assert encoded.clipped == ("update",)
    assert encoding.decode(encoded.vector)["update"][0] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.req("E-03")
@given(vectors)
def test_no_coordinate_exceeds_the_largest_integer(x: np.ndarray) -> None:
    encoding = one_segment(len(x), bound=1.0)
    for byte in (b"\0", b"\xff"):
        vector = encoding.encode({"update": x}, always(byte)).vector.astype(np.int64)
        vector[vector >= 1 << 19] -= 1 << 20
        assert np.abs(vector).max() <= encoding.largest


@pytest.mark.req("E-03")
def test_float_error_at_the_bound_does_not_exceed_the_largest_integer() -> None:
    """With 24 bits, B·(M/B) can come out a few 1e-9 above M; rounded up that would be M + 1."""
    excess = 0
    for bound in np.linspace(0.1, 10.0, 200).tolist():
        encoding = one_segment(1, bound=bound, bits=24, ring=26)
        excess += bound * (encoding.largest / bound) > encoding.largest
        values = {"update": np.array([bound])}
        assert encoding.encode(values, always(b"\xff")).vector.tolist() == [encoding.largest]
    assert excess  # the case occurs


@pytest.mark.req("E-02")
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"update": np.zeros(3), "more": np.zeros(1)},
        {"other": np.zeros(3)},
        {"update": np.zeros(4)},
        {"update": np.zeros((3, 1))},
        {"update": np.array([0.0, np.nan, 0.0])},
        {"update": np.array([0.0, np.inf, 0.0])},
        {"update": np.array([0.0, -np.inf, 0.0])},
    ],
)
def test_what_is_not_the_agreed_finite_vector_is_refused(values: dict[str, np.ndarray]) -> None:
    with pytest.raises(LocalProtocolError):
        one_segment().encode(values, always(b"\0"))


@pytest.mark.req("E-02")
def test_nothing_is_drawn_for_a_refused_vector() -> None:
    def rng(size: int) -> bytes:
        raise AssertionError("randomness was drawn")

    with pytest.raises(LocalProtocolError):
        one_segment().encode({"update": np.array([0.0, np.nan, 0.0])}, rng)


def test_a_sum_of_another_length_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        one_segment().decode(np.zeros(4, dtype=np.uint32))


@pytest.mark.req("E-09")
def test_segments_keep_their_order_and_places() -> None:
    encoding = FixedPoint((Segment("b", 2, 1.0), Segment("a", 1, 1.0)), 16, 20)
    total = np.array([encoding.largest, 0, 2 * encoding.largest], dtype=np.uint32)
    sums = encoding.decode(total)
    assert list(sums) == ["b", "a"]
    assert sums["b"].tolist() == [1.0, 0.0]
    assert sums["a"].tolist() == [2.0]
    assert encoding.dim == 3


@pytest.mark.parametrize(
    ("segments", "value_bits", "ring_bits"),
    [
        ((), 16, 20),
        ((Segment("a", 1, 1.0), Segment("a", 1, 1.0)), 16, 20),
        ((Segment("a", 1, 1.0),), 16, 16),
        ((Segment("a", 1, 1.0),), 16, 33),
        ((Segment("a", 1, 1.0),), 7, 20),
    ],
)
def test_parameters_at_odds_are_refused(
    segments: tuple[Segment, ...], value_bits: int, ring_bits: int
) -> None:
    with pytest.raises(ConfigError):
        FixedPoint(segments, value_bits, ring_bits)


@pytest.mark.parametrize(
    ("dim", "bound"), [(0, 1.0), (1, 0.0), (1, -1.0), (1, math.inf), (1, math.nan)]
)
def test_a_segment_needs_size_and_bound(dim: int, bound: float) -> None:
    with pytest.raises(ConfigError):
        Segment("a", dim, bound)


@pytest.mark.req("M-20")
def test_the_vector_is_not_in_the_repr() -> None:
    encoded = one_segment().encode({"update": np.array([0.1, 0.2, 0.3])}, always(b"\0"))
    assert str(encoded.vector[0]) not in repr(encoded)
