"""Lies at the end of a round: about shares, named and outvoted; in a backup, named and fatal."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.errors import AuthenticationError
from secagg.masking import adverts, pairs
from secagg.masking.coordinator import MaskingCoordinator
from secagg.masking.graph import build_graph
from secagg.masking.masks import self_mask
from secagg.masking.recovery import Recovery, Transcript
from secagg.primitives import shamir
from secagg.schemes import SCHEMES
from secagg.steps import PeerBlamed, RoundFailed, Step
from secagg.types import AbortReason, RoundSetup
from secagg.wire.messages import (
    Encapsulations,
    KeyAdvert,
    MaskedChunk,
    Message,
    SealedShares,
    SurvivorSignature,
    UnmaskAnswer,
)
from tests.support.fleet import Fault, Fleet, make_setup
from tests.support.messages import changed
from tests.support.randomness import InsecureLabelledRng
from tests.support.scripts import Recording, deaths

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


# --- the check of all shares together ------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of shares of each reconstruction."""
    sizes: list[int] = []
    honest = shamir.combine

    def combine(shares: dict[int, bytes]) -> bytes | None:
        sizes.append(len(shares))
        return honest(shares)

    monkeypatch.setattr(shamir, "combine", combine)
    return sizes


@pytest.mark.req("M-19")
def test_honest_shares_are_combined_once_a_secret_and_all_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seven shares at a threshold of five: a wrong one among any of them shows."""
    sizes = counted(monkeypatch)
    fleet = Fleet(MASKING, make_setup(7, dim=9))
    assert fleet.play().total is not None
    assert sizes == [7] * 7


@pytest.mark.req("M-19")
@pytest.mark.parametrize("position", range(7))
def test_a_wrong_share_beyond_the_first_t_is_found(position: int) -> None:
    """No secret needs it: the first five shares give every secret, and the sum is exact."""
    fleet = Fleet(MASKING, make_setup(7, dim=9))
    liar, owner = fleet.setup.cohort[position], fleet.setup.cohort[6 - position]

    def fault(sender: str, receiver: str, message: Message) -> list[Message]:
        if sender == liar and isinstance(message, UnmaskAnswer):
            shares = dict(message.self_shares)
            shares[owner] = bytes([shares[owner][0] ^ 1]) + shares[owner][1:]
            message = changed(message, self_shares=tuple(sorted(shares.items())))
        return [message]

    outcome = fleet.play(fault)
    assert outcome.blamed == {liar}
    doubt = f"a share of {owner} that it revealed is wrong, or {owner} dealt it wrong"
    proof = "it dealt or revealed wrong shares"  # of its own secret
    assert PeerBlamed(liar, proof if liar == owner else doubt) in outcome.events
    assert outcome.total is not None
    assert np.array_equal(outcome.total, fleet.plain_sum())


@pytest.mark.req("M-19")
def test_a_share_beyond_the_field_is_a_wrong_share() -> None:
    fleet = Fleet(MASKING, make_setup(7, dim=9))
    liar = fleet.setup.cohort[2]

    def fault(sender: str, receiver: str, message: Message) -> list[Message]:
        if sender == liar and isinstance(message, UnmaskAnswer):
            shares = tuple((owner, b"\xff" * 33) for owner, _ in message.self_shares)
            message = changed(message, self_shares=shares)
        return [message]

    outcome = fleet.play(fault)
    assert outcome.blamed == {liar}
    assert outcome.total is not None


SPARSE = make_setup(24, dim=9, neighbours=8, threshold=3, colluders=1, quorum=14)


@pytest.mark.req("M-19")
@pytest.mark.parametrize("drops", [False, True])
def test_liars_on_a_sparse_graph(drops: bool) -> None:
    fleet = Fleet(MASKING, SPARSE)
    liars = {fleet.setup.cohort[0], fleet.setup.cohort[11]}
    lost = {fleet.setup.cohort[5]: MaskedChunk} if drops else {}
    outcome = fleet.play(lying(liars, after=deaths(lost)))
    assert outcome.failed is None
    assert outcome.blamed == liars
    assert outcome.total is not None
    contributed = tuple(node for node in fleet.setup.cohort if node not in lost)
    assert np.array_equal(outcome.total, fleet.plain_sum(contributed))


# --- backups -------------------------------------------------------------------------------------


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


class Owner:
    """A round in which one node gives another backup than the honest one."""

    def __init__(self, setup: RoundSetup, node: str) -> None:
        self.node, self.fleet = node, Fleet(MASKING, setup)

    def backup(self, case: str, honest: bytes) -> bytes:
        client = self.fleet.clients[self.node]
        seeds = [pair.mask_seed for pair in client._pairs.values()]  # type: ignore[attr-defined]
        secret = client._round_secret  # type: ignore[attr-defined]
        other = {
            "garbage": b"",
            "altered": flip(honest),
            "cut off": honest[:-1],
            "one seed too few": self._sealed(secret, seeds[:-1]),
            "one seed too many": self._sealed(secret, [*seeds, bytes(32)]),
            "one wrong seed": self._sealed(secret, [flip(seeds[0]), *seeds[1:]]),
            "another order": self._sealed(secret, seeds[::-1]),
            "another secret": self._sealed(bytes(32), seeds),
        }
        return other[case]

    def _sealed(self, secret: bytes, seeds: list[bytes]) -> bytes:
        return pairs.seal_backup(secret, self.fleet.setup.context, self.node, seeds)

    def fault(self, case: str, *, drops: bool = True) -> Fault:
        die = deaths({self.node: MaskedChunk} if drops else {})

        def fault(sender: str, receiver: str, message: Message) -> list[Message]:
            if sender == self.node and isinstance(message, SealedShares):
                message = changed(message, backup=self.backup(case, message.backup))
            return die(sender, receiver, message)

        return fault


CASES = [
    "garbage",
    "altered",
    "cut off",
    "one seed too few",
    "one seed too many",
    "one wrong seed",
    "another order",
    "another secret",
]


@pytest.mark.req("M-27")
@pytest.mark.parametrize("setup", [make_setup(5, dim=9), SPARSE], ids=["complete", "sparse"])
@pytest.mark.parametrize("case", CASES)
def test_a_bad_backup_blames_its_owner_and_releases_nothing(
    case: str, setup: RoundSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[object] = []
    monkeypatch.setattr(
        "secagg.masking.masks.accumulate", lambda *args, **options: applied.append(args)
    )
    owner = Owner(setup, setup.cohort[1])
    honest_masks = 0

    def fault(sender: str, receiver: str, message: Message) -> list[Message]:
        nonlocal honest_masks
        if isinstance(message, UnmaskAnswer):
            honest_masks = len(applied)  # all of these are the nodes' own
        return inner(sender, receiver, message)

    inner = owner.fault(case)
    outcome = owner.fleet.play(fault)
    assert outcome.blamed == {owner.node}
    assert outcome.failed is not None
    assert outcome.failed.reason is AbortReason.BAD_SHARES
    assert outcome.total is None
    assert len(applied) == honest_masks  # the coordinator took no mask off
    assert owner.fleet.coordinator._uploads.total.size == 0  # type: ignore[attr-defined]


@pytest.mark.req("M-27")
@pytest.mark.parametrize("case", CASES)
def test_nobody_looks_into_the_backup_of_a_survivor(case: str) -> None:
    owner = Owner(make_setup(5, dim=9), "node-0001")
    outcome = owner.fleet.play(owner.fault(case, drops=False))
    assert outcome.blamed == set()
    assert outcome.total is not None
    assert np.array_equal(outcome.total, owner.fleet.plain_sum())


@pytest.mark.req("M-27")
def test_only_the_seeds_toward_survivors_are_used() -> None:
    """Two nodes drop, and one of them lied about the seed between the two: nobody needs it."""
    setup = make_setup(7, dim=9)
    owner = Owner(setup, setup.cohort[1])
    die = deaths({setup.cohort[0]: MaskedChunk, setup.cohort[1]: MaskedChunk})

    def fault(sender: str, receiver: str, message: Message) -> list[Message]:
        if sender == owner.node and isinstance(message, SealedShares):  # its first peer is node 0
            message = changed(message, backup=owner.backup("one wrong seed", message.backup))
        return die(sender, receiver, message)

    outcome = owner.fleet.play(fault)
    assert outcome.blamed == set()
    assert outcome.contributors == setup.cohort[2:]
    assert outcome.total is not None
    assert np.array_equal(outcome.total, owner.fleet.plain_sum(setup.cohort[2:]))


@pytest.mark.req("M-27")
@pytest.mark.parametrize("lost", [0, 2, 6])
def test_a_backup_has_no_place_for_a_neighbour_that_did_not_agree(lost: int) -> None:
    """One node is gone before the agreement, another after its shares: the seeds stay in order."""
    fleet = Fleet(MASKING, make_setup(7, dim=9))
    early, late = fleet.setup.cohort[lost], fleet.setup.cohort[3]
    outcome = fleet.play(deaths({early: Encapsulations, late: MaskedChunk}))
    survivors = tuple(node for node in fleet.setup.cohort if node not in (early, late))
    assert outcome.blamed == set()
    assert outcome.contributors == survivors
    assert outcome.total is not None
    assert np.array_equal(outcome.total, fleet.plain_sum(survivors))


@pytest.mark.req("M-27")
def test_without_the_check_a_wrong_seed_would_give_a_wrong_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planted fault: every confirmation is taken to hold."""
    owner = Owner(make_setup(5, dim=9), "node-0001")
    monkeypatch.setattr(pairs, "confirmation", lambda seed: bytes(32))
    outcome = owner.fleet.play(owner.fault("one wrong seed"))
    survivors = tuple(node for node in owner.fleet.setup.cohort if node != owner.node)
    assert outcome.total is not None
    assert not np.array_equal(outcome.total, owner.fleet.plain_sum(survivors))


