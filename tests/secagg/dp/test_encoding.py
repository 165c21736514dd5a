"""Joint clipping, refusals, noise and what comes out of the sum again."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import ring
from secagg.dp import headroom
from secagg.dp.adaptive import WITHIN_SHARE
from secagg.dp.encoding import (
    CENTROID_SHARE,
    WEIGHT_SHARE,
    WITHIN,
    PrivateEncoding,
    PrivateSegment,
    default_segments,
)
from secagg.dp.rotation import rotate, unrotate
from secagg.dp.terms import DISCRETE_GAUSSIAN, MECHANISMS, SKELLAM, NoiseTerms
from secagg.errors import ConfigError, LocalProtocolError
from tests.support.randomness import InsecureLabelledRng

SEED = bytes(range(32))


def terms(mechanism: str = DISCRETE_GAUSSIAN, **others: object) -> NoiseTerms:
    settings = {"clip": 2.0, "scale": 1 << 14, "noise_multiplier": 1.0, "honest": 4, **others}
    return NoiseTerms(mechanism, **settings)


def encoding(*, within: bool = False, dim: int = 6, **others: object) -> PrivateEncoding:
    segments = (PrivateSegment("update", dim, 1.0), PrivateSegment("weight", 1, 4.0))
    return PrivateEncoding(segments, terms(**others), within)


def values(x: np.ndarray, weight: float = 1.0) -> dict[str, np.ndarray]:
    return {"update": x, "weight": np.array([weight])}


def refused(size: int) -> bytes:
    raise AssertionError("randomness was drawn")


def noise_of(e: PrivateEncoding, rng: np.random.Generator) -> np.ndarray:
    """Skellam noise by another generator: enough where only moments count."""
    rate = e.share_variance / 2
    return (rng.poisson(rate, e.dim) - rng.poisson(rate, e.dim)).astype(np.int32)


@pytest.mark.req("D-02")
@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"update": np.zeros(6)},
        {**values(np.zeros(6)), "more": np.zeros(1)},
        {**values(np.zeros(6)), WITHIN: np.zeros(1)},
        values(np.zeros(5)),
        values(np.zeros((6, 1))),
        values(np.zeros(6, dtype=np.int64)),
        values(np.zeros(6, dtype=np.complex128)),
        values(np.zeros(6, dtype=bool)),
        values(np.zeros(6, dtype=object)),
        values(np.zeros(6, dtype=np.longdouble)),
        values(np.array([0.0, math.nan, 0, 0, 0, 0])),
        values(np.array([0.0, math.inf, 0, 0, 0, 0])),
        values(np.array([0.0, 0, 0, 0, 0, -math.inf])),
        values(np.zeros(6), math.nan),
    ],
)
@pytest.mark.parametrize("rotation", [False, True])
def test_anything_else_is_refused_before_a_draw(bad: dict[str, np.ndarray], rotation: bool) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        encoding(rotation=rotation).encode(bad, refused, signs_seed=SEED)
    assert "0." not in str(caught.value)  # no value of the vector


@pytest.mark.req("D-02")
def test_what_a_unit_makes_infinite_is_refused() -> None:
    e = PrivateEncoding((PrivateSegment("update", 2, 1e-20),), terms())
    with pytest.raises(LocalProtocolError, match="not finite in its unit"):
        e.encode({"update": np.array([1e300, 0.0])}, refused, signs_seed=SEED)


@pytest.mark.req("D-02")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_of_every_width_are_taken_exactly(dtype: type) -> None:
    e = PrivateEncoding((PrivateSegment("update", 2, 1e-3),), terms(clip=1e9))
    z = e.encode(
        {"update": np.array([6e4, -3.0], dtype=dtype)}, InsecureLabelledRng(1, ""), signs_seed=b""
    )
    exact = np.array([float(dtype(6e4)), -3.0]) / 1e-3 * e.terms.scale / 1e9
    assert np.abs(z - exact).max() < 1


@pytest.mark.req("D-01", "D-03")
def test_all_segments_are_scaled_by_one_factor() -> None:
    e = encoding(scale=1 << 22)
    x = np.array([30.0, -40, 0, 0, 0, 120])
    sums = e.decode(e.encode(values(x, 2.0), InsecureLabelledRng(2, ""), signs_seed=b""),
                    signs_seed=b"")  # fmt: skip
    factor = 2.0 / math.sqrt(130.0**2 + (2.0 / 4) ** 2)
    step = 2.0 / (1 << 22)
    assert list(sums) == ["update", "weight"]
    assert np.abs(sums["update"] - factor * x).max() <= step
    assert abs(sums["weight"][0] - factor * 2.0) <= 4 * step
    assert sums["update"][0] / sums["weight"][0] == pytest.approx(30.0 / 2.0, rel=1e-3)


@pytest.mark.req("D-03")
def test_what_is_within_the_clip_is_left_alone() -> None:
    e = encoding(scale=1 << 20)
    x = np.array([0.5, -0.25, 0, 0, 1.0, 0])
    z = e.encode(values(x, 1.0), InsecureLabelledRng(3, ""), signs_seed=b"")
    exact = np.append(x, 0.25) * (1 << 20) / 2.0
    assert np.abs(z - exact).max() < 1
    assert np.array_equal(z[exact % 1 == 0], exact[exact % 1 == 0])


@pytest.mark.req("D-03")
@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e-160, 1.0, 1e160, 1e300, 1.7e308])
@pytest.mark.parametrize("clip", [1e-30, 1e-6, 1.0, 1e30])
def test_clipping_survives_every_size(size: float, clip: float) -> None:
    e = PrivateEncoding((PrivateSegment("update", 4, 1.0),), terms(clip=clip, scale=1000))
    x = np.array([1.0, -1.0, 1.0, 1.0]) * size
    z = e.encode({"update": x}, InsecureLabelledRng(4, ""), signs_seed=b"")
    exact = np.sign(x) * min(500.0, 1000 * (size / clip))
    assert np.abs(z - exact).max() <= 1
    assert (z * z).sum() <= e.sensitivity.squared


floats = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@pytest.mark.req("D-03", "D-05", "D-09")
@given(
    floats,
    st.floats(0, 1),
    st.booleans(),
    st.booleans(),
    st.sampled_from([8, 300, 1 << 20]),
    st.binary(min_size=32, max_size=32),
)
def test_no_vector_is_longer_than_the_sensitivity(
    x: list[float], weight: float, within: bool, rotation: bool, scale: int, seed: bytes
) -> None:
    e = encoding(within=within, rotation=rotation, scale=scale, dim=len(x))
    z = e.encode(values(np.array(x), weight), InsecureLabelledRng(5, seed.hex()), signs_seed=seed)
    assert z.shape == (e.dim,)
    assert sum(int(v) ** 2 for v in z) <= e.sensitivity.squared
    assert sum(abs(int(v)) for v in z) <= e.sensitivity.l1
    assert np.abs(z).max() <= headroom.greatest_magnitude(e.terms, e.dim)


@pytest.mark.req("D-05")
@pytest.mark.parametrize(("length", "sign"), [(0.0, 1), (0.99, 1), (1.01, -1), (50.0, -1)])
def test_the_last_coordinate_says_whether_it_was_within(length: float, sign: int) -> None:
    """Within what is left to the segments, √(1 - share²) of the clip."""
    e = encoding(within=True)
    assert e.free_clip == 2.0 * math.sqrt(1 - WITHIN_SHARE**2)
    x = np.zeros(6)
    x[0] = length * e.free_clip
    z = e.encode(values(x, 0.0), InsecureLabelledRng(6, ""), signs_seed=b"")
    assert abs(z[-1] - sign * WITHIN_SHARE * e.terms.scale) <= 1
    sums = e.decode(z, signs_seed=b"")
    assert sums[WITHIN].shape == (1,)
    assert sums[WITHIN][0] == pytest.approx(sign / 2, abs=1e-3)
    assert abs(sums["update"][0] - min(length, 1.0) * e.free_clip) <= 1e-3


@pytest.mark.req("D-05")
def test_without_a_share_of_its_own_the_count_would_break_the_bound() -> None:
    """The planted fault: the whole clip for the segments, and the count on top of it."""
    e = encoding(within=True)
    assert e.terms.scale**2 * (1 + WITHIN_SHARE**2) > e.sensitivity.squared


@pytest.mark.req("D-06", "D-12")
def test_rotated_vectors_come_back() -> None:
    e = encoding(within=True, rotation=True, dim=1000, scale=1 << 20)
    x = np.random.default_rng(1).normal(size=1000) / 40
    z = e.encode(values(x), InsecureLabelledRng(7, ""), signs_seed=SEED)
    exact = rotate(np.concatenate([x, [0.25, WITHIN_SHARE * 2.0]]) / 2.0 * (1 << 20), SEED)
    assert np.abs(z - exact).max() < 1
    sums = e.decode(z, signs_seed=SEED)
    assert np.linalg.norm(sums["update"] - x) <= 2.0 / (1 << 20) * math.sqrt(1002)
    other = e.decode(z, signs_seed=bytes(32))
    assert np.linalg.norm(other["update"] - x) > 0.1


@pytest.mark.req("D-09")
def test_a_rotated_spike_that_comes_back_as_one_is_cut() -> None:
    """A vector made for the signs, as no honest one is: the inverse rotation of a spike."""
    e = PrivateEncoding((PrivateSegment("update", 1024, 1.0),), terms(rotation=True))
    spike = np.zeros(1024)
    spike[5] = 2.0
    z = e.encode({"update": unrotate(spike, SEED)}, InsecureLabelledRng(8, ""), signs_seed=SEED)
    assert z.max() == headroom.greatest_magnitude(e.terms, 1024) < e.terms.scale


@pytest.mark.req("D-10", "D-12")
@pytest.mark.parametrize("rotation", [False, True])
def test_sums_are_right_on_average_and_vary_as_predicted(rotation: bool) -> None:
    """Mean and variance of 2000 decoded sums of five nodes; false alarm below 1e-6 in all."""
    e = encoding(within=True, rotation=rotation, scale=256, dim=29)
    rng, bits, nodes, runs = np.random.default_rng(2), e.ring_bits(5), 5, 2000
    inputs = [rng.normal(size=29) * (0.05 if i else 1.0) for i in range(nodes)]
    factor = min(1.0, e.free_clip / math.hypot(np.linalg.norm(inputs[0]), 0.25))
    assert factor < 1
    draws = InsecureLabelledRng(9, "sum")
    decoded = []
    for _ in range(runs):
        total = np.zeros(e.dim, dtype=np.uint32)
        for x in inputs:
            z = e.encode(values(x), draws, signs_seed=SEED)
            total += e.noised(z, noise_of(e, rng), ring_bits=bits)
        sums = e.decode(ring.to_signed(ring.reduce(total, bits), bits), signs_seed=SEED)
        decoded.append(np.concatenate([sums["update"], sums["weight"], sums[WITHIN]]))
    wanted = np.append(sum(inputs[1:]) + factor * inputs[0], [4 + factor, 2.0 - 0.5])
    names = ["update"] * 29 + ["weight", WITHIN]
    std = np.array([e.std(name, nodes) for name in names])
    # one node is at the bound: its mean may be off by one step in all (D-07)
    steps = np.array([s / math.sqrt(nodes * (e.share_variance + 0.25)) for s in std])
    assert (np.abs(np.mean(decoded, axis=0) - wanted) < 6 * std / math.sqrt(runs) + steps).all()
    ratio = np.var(decoded, axis=0) / std**2
    assert np.abs(ratio - 1).max() < 7 * math.sqrt(2 / runs)


@pytest.mark.req("D-10")
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_h_shares_make_up_the_noise_of_the_sum(mechanism: str) -> None:
    e = encoding(mechanism=mechanism, noise_multiplier=1.7, honest=40)
    assert math.sqrt(40 * e.share_variance) == pytest.approx(1.7 * e.sensitivity.l2)


@pytest.mark.req("D-10")
def test_noise_is_cut_without_a_look_at_the_integers() -> None:
    e = encoding()
    limit = headroom.greatest_noise(e.terms, e.dim)
    huge = np.array([1 << 30, -(1 << 30), limit, -limit, limit + 1, 0, 5], dtype=np.int32)
    z = np.array([100, 100, -7, 7, 0, 3, 0])
    noised = ring.to_signed(e.noised(z, huge, ring_bits=30), 30)
    assert noised.tolist() == [limit + 100, 100 - limit, limit - 7, 7 - limit, limit, 3, 5]


@pytest.mark.req("D-10")
@pytest.mark.parametrize("bits", [8, 16, 31, 32])
def test_noised_vectors_are_residues(bits: int) -> None:
    e = encoding()
    noised = e.noised(np.array([-1, 0, 1, 2, 3, 4, 5]), np.zeros(7, np.int32), ring_bits=bits)
    assert noised.dtype == np.uint32
    assert noised.tolist() == [2**bits - 1, 0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("integers", "noise"),
    [
        (np.zeros(7, np.int64), np.zeros(6, np.int32)),
        (np.zeros(6, np.int64), np.zeros(7, np.int32)),
        (np.zeros(7), np.zeros(7, np.int32)),
        (np.zeros(7, np.int64), np.zeros(7)),
        (np.zeros(7, np.int64), np.zeros(7, np.uint32)),
    ],
)
def test_noise_of_another_shape_or_kind_is_refused(integers: np.ndarray, noise: np.ndarray) -> None:
    with pytest.raises(LocalProtocolError):
        encoding().noised(integers, noise, ring_bits=20)


def test_a_sum_of_another_length_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        encoding().decode(np.zeros(8, np.int64), signs_seed=b"")


def test_the_deviation_of_an_unknown_segment_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        encoding().std(WITHIN, 3)


@pytest.mark.req("D-08", "D-10")
def test_the_event_says_what_was_done() -> None:
    e = encoding(mechanism=SKELLAM, within=True)
    event = e.event(4)
    assert event.mechanism == SKELLAM
    assert (event.l2, event.l1) == (e.sensitivity.l2, e.sensitivity.l1)
    assert (event.share_variance, event.shares, event.dim) == (e.share_variance, 4, 8)
    assert event.truncation == 4 * 2.0**-64


@pytest.mark.req("D-04")
@pytest.mark.parametrize("clip", [0.01, 1.0, 7.5])
def test_a_full_node_uses_exactly_the_clip(clip: float) -> None:
    segments = default_segments(clip, update_dim=1000, centroid_dim=64)
    lengths = {"update": clip * math.sqrt(1 - CENTROID_SHARE**2 - WEIGHT_SHARE**2), "centroid": 8.0}
    parts = {s.name: lengths.get(s.name, 1.0) / s.unit / clip for s in segments}
    assert parts == pytest.approx({"update": 0.9327, "centroid": 0.3, "weight": 0.2}, abs=1e-4)
    assert math.hypot(*parts.values()) == pytest.approx(1)


@pytest.mark.req("D-04")
@pytest.mark.parametrize(
    ("n", "weight", "on_weight", "on_centroid", "on_update"),
    [
        (100, 1.0, 0.050, 0.267, 2.0),
        (100, 0.5, 0.100, 0.533, 2.0),
        (1000, 1.0, 0.005, 0.027, 0.20),
        (1000, 0.5, 0.010, 0.053, 0.20),
    ],
)
def test_the_table_of_section_3(
    n: int, weight: float, on_weight: float, on_centroid: float, on_update: float
) -> None:
    """At z = 1 with all honest, clip 1, 34 624 parameters and 64 coordinates of an embedding."""
    t = replace(terms(), clip=1.0, honest=n)
    dim = 34_624
    e = PrivateEncoding(default_segments(1.0, update_dim=dim, centroid_dim=64), t)
    total = n * weight
    assert e.std("weight", n) / total == pytest.approx(on_weight, rel=0.02)
    assert e.std("centroid", n) / total == pytest.approx(on_centroid, rel=0.02)
    longest = math.sqrt(1 - CENTROID_SHARE**2 - WEIGHT_SHARE**2)
    assert e.std("update", n) * math.sqrt(dim) / (n * longest) == pytest.approx(on_update, rel=0.02)


@pytest.mark.parametrize(
    ("name", "dim", "unit"),
    [("a", 0, 1.0), ("a", 1, 0.0), ("a", 1, -1.0), ("a", 1, math.nan), ("a", 1, math.inf),
     ("a", 1, 1e-31), (WITHIN, 1, 1.0)],
)  # fmt: skip
def test_a_segment_needs_size_unit_and_a_name_of_its_own(name: str, dim: int, unit: float) -> None:
    with pytest.raises(ConfigError) as caught:
        PrivateSegment(name, dim, unit)
    assert caught.value.hint


def test_parameters_at_odds_are_refused() -> None:
    one = PrivateSegment("a", 1, 1.0)
    for segments, clip in (((), 1.0), ((one, one), 1.0), ((one,), 1e-31), ((one,), 1e31)):
        with pytest.raises(ConfigError):
            PrivateEncoding(segments, terms(clip=clip))
    with pytest.raises(ConfigError):
        default_segments(1.0, update_dim=10, centroid_dim=0)
