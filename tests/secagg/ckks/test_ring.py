"""The ring alone: its prime, its public elements, the bytes of its residues, and its refusals."""

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from secagg.ckks.ring import Ring, pack, packed_size, unpack
from secagg.errors import ConfigError, LocalProtocolError
from tests.support.rlwe import SEED, N


@pytest.fixture(scope="module")
def ring() -> Ring:
    return Ring(N, 49)


# --- public elements ------------------------------------------------------------------------------


def slow_elements(ring: Ring, seed: bytes, count: int) -> list[int]:
    stream = Cipher(AES256(seed), CTR(bytes(16))).encryptor().update(bytes(32 * count))
    mask = (1 << ring.modulus.bit_length()) - 1
    words = (int.from_bytes(stream[i : i + 8], "little") & mask for i in range(0, len(stream), 8))
    return [word for word in words if word < ring.modulus][:count]


@pytest.mark.parametrize(("degree", "bits"), [(1024, 14), (2048, 49)])
def test_public_elements_equal_the_slow_way(degree: int, bits: int) -> None:
    ring = Ring(degree, bits)  # the prime of 14 bits is 12289: a quarter is rejected
    for number in range(6):
        seed = hashlib.sha256(bytes([number])).digest()
        elements = ring.public_elements(seed, 8)
        assert elements.shape == (8, degree)
        assert elements.dtype == np.uint64
        assert elements.reshape(-1).tolist() == slow_elements(ring, seed, 8 * degree)
        assert np.array_equal(ring.public_elements(seed, 3), elements[:3])


def test_public_elements_of_one_seed_stay_what_they_are(ring: Ring) -> None:
    elements = ring.public_elements(bytes(32), 2)
    assert ring.modulus == 562949953392641
    assert elements[0, :3].tolist() == [352541531477468, 145762946271405, 76725220937555]
    digest = hashlib.sha256(elements.astype("<u8").tobytes()).hexdigest()
    assert digest == "c3a68ccb360f394012f42ef71b8d77d774fe88ee57a6fb927dddad1501c26a33"
    with pytest.raises(LocalProtocolError):
        ring.public_elements(bytes(31), 1)


# --- packing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("degree", "bits"),
    [
        (1024, 14),
        (1024, 27),
        (2048, 32),
        (2048, 33),
        (2048, 39),
        (2048, 40),
        (2048, 54),
        (4096, 60),
    ],
)
def test_packing_inverts_and_takes_the_bits_of_the_modulus(degree: int, bits: int) -> None:
    ring = Ring(degree, bits)
    values = ring.public_elements(SEED, 2)
    values[0, :3] = 0, 1, ring.modulus - 1
    data = pack(values, ring)
    assert len(data) == packed_size(2, ring) == 2 * degree * bits // 8
    back = unpack(data, 2, ring)
    assert back is not None
    assert back.dtype == np.uint64
    assert np.array_equal(back, values)
    for wrong in (data[:-1], data + b"\0", b""):
        assert unpack(wrong, 2, ring) is None
    assert unpack(b"\xff" * len(data), 2, ring) is None
    values[1, 7] = ring.modulus
    assert unpack(pack(values, ring), 2, ring) is None


def test_packed_bytes_are_planes_of_32_16_and_1_bits(ring: Ring) -> None:
    values = ring.public_elements(SEED, 1)
    plain = values[0].tolist()
    low = b"".join((x & 0xFFFFFFFF).to_bytes(4, "little") for x in plain)
    middle = b"".join((x >> 32 & 0xFFFF).to_bytes(2, "little") for x in plain)
    top = bytes(sum((plain[i + N // 8 * k] >> 48) << k for k in range(8)) for i in range(N // 8))
    assert pack(values, ring) == low + middle + top


# --- the prime ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("degree", "bits"),
    [(2048, 55), (1024, 28), (512, 20), (2048, 61), (2048, 5), (3000, 40), (0, 40), (-1, 40)],
)
def test_weak_and_impossible_rings_are_refused(degree: int, bits: int) -> None:
    with pytest.raises(ConfigError) as caught:
        Ring(degree, bits)
    assert caught.value.hint


def test_the_prime_is_the_largest_that_serves(ring: Ring) -> None:
    q = ring.modulus
    assert q % (2 * N) == 1
    assert pow(3, q - 1, q) == 1
    assert all(pow(3, p - 1, p) != 1 for p in range(q + 2 * N, 1 << 49, 2 * N))
