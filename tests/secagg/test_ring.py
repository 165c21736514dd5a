"""Packing against a bit-by-bit reference, residues against Python's modulo."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import ring


def slow_pack(values: list[int], bits: int) -> bytes:
    """specs/10 E-07, one bit at a time."""
    padded = values + [0] * (-len(values) % 8)
    packed, lowest = b"", 0
    for width in (32, 16, 8, 4, 2, 1):
        if not bits & width:
            continue
        plane = bytearray(len(padded) * width // 8)
        for i, value in enumerate(padded):
            for k in range(width):
                if width >= 8:
                    byte, bit = divmod(i * width + k, 8)
                else:
                    byte, bit = i % len(plane), width * (i // len(plane)) + k
                plane[byte] |= (value >> (lowest + k) & 1) << bit
        packed += plane
        lowest += width
    return packed


def random_values(dim: int, bits: int, seed: int = 0) -> list[int]:
    values: list[int] = np.random.default_rng(seed).integers(0, 1 << bits, dim).tolist()
    return values


def vector_of(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.uint32)


@st.composite
def ring_vectors(draw: st.DrawFn) -> tuple[list[int], int]:
    bits = draw(st.integers(8, 32))
    values = draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=1, max_size=40))
    return values, bits


@pytest.mark.req("E-07")
@given(ring_vectors())
def test_packing_equals_the_slow_one_and_inverts(case: tuple[list[int], int]) -> None:
    values, bits = case
    data = ring.pack(vector_of(values), bits)
    assert data == slow_pack(values, bits)
    assert len(data) == ring.packed_size(len(values), bits)
    back = ring.unpack(data, len(values), bits)
    assert back is not None
    assert back.dtype == np.uint32
    assert back.tolist() == values


@pytest.mark.req("E-07")
@pytest.mark.parametrize("bits", range(8, 33))
@pytest.mark.parametrize("dim", [0, 1, 7, 8, 9, 63, 64, 65, 128, 129])
def test_every_ring_size_at_dimensions_around_the_borders(bits: int, dim: int) -> None:
    values = random_values(dim, bits)
    data = ring.pack(vector_of(values), bits)
    assert data == slow_pack(values, bits)
    back = ring.unpack(data, dim, bits)
    assert back is not None
    assert back.tolist() == values


@pytest.mark.req("E-07")
@pytest.mark.parametrize("bits", range(8, 33))
def test_the_extremes_of_every_ring_size(bits: int) -> None:
    values = [0, (1 << bits) - 1, 1, 1 << (bits - 1), 0] * 3
    data = ring.pack(vector_of(values), bits)
    assert data == slow_pack(values, bits)


@pytest.mark.req("E-07")
@pytest.mark.parametrize("bits", range(8, 33))
@pytest.mark.parametrize("dim", [4096, 5003])
def test_a_long_vector_comes_back(bits: int, dim: int) -> None:
    vector = vector_of(random_values(dim, bits, seed=bits))
    back = ring.unpack(ring.pack(vector, bits), dim, bits)
    assert back is not None
    assert np.array_equal(back, vector)


@pytest.mark.req("E-07")
def test_known_bytes_of_three_coordinates() -> None:
    """Padded to eight: 16 bytes of low halves, then c4|c0, c5|c1, c6|c2, c7|c3."""
    packed = ring.pack(vector_of([0x12345, 0xABCDE, 0x1]), 20)
    assert packed.hex() == "4523debc0100" + 5 * "0000" + "010a0000"


@pytest.mark.req("E-07")
def test_known_bytes_of_one_coordinate_in_all_planes_below_32() -> None:
    """Coordinate 5 of 0x7abcdef1 at b = 31, worked out by hand."""
    expected = 5 * "0000" + "f1de" + 2 * "0000"  # w = 16: bytes 10 and 11
    expected += 5 * "00" + "bc" + 2 * "00"  # w = 8: byte 5
    expected += "00a00000"  # w = 4: byte 5 mod 4, from bit 4
    expected += "0030"  # w = 2: byte 5 mod 2, from bit 4
    expected += "20"  # w = 1: byte 0, bit 5
    packed = ring.pack(vector_of([0, 0, 0, 0, 0, 0x7ABCDEF1, 0, 0]), 31)
    assert packed.hex() == expected


@pytest.mark.req("E-07")
@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (8, "0001020304050607"),
        (16, "00000100020003000400050006000700"),
        (32, "".join(f"{i:02x}000000" for i in range(8))),
    ],
)
def test_whole_bytes_are_plain_arrays(bits: int, expected: str) -> None:
    assert ring.pack(np.arange(8, dtype=np.uint32), bits).hex() == expected


@pytest.mark.req("E-07")
@pytest.mark.parametrize("bits", range(8, 33))
def test_a_set_padding_bit_is_refused(bits: int) -> None:
    """Every single bit of every padding coordinate, at a dimension that has seven of them."""
    values = random_values(17, bits)
    assert ring.unpack(slow_pack(values, bits), 17, bits) is not None
    for place in range(7):
        for bit in range(bits):
            padding = [0] * 7
            padding[place] = 1 << bit
            assert ring.unpack(slow_pack(values + padding, bits), 17, bits) is None


@pytest.mark.req("E-07")
@given(st.integers(8, 32), st.integers(1, 5), st.data())
def test_every_string_of_the_right_size_has_one_meaning(
    bits: int, groups: int, data: st.DataObject
) -> None:
    packed = data.draw(st.binary(min_size=groups * bits, max_size=groups * bits))
    vector = ring.unpack(packed, 8 * groups, bits)
    assert vector is not None
    assert ring.pack(vector, bits) == packed


@pytest.mark.req("E-07")
@given(ring_vectors(), st.integers(-3, 3).filter(bool))
def test_another_length_is_refused(case: tuple[list[int], int], change: int) -> None:
    values, bits = case
    packed = ring.pack(vector_of(values), bits)
    other = packed + bytes(change) if change > 0 else packed[:change]
    assert ring.unpack(other, len(values), bits) is None


@pytest.mark.req("E-07")
@given(st.integers(8, 32), st.integers(0, 10**6))
def test_packing_costs_b_bytes_for_eight_coordinates(bits: int, dim: int) -> None:
    exact = -(-dim * bits // 8)
    assert exact <= ring.packed_size(dim, bits) < exact + bits
    if dim % 8 == 0:
        assert ring.packed_size(dim, bits) == exact


@pytest.mark.req("E-08")
@pytest.mark.parametrize("bits", range(8, 33))
def test_packing_reduces(bits: int) -> None:
    vector = vector_of(random_values(20, 32))
    assert ring.pack(vector, bits) == ring.pack(ring.reduce(vector.copy(), bits), bits)


@pytest.mark.parametrize("bits", [8, 12, 16, 20, 24, 31, 32])
@pytest.mark.parametrize("dim", [7, 8])
def test_the_unpacked_vector_is_the_callers_own(bits: int, dim: int) -> None:
    packed = bytes(ring.packed_size(dim, bits))
    vector = ring.unpack(packed, dim, bits)
    assert vector is not None
    vector += np.uint32(1)
    assert packed == bytes(len(packed))


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
    back = ring.to_signed(ring.from_signed(values, bits), bits)
    assert back.tolist() == values.tolist()


@pytest.mark.req("E-08")
@given(st.integers(8, 32), st.data())
def test_residues_of_32_bit_integers_come_back(bits: int, data: st.DataObject) -> None:
    half = 1 << (bits - 1)
    values = data.draw(st.lists(st.integers(-half, half - 1), min_size=1))
    residues = ring.from_signed(np.array(values, dtype=np.int32), bits)
    assert ring.to_signed(residues, bits).tolist() == values


def test_reduce_works_in_place() -> None:
    vector = np.array([0xFFFFFFFF, 256], dtype=np.uint32)
    assert ring.reduce(vector, 8) is vector
    assert vector.tolist() == [255, 0]
