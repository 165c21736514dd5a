"""Lies at the end of a round: about shares, outvoted; in a backup, fatal. Nothing else gets out."""

from __future__ import annotations

import numpy as np
import pytest

from secagg.errors import AuthenticationError
from secagg.masking import pairs
from secagg.masking.coordinator import MaskingCoordinator
from secagg.masking.recovery import Recovery
from secagg.primitives import shamir
from secagg.round_setup import RoundSetup
from secagg.schemes import SCHEMES
from secagg.steps import PeerBlamed, RoundFailed, Step
from secagg.types import AbortReason
from secagg.wire.messages import (
    Encapsulations,
    MaskedChunk,
    Message,
    SealedShares,
    SurvivorSignature,
    UnmaskAnswer,
)
from tests.support.fleet import Fault, Fleet, make_setup
from tests.support.messages import changed
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
    own = liar == owner
    assert PeerBlamed(liar, proof if own else doubt, certain=own) in outcome.events
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
