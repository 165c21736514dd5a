"""A member's answer: the weighted sum of exactly the dealt shares, once, or whose did not open."""

from __future__ import annotations

import numpy as np
import pytest

from secagg.ckks.member import Member
from secagg.ckks.sealing import dealer_of, make_key, seal_box
from secagg.errors import LocalProtocolError
from secagg.primitives import packed
from secagg.primitives.hybrid import HybridKeys
from secagg.types import NodeId
from secagg.wire.messages import DealtShare
from tests.support.ckks import ckks_setup, share_of, terms_in
from tests.support.fleet import TestSigner

SETUP = ckks_setup(6, max_weight=4, weighs=True)
TERMS = terms_in(SETUP)
PRIME, LENGTH = TERMS.committee.modulus, TERMS.share_length
COHORT = SETUP.cohort
ME = COHORT[2]
KEYS = {node: HybridKeys(node.encode().ljust(32)) for node in COHORT}
PUBLIC = {node: make_key(SETUP, TestSigner(node), keys) for node, keys in KEYS.items()}
SHARES = {
    node: np.random.default_rng(index).integers(0, PRIME, LENGTH).astype(np.uint32)
    for index, node in enumerate(COHORT)
}
WEIGHTED = dict(zip(COHORT, (4, 1, 3, 2, 4, 1), strict=True))


def dealt(node: NodeId, data: bytes | None = None) -> DealtShare:
    dealer = dealer_of(PUBLIC[node])
    share = packed.encode(SHARES[node], PRIME) if data is None else data
    box = seal_box(SETUP, KEYS[node], node, PUBLIC[ME], share)
    return dealer.agreement_key, dealer.kem_digest, dealer.signature, box


DEALT = {node: dealt(node) for node in COHORT if node != ME}


def member(weighted: dict[NodeId, int] | None = None) -> Member:
    chosen = WEIGHTED if weighted is None else weighted
    own = SHARES[ME] if ME in chosen else None
    return Member(SETUP, ME, KEYS[ME], own=own, weighted=chosen)


def expected(weighted: dict[NodeId, int]) -> list[int]:
    columns = zip(*(SHARES[node].tolist() for node in weighted), strict=True)
    weights = list(weighted.values())
    return [sum(w * x for w, x in zip(weights, c, strict=True)) % PRIME for c in columns]


@pytest.mark.req("H-12")
@pytest.mark.parametrize("weights", [(1,) * 6, (4, 1, 3, 2, 4, 1), (4,) * 6])
@pytest.mark.parametrize("absent", [(), COHORT[:1], COHORT[4:], (ME,)])
def test_the_answer_is_the_weighted_sum_over_exactly_the_survivors(
    weights: tuple[int, ...], absent: tuple[NodeId, ...]
) -> None:
    weighted = {n: w for n, w in zip(COHORT, weights, strict=True) if n not in absent}
    one = member(weighted)
    assert not one.complete
    assert one.take(0, [DEALT[node] for node in weighted if node != ME]) == ""
    assert one.complete
    answer = one.answer()
    assert share_of(SETUP, answer).tolist() == expected(weighted)
    assert answer.unopened == ()


@pytest.mark.req("H-12")
def test_shares_may_come_in_parts_but_in_order_and_once() -> None:
    one, shares = member(), list(DEALT.values())
    assert one.take(0, shares[:2]) == ""
    for start, part in ((0, shares[:2]), (1, shares[1:]), (3, shares[3:]), (2, [*shares[2:]] * 2)):
        assert "due" in one.take(start, part)
    assert "due" in one.take(2, [])
    assert not one.complete
    assert one.take(2, shares[2:]) == ""
    assert one.complete
    assert "due" in one.take(5, shares[:1])
    assert share_of(SETUP, one.answer()).tolist() == expected(WEIGHTED)


@pytest.mark.req("H-12")
@pytest.mark.parametrize(
    "data",
    [b"", bytes(2 * LENGTH - 1), bytes(2 * LENGTH + 2), b"\xff" * (2 * LENGTH)],
    ids=["none", "short", "long", "beyond the prime"],
)
def test_a_share_that_is_none_is_named_and_nothing_is_given_away(data: bytes) -> None:
    one = member()
    bad = {COHORT[0]: dealt(COHORT[0], data), COHORT[4]: dealt(COHORT[4], data)}
    assert one.take(0, [bad.get(node, share) for node, share in DEALT.items()]) == ""
    answer = one.answer()
    assert answer.unopened == one.unopened == (COHORT[0], COHORT[4])
    assert answer.share == b""


def altered(share: DealtShare, part: int) -> DealtShare:
    parts = list(share)
    parts[part] = parts[part][:-1] + bytes([parts[part][-1] ^ 1])
    return tuple(parts)  # type: ignore[return-value]


@pytest.mark.req("H-05")
@pytest.mark.req("H-12")
def test_an_altered_box_names_its_dealer() -> None:
    one, node = member(), COHORT[1]
    shares = [altered(each, 3) if name == node else each for name, each in DEALT.items()]
    assert one.take(0, shares) == ""
    assert one.answer().unopened == (node,)


@pytest.mark.req("H-05")
@pytest.mark.parametrize("part", range(3))
def test_a_key_that_its_dealer_did_not_sign_is_the_coordinators_fault(part: int) -> None:
    """An honest coordinator has checked it: nobody else can have altered it."""
    one, node = member(), COHORT[1]
    shares = [altered(each, part) if name == node else each for name, each in DEALT.items()]
    assert f"forged key ({node}" in one.take(0, shares)
    assert not one.complete


@pytest.mark.req("H-05")
def test_a_swap_of_two_dealers_is_the_coordinators_fault() -> None:
    shares = list(DEALT.values())
    assert "forged key" in member().take(0, [shares[1], shares[0], *shares[2:]])


@pytest.mark.req("H-05")
def test_a_swap_of_two_boxes_names_both_dealers() -> None:
    one, (first, second, *rest) = member(), list(DEALT.values())
    assert one.take(0, [(*first[:3], second[3]), (*second[:3], first[3]), *rest]) == ""
    assert one.answer().unopened == (COHORT[0], COHORT[1])


def test_a_survivor_has_its_own_share() -> None:
    with pytest.raises(LocalProtocolError):
        Member(SETUP, ME, KEYS[ME], own=None, weighted=WEIGHTED)


def test_a_member_shows_its_name_only() -> None:
    assert repr(member()) == f"<Member {ME}>"
