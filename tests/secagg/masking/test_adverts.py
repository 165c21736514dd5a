"""Adverts: signed whole, of one suite, with usable keys; coins: a chain that was committed to."""

from __future__ import annotations

import hashlib

import pytest

from secagg.errors import AuthenticationError
from secagg.masking import adverts
from secagg.primitives import kem
from secagg.primitives.signing import sign
from secagg.round_setup import RoundSetup
from secagg.tags import COIN, KEY_ADVERT, ROUND_COMMITMENT, SELF_COMMITMENT
from secagg.wire.messages import MAX_ATTEMPTS, KeyAdvert
from tests.support.fleet import TestSigner, make_setup
from tests.support.messages import changed

NODE = "node-0001"
X25519 = b"\x09" + bytes(31)
KEM = kem.public_key(kem.private_key(bytes(64)))
OTHER_KEM = kem.public_key(kem.private_key(b"k" * 64))
COMMITMENTS = (b"r" * 32, b"s" * 32, b"c" * 32)


def advert(setup: RoundSetup, node: str = NODE, **keys: bytes) -> KeyAdvert:
    base = {"agreement_key": X25519, "kem_key": KEM}
    return adverts.make_advert(setup, TestSigner(node), **{**base, **keys}, commitments=COMMITMENTS)


def framed(tag: bytes, *parts: bytes) -> bytes:
    """Return the hash as specs/20-wire.md W-09 says."""
    pieces = [len(part).to_bytes(8, "little") + part for part in parts]
    return hashlib.sha256(tag + b"".join(pieces)).digest()


@pytest.mark.req("M-04")
def test_an_advert_verifies_in_its_own_round_only() -> None:
    good = advert(make_setup(5))
    adverts.verify_advert(make_setup(5), good)
    for change in ({"round_id": 8}, {"run_id": b"s" * 16}, {"offer_hash": bytes(32)}):
        with pytest.raises(AuthenticationError) as caught:
            adverts.verify_advert(make_setup(5, **change), good)
        assert caught.value.peer == NODE


@pytest.mark.req("M-04")
@pytest.mark.parametrize(
    "change",
    [
        {"node_id": "node-0002"},
        {"node_id": "stranger"},
        {"agreement_key": b"\x08" + bytes(31)},
        {"kem_key": OTHER_KEM},
        {"round_commitment": b"x" * 32},
        {"self_commitment": b"x" * 32},
        {"coin_commitment": b"x" * 32},
        {"round_commitment": b"s" * 32, "self_commitment": b"r" * 32},
        {"self_commitment": b"c" * 32, "coin_commitment": b"s" * 32},
        {"signature": bytes(64)},
    ],
    ids=lambda change: "+".join(change),
)
def test_every_field_of_an_advert_is_signed(change: dict[str, object]) -> None:
    setup = make_setup(5)
    with pytest.raises(AuthenticationError, match="signature"):
        adverts.verify_advert(setup, changed(advert(setup), **change))  # type: ignore[arg-type]


@pytest.mark.req("M-04")
@pytest.mark.parametrize("suite", [2, 255])
def test_a_signed_advert_of_another_suite_is_refused(suite: int) -> None:
    setup, base = make_setup(5), advert(make_setup(5))
    parts = (X25519, KEM, *COMMITMENTS)
    signed = (*setup.context, NODE.encode(), bytes([suite]), *parts)
    other = changed(base, suite=suite, signature=sign(TestSigner(NODE), KEY_ADVERT, *signed))
    with pytest.raises(AuthenticationError, match="suite") as caught:
        adverts.verify_advert(setup, other)  # type: ignore[arg-type]
    assert caught.value.peer == NODE
    again = sign(TestSigner(NODE), KEY_ADVERT, *setup.context, NODE.encode(), b"\x01", *parts)
    assert again == base.signature  # what is signed above differs in the suite alone


