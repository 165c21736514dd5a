"""ML-KEM-768: sizes, seeds, the checks of FIPS 203, and one published vector."""

from __future__ import annotations

import hashlib

import pytest

from secagg.errors import AuthenticationError
from secagg.primitives import kem

SEED = bytes(range(64))
Q = 3329


def test_a_secret_arrives() -> None:
    private = kem.private_key(SEED)
    public = kem.public_key(private)
    secret, capsule = kem.encapsulate("bob", public)
    assert (len(public), len(secret), len(capsule)) == (kem.PUBLIC_SIZE, 32, kem.CAPSULE_SIZE)
    assert kem.decapsulate(private, "alice", capsule) == secret


def test_every_encapsulation_is_another() -> None:
    public = kem.public_key(kem.private_key(SEED))
    made = [kem.encapsulate("bob", public) for _ in range(5)]
    assert len({secret for secret, _ in made}) == len({capsule for _, capsule in made}) == 5


@pytest.mark.req("M-05")
def test_the_key_is_its_seed() -> None:
    same = kem.public_key(kem.private_key(SEED))
    assert kem.public_key(kem.private_key(SEED)) == same
    assert kem.public_key(kem.private_key(SEED[:-1] + b"x")) == same  # z: implicit rejection only
    assert kem.public_key(kem.private_key(b"x" + SEED[1:])) != same


def test_the_seed_is_d_then_z_of_fips_203() -> None:
    """The public key ends in rho, the first half of SHA3-512(d, 3): algorithm 13 by hand."""
    public = kem.public_key(kem.private_key(SEED))
    assert public[-32:] == hashlib.sha3_512(SEED[:32] + b"\x03").digest()[:32]


def test_a_forged_capsule_gives_the_secret_of_implicit_rejection() -> None:
    """FIPS 203 algorithm 18: SHAKE-256(z, capsule), which says nothing about the key."""
    capsule = bytes(kem.CAPSULE_SIZE)
    expected = hashlib.shake_256(SEED[32:] + capsule).digest(32)
    assert kem.decapsulate(kem.private_key(SEED), "alice", capsule) == expected


@pytest.mark.req("M-26")
@pytest.mark.parametrize("position", [0, 500, 1087])
def test_an_altered_capsule_gives_an_unrelated_secret(position: int) -> None:
    private = kem.private_key(SEED)
    secret, capsule = kem.encapsulate("bob", kem.public_key(private))
    altered = bytearray(capsule)
    altered[position] ^= 1
    assert kem.decapsulate(private, "alice", bytes(altered)) != secret


@pytest.mark.parametrize("size", [0, 1087, 1089])
def test_a_capsule_of_another_size_blames_its_sender(size: int) -> None:
    with pytest.raises(AuthenticationError) as caught:
        kem.decapsulate(kem.private_key(SEED), "mallory", bytes(size))
    assert caught.value.peer == "mallory"


def with_coefficient(value: int) -> bytes:
    """Return a key whose first coefficient, 12 bits little-endian, is `value`."""
    public = bytearray(kem.public_key(kem.private_key(SEED)))
    public[0], public[1] = value & 255, public[1] & 0xF0 | value >> 8
    return bytes(public)


@pytest.mark.req("M-04")
def test_the_modulus_check_of_fips_203_section_7_2() -> None:
    kem.check_public("mallory", with_coefficient(Q - 1))
    for value in (Q, Q + 1, 4095):
        for refuses in (kem.check_public, kem.encapsulate):
            with pytest.raises(AuthenticationError) as caught:
                refuses("mallory", with_coefficient(value))
            assert caught.value.peer == "mallory"


@pytest.mark.req("M-04")
@pytest.mark.parametrize("size", [0, 1183, 1185])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(AuthenticationError):
        kem.check_public("mallory", bytes(size))
