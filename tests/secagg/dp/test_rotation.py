"""The rotation is orthogonal, the one the specification defines, and spreads every vector."""

import math

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import hadamard

from secagg.dp import rotation
from secagg.dp.rotation import rotate, transform_length, unrotate
from secagg.errors import LocalProtocolError

SEED = bytes(range(32))
DIMS = [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 64, 65, 100, 1000, 1023, 1024, 1025, 5000]


def seeds(count: int) -> list[bytes]:
    return [index.to_bytes(32, "little") for index in range(count)]


def slowly(vector: np.ndarray, seed: bytes) -> np.ndarray:
    """The rotation by its definition: dense matrices, and a keystream of its own."""
    dim = len(vector)
    size = 1 << int(math.log2(dim))
    first, second = -(-dim // 8), -(-size // 8)
    stream = Cipher(AES256(seed), CTR(bytes(16))).encryptor().update(bytes(first + second))
    sign = [(-1) ** (stream[i // 8] >> i % 8 & 1) for i in range(dim)]
    other = [(-1) ** (stream[first + i // 8] >> i % 8 & 1) for i in range(size)]
    matrix = hadamard(size) / math.sqrt(size)
    y = vector * sign
    y[:size] = matrix @ y[:size]
    if size < dim:
        y[-size:] = matrix @ (y[-size:] * other)
    return y


@pytest.mark.req("D-06")
@pytest.mark.parametrize("dim", DIMS)
def test_it_is_the_rotation_of_the_specification(dim: int) -> None:
    x = np.random.default_rng(dim).normal(size=dim)
    assert np.abs(rotate(x, SEED) - slowly(x, SEED)).max() < 1e-5


@pytest.mark.req("D-06")
@pytest.mark.parametrize("dim", DIMS)
def test_the_inverse_gives_the_vector_back(dim: int) -> None:
    x = np.random.default_rng(dim).normal(size=dim)
    kept = x.copy()
    y = rotate(x, SEED)
    assert np.abs(unrotate(y, SEED) - x).max() < 1e-5
    assert np.abs(rotate(unrotate(x, SEED), SEED) - x).max() < 1e-5
    assert np.array_equal(x, kept)  # arguments are left alone
    assert math.isclose(np.linalg.norm(y), np.linalg.norm(x), rel_tol=2**-18)


@given(st.integers(1, 70), st.binary(min_size=32, max_size=32))
def test_the_matrix_is_orthogonal(dim: int, seed: bytes) -> None:
    matrix = np.stack([rotate(row, seed) for row in np.eye(dim)])
    assert np.abs(matrix @ matrix.T - np.eye(dim)).max() < 2e-6
    assert np.abs(np.stack([unrotate(row, seed) for row in np.eye(dim)]) - matrix.T).max() < 2e-6


def worst(dim: int) -> dict[str, np.ndarray]:
    """Vectors of norm 1 that a transform without signs would pile up, or leave in one place."""
    spike, last = np.zeros(dim), np.zeros(dim)
    spike[dim // 2] = last[-1] = 1.0
    walsh = hadamard(transform_length(dim))[-1]
    return {
        "spike": spike,
        "last": last,
        "constant": np.full(dim, dim**-0.5),
        "walsh": np.pad(walsh, (0, dim - len(walsh))) / math.sqrt(len(walsh)),
        "two": (spike + last) / np.linalg.norm(spike + last),
    }


@pytest.mark.req("D-06")
@pytest.mark.parametrize("dim", [64, 65, 96, 127, 128, 1025, 3000])
def test_no_vector_stays_in_few_places(dim: int) -> None:
    """No coordinate beyond the sub-Gaussian tail; false alarm below 200·5·7·1e-9 with any seeds."""
    bound = math.sqrt(2 * math.log(2 * dim / 1e-9) / transform_length(dim))
    for x in worst(dim).values():
        assert max(np.abs(rotate(x, seed)).max() for seed in seeds(200)) < bound


@pytest.mark.req("D-06")
@pytest.mark.parametrize("dim", [64, 65, 96, 127])
def test_the_variance_of_a_coordinate_is_at_most_one_in_p(dim: int) -> None:
    """Mean squares of 2000 draws against 1/P, 7 standard deviations of a squared normal each."""
    for x in worst(dim).values():
        squares = np.mean([rotate(x, seed) ** 2 for seed in seeds(2000)], axis=0)
        assert squares.max() * transform_length(dim) < 1 + 7 * math.sqrt(2 / 2000)


def test_one_set_of_signs_would_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: two transforms over nearly the same coordinates are nearly none."""
    signs = rotation._signs
    monkeypatch.setattr(
        rotation, "_signs", lambda seed, x: (signs(seed, x)[0], np.ones_like(signs(seed, x)[1]))
    )
    peak = max(np.abs(rotate(worst(1025)["spike"], seed)).max() for seed in seeds(20))
    bound = math.sqrt(2 * math.log(2 * 1025 / 1e-9) / 1024)
    assert peak > 0.9 > bound


def test_another_seed_is_another_rotation() -> None:
    x = np.random.default_rng(0).normal(size=100)
    assert np.abs(rotate(x, seeds(2)[0]) - rotate(x, seeds(2)[1])).max() > 0.1


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_seed_has_32_bytes(size: int) -> None:
    for turn in (rotate, unrotate):
        with pytest.raises(LocalProtocolError, match="32 bytes"):
            turn(np.zeros(4), bytes(size))


@pytest.mark.parametrize("shape", [(0,), (2, 2)])
def test_only_flat_vectors_are_rotated(shape: tuple[int, ...]) -> None:
    with pytest.raises(LocalProtocolError, match="cannot be rotated"):
        rotate(np.zeros(shape), SEED)