@pytest.mark.req("M-05")
@pytest.mark.req("M-27")
def test_the_round_secret_alone_recovers_a_node_of_either_orientation() -> None:
    """What a dropped node encapsulated and what was encapsulated to it: one backup holds both."""
    setup = make_setup(6, dim=9)
    for lost in setup.cohort:
        script = Recording(MASKING, setup, fault=deaths({lost: MaskedChunk}))
        sent = next(
            m for n, m in script.to_coordinator if n == lost and isinstance(m, Encapsulations)
        )
        assert 2 <= len(sent.capsules) <= 3  # of five neighbours: both kinds are there
        survivors = tuple(node for node in setup.cohort if node != lost)
        assert script.outcome.contributors == survivors
        assert script.outcome.total is not None
        assert np.array_equal(script.outcome.total, script.fleet.plain_sum(survivors))


# --- nothing is released -------------------------------------------------------------------------


@pytest.mark.req("M-14")
@pytest.mark.req("M-19")
def test_a_failed_recovery_leaves_the_sum_masked_and_throws_it_away() -> None:
    setup = make_setup(5, dim=9)
    script = Recording(MASKING, setup, fault=lying({"node-0000", "node-0001"}))
    last = len(script.to_coordinator) - 1
    role = script.coordinator(last)
    assert isinstance(role, MaskingCoordinator)
    masked = role._uploads.total
    before = masked.copy()
    step: Step = role.receive(*script.to_coordinator[last], 0.0)
    assert isinstance(step.events[-1], RoundFailed)
    assert np.array_equal(masked, before)
    assert role._uploads.total.size == 0


