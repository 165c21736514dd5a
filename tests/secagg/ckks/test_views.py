"""The committee, the seed of the public elements, and what is co-signed, follow from the offer."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import pytest

from secagg.ckks.sealing import make_key
from secagg.ckks.views import (
    committee_of,
    elements_seed,
    keys_digest,
    sign_view,
    terms_of,
    verify_view,
    view_digest,
)
from secagg.errors import AuthenticationError, LocalProtocolError
from secagg.primitives.hybrid import HybridKeys
from secagg.round_setup import RoundSetup
from secagg.wire.messages import SealingKey
from tests.support.ckks import ckks_setup
from tests.support.fleet import TestSigner, make_setup

SETUP = ckks_setup(10)
DRAWN = ckks_setup(10, committee={"size": 6, "threshold": 2})
OTHERS = (
    replace(DRAWN, run_id=b"s" * 16),
    replace(DRAWN, round_id=8),
    replace(DRAWN, offer_hash=bytes(32)),
)


def framed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def key_of(node: str, setup: RoundSetup = SETUP, secret: bytes = b"k" * 32) -> SealingKey:
    return make_key(setup, TestSigner(node), HybridKeys(secret))


def test_a_round_of_another_scheme_has_no_terms() -> None:
    with pytest.raises(LocalProtocolError):
        terms_of(make_setup(5))


@pytest.mark.req("H-03")
def test_a_committee_of_all_is_the_cohort() -> None:
    assert committee_of(SETUP) == SETUP.cohort


@pytest.mark.req("H-03")
def test_a_smaller_committee_is_of_the_least_hashes() -> None:
    tag = b"secagg/v1/committee\0"
    ranked = sorted(
        DRAWN.cohort,
        key=lambda node: hashlib.sha256(tag + framed(*DRAWN.context, node.encode())).digest(),
    )
    assert committee_of(DRAWN) == tuple(sorted(ranked[:6]))


@pytest.mark.req("H-03")
def test_run_round_and_offer_draw_another_committee() -> None:
    assert len({committee_of(setup) for setup in (DRAWN, *OTHERS)}) == 4


@pytest.mark.req("H-03")
def test_every_node_is_drawn_as_often() -> None:
    """200 offers, 6 of 10: each node 120 times, six standard deviations are 42."""
    drawn = Counter(
        node
        for index in range(200)
        for node in committee_of(replace(DRAWN, offer_hash=index.to_bytes(32, "big")))
    )
    assert sum(drawn.values()) == 1200
    assert all(abs(drawn[node] - 120) < 42 for node in DRAWN.cohort)


@pytest.mark.req("H-06")
def test_public_elements_are_those_of_run_round_and_offer() -> None:
    assert len({elements_seed(setup) for setup in (DRAWN, *OTHERS)}) == 4
    tag = b"secagg/v1/public-elements\0"
    assert elements_seed(DRAWN) == hashlib.sha256(tag + framed(*DRAWN.context)).digest()


@pytest.mark.req("H-10")
def test_the_view_is_all_that_was_shown() -> None:
    keys = [key_of(node) for node in SETUP.cohort]
    other_key = [*keys[:-1], key_of(SETUP.cohort[-1], secret=b"o" * 32)]
    digests = {keys_digest(SETUP, shown) for shown in (keys, keys[1:], other_key)}
    assert len(digests) == 3
    names, weights = SETUP.cohort, bytes([1] * 10)
    views = {
        view_digest(digest, survivors, factors)
        for digest in digests
        for survivors, factors in (
            (names, weights),
            (names, bytes([1] * 9 + [2])),
            (names[:9], weights[:9]),
            (names[1:], weights[1:]),
            ((*names[:8], names[8] + names[9]), weights[:9]),
        )
    }
    assert len(views) == 15


@pytest.mark.req("H-10")
def test_a_co_signature_holds_for_its_node_view_run_round_and_offer_only() -> None:
    view = b"v" * 32
    node, other = DRAWN.cohort[:2]
    signature = sign_view(DRAWN, TestSigner(node), view)
    verify_view(DRAWN, node, signature, view)
    for setup, who, what, signed in (
        *((setup, node, view, signature) for setup in OTHERS),
        (DRAWN, other, view, signature),
        (DRAWN, "stranger", view, signature),
        (DRAWN, node, b"w" * 32, signature),
        (DRAWN, node, view, bytes([signature[0] ^ 1]) + signature[1:]),
        (DRAWN, node, view, sign_view(DRAWN, TestSigner(other), view)),
    ):
        with pytest.raises(AuthenticationError) as caught:
            verify_view(setup, who, signed, what)
        assert caught.value.peer == who
