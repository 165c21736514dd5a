"""Opening the sum: exact, liars are named, nobody else is, and no wrong sum comes out."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pytest

from secagg.ckks import opening, rlwe
from secagg.ckks.opening import Opened
from secagg.primitives import packed
from secagg.round_setup import RoundSetup
from secagg.types import AbortReason, NodeId
from secagg.wire.messages import SumShare
from tests.support.ckks import ByHand, ckks_setup, lie, ring_in, share_of, shifted, terms_in


class Answered:
    """A round up to the true answers of all members."""

    def __init__(self, setup: RoundSetup, weights: Collection[int] = ()) -> None:
        self.by_hand = ByHand(setup).deal()
        self.setup, self.members = setup, self.by_hand.committee
        factors = tuple(weights) or (1,) * len(setup.cohort)
        self.weighted = dict(zip(setup.cohort, factors, strict=True))
        self.by_hand.cosign(self.by_hand.weighted(weights=factors))
        self.true = {member: self.by_hand.answer(member) for member in self.members}
        self.total: rlwe.Residues = self.by_hand.total(self.weighted)
        self.total.flags.writeable = False
        self.sum = self.by_hand.fleet.plain_sum(weights=factors)

    def opened(
        self, answers: Mapping[NodeId, SumShare], total: rlwe.Residues | None = None
    ) -> Opened:
        one = self.by_hand.opening(self.weighted)
        for member, answer in answers.items():
            assert one.take(member, answer) == ""
        return one.open(self.total if total is None else total)

    def some(self, chosen: Collection[int], liars: Collection[int] = ()) -> dict[NodeId, SumShare]:
        """Return the answers of chosen members, some of which lie."""
        return {
            self.members[i]: lie(self.setup, self.true[self.members[i]], i)
            if i in liars
            else self.true[self.members[i]]
            for i in chosen
        }

    def blamed(self, opened: Opened) -> set[int]:
        return {self.members.index(event.peer) for event in opened.blamed}

    def is_exact(self, opened: Opened) -> bool:
        return opened.total is not None and np.array_equal(opened.total, self.sum)


SETUPS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "three": ({"n": 3}, ()),
    "five": ({"n": 5}, ()),
    "ten": ({"n": 10}, ()),
    "weighted": ({"n": 8, "max_weight": 4, "weighs": True}, (4, 1, 2, 3, 4, 4, 3, 2)),
    "packed": ({"n": 10, "committee": {"pack": 4}}, ()),
    "drawn": ({"n": 10, "committee": {"size": 7, "threshold": 2, "pack": 2}}, ()),
    "24 bits": ({"n": 5, "committee": {"modulus": 16_777_213}}, ()),
}


@functools.cache
def answered(name: str) -> Answered:
    values, weights = SETUPS[name]
    return Answered(ckks_setup(**values), weights)


def needed(one: Answered) -> int:
    return terms_in(one.setup).committee.answers


@pytest.mark.req("H-01")
@pytest.mark.parametrize("name", SETUPS)
def test_all_answers_open_the_exact_sum(name: str) -> None:
    one = answered(name)
    opened = one.opened(one.true)
    assert one.is_exact(opened)
    assert opened.reason is None
    assert opened.blamed == ()
    assert opened.answers == len(one.members)


@pytest.mark.req("H-13")
@pytest.mark.parametrize("name", SETUPS)
def test_any_least_number_of_answers_opens_and_one_less_does_not(name: str) -> None:
    one = answered(name)
    for chosen in itertools.islice(
        itertools.combinations(range(len(one.members)), needed(one)), 0, None, 7
    ):
        assert one.is_exact(one.opened(one.some(chosen)))
        few = one.opened(one.some(chosen[1:]))
        assert few.total is None
        assert few.reason is AbortReason.TOO_FEW_ANSWERS
        assert few.answers == needed(one) - 1


@pytest.mark.req("H-13")
@pytest.mark.parametrize("name", ["five", "ten", "weighted", "packed", "drawn"])
def test_liars_are_left_out_down_to_the_last_right_answers(name: str) -> None:
    """As many as leave t + l right ones, and each is named."""
    one = answered(name)
    m, rng = len(one.members), np.random.default_rng(1)
    for count in range(m - needed(one) + 1):
        for _ in range(4):
            liars = set(rng.permutation(m)[:count].tolist())
            opened = one.opened(one.some(range(m), liars))
            assert one.is_exact(opened)
            assert one.blamed(opened) == liars


@pytest.mark.req("H-13")
@pytest.mark.parametrize("name", ["three", "five", "ten", "weighted", "packed", "drawn"])
def test_with_one_right_answer_too_few_there_is_no_sum(name: str) -> None:
    one = answered(name)
    m = len(one.members)
    liars = range(needed(one) - 1, m)
    opened = one.opened(one.some(range(m), liars))
    assert opened.total is None
    assert opened.reason is AbortReason.BAD_SHARES
    assert one.blamed(opened) <= set(liars)


@pytest.mark.req("H-13")
def test_every_liar_and_every_silence_of_five() -> None:
    one = answered("five")
    for count in range(2, 6):
        for chosen in itertools.combinations(range(5), count):
            for liar in chosen:
                opened = one.opened(one.some(chosen, {liar}))
                if count == 2:
                    assert opened.reason is AbortReason.BAD_SHARES
                    assert one.blamed(opened) == set()
                else:
                    assert one.is_exact(opened)
                    assert one.blamed(opened) == {liar}


@pytest.mark.req("H-13")
@pytest.mark.parametrize("place", [0, 1000, 2047])
@pytest.mark.parametrize("offset", [1, -1, 30_000])
def test_a_lie_in_one_place_is_a_lie(place: int, offset: int) -> None:
    one = answered("ten")
    change = np.zeros(2048, np.int64)
    change[place] = offset
    liar = one.members[4]
    opened = one.opened({**one.true, liar: shifted(one.setup, one.true[liar], change)})
    assert one.is_exact(opened)
    assert one.blamed(opened) == {4}


def polynomial(roots: Collection[int], at: int, prime: int) -> int:
    value = 1
    for root in roots:
        value = value * (at - root) % prime
    return value


@pytest.mark.req("H-13")
@pytest.mark.parametrize("silent", [0, 1, 2, 3])
def test_honest_members_that_liars_make_look_wrong_are_named_with_that_doubt(silent: int) -> None:
    """They lie along a polynomial that carries nothing and vanishes at some honest points.

    So the others look as if they lied, and the secret that is found is the true one. What is said
    of them is that they are wrong, or that others lied, as few as may collude.
    """
    one = answered("ten")
    committee = terms_in(one.setup).committee
    here = range(silent, 10)
    for liars in itertools.islice(itertools.combinations(here, one.setup.colluders), 0, None, 9):
        honest = [i for i in here if i not in liars]
        for trusted in itertools.islice(
            itertools.combinations(honest, committee.threshold - 1), 0, None, 4
        ):
            answers = one.some(here)
            for i in liars:
                roots = (*range(0, -committee.pack, -1), *(j + 1 for j in trusted))
                offset = polynomial(roots, i + 1, committee.modulus)
                answers[one.members[i]] = shifted(one.setup, answers[one.members[i]], offset)
            opened = one.opened(answers)
            assert one.is_exact(opened)
            for event in opened.blamed:
                assert not event.certain
                if one.members.index(event.peer) not in liars:
                    assert doubted(event.reason) <= one.setup.colluders


def doubted(reason: str) -> int:
    """Return how many must have lied if a member did not, as the reason says."""
    found = re.search(r"or at least (\d+) others lied", reason)
    return int(found[1]) if found else 99


@pytest.mark.req("H-13")
def test_the_doubt_is_of_no_more_than_may_collude() -> None:
    """With all ten answers three liars cannot hide: no doubt but for what was dealt."""
    one = answered("ten")
    for silent, liars, doubt in ((0, 3, 99), (3, 1, 99), (3, 2, 3), (3, 3, 2), (4, 2, 2)):
        opened = one.opened(one.some(range(silent, 10), range(silent, silent + liars)))
        assert one.is_exact(opened)
        assert len(opened.blamed) == liars
        for event in opened.blamed:
            assert doubted(event.reason) == doubt
            assert "dealt" in event.reason


@pytest.mark.req("H-13")
@pytest.mark.req("H-14")
@pytest.mark.parametrize("count", range(1, 11))
def test_no_wrong_sum_comes_out_if_liars_shift_the_secret_together(count: int) -> None:
    """All offsets are on one polynomial: a word of the code, and another secret."""
    one = answered("ten")
    rng, prime = np.random.default_rng(count), terms_in(one.setup).committee.modulus
    coefficients = rng.integers(0, prime, 4).tolist()
    liars = set(rng.permutation(10)[:count].tolist())
    answers = one.some(range(10))
    for i in liars:
        offset = sum(c * pow(i + 1, k, prime) for k, c in enumerate(coefficients)) % prime
        answers[one.members[i]] = shifted(one.setup, answers[one.members[i]], offset)
    opened = one.opened(answers)
    if count <= 6:
        assert one.is_exact(opened)
        assert one.blamed(opened) == liars
    else:
        assert opened.total is None


@pytest.mark.req("H-14")
def test_a_shift_of_the_secret_by_one_is_no_sum() -> None:
    """All members add 1: a share of the secret plus 1, within every bound but that of errors."""
    one = answered("ten")
    opened = one.opened({m: shifted(one.setup, a, 1) for m, a in one.true.items()})
    assert opened.total is None
    assert opened.reason is AbortReason.SUM_OUT_OF_RANGE
    assert opened.blamed == ()


@pytest.mark.req("H-14")
def test_shares_that_are_not_those_of_the_ciphertexts_are_told_from_lies() -> None:
    one = answered("ten")
    other = one.by_hand.total({**one.weighted, one.setup.cohort[0]: 2})
    opened = one.opened(one.true, other)
    assert opened.total is None
    assert opened.reason is AbortReason.SUM_OUT_OF_RANGE
    assert opened.blamed == ()


@pytest.mark.req("H-14")
def test_a_later_block_is_held_against_the_bounds_too() -> None:
    one = Answered(ckks_setup(5, dim=3 * 4096))
    assert one.is_exact(one.opened(one.true))
    for block in (1, 2):
        total = one.total.copy()
        total[block] = np.random.default_rng(1).integers(0, total.max(), total.shape[1])
        opened = one.opened(one.true, total)
        assert opened.total is None
        assert opened.reason is AbortReason.SUM_OUT_OF_RANGE


@pytest.mark.req("H-13")
@pytest.mark.parametrize("limit", ["_MAX_TRIES", "_MAX_WORK"])
def test_tries_are_bounded(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    one, tries = answered("ten"), []
    decode = opening.Opening._decode

    def counted(self: opening.Opening, shares: Any, **size: int) -> Any:
        tries.append(len(shares))
        return decode(self, shares, **size)

    monkeypatch.setattr(opening.Opening, "_decode", counted)
    monkeypatch.setattr(opening, limit, 50 if limit == "_MAX_TRIES" else 50 * 10**2)
    opened = one.opened(one.some(range(10), range(4, 10)))
    assert opened.reason is AbortReason.BAD_SHARES
    assert len(tries) <= 51


@pytest.mark.req("H-13")
def test_a_large_committee_spends_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """98 answers, more wrong ones than decoding finds: no choice of answers is tried."""
    setup = ckks_setup(98, committee={"threshold": 32, "pack": 4})
    rng, terms = np.random.default_rng(1), terms_in(setup)
    weighted = dict.fromkeys(setup.cohort, 1)
    one = opening.Opening(setup, ring_in(setup), weighted)
    for node in setup.cohort:
        values = rng.integers(0, terms.committee.modulus, terms.share_length).astype(np.uint32)
        data = packed.encode(values, terms.committee.modulus)
        assert one.take(node, SumShare(7, data, ())) == ""
    tries = []
    decode = opening.Opening._decode
    monkeypatch.setattr(
        opening.Opening,
        "_decode",
        lambda self, shares, **size: tries.append(1) or decode(self, shares, **size),
    )
    opened = one.open(np.zeros((1, terms.ring.degree), np.uint64))
    assert opened.reason is AbortReason.BAD_SHARES
    assert len(tries) <= 416  # 4 · 10^6 / 98^2


@pytest.mark.req("H-12")
@pytest.mark.parametrize(
    ("share", "unopened"),
    [
        (None, ("node-0001",)),  # a share, and a reason for none
        (b"", ()),  # neither
        (b"", ("node-0002", "node-0001")),
        (b"", ("node-0001", "node-0001")),
        (b"", ("stranger",)),
        (b"", ("node-0000",)),  # itself
        (b"x", ()),
        (bytes(2 * 2048 - 1), ()),
        (bytes(2 * 2048 + 1), ()),
        (b"\xff" * 2 * 2048, ()),  # beyond the prime
    ],
)
def test_an_answer_that_is_none_is_its_members_fault(
    share: bytes | None, unopened: tuple[NodeId, ...]
) -> None:
    one = answered("five")
    member = one.members[0]
    data = one.true[member].share if share is None else share
    collecting = one.by_hand.opening(one.weighted)
    assert collecting.take(member, SumShare(7, data, unopened)) != ""
    for other in one.members[1:]:
        assert collecting.take(other, one.true[other]) == ""
    opened = collecting.open(one.total)
    assert one.is_exact(opened)
    assert opened.blamed == ()
    assert opened.answers == 4


@pytest.mark.req("H-12")
@pytest.mark.req("H-13")
def test_dealers_whose_shares_do_not_open_are_named_with_who_says_so() -> None:
    one = answered("ten")
    answers = one.some(range(10))
    for i in (2, 5):
        answers[one.members[i]] = SumShare(7, b"", (one.members[7],))
    opened = one.opened(answers)
    assert one.is_exact(opened)
    assert opened.answers == 8
    (event,) = opened.blamed
    assert event.peer == one.members[7]
    assert not event.certain  # two accuse, three may collude
    assert one.members[2] in event.reason
    assert one.members[5] in event.reason


@pytest.mark.req("H-13")
def test_a_dealer_whose_shares_open_nowhere_is_named_as_the_round_fails() -> None:
    one = answered("ten")
    evil = one.members[7]
    empty = {m: SumShare(7, b"", (evil,)) for m in one.members if m != evil}
    opened = one.opened({**empty, evil: one.true[evil]})
    assert opened.total is None
    assert opened.reason is AbortReason.TOO_FEW_ANSWERS
    (event,) = opened.blamed
    assert event.peer == evil
    assert event.certain  # nine accuse: not all of them collude


@pytest.mark.req("H-13")
@pytest.mark.parametrize("accusers", range(1, 7))
def test_a_dealer_is_blamed_for_certain_if_not_all_accusers_can_collude(accusers: int) -> None:
    one = answered("ten")
    empty = {member: SumShare(7, b"", (one.members[9],)) for member in one.members[:accusers]}
    opened = one.opened({**one.true, **empty})
    assert one.is_exact(opened)
    (event,) = opened.blamed
    assert event.certain is (accusers > one.setup.colluders)


@pytest.mark.req("H-13")
def test_the_word_of_one_node_is_never_enough() -> None:
    """Even where nobody is assumed to collude."""
    one = answered("three")
    assert one.setup.colluders == 0
    empty = {one.members[0]: SumShare(7, b"", (one.members[2],))}
    (event,) = one.opened({**one.true, **empty}).blamed
    assert not event.certain


def test_nothing_of_shares_or_sum_is_shown() -> None:
    one = answered("five")
    opened = one.opened(one.true)
    assert "array" not in repr(opened)
    text = repr(one.by_hand.opening(one.weighted))
    assert str(share_of(one.setup, one.true[one.members[0]])[0]) not in text