@pytest.mark.req("M-19")
def test_every_secret_is_found_before_any_mask_is_taken_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A backup that does not open is found last, and still nothing was touched."""
    setup = make_setup(5, dim=9)
    script = Recording(MASKING, setup, fault=deaths({"node-0004": MaskedChunk}))
    assert script.outcome.total is not None
    done: list[int] = []
    recovery = None
    honest = Recovery.unmask

    def unmask(self: Recovery, total: object) -> bool:
        nonlocal recovery
        recovery = self
        self._apply = lambda vector, due: done.append(len(due))  # type: ignore[method-assign]
        return honest(self, total)  # type: ignore[arg-type]

    monkeypatch.setattr(Recovery, "unmask", unmask)

    def fails(*args: object) -> bytes:
        raise AuthenticationError("node-0004", "no")

    monkeypatch.setattr(pairs, "open_backup", fails)
    outcome = Fleet(MASKING, setup).play(deaths({"node-0004": MaskedChunk}))
    assert outcome.failed is not None
    assert outcome.blamed == {"node-0004"}
    assert recovery is not None
    assert done == []


@pytest.mark.req("M-19")
def test_liars_near_the_threshold_cost_the_round_and_not_the_afternoon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With few nodes all choices of shares are tried; with many only what decoding finds."""
    sizes = counted(monkeypatch)
    for n, liars in ((12, 5), (40, 14)):
        sizes.clear()
        setup = make_setup(n, dim=9)
        outcome = Fleet(MASKING, setup).play(lying(set(setup.cohort[:liars])))
        assert outcome.failed is not None
        assert outcome.failed.reason is AbortReason.BAD_SHARES
        assert sum((size + 22) ** 2 for size in sizes) < 30_000_000
        assert SurvivorSignature in {type(message) for _, message in outcome.seen}


# --- who is to blame -----------------------------------------------------------------------------

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
