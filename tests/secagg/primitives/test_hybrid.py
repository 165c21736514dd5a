"""X25519 with ML-KEM-768: both secrets count, and whoever sends a bad key is named."""

from __future__ import annotations

import pytest

from secagg.errors import AuthenticationError
from secagg.primitives import kem
from secagg.primitives.hybrid import HybridKeys, check_public

ALICE, BOB = HybridKeys(b"a" * 32), HybridKeys(b"b" * 32)


def test_both_sides_get_the_same_secret() -> None:
    shared, capsule = ALICE.encapsulate("bob", *BOB.public)
    assert (len(shared), len(capsule)) == (64, kem.CAPSULE_SIZE)
    assert BOB.decapsulate("alice", ALICE.public[0], capsule) == shared


def test_keys_follow_from_the_secret_and_do_not_follow_from_each_other() -> None:
    again, other = HybridKeys(b"a" * 32), HybridKeys(b"A" * 32)
    assert again.public == ALICE.public
    assert all(one != two for one, two in zip(other.public, ALICE.public, strict=True))
    sizes = [len(key) for key in ALICE.public]
    assert sizes == [32, 1184]


@pytest.mark.req("H-05")
def test_each_half_alone_is_not_the_secret() -> None:
    """Who has broken one of the two, and has one half, still lacks the other."""
    shared, capsule = ALICE.encapsulate("bob", *BOB.public)
    wrong_kem = HybridKeys(b"m" * 32)
    wrong_kem._agreement = BOB._agreement
    half = wrong_kem.decapsulate("alice", ALICE.public[0], capsule)
    assert half[:32] == shared[:32]
    assert half[32:] != shared[32:]
    mallory = HybridKeys(b"m" * 32)
    other = BOB.decapsulate("alice", mallory.public[0], capsule)
    assert other[:32] != shared[:32]
    assert other[32:] == shared[32:]


def test_a_secret_is_fresh_each_time() -> None:
    first, second = (ALICE.encapsulate("bob", *BOB.public) for _ in range(2))
    assert first[0] != second[0]
    assert first[1] != second[1]
    assert first[0][:32] == second[0][:32]  # X25519 of the same two keys: the KEM makes it fresh


def test_a_forged_capsule_gives_another_secret() -> None:
    shared, capsule = ALICE.encapsulate("bob", *BOB.public)
    forged = bytes([capsule[0] ^ 1]) + capsule[1:]
    assert BOB.decapsulate("alice", ALICE.public[0], forged) != shared


@pytest.mark.parametrize(
    ("agreement_key", "kem_key"),
    [
        (bytes(32), BOB.public[1]),  # a point of small order
        (BOB.public[0], b"\xff" * 1184),  # coefficients beyond the modulus
        (BOB.public[0], bytes(1183)),
        (bytes(31), BOB.public[1]),
    ],
)
def test_keys_that_nobody_can_agree_with_are_refused(agreement_key: bytes, kem_key: bytes) -> None:
    with pytest.raises(AuthenticationError) as caught:
        check_public("bob", agreement_key, kem_key)
    assert caught.value.peer == "bob"
    with pytest.raises(AuthenticationError) as caught:
        ALICE.encapsulate("bob", agreement_key, kem_key)
    assert caught.value.peer == "bob"


@pytest.mark.parametrize(
    ("agreement_key", "capsule"),
    [(bytes(32), bytes(kem.CAPSULE_SIZE)), (ALICE.public[0], bytes(kem.CAPSULE_SIZE - 1))],
)
def test_a_malformed_capsule_or_key_blames_the_peer(agreement_key: bytes, capsule: bytes) -> None:
    with pytest.raises(AuthenticationError) as caught:
        BOB.decapsulate("alice", agreement_key, capsule)
    assert caught.value.peer == "alice"


def test_good_keys_pass_and_keys_show_nothing() -> None:
    check_public("bob", *BOB.public)
    secret = BOB._agreement.private_bytes_raw()
    assert secret.hex() not in repr(BOB)
    assert repr(secret) not in repr(BOB)