@pytest.mark.req("M-04")
@pytest.mark.parametrize(
    "keys",
    [
        {"agreement_key": bytes(32)},
        {"agreement_key": b"\x01" + bytes(31)},
        {"kem_key": b"\xff" * 1184},
        {"kem_key": b"\x01\x0d" + KEM[2:]},  # the first coefficient is the modulus, 3329
    ],
    ids=["zero", "one", "ones", "modulus"],
)
def test_a_signed_key_that_nobody_can_use_is_refused(keys: dict[str, bytes]) -> None:
    setup = make_setup(5)
    adverts.check_keys(advert(setup))
    with pytest.raises(AuthenticationError, match="key") as caught:
        adverts.check_keys(advert(setup, **keys))
    assert caught.value.peer == NODE


@pytest.mark.req("M-06")
def test_the_digest_covers_every_field() -> None:
    base = advert(make_setup(5))
    changes: list[dict[str, object]] = [
        {"round_id": 8},
        {"node_id": "x"},
        {"suite": 2},
        {"agreement_key": bytes(32)},
        {"kem_key": bytes(1184)},
        {"round_commitment": bytes(32)},
        {"self_commitment": bytes(32)},
        {"coin_commitment": bytes(32)},
        {"signature": bytes(64)},
    ]
    assert {name for change in changes for name in change} == set(KeyAdvert.__struct_fields__)
    digests = {adverts.advert_digest(changed(base, **change)) for change in changes}  # type: ignore[arg-type]
    assert len({adverts.advert_digest(base), *digests}) == 1 + len(changes)


@pytest.mark.req("M-04")
def test_the_commitments_by_hand() -> None:
    assert adverts.round_commitment(b"a" * 32) == framed(ROUND_COMMITMENT, b"a" * 32)
    assert adverts.self_commitment(b"a" * 32) == framed(SELF_COMMITMENT, b"a" * 32)
    assert adverts.self_commitment(b"a" * 32) != adverts.round_commitment(b"a" * 32)
    assert adverts.self_commitment(b"a" * 32) != adverts.self_commitment(b"b" * 32)


# --- coins ---------------------------------------------------------------------------------------


@pytest.mark.req("M-06")
def test_coins_are_a_chain_that_is_revealed_backwards() -> None:
    seed = b"\x07" * 32
    chain = [seed]
    for _ in range(MAX_ATTEMPTS):
        chain.append(framed(COIN, chain[-1]))
    assert [adverts.coin_at(seed, attempt) for attempt in range(5)] == chain[::-1]
    assert adverts.coin_at(seed, MAX_ATTEMPTS) == seed


@pytest.mark.req("M-06")
def test_a_coin_fits_its_own_attempt_and_commitment_only() -> None:
    seed, other = b"\x07" * 32, b"\x08" * 32
    commitment = adverts.coin_at(seed, 0)
    for revealed in range(MAX_ATTEMPTS + 1):
        for attempt in range(1, MAX_ATTEMPTS + 1):
            coin = adverts.coin_at(seed, revealed)
            assert adverts.coin_fits(coin, commitment, attempt) == (revealed == attempt)
            assert not adverts.coin_fits(coin, adverts.coin_at(other, 0), attempt)


# --- the seed of the graph -----------------------------------------------------------------------


@pytest.mark.req("M-06")
def test_the_seed_depends_on_the_offer_on_every_advert_and_on_every_coin() -> None:
    digests = [(f"n{index}", bytes([index]) * 32) for index in range(5)]
    coins = [bytes([16 + index]) * 32 for index in range(5)]
    seeds = {
        adverts.graph_seed(b"o" * 32, digests, coins),
        adverts.graph_seed(b"p" * 32, digests, coins),
        adverts.graph_seed(b"o" * 32, digests, ()),
        adverts.graph_seed(b"o" * 32, digests, coins[::-1]),
    }
    for index in range(5):
        swapped, renamed, tossed = [*digests], [*digests], [*coins]
        swapped[index] = (digests[index][0], b"x" * 32)
        renamed[index] = ("other", digests[index][1])
        tossed[index] = b"x" * 32
        seeds |= {
            adverts.graph_seed(b"o" * 32, swapped, coins),
            adverts.graph_seed(b"o" * 32, renamed, coins),
            adverts.graph_seed(b"o" * 32, digests[:index] + digests[index + 1 :], coins),
            adverts.graph_seed(b"o" * 32, digests, tossed),
        }
    assert len(seeds) == 4 + 4 * 5
