"""Wrong shares at the end of a round: who is blamed outright, who with a doubt, and who never."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.masking import adverts
from secagg.masking.graph import build_graph
from secagg.masking.masks import self_mask
from secagg.masking.recovery import Recovery, Transcript
from secagg.primitives import shamir
from secagg.round_setup import RoundSetup
from secagg.wire.messages import (
    KeyAdvert,
    UnmaskAnswer,
)
from tests.support.fleet import make_setup
from tests.support.randomness import InsecureLabelledRng

OUTRIGHT = {
    "it revealed wrong shares",
    "it dealt wrong shares",
    "it dealt or revealed wrong shares",
    "its shares do not fit what it committed to",
}
Matrix = dict[str, dict[str, bytes]]
"""Owner to holder to share."""


class Ending:
    """The end of a round, in which everybody survived, on the complete graph."""

    def __init__(self, setup: RoundSetup) -> None:
        self.setup, cohort = setup, setup.cohort
        self.secrets = {node: InsecureLabelledRng(1, node)(32) for node in cohort}
        self.point = {node: place for place, node in enumerate(cohort, start=1)}
        self.shares: Matrix = {}
        for node, secret in self.secrets.items():
            rng = InsecureLabelledRng(2, node)
            dealt = shamir.split(secret, sorted(self.point.values()), setup.threshold, rng)
            self.shares[node] = {holder: dealt[self.point[holder]] for holder in cohort}

    def spoil(self, owner: str, holder: str, error: int = 1) -> None:
        value = int.from_bytes(self.shares[owner][holder], "little") + error
        self.shares[owner][holder] = (value % shamir.PRIME).to_bytes(33, "little")

    def shift(self, owner: str, holders: set[str], *, kept: list[str], at_zero: int = 0) -> None:
        """Move the shares of `holders` to another polynomial, the same for `kept`.

        With `at_zero` 0 both have the same secret, and `kept` may be up to t - 2 nodes.
        """
        assert len(kept) <= self.setup.threshold - (1 if at_zero else 2)
        for holder in holders:
            x = self.point[holder]
            factors = [x - self.point[node] for node in kept] + ([] if at_zero else [x])
            self.spoil(owner, holder, math.prod(factors) * (at_zero or 1))

    def end(self, answering: tuple[str, ...] | None = None) -> tuple[bool, dict[str, str]]:
        """Return whether there is a sum, and who is blamed for what."""
        seen = Transcript()
        for node, secret in self.secrets.items():
            commitment = adverts.self_commitment(secret)
            seen.adverts[node] = KeyAdvert(
                7, node, 1, bytes(32), bytes(1184), bytes(32), commitment, bytes(32), bytes(64)
            )
        cohort = self.setup.cohort
        seen.graph = build_graph(cohort, degree=self.setup.neighbours, seed=bytes(32))
        seen.agreed, seen.sharers, seen.survivors = frozenset(cohort), cohort, cohort
        applied: list[object] = []
        recovery = Recovery(self.setup, seen, lambda total, due: applied.append(due))
        for holder in answering or cohort:
            revealed = tuple((owner, self.shares[owner][holder]) for owner in cohort)
            assert recovery.take(holder, UnmaskAnswer(7, revealed, ())) == ""
        worked = recovery.unmask(np.zeros(1, dtype=np.uint32))
        assert bool(applied) == worked
        if worked:
            assert applied == [
                [
                    self_mask(self.secrets[node], self.setup.context, negative=True)
                    for node in cohort
                ]
            ]
        return worked, {event.peer: event.reason for event in recovery.blamed}


def ending(n: int, threshold: int, colluders: int) -> Ending:
    quorum = max((n + colluders) // 2 + 1, threshold, colluders + 2, 3)
    setup = make_setup(n, dim=1, threshold=threshold, quorum=quorum, colluders=colluders)
    return Ending(setup)


@st.composite
def parameters(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(4, 11))
    colluders = draw(st.integers(1, (n - 1) // 2))
    return n, draw(st.integers(max(n // 2, colluders) + 1, n)), colluders


@pytest.mark.req("M-19")
@settings(max_examples=150, deadline=None)
@given(parameters(), st.data())
def test_nobody_honest_is_blamed_outright(
    numbers: tuple[int, int, int], data: st.DataObject
) -> None:
    """At most A nodes lie, deal wrong shares, and move together to other polynomials."""
    n, threshold, colluders = numbers
    end = ending(*numbers)
    cohort = end.setup.cohort
    order = data.draw(st.permutations(cohort))
    evil, honest = set(order[:colluders]), list(order[colluders:])
    same = data.draw(st.booleans())  # the same lie about every owner, or each another
    for index, owner in enumerate(cohort):
        if index == 0 or not same:
            lie = data.draw(st.sampled_from(["none", "some", "shift", "other secret"]))
            liars = {node for node in sorted(evil) if data.draw(st.booleans())} or evil
            kept = honest[: threshold - (1 if lie == "other secret" else 2)]
        if lie == "some":
            for node in liars:
                end.spoil(owner, node, 1 + index)
        elif lie != "none":
            end.shift(owner, liars, kept=kept, at_zero=int(lie == "other secret"))
        if owner in evil:
            for holder in data.draw(st.sets(st.sampled_from(cohort))):
                end.spoil(owner, holder, 99)
    gone = data.draw(st.integers(0, n - max(threshold, (n + colluders) // 2 + 1)))
    silent = set(data.draw(st.permutations(cohort))[:gone])
    _, blamed = end.end(tuple(node for node in cohort if node not in silent))
    assert {node for node, why in blamed.items() if why in OUTRIGHT} <= evil


@pytest.mark.req("M-19")
@settings(max_examples=60, deadline=None)
@given(parameters(), st.data())
def test_t_right_shares_of_every_secret_give_the_sum(
    numbers: tuple[int, int, int], data: st.DataObject
) -> None:
    n, threshold, _ = numbers
    end = ending(*numbers)
    liars: set[str] = set()
    for owner in end.setup.cohort:
        wrong = data.draw(st.permutations(end.setup.cohort))[
            : data.draw(st.integers(0, n - threshold))
        ]
        for index, holder in enumerate(wrong):
            end.spoil(owner, holder, 1 + 7**index)
        liars |= set(wrong)
    worked, blamed = end.end()
    assert worked
    assert bool(blamed) == bool(liars)


@pytest.mark.req("M-19")
def test_a_dealer_of_many_wrong_shares_is_blamed_and_its_victims_are_not() -> None:
    end = ending(10, 6, 2)
    evil, victims = end.setup.cohort[9], end.setup.cohort[2:5]
    for victim in victims[:2]:
        end.spoil(evil, victim)
    doubt = f"a share of {evil} that it revealed is wrong, or {evil} dealt it wrong"
    assert end.end() == (True, dict.fromkeys(victims[:2], doubt))
    end.spoil(evil, victims[2])
    assert end.end() == (True, {evil: "it dealt wrong shares"})
    tight = ending(10, 7, 2)  # six good shares and the two of liars would lie on a polynomial too
    for victim in victims:
        tight.spoil(evil, victim)
    assert tight.end() == (True, dict.fromkeys(victims, doubt + ", or at least 2 others lied"))


@pytest.mark.req("M-19")
def test_a_liar_about_more_owners_than_collude_is_blamed_outright() -> None:
    end = ending(10, 6, 2)
    liar, owners = end.setup.cohort[4], end.setup.cohort[7:]
    for owner in owners[:2]:
        end.spoil(owner, liar)
    assert end.end()[1] == {
        liar: "shares of node-0007, node-0008 that it revealed are wrong, or they dealt them wrong"
    }
    end.spoil(owners[2], liar)
    assert end.end() == (True, {liar: "it revealed wrong shares"})


@pytest.mark.req("M-19")
def test_colluders_that_would_frame_others_leave_a_doubt_that_says_so() -> None:
    """Nine of thirty move to a polynomial without three honest nodes: three lie, or nine."""
    end = ending(30, 20, 9)
    evil, framed, rest = end.setup.cohort[:9], end.setup.cohort[9:12], end.setup.cohort[12:]
    for owner in end.setup.cohort:
        end.shift(owner, set(evil), kept=list(rest))
    worked, blamed = end.end()
    assert worked
    assert blamed.keys() == set(framed)
    assert all("or at least 9 others lied" in why for why in blamed.values())


@pytest.mark.req("M-19")
@pytest.mark.parametrize("wrong", [0, 1, 2, 5])
def test_a_dealer_whose_shares_fit_nothing_it_committed_to(wrong: int) -> None:
    """Consistent shares of another secret are its own doing: liars could not have made them so."""
    end = ending(10, 6, 2)
    evil = end.setup.cohort[3]
    end.secrets[evil] = bytes(32)  # the commitment is to this one
    for holder in end.setup.cohort[:wrong]:
        end.spoil(evil, holder)
    blamed = {evil: "its shares do not fit what it committed to"}
    assert end.end() == (False, blamed)


@pytest.mark.req("M-19")
def test_a_secret_that_liars_may_have_spoilt_accuses_nobody() -> None:
    end = ending(9, 7, 2)
    evil = end.setup.cohort[:3]
    for holder in evil:
        end.spoil(end.setup.cohort[5], holder)
    assert end.end() == (False, {})


@pytest.mark.req("M-19")
def test_errors_that_cancel_among_the_trusted_frame_no_suspect() -> None:
    """A dealer makes an honest node a suspect; two liars then cancel at 0 without that node."""
    end = ending(12, 7, 3)
    cohort = end.setup.cohort
    evil, framed = cohort[0], cohort[5]
    end.spoil(evil, framed)
    others = tuple(end.point[node] for node in cohort if node != framed)
    weight = dict(zip(others, shamir.lagrange_at_zero(others), strict=True))
    one, two = cohort[1], cohort[2]
    for owner in cohort[6:]:
        end.spoil(owner, one, 5 * weight[end.point[two]])
        end.spoil(owner, two, -5 * weight[end.point[one]])
    worked, blamed = end.end()
    assert worked
    assert framed in blamed
    assert blamed[framed] not in OUTRIGHT
    assert set(cohort[6:]).isdisjoint(blamed[framed].split())  # the doubt is about the dealer only


@pytest.mark.req("M-19")
def test_without_a_look_at_the_degree_cancelling_errors_frame_a_suspect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planted fault to the test before this one."""
    monkeypatch.setattr(shamir, "lie_on_one_polynomial", lambda *args, **options: True)
    with pytest.raises(AssertionError):
        test_errors_that_cancel_among_the_trusted_frame_no_suspect()


