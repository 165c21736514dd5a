"""A box opens for one member, from one dealer, in one round; keys are their nodes' own."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from secagg.ckks.sealing import (
    BOX_OVERHEAD,
    Dealer,
    dealer_of,
    make_key,
    open_box,
    seal_box,
    verify_dealer,
    verify_key,
)
from secagg.errors import AuthenticationError
from secagg.primitives import aead
from secagg.primitives.hybrid import HybridKeys
from secagg.primitives.kdf import derive
from secagg.primitives.kem import CAPSULE_SIZE
from secagg.primitives.signing import sign
from secagg.round_setup import RoundSetup
from secagg.tags import BOX_KEY, SEALING_KEY
from secagg.types import NodeId
from secagg.wire.messages import SealingKey
from tests.support.ckks import ckks_setup
from tests.support.fleet import TestSigner

SETUP = ckks_setup(4)
DEALER, MEMBER, THIRD, EVIL = SETUP.cohort
KEYS = {node: HybridKeys(node.encode().ljust(32)) for node in SETUP.cohort}
SHARE = b"a share of a secret" * 20
OTHER_ROUNDS = {
    "run": replace(SETUP, run_id=b"s" * 16),
    "round": replace(SETUP, round_id=8),
    "offer": replace(SETUP, offer_hash=bytes(32)),
}


def key_of(node: NodeId, setup: RoundSetup = SETUP) -> SealingKey:
    return make_key(setup, TestSigner(node), KEYS[node])


def box(setup: RoundSetup = SETUP, dealer: NodeId = DEALER, member: NodeId = MEMBER) -> bytes:
    return seal_box(setup, KEYS[dealer], dealer, key_of(member, setup), SHARE)


def opened(
    sealed: bytes,
    setup: RoundSetup = SETUP,
    dealer: Dealer | None = None,
    member: NodeId = MEMBER,
) -> bytes:
    chosen = dealer_of(key_of(DEALER, setup)) if dealer is None else dealer
    return open_box(setup, KEYS[member], chosen, member, sealed)


@pytest.mark.req("H-05")
def test_the_member_reads_its_share() -> None:
    sealed = box()
    assert len(sealed) == len(SHARE) + BOX_OVERHEAD
    assert opened(sealed) == SHARE
    assert SHARE[:8] not in sealed


@pytest.mark.req("H-05")
def test_a_box_is_sealed_anew_each_time() -> None:
    one, two = box(), box()
    assert one[:CAPSULE_SIZE] != two[:CAPSULE_SIZE]
    assert one[CAPSULE_SIZE:] != two[CAPSULE_SIZE:]


@pytest.mark.req("H-05")
@pytest.mark.parametrize("byte", [0, 500, CAPSULE_SIZE, -1])
def test_an_altered_box_blames_its_dealer(byte: int) -> None:
    altered = bytearray(box())
    altered[byte] ^= 1
    with pytest.raises(AuthenticationError) as caught:
        opened(bytes(altered))
    assert caught.value.peer == DEALER


@pytest.mark.req("H-05")
@pytest.mark.parametrize("size", [0, 10, CAPSULE_SIZE, CAPSULE_SIZE + 15])
def test_a_short_box_blames_its_dealer(size: int) -> None:
    with pytest.raises(AuthenticationError) as caught:
        opened(box()[:size])
    assert caught.value.peer == DEALER


@pytest.mark.req("H-05")
def test_a_box_moved_to_another_member_or_dealer_does_not_open() -> None:
    for sealed, dealer, member in (
        (box(), DEALER, THIRD),
        (box(), THIRD, MEMBER),
        (box(member=THIRD), DEALER, MEMBER),
        (box(dealer=MEMBER, member=DEALER), DEALER, MEMBER),
    ):
        with pytest.raises(AuthenticationError):
            opened(sealed, dealer=dealer_of(key_of(dealer)), member=member)


@pytest.mark.req("H-05")
@pytest.mark.parametrize("what", OTHER_ROUNDS)
def test_a_box_of_another_round_does_not_open(what: str) -> None:
    """Even where dealer and member have the same keys in both."""
    other = OTHER_ROUNDS[what]
    with pytest.raises(AuthenticationError):
        opened(box(other))
    assert opened(box(other), other) == SHARE


@pytest.mark.req("H-05")
@pytest.mark.parametrize("part", range(5))
def test_the_key_of_a_box_is_bound_to_every_part(part: int) -> None:
    """With one signed key for all, a box still says which run, dealer and member it is for."""
    parts = [*SETUP.context, DEALER.encode(), MEMBER.encode()]
    member = key_of(MEMBER)
    shared, capsule = KEYS[DEALER].encapsulate(MEMBER, member.agreement_key, member.kem_key)

    def sealed() -> bytes:
        return capsule + aead.seal(derive(shared, BOX_KEY, *parts, capsule), SHARE, b"")

    assert opened(sealed()) == SHARE
    parts[part] = b"x" * len(parts[part])
    with pytest.raises(AuthenticationError):
        opened(sealed())


@pytest.mark.req("H-05")
def test_the_coordinator_cannot_put_its_own_box_in_the_place_of_a_dealers() -> None:
    """It knows all public keys; the box it makes opens under its own X25519 key only."""
    forged = seal_box(SETUP, KEYS[EVIL], DEALER, key_of(MEMBER), b"chosen" * 10)
    with pytest.raises(AuthenticationError):
        opened(forged)
    public, kem_digest = KEYS[EVIL].public[0], dealer_of(key_of(EVIL)).kem_digest
    honest = dealer_of(key_of(DEALER))
    for signature in (honest.signature, key_of(EVIL).signature, bytes(64)):
        for digest in (kem_digest, honest.kem_digest):
            with pytest.raises(AuthenticationError) as caught:
                verify_dealer(SETUP, Dealer(DEALER, public, digest, signature))
            assert caught.value.peer == DEALER
    verify_dealer(SETUP, honest)


@pytest.mark.req("H-05")
def test_a_dealer_of_no_roster_is_refused() -> None:
    keys = HybridKeys(b"s" * 32)
    stranger = make_key(SETUP, TestSigner("stranger"), keys)
    with pytest.raises(AuthenticationError) as caught:
        verify_dealer(SETUP, dealer_of(stranger))
    assert caught.value.peer == "stranger"


@pytest.mark.req("H-04")
def test_a_good_key_passes() -> None:
    verify_key(SETUP, key_of(DEALER))


def framed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


@pytest.mark.req("H-04")
def test_what_is_signed_is_run_round_offer_node_suite_and_both_keys() -> None:
    tag, key = b"secagg/v1/sealing-key\0", key_of(DEALER)
    kem_digest = hashlib.sha256(tag + framed(key.kem_key)).digest()
    parts = (*SETUP.context, DEALER.encode(), b"\x01", key.agreement_key, kem_digest)
    assert key.signature == TestSigner(DEALER).sign(tag + framed(*parts))


@pytest.mark.req("H-04")
@pytest.mark.parametrize("what", OTHER_ROUNDS)
def test_a_key_of_another_round_is_refused(what: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        verify_key(SETUP, key_of(DEALER, OTHER_ROUNDS[what]))
    assert caught.value.peer == DEALER


@pytest.mark.req("H-04")
@pytest.mark.parametrize("field", ["node_id", "suite", "agreement_key", "kem_key", "signature"])
def test_a_key_with_one_field_of_another_is_refused(field: str) -> None:
    values = {name: getattr(key_of(DEALER), name) for name in SealingKey.__struct_fields__}
    values[field] = 2 if field == "suite" else getattr(key_of(EVIL), field)
    with pytest.raises(AuthenticationError) as caught:
        verify_key(SETUP, SealingKey(**values))
    assert caught.value.peer == values["node_id"]


@pytest.mark.req("H-04")
def test_an_unknown_suite_is_refused_even_if_it_is_signed() -> None:
    key = key_of(DEALER)
    for suite in (2, 255):
        parts = (*SETUP.context, DEALER.encode(), bytes([suite]), key.agreement_key)
        signature = sign(TestSigner(DEALER), SEALING_KEY, *parts, dealer_of(key).kem_digest)
        with pytest.raises(AuthenticationError, match=f"suite {suite}"):
            verify_key(SETUP, SealingKey(DEALER, suite, key.agreement_key, key.kem_key, signature))


class _Keys:
    """Public keys that nobody can agree with, signed like good ones."""

    def __init__(self, agreement_key: bytes, kem_key: bytes) -> None:
        self.public = agreement_key, kem_key


@pytest.mark.req("H-04")
@pytest.mark.parametrize("bad", ["agreement", "kem"])
def test_a_signed_key_that_nobody_can_seal_to_is_refused(bad: str) -> None:
    agreement_key, kem_key = KEYS[DEALER].public
    keys = _Keys(bytes(32), kem_key) if bad == "agreement" else _Keys(agreement_key, b"\xff" * 1184)
    key = make_key(SETUP, TestSigner(DEALER), keys)  # type: ignore[arg-type]
    with pytest.raises(AuthenticationError) as caught:
        verify_key(SETUP, key)
    assert caught.value.peer == DEALER


def test_a_dealer_shows_no_key() -> None:
    assert repr(dealer_of(key_of(DEALER))) == f"Dealer(node_id='{DEALER}')"
