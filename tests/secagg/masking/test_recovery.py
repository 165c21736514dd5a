"""Lying share holders: found, named, and without effect while enough answers are honest."""

from __future__ import annotations

import numpy as np
import pytest

from secagg.schemes import SCHEMES
from secagg.types import AbortReason
from secagg.wire.messages import MaskedChunk, Message, UnmaskAnswer
from tests.support.fleet import Fault, Fleet, make_setup
from tests.support.messages import changed
from tests.support.scripts import deaths

MASKING = SCHEMES["masking"]


def lying(
    nodes: set[str],
    *,
    self_shares: bool = True,
    key_shares: bool = True,
    after: Fault | None = None,
) -> Fault:
    """Return a fault in which `nodes` answer with wrong shares."""

    def spoil(pairs: tuple[tuple[str, bytes], ...], spoilt: bool) -> tuple[tuple[str, bytes], ...]:
        if not spoilt:
            return pairs
        return tuple((owner, bytes([share[0] ^ 1]) + share[1:]) for owner, share in pairs)

    def fault(sender: str, receiver: str, message: Message) -> list[Message]:
        if sender in nodes and isinstance(message, UnmaskAnswer):
            message = changed(
                message,
                self_shares=spoil(message.self_shares, self_shares),
                key_shares=spoil(message.key_shares, key_shares),
            )
        return after(sender, receiver, message) if after else [message]

    return fault


@pytest.mark.req("M-19")
@pytest.mark.parametrize("n", [5, 7, 9])
def test_one_liar_is_blamed_and_the_sum_is_exact(n: int) -> None:
    for index in range(n):
        fleet = Fleet(MASKING, make_setup(n, dim=9))
        liar = fleet.setup.cohort[index]
        outcome = fleet.play(lying({liar}))
        assert outcome.blamed == {liar}
        assert outcome.total is not None
        assert np.array_equal(outcome.total, fleet.plain_sum())


@pytest.mark.req("M-19")
@pytest.mark.parametrize("liars", [{0}, {0, 1}, {0, 1, 2}, {3, 14, 29}])
def test_liars_in_a_cohort_of_thirty(liars: set[int]) -> None:
    """At the lowest ids too, where a search in order of id would try them first and last."""
    fleet = Fleet(MASKING, make_setup(30, dim=9))
    named = {fleet.setup.cohort[index] for index in liars}
    outcome = fleet.play(lying(named))
    assert outcome.failed is None
    assert outcome.blamed == named
    assert outcome.total is not None
    assert np.array_equal(outcome.total, fleet.plain_sum())


@pytest.mark.req("M-19")
@pytest.mark.parametrize("kind", ["self_shares", "key_shares"])
def test_lies_about_one_kind_of_share_after_a_dropout(kind: str) -> None:
    fleet = Fleet(MASKING, make_setup(9, dim=9))
    lost, liar = fleet.setup.cohort[8], fleet.setup.cohort[0]
    options = {"self_shares": False, "key_shares": False, kind: True}
    outcome = fleet.play(lying({liar}, **options, after=deaths({lost: MaskedChunk})))
    assert outcome.blamed == {liar}
    assert outcome.total is not None
    assert np.array_equal(outcome.total, fleet.plain_sum(fleet.setup.cohort[:8]))


@pytest.mark.req("M-19")
def test_with_too_few_honest_answers_the_round_fails_and_says_so() -> None:
    fleet = Fleet(MASKING, make_setup(5, dim=9))
    outcome = fleet.play(lying(set(fleet.setup.cohort[:2])))
    assert outcome.total is None
    assert outcome.failed is not None
    assert outcome.failed.reason is AbortReason.BAD_SHARES


@pytest.mark.req("M-19")
def test_no_blame_without_a_lie() -> None:
    fleet = Fleet(MASKING, make_setup(9, dim=9))
    assert fleet.play(deaths({fleet.setup.cohort[0]: MaskedChunk})).blamed == set()


@pytest.mark.req("M-19")
def test_without_the_check_a_wrong_share_would_give_a_wrong_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planted fault: believe whatever the first shares combine to."""
    monkeypatch.setattr(
        "secagg.masking.recovery.Recovery._matches", lambda self, owner, secret: True
    )
    fleet = Fleet(MASKING, make_setup(5, dim=9))
    outcome = fleet.play(lying({fleet.setup.cohort[0]}))
    assert outcome.total is None or not np.array_equal(outcome.total, fleet.plain_sum())


@pytest.mark.req("M-12")
def test_owners_left_out_of_an_answer_are_no_fault() -> None:
    """A holder whose box did not open has no share to give."""
    fleet = Fleet(MASKING, make_setup(5, dim=9))

    def fault(sender: str, receiver: str, message: Message) -> list[Message]:
        if sender == fleet.setup.cohort[1] and isinstance(message, UnmaskAnswer):
            message = changed(message, self_shares=message.self_shares[1:])
        return [message]

    outcome = fleet.play(fault)
    assert outcome.blamed == set()
    assert outcome.total is not None
    assert np.array_equal(outcome.total, fleet.plain_sum())
