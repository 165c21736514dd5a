"""Packing against a big-integer reference, residues against Python's modulo."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import ring


def slow_pack(values: list[int], bits: int) -> bytes:
    """One big integer with coordinate i at bit i·b, little-endian."""
    whole = sum(value << (index * bits) for index, value in enumerate(values))
    return whole.to_bytes((len(values) * bits + 7) // 8, "little")


@st.composite
def ring_vectors(draw: st.DrawFn) -> tuple[list[int], int]:
    bits = draw(st.integers(8, 32))
    values = draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=1, max_size=40))
    return values, bits


@pytest.mark.req("E-07")
@given(ring_vectors())
def test_packing_equals_the_big_integer_and_inverts(case: tuple[list[int], int]) -> None:
    values, bits = case
    vector = np.array(values, dtype=np.uint32)
    data = ring.pack(vector, bits)
    assert data == slow_pack(values, bits)
    assert len(data) == ring.packed_size(len(values), bits)
    back = ring.unpack(data, len(values), bits)
    assert back is not None
    assert back.dtype == np.uint32
    assert back.tolist() == values


@pytest.mark.req("E-07")
@pytest.mark.parametrize("bits", range(8, 33))
def test_the_extremes_of_every_ring_size(bits: int) -> None:
    values = [0, (1 << bits) - 1, 1, 1 << (bits - 1), 0] * 3
    data = ring.pack(np.array(values, dtype=np.uint32), bits)
    assert data == slow_pack(values, bits)


@pytest.mark.req("E-07")
def test_known_bytes() -> None:
    vector = np.array([0x12345, 0xABCDE, 0x1], dtype=np.uint32)
    assert ring.pack(vector, 20).hex() == "4523e1cdab010000"


@pytest.mark.req("E-07")
@given(ring_vectors(), st.data())
def test_a_set_padding_bit_is_refused(case: tuple[list[int], int], data: st.DataObject) -> None:
    values, bits = case
    used = len(values) * bits % 8
    packed = bytearray(ring.pack(np.array(values, dtype=np.uint32), bits))
    if used:
        packed[-1] |= 1 << data.draw(st.integers(used, 7))
        assert ring.unpack(bytes(packed), len(values), bits) is None
    else:
        assert ring.unpack(bytes(packed), len(values), bits) is not None


@pytest.mark.req("E-07")
@given(ring_vectors(), st.integers(-3, 3).filter(bool))
def test_another_length_is_refused(case: tuple[list[int], int], change: int) -> None:
    values, bits = case
    packed = ring.pack(np.array(values, dtype=np.uint32), bits)
    other = packed + bytes(change) if change > 0 else packed[:change]
    assert ring.unpack(other, len(values), bits) is None


@pytest.mark.req("E-08")
@given(st.integers(8, 32), st.lists(st.integers(-(1 << 31), (1 << 31) - 1), min_size=1))
def test_residues_are_python_modulo(bits: int, values: list[int]) -> None:
    residues = ring.from_signed(np.array(values, dtype=np.int64), bits)
    assert residues.tolist() == [value % (1 << bits) for value in values]


@pytest.mark.req("E-08")
@pytest.mark.parametrize("bits", [8, 20, 31, 32])
def test_the_least_representative_comes_back(bits: int) -> None:
    half = 1 << (bits - 1)
    values = np.array([-half, -half + 1, -1, 0, 1, half - 1], dtype=np.int64)
    assert ring.to_signed(ring.from_signed(values, bits), bits).tolist() == values.tolist()


def test_reduce_works_in_place() -> None:
    vector = np.array([0xFFFFFFFF, 256], dtype=np.uint32)
    assert ring.reduce(vector, 8) is vector
    assert vector.tolist() == [255, 0]