@pytest.mark.req("M-19")
def test_suspects_are_measured_against_the_committed_secret_only() -> None:
    """What gave the secret held a suspect of later; without it, what is left gives another."""
    end = ending(9, 5, 3)
    cohort = end.setup.cohort
    evil, owner, late = cohort[0], cohort[1], cohort[7]
    end.spoil(evil, cohort[5])
    end.spoil(evil, cohort[6])
    trusted = tuple(end.point[node] for node in cohort if node not in cohort[5:7])
    weight = dict(zip(trusted, shamir.lagrange_at_zero(trusted), strict=True))
    end.spoil(owner, evil, 5 * weight[end.point[late]])
    end.spoil(owner, late, -5 * weight[end.point[evil]])
    end.spoil(cohort[2], cohort[4])
    end.spoil(cohort[2], late)  # now only t holders are trusted, and one of them lied about `owner`
    worked, blamed = end.end()
    assert worked
    assert not any(owner in why for why in blamed.values())


@pytest.mark.req("M-19")
@pytest.mark.parametrize("spent", ["_MAX_WORK", "_MAX_SEARCH"])
def test_work_has_a_bound(spent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is spent the round fails, and what nobody looked at is nobody's fault."""
    monkeypatch.setattr(f"secagg.masking.recovery.{spent}", 0)
    end = ending(7, 5, 2)
    assert end.end() == (True, {})
    for holder in end.setup.cohort[:2]:
        end.spoil(end.setup.cohort[4], holder)
    assert end.end() == (False, {})


@pytest.mark.req("M-19")
def test_a_liar_costs_one_decoding_whatever_it_lies_about(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    honest = shamir.decode

    def decode(shares: dict[int, bytes], threshold: int) -> tuple[bytes, frozenset[int]] | None:
        decoded.append(len(shares))
        return honest(shares, threshold)

    monkeypatch.setattr(shamir, "decode", decode)
    end = ending(30, 20, 9)
    for owner in end.setup.cohort:
        end.spoil(owner, end.setup.cohort[0])
    assert end.end() == (True, {end.setup.cohort[0]: "it revealed wrong shares"})
    assert decoded == [30]
