"""Values in coefficients and back: exact at every bound, and nothing impossible is read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.ckks.coefficients import blocks_for, fits, read_sum, to_message
from secagg.ckks.headroom import RingParameters, ring_modulus, smallest_ring
from secagg.ckks.seal import ERROR_BOUND
from secagg.errors import LocalProtocolError

VALUE_BITS = 16
RING = smallest_ring(10, VALUE_BITS, 1)
PLACES = RING.degree * RING.values_per_coefficient


def message(
    values: list[int], ring_bits: int = 20, ring: RingParameters = RING
) -> NDArray[np.int64]:
    vector = (np.array(values, np.int64) & ((1 << ring_bits) - 1)).astype(np.uint32)
    return to_message(vector, ring, ring_bits=ring_bits, value_bits=VALUE_BITS)


def read(
    opened: NDArray[np.int64], dim: int, weight: int = 1, ring: RingParameters = RING
) -> list[int] | None:
    total = read_sum(opened, ring, dim=dim, ring_bits=20, value_bits=VALUE_BITS, weight=weight)
    if total is None:
        return None
    signed = total.astype(np.int64)
    return [int(value) - ((value >> 19) << 20) for value in signed]


def fit(opened: NDArray[np.int64], weight: int) -> bool:
    return fits(opened, RING, value_bits=VALUE_BITS, weight=weight)


def test_several_values_share_a_coefficient() -> None:
    assert RING.values_per_coefficient == 2
    assert blocks_for(1, RING) == blocks_for(PLACES, RING) == 1
    assert blocks_for(PLACES + 1, RING) == 2


@pytest.mark.parametrize("dim", [1, 7, RING.degree, RING.degree + 1, PLACES, PLACES + 1])
def test_what_went_in_comes_out(dim: int) -> None:
    values = np.random.default_rng(dim).integers(-(1 << 15), 1 << 15, dim).tolist()
    assert read(message(values), dim) == values


@pytest.mark.req("H-01")
@pytest.mark.parametrize("weights", [(1,), (1,) * 10, (4, 3, 1), (4,) * 10])
@pytest.mark.parametrize("extreme", ["least", "most", "mixed"])
@pytest.mark.parametrize("error", [-1, 0, 1])
def test_sums_at_every_bound_at_once_are_exact(
    weights: tuple[int, ...], extreme: str, error: int
) -> None:
    """All values, errors and weights as large as they may be, of all signs in one coefficient."""
    ring = smallest_ring(10, VALUE_BITS, max(weights))
    dim = ring.degree * ring.values_per_coefficient
    low, high = -(1 << 15), (1 << 15) - 1
    values = {
        "least": np.full(dim, low),
        "most": np.full(dim, high),
        "mixed": np.where(np.arange(dim) // ring.degree % 2, low, high),
    }[extreme]
    weight = sum(weights)
    opened = weight * message(values.tolist(), ring=ring)
    opened += error * weight * ERROR_BOUND * ring.error_terms
    assert np.abs(opened).max() <= ring_modulus(ring.degree, ring.modulus_bits) // 2
    modulus = 1 << 20
    expected = [int(v) for v in (weight * values + (modulus >> 1)) % modulus - (modulus >> 1)]
    assert read(opened, dim, weight, ring) == expected


@pytest.mark.req("H-07")
@pytest.mark.parametrize("value", [1 << 15, -(1 << 15) - 1, (1 << 19) - 1, -(1 << 19)])
def test_a_value_beyond_its_bits_is_refused(value: int) -> None:
    with pytest.raises(LocalProtocolError, match="16 bits"):
        message([0, value, 0])


@pytest.mark.req("H-07")
def test_the_extreme_values_are_taken() -> None:
    assert read(message([-(1 << 15), (1 << 15) - 1]), 2) == [-(1 << 15), (1 << 15) - 1]


@pytest.mark.req("H-14")
@pytest.mark.parametrize("weight", [1, 7])
@pytest.mark.parametrize("place", [0, RING.degree - 1])
@pytest.mark.parametrize("sign", [-1, 1])
def test_an_error_beyond_what_errors_add_up_to_is_no_sum(
    weight: int, place: int, sign: int
) -> None:
    opened = weight * message([5, -5] * (PLACES // 2))
    opened[0, place] += sign * weight * ERROR_BOUND * RING.error_terms
    assert fit(opened, weight)
    assert read(opened, PLACES, weight) is not None
    opened[0, place] += sign
    assert not fit(opened, weight)
    assert read(opened, PLACES, weight) is None


@pytest.mark.req("H-13")
@pytest.mark.req("H-14")
@pytest.mark.parametrize("weight", [1, 3])
@pytest.mark.parametrize("plane", [0, 1])
@pytest.mark.parametrize(("extreme", "beyond"), [(-(1 << 15), -1), ((1 << 15) - 1, 1)])
def test_a_value_beyond_what_values_add_up_to_is_no_sum(
    weight: int, plane: int, extreme: int, beyond: int
) -> None:
    opened = weight * message([extreme] * PLACES)
    assert read(opened, PLACES, weight) is not None
    opened[0, 3] += beyond << (RING.noise_bits + plane * RING.field_bits)
    assert not fit(opened, weight)
    assert read(opened, PLACES, weight) is None


@pytest.mark.req("H-14")
@pytest.mark.parametrize("dim", [1, RING.degree, RING.degree + 5, PLACES - 1])
def test_unused_places_are_zero(dim: int) -> None:
    opened = message([1] * dim)
    coefficient, plane = dim % RING.degree, dim // RING.degree
    opened[0, coefficient] += 1 << (RING.noise_bits + plane * RING.field_bits)
    assert fit(opened, 1)  # that it is unused is known only where all is read
    assert read(opened, dim) is None
    assert read(opened, dim + 1) == [*[1] * dim, 1]


@pytest.mark.req("H-13")
@pytest.mark.parametrize("n", [3, 10, 12, 24, 48, 97, 195, 780])
def test_a_wrong_secret_is_told_whatever_the_cohort(n: int) -> None:
    """Errors of 780 nodes fill all but a few of their bits: values tell then."""
    ring = smallest_ring(n, VALUE_BITS, 1)
    half = ring_modulus(ring.degree, ring.modulus_bits) // 2
    opened = np.random.default_rng(n).integers(-half, half, (1, ring.degree))
    assert not fits(opened, ring, value_bits=VALUE_BITS, weight=n)


@pytest.mark.req("H-14")
def test_uniform_residues_are_no_sum() -> None:
    half = ring_modulus(RING.degree, RING.modulus_bits) // 2
    opened = np.random.default_rng(1).integers(-half, half, (1, RING.degree))
    assert not fit(opened, 10)
    assert read(opened, PLACES, 10) is None


@given(st.data())
def test_random_sums_of_random_rings(data: st.DataObject) -> None:
    n, value_bits = data.draw(st.integers(3, 60)), data.draw(st.integers(8, 24))
    max_weight = data.draw(st.integers(1, 4 if value_bits < 20 else 1))
    ring = smallest_ring(n, value_bits, max_weight)
    ring_bits = data.draw(st.integers(value_bits, 32))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dim = data.draw(st.integers(1, 2 * ring.degree))
    weights = rng.integers(1, max_weight + 1, n)
    half = 1 << (value_bits - 1)
    inputs = rng.integers(-half, half, (n, dim))
    opened = np.zeros((blocks_for(dim, ring), ring.degree), np.int64)
    for weight, values in zip(weights, inputs, strict=True):
        vector = (values & ((1 << ring_bits) - 1)).astype(np.uint32)
        part = to_message(vector, ring, ring_bits=ring_bits, value_bits=value_bits)
        bound = ERROR_BOUND * ring.error_terms
        opened += weight * (part + rng.integers(-bound, bound + 1, part.shape))
    total = read_sum(
        opened,
        ring,
        dim=dim,
        ring_bits=ring_bits,
        value_bits=value_bits,
        weight=int(weights.sum()),
    )
    assert total is not None
    assert total.dtype == np.uint32
    assert (total == (weights @ inputs) % (1 << ring_bits)).all()
