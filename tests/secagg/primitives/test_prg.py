"""The mask generator against AES in counter mode, block by block."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

from secagg.errors import LocalProtocolError
from secagg.primitives import prg
from secagg.primitives.prg import SEED_SIZE, accumulate

SEED = bytes(range(SEED_SIZE))
BLOCK = 1 << 16


@pytest.fixture(autouse=True, params=["gcm", "ctr"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mode that OpenSSL runs is a matter of speed: every test holds for both."""
    monkeypatch.setattr(prg, "_THROUGH_GCM", request.param == "gcm")


def slow_mask(seed: bytes, dim: int) -> np.ndarray:
    """AES-256 of the counters 0, 1, 2 … as big-endian 128-bit integers."""
    cipher = Cipher(AES256(seed), ECB()).encryptor()  # noqa: S305 - the reference
    counters = b"".join(i.to_bytes(16, "big") for i in range(-(-dim // 4)))
    return np.frombuffer(cipher.update(counters), dtype="<u4")[:dim]


def mask(seed: bytes, dim: int) -> np.ndarray:
    total = np.zeros(dim, dtype=np.uint32)
    accumulate(total, seed)
    return total


@pytest.mark.req("M-17")
def test_the_first_block_of_the_zero_key() -> None:
    """AES-256 of the zero block under the zero key, a published value."""
    assert mask(bytes(32), 4).astype("<u4").tobytes().hex() == "dc95c078a2408989ad48a21492842087"


@pytest.mark.req("M-17")
@pytest.mark.parametrize(
    "dim",
    [1, 3, 4, 5, 7, 8, 9, 100, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 8, BLOCK + 9, 2 * BLOCK + 3],
)
def test_the_mask_is_the_keystream(dim: int) -> None:
    assert np.array_equal(mask(SEED, dim), slow_mask(SEED, dim))


@pytest.mark.req("M-17")
@pytest.mark.parametrize("dim", [7, BLOCK + 9])
def test_adding_and_subtracting_cancel_modulo_2_32(dim: int) -> None:
    start = np.random.default_rng(3).integers(0, 2**32, dim, dtype=np.uint32)
    total = start.copy()
    accumulate(total, SEED)
    expected = (start.astype(np.uint64) + slow_mask(SEED, dim)) % 2**32
    assert np.array_equal(total, expected.astype(np.uint32))
    accumulate(total, SEED, negative=True)
    assert np.array_equal(total, start)


@pytest.mark.req("M-17")
def test_seeds_that_differ_in_one_bit_give_unrelated_masks() -> None:
    base = mask(SEED, 1000)
    for bit in range(0, 256, 5):
        other = bytearray(SEED)
        other[bit // 8] ^= 1 << bit % 8
        same = np.unpackbits((base ^ mask(bytes(other), 1000)).view(np.uint8)).mean()
        assert abs(same - 0.5) < 0.02  # 7 standard deviations of 32 000 fair bits


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_seed_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(LocalProtocolError):
        accumulate(np.zeros(4, dtype=np.uint32), bytes(size))


def test_an_empty_vector_is_fine() -> None:
    accumulate(np.zeros(0, dtype=np.uint32), SEED)
