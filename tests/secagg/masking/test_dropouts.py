"""Rounds that lose nodes: exhaustively for small cohorts, at random for larger ones and graphs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.schemes import SCHEMES, default_quorum
from secagg.types import AbortReason
from secagg.wire.messages import MaskedChunk, Message
from tests.support.fleet import COORDINATOR, Fleet, Outcome, make_setup
from tests.support.scripts import EXCHANGES, deaths

MASKING = SCHEMES["masking"]
REASONS = [
    AbortReason.TOO_FEW_KEYS,
    AbortReason.TOO_FEW_SHARES,
    AbortReason.TOO_FEW_INPUTS,
    AbortReason.TOO_FEW_SIGNATURES,
    AbortReason.TOO_FEW_UNMASK_ANSWERS,
]
ALIVE = len(EXCHANGES)


def expected(n: int, dies: dict[str, int]) -> tuple[AbortReason | None, tuple[str, ...]]:
    """Say how a round on the complete graph ends, by the phase each node dies in (ALIVE: none)."""
    for phase, reason in enumerate(REASONS):
        if sum(when > phase for when in dies.values()) < default_quorum(n):
            return reason, ()
    return None, tuple(sorted(node for node, when in dies.items() if when > 2))


def plays_as_expected(n: int, when: tuple[int, ...], dim: int = 11) -> None:
    fleet = Fleet(MASKING, make_setup(n, dim=dim))
    dies = dict(zip(fleet.setup.cohort, when, strict=True))
    before = {node: EXCHANGES[phase] for node, phase in dies.items() if phase < ALIVE}
    outcome = fleet.play(deaths(before))
    reason, survivors = expected(n, dies)
    assert not outcome.errors
    assert not outcome.blamed
    if reason is not None:
        assert outcome.failed is not None
        assert outcome.failed.reason is reason
        assert outcome.total is None
    else:
        assert outcome.contributors == survivors
        assert outcome.total is not None
        assert np.array_equal(outcome.total, fleet.plain_sum(survivors))


@pytest.mark.req("M-01")
@pytest.mark.req("M-14")
@pytest.mark.parametrize("n", [3, 4, 5])
@pytest.mark.parametrize("phase", range(5))
def test_every_subset_lost_in_one_phase(n: int, phase: int) -> None:
    for lost in itertools.product([phase, ALIVE], repeat=n):
        plays_as_expected(n, lost)


@pytest.mark.req("M-01")
@pytest.mark.req("M-14")
def test_every_pattern_of_three_nodes() -> None:
    for when in itertools.product(range(ALIVE + 1), repeat=3):
        plays_as_expected(3, when)


@pytest.mark.req("M-01")
@settings(max_examples=40, deadline=None)
@given(
    st.integers(6, 12).flatmap(lambda n: st.tuples(*[st.sampled_from([*range(6), 5, 5, 5, 5])] * n))
)
def test_random_patterns_of_larger_cohorts(when: tuple[int, ...]) -> None:
    plays_as_expected(len(when), when, dim=5)


@pytest.mark.req("M-16")
def test_a_node_that_dies_in_the_middle_of_its_upload_leaves_no_trace() -> None:
    fleet = Fleet(MASKING, make_setup(5, dim=100))
    lost = fleet.setup.cohort[1]

    def fault(sender: str, receiver: str, message: Message) -> list[Message]:
        last = sender == lost and isinstance(message, MaskedChunk) and message.index == 3
        return [] if last else [message]

    outcome = fleet.play(fault)
    survivors = tuple(node for node in fleet.setup.cohort if node != lost)
    assert outcome.contributors == survivors
    assert outcome.total is not None
    assert np.array_equal(outcome.total, fleet.plain_sum(survivors))


@st.composite
def schedules(draw: st.DrawFn) -> tuple[int, dict[tuple[str, str, int], int]]:
    """A cohort size, and how many copies arrive of the k-th message between two parties."""
    n = draw(st.integers(3, 7))
    parties = [COORDINATOR, *(f"node-{index:04d}" for index in range(n))]
    key = st.tuples(st.sampled_from(parties), st.sampled_from(parties), st.integers(0, 4))
    return n, draw(st.dictionaries(key, st.sampled_from([0, 2, 3]), max_size=6))


@pytest.mark.req("T-04")
@pytest.mark.req("M-01")
@pytest.mark.req("M-21")
@settings(max_examples=60, deadline=None)
@given(schedules())
def test_any_schedule_of_losses_and_repetitions_is_exact_or_a_typed_failure(
    case: tuple[int, dict[tuple[str, str, int], int]],
) -> None:
    n, copies = case
    fleet = Fleet(MASKING, make_setup(n, dim=20))
    sent: dict[tuple[str, str], int] = {}

    def fault(sender: str, receiver: str, message: Message) -> list[Message]:
        index = sent.get((sender, receiver), 0)
        sent[sender, receiver] = index + 1
        return [message] * copies.get((sender, receiver, index), 1)

    is_exact_or_failed(fleet, fleet.play(fault))


def is_exact_or_failed(fleet: Fleet, outcome: Outcome) -> None:
    if outcome.failed is not None:
        assert outcome.total is None
        assert outcome.failed.reason in set(AbortReason)
        return
    assert outcome.total is not None
    assert len(outcome.contributors) >= fleet.setup.quorum
    assert np.array_equal(outcome.total, fleet.plain_sum(outcome.contributors))


SPARSE = {"neighbours": 10, "threshold": 6, "quorum": 27}


@pytest.mark.req("M-01")
@pytest.mark.req("M-06")
@pytest.mark.parametrize("phase", [None, 0, 1, 2, 3, 4])
def test_a_sparse_graph_of_forty_nodes_loses_four_in_any_phase(phase: int | None) -> None:
    fleet = Fleet(MASKING, make_setup(40, dim=33, **SPARSE))
    lost = fleet.setup.cohort[3:36:9] if phase is not None else ()
    outcome = fleet.play(deaths(dict.fromkeys(lost, EXCHANGES[phase or 0])))
    contributed = fleet.setup.cohort
    if phase is not None and phase <= 2:
        contributed = tuple(node for node in contributed if node not in lost)
    assert outcome.failed is None
    assert outcome.contributors == contributed
    assert outcome.total is not None
    assert np.array_equal(outcome.total, fleet.plain_sum(contributed))


@pytest.mark.req("M-19")
def test_a_sparse_graph_with_a_neighbourhood_below_its_threshold_fails_typed() -> None:
    """Threshold 11 of 11 holders: a single lost answer leaves somebody's secret out of reach."""
    fleet = Fleet(MASKING, make_setup(40, dim=9, neighbours=10, threshold=11, quorum=27))
    outcome = fleet.play(deaths({fleet.setup.cohort[5]: EXCHANGES[4]}))
    assert outcome.total is None
    assert outcome.failed is not None
    assert outcome.failed.reason is AbortReason.BAD_SHARES


@pytest.mark.req("M-06")
def test_a_sparse_graph_exchanges_less() -> None:
    sizes = {}
    for neighbours, threshold in ((10, 6), (39, 27)):
        setup = make_setup(40, dim=9, neighbours=neighbours, threshold=threshold, quorum=27)
        outcome = Fleet(MASKING, setup).play()
        assert outcome.total is not None
        boxes = [m for _, m in outcome.seen if isinstance(m, EXCHANGES[1])]
        sizes[neighbours] = {len(message.boxes) for message in boxes}  # type: ignore[attr-defined]
    assert sizes == {10: {10}, 39: {39}}
