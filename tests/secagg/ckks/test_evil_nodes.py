"""Nodes that break the rules: a typed end, the right ones named, never a wrong sum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from secagg.ckks import rlwe
from secagg.ckks.client import CkksClient
from secagg.ckks.ring import packed_size
from secagg.round_setup import RoundSetup
from secagg.steps import PeerBlamed
from secagg.types import AbortReason, NodeId
from secagg.wire.messages import CipherChunk, Message, SealedSecret, SealingKey, SumShare
from tests.support.ckks import (
    CKKS,
    OffPolynomial,
    OtherShares,
    ckks_setup,
    evil_client,
    lie,
    ring_in,
    terms_in,
)
from tests.support.fleet import Fault, Fleet, Outcome, as_inputs
from tests.support.messages import changed
from tests.support.scripts import rewritten

SETUP = ckks_setup(10)
COHORT = SETUP.cohort
EVIL = COHORT[3]


def reason(outcome: Outcome) -> AbortReason | None:
    assert (outcome.total is None) is (outcome.failed is not None)
    return outcome.failed.reason if outcome.failed else None


def is_exact(fleet: Fleet, outcome: Outcome) -> bool:
    if outcome.total is None:
        return False
    expected = fleet.plain_sum(outcome.contributors, outcome.weights)
    assert np.array_equal(outcome.total, expected), "a wrong sum came out"
    return True


def uploads(change: Callable[[Message], Message | None], *nodes: NodeId) -> Fault:
    return rewritten(lambda sender, to, message: change(message) if sender in nodes else None)


# --- members --------------------------------------------------------------------------------------


@pytest.mark.req("H-13")
@pytest.mark.parametrize("liars", range(8))
def test_members_that_lie(liars: int) -> None:
    """Of ten, six may be wrong, and are named."""
    fleet = Fleet(CKKS, SETUP)

    def change(sender: NodeId, to: NodeId, message: Message) -> Message | None:
        index = COHORT.index(sender) if sender in COHORT else liars
        evil = index < liars and isinstance(message, SumShare)
        return lie(SETUP, message, index) if evil else None  # type: ignore[arg-type]

    outcome = fleet.play(rewritten(change))
    if liars <= 6:
        assert is_exact(fleet, outcome)
        assert outcome.contributors == COHORT
        assert outcome.blamed == set(COHORT[:liars])
    else:
        assert reason(outcome) is AbortReason.BAD_SHARES
        assert outcome.blamed <= set(COHORT[:liars])


@pytest.mark.req("H-13")
@pytest.mark.parametrize(("silent", "liars"), [(3, 0), (3, 1), (3, 3), (6, 0), (4, 2), (6, 1)])
def test_members_that_lie_while_others_are_silent(silent: int, liars: int) -> None:
    fleet = Fleet(CKKS, SETUP)

    def fault(sender: NodeId, to: NodeId, message: Message) -> list[Message]:
        if sender not in COHORT or not isinstance(message, SumShare):
            return [message]
        index = COHORT.index(sender)
        if index < silent:
            return []
        return [lie(SETUP, message, index) if index < silent + liars else message]

    outcome = fleet.play(fault)
    if silent + liars <= 6:
        assert is_exact(fleet, outcome)
        assert outcome.blamed == set(COHORT[silent : silent + liars])
    else:
        assert reason(outcome) is AbortReason.BAD_SHARES
        assert not outcome.blamed


@pytest.mark.req("H-13")
def test_a_lie_is_named_and_so_is_silence_not() -> None:
    fleet = Fleet(CKKS, SETUP)

    def fault(sender: NodeId, to: NodeId, message: Message) -> list[Message]:
        if not isinstance(message, SumShare) or sender not in COHORT[:3]:
            return [message]
        return [lie(SETUP, message)] if sender == COHORT[0] else []

    outcome = fleet.play(fault)
    assert is_exact(fleet, outcome)
    assert outcome.blamed == {COHORT[0]}


# --- dealers --------------------------------------------------------------------------------------


def spoilt(message: Message, *places: int) -> Message | None:
    """Return an upload in which the boxes at some places do not open."""
    if not isinstance(message, SealedSecret):
        return None
    boxes = [
        box[:-1] + bytes([box[-1] ^ 1]) if i in places else box
        for i, box in enumerate(message.boxes)
    ]
    return changed(message, boxes=tuple(boxes))


@pytest.mark.req("H-05")
@pytest.mark.req("H-12")
@pytest.mark.req("H-13")
@pytest.mark.parametrize("bad", range(10))
def test_a_dealer_whose_boxes_do_not_open(bad: int) -> None:
    """It costs the answers of those it cheats: the sum opens as long as four are left."""
    fleet = Fleet(CKKS, SETUP)
    outcome = fleet.play(uploads(lambda m: spoilt(m, *range(bad)), EVIL))
    others = [node for node in COHORT if node != EVIL]
    if 10 - bad >= terms_in(SETUP).committee.answers:
        assert is_exact(fleet, outcome)
        assert outcome.contributors == COHORT
    else:
        assert reason(outcome) is AbortReason.TOO_FEW_ANSWERS
    assert outcome.blamed == ({EVIL} if bad else set())
    for event in outcome.events:
        if isinstance(event, PeerBlamed) and "its shares" in event.reason:
            assert event.certain is (bad > SETUP.colluders)
            assert event.certain or all(node in event.reason for node in others[:bad])


@pytest.mark.req("H-14")
def test_a_dealer_whose_shares_are_not_of_its_ciphertext() -> None:
    fleet = Fleet(CKKS, SETUP)
    evil_client(fleet, EVIL, OtherShares)
    outcome = fleet.play()
    assert reason(outcome) is AbortReason.SUM_OUT_OF_RANGE
    assert not outcome.blamed


@pytest.mark.req("H-14")
@pytest.mark.parametrize("bad", [1, 2, 3, 4, 6, 7, 9])
def test_a_dealer_whose_shares_fit_no_polynomial(bad: int) -> None:
    """The members it cheats look like liars; it may spoil the round, never the sum."""
    fleet = Fleet(CKKS, SETUP)
    kind = type("Bad", (OffPolynomial,), {"BAD": bad})
    evil_client(fleet, EVIL, kind)
    outcome = fleet.play()
    if bad <= 6:
        assert is_exact(fleet, outcome)
    else:
        assert reason(outcome) in (AbortReason.BAD_SHARES, AbortReason.SUM_OUT_OF_RANGE)


class Shared(CkksClient):
    """A dealer that changes what it encrypts, after its input was checked."""

    OFFSET = 0
    PLACE = 0

    def _sealed_input(self, keys: tuple[SealingKey, ...]) -> list[Message]:
        self._message[0, self.PLACE] += self.OFFSET
        return super()._sealed_input(keys)


def with_offset(offset: int, place: int) -> type[CkksClient]:
    return type("Offset", (Shared,), {"OFFSET": offset, "PLACE": place})


@pytest.mark.req("H-14")
@pytest.mark.parametrize("plane", [0, 1])
@pytest.mark.parametrize(("extreme", "beyond"), [((1 << 15) - 1, 1), (-(1 << 15), -1)])
def test_a_value_beyond_its_bits_fails_the_round_if_the_sum_is_impossible(
    plane: int, extreme: int, beyond: int
) -> None:
    setup = ckks_setup(5, dim=4096)
    inputs = as_inputs(setup, dict.fromkeys(setup.cohort, extreme))
    ring = terms_in(setup).ring
    for offset, fails in ((beyond, True), (-beyond, False)):
        fleet = Fleet(CKKS, setup, inputs=inputs)
        kind = with_offset(offset << (ring.noise_bits + plane * ring.field_bits), 7)
        evil_client(fleet, setup.cohort[1], kind)
        outcome = fleet.play()
        if fails:
            assert reason(outcome) is AbortReason.SUM_OUT_OF_RANGE
        else:  # one more or less is an input that the node could have had
            assert outcome.total is not None
        assert not outcome.blamed


@pytest.mark.req("H-14")
@pytest.mark.parametrize("place", [0, 2047])
@pytest.mark.parametrize("sign", [-1, 1])
def test_an_error_beyond_its_bound_fails_the_round(place: int, sign: int) -> None:
    setup = ckks_setup(5)
    fleet = Fleet(CKKS, setup)
    half = 1 << (terms_in(setup).ring.noise_bits - 1)
    evil_client(fleet, setup.cohort[1], with_offset(sign * (half - 1), place))
    outcome = fleet.play()
    assert reason(outcome) is AbortReason.SUM_OUT_OF_RANGE


@pytest.mark.req("H-14")
def test_a_value_in_an_unused_place_fails_the_round() -> None:
    setup = ckks_setup(5, dim=40)
    fleet = Fleet(CKKS, setup)
    kind = with_offset(1 << terms_in(setup).ring.noise_bits, 41)
    evil_client(fleet, setup.cohort[1], kind)
    assert reason(fleet.play()) is AbortReason.SUM_OUT_OF_RANGE


@pytest.mark.req("H-14")
def test_random_residues_fail_the_round() -> None:
    ring = ring_in(SETUP)
    size = packed_size(1, ring)
    rng = np.random.default_rng(1)
    values = rng.integers(0, ring.modulus, (1, ring.degree), dtype=np.uint64)
    data = rlwe.pack(values, ring)
    assert len(data) == size
    fleet = Fleet(CKKS, SETUP)
    outcome = fleet.play(
        uploads(lambda m: changed(m, data=data) if isinstance(m, CipherChunk) else None, EVIL)
    )
    assert reason(outcome) is AbortReason.SUM_OUT_OF_RANGE


@pytest.mark.req("H-08")
@pytest.mark.parametrize(
    "change",
    [
        lambda m: changed(m, data=m.data[:-1]) if isinstance(m, CipherChunk) else None,
        lambda m: changed(m, data=b"\xff" * len(m.data)) if isinstance(m, CipherChunk) else None,
        lambda m: changed(m, index=1) if isinstance(m, CipherChunk) else None,
        lambda m: changed(m, start=1) if isinstance(m, SealedSecret) else None,
        lambda m: changed(m, boxes=m.boxes[1:]) if isinstance(m, SealedSecret) else None,
        lambda m: changed(m, boxes=(b"", *m.boxes[1:])) if isinstance(m, SealedSecret) else None,
    ],
)
def test_a_bad_upload_is_left_out_and_its_sender_named(
    change: Callable[[Message], Message | None],
) -> None:
    fleet = Fleet(CKKS, SETUP)
    outcome = fleet.play(uploads(change, EVIL))
    assert is_exact(fleet, outcome)
    assert outcome.contributors == tuple(node for node in COHORT if node != EVIL)
    assert outcome.blamed == {EVIL}


@pytest.mark.req("H-13")
def test_everything_at_once() -> None:
    """A bad upload, a silent node, a dealer of bad boxes and a liar, of ten."""
    fleet = Fleet(CKKS, SETUP)
    uploader, silent, dealer, liar = COHORT[0], COHORT[2], COHORT[5], COHORT[9]

    def fault(sender: NodeId, to: NodeId, message: Message) -> list[Message]:
        if sender == uploader and isinstance(message, CipherChunk):
            return [changed(message, data=message.data[1:])]
        if silent in (sender, to) and isinstance(message, SumShare | CipherChunk):
            return []
        if sender == dealer:
            return [spoilt(message, 0) or message]
        if sender == liar and isinstance(message, SumShare):
            return [lie(SETUP, message)]
        return [message]

    outcome = fleet.play(fault)
    assert is_exact(fleet, outcome)
    assert outcome.contributors == tuple(n for n in COHORT if n not in (uploader, silent))
    assert outcome.blamed == {uploader, dealer, liar}


@pytest.mark.req("H-01")
@pytest.mark.req("H-13")
@pytest.mark.parametrize("n", [12, 60])
def test_drawn_and_packed_committees_survive_liars_too(n: int) -> None:
    committee = {"size": 12, "threshold": 3, "pack": 4} if n == 60 else {"pack": 2}
    setup: RoundSetup = ckks_setup(n, committee=committee)
    fleet = Fleet(CKKS, setup)
    lied: set[NodeId] = set()

    def change(sender: NodeId, to: NodeId, message: Message) -> Message | None:
        if isinstance(message, SumShare) and (not lied or sender in lied):
            lied.add(sender)
            return lie(setup, message)
        return None

    outcome = fleet.play(rewritten(change))
    assert is_exact(fleet, outcome)
    assert len(lied) == 1
    assert outcome.blamed == lied
