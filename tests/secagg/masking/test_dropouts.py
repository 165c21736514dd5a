"""Rounds that lose nodes: exhaustively for small cohorts, at random for larger ones and graphs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.masking.graph import Graph
from secagg.round_setup import RoundSetup
from secagg.schemes import SCHEMES
from secagg.types import AbortReason
from secagg.wire.messages import Encapsulations, MaskedChunk, Message, SealedShares
from tests.support.fleet import COORDINATOR, Fleet, Outcome, make_setup
from tests.support.scripts import EXCHANGES, SPARSE_EXCHANGES, Recording, deaths

MASKING = SCHEMES["masking"]
REASONS = [
    AbortReason.TOO_FEW_KEYS,
    AbortReason.TOO_FEW_AGREEMENTS,
    AbortReason.TOO_FEW_SHARES,
    AbortReason.TOO_FEW_INPUTS,
    AbortReason.TOO_FEW_SIGNATURES,
    AbortReason.TOO_FEW_UNMASK_ANSWERS,
]
ALIVE = len(EXCHANGES)
INPUT = EXCHANGES.index(MaskedChunk)


def expected(setup: RoundSetup, dies: dict[str, int]) -> tuple[AbortReason | None, tuple[str, ...]]:
    """Say how a round on the complete graph ends, by the phase each node dies in (ALIVE: none)."""
    for phase, reason in enumerate(REASONS):
        needed = setup.quorum if phase <= INPUT else setup.cosigners
        if sum(when > phase for when in dies.values()) < needed:
            return reason, ()
    return None, tuple(sorted(node for node, when in dies.items() if when > INPUT))


def plays_as_expected(n: int, when: tuple[int, ...], dim: int = 11, **changes: object) -> None:
    fleet = Fleet(MASKING, make_setup(n, dim=dim, **changes))
    dies = dict(zip(fleet.setup.cohort, when, strict=True))
    before = {node: EXCHANGES[phase] for node, phase in dies.items() if phase < ALIVE}
    outcome = fleet.play(deaths(before))
    reason, survivors = expected(fleet.setup, dies)
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
@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("phase", range(ALIVE))
def test_every_subset_lost_in_one_phase(n: int, phase: int) -> None:
    for lost in itertools.product([phase, ALIVE], repeat=n):
        plays_as_expected(n, lost)


@pytest.mark.req("M-01")
@settings(max_examples=25, deadline=None)
@given(
    st.integers(6, 12).flatmap(
        lambda n: st.tuples(*[st.sampled_from([*range(ALIVE), *[ALIVE] * 5])] * n)
    )
)
def test_random_patterns_of_larger_cohorts(when: tuple[int, ...]) -> None:
    plays_as_expected(len(when), when, dim=5)


@pytest.mark.req("M-01")
@pytest.mark.req("M-14")
@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([*range(ALIVE), *[ALIVE] * 8]), min_size=10, max_size=10))
def test_random_patterns_with_a_low_number_of_co_signatures(when: list[int]) -> None:
    """Fewer co-signers than the quorum: nodes may be lost after the input that none may before."""
    plays_as_expected(10, tuple(when), dim=5, threshold=6, colluders=0, quorum=8)


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
    key = st.tuples(st.sampled_from(parties), st.sampled_from(parties), st.integers(0, 6))
    return n, draw(st.dictionaries(key, st.sampled_from([0, 2, 3]), max_size=6))


@pytest.mark.req("T-04")
@pytest.mark.req("M-01")
@pytest.mark.req("M-21")
@settings(max_examples=40, deadline=None)
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


# --- either side of a pair -----------------------------------------------------------------------


@pytest.mark.req("M-26")
@pytest.mark.req("M-27")
@pytest.mark.parametrize("n", [5, 6])
@pytest.mark.parametrize("when", [Encapsulations, SealedShares, MaskedChunk])
def test_initiators_and_responders_drop_out_and_are_recovered(n: int, when: type[Message]) -> None:
    """Each node in turn, so each pair once loses the one that encapsulated and once the other."""
    setup = make_setup(n, dim=11)
    seen = set()
    for lost in setup.cohort:
        script = Recording(MASKING, setup, fault=deaths({lost: when}))
        rest = tuple(node for node in setup.cohort if node != lost)
        assert script.outcome.contributors == rest
        assert not script.outcome.blamed
        assert script.outcome.total is not None
        assert np.array_equal(script.outcome.total, script.fleet.plain_sum(rest))
        for sender, message in script.to_coordinator:
            if isinstance(message, Encapsulations):
                for receiver, _, _ in message.capsules:
                    if sender == lost:
                        seen.add(("initiator lost", frozenset((sender, receiver))))
                    elif receiver == lost:
                        seen.add(("responder lost", frozenset((sender, receiver))))
    pairs = n * (n - 1) // 2
    assert len([1 for kind, _ in seen if kind == "responder lost"]) == pairs
    initiated = len([1 for kind, _ in seen if kind == "initiator lost"])
    assert initiated == (0 if when is Encapsulations else pairs)


# --- sparse graphs -------------------------------------------------------------------------------

SPARSE = {"neighbours": 10, "threshold": 3, "quorum": 27, "colluders": 3}
"""Windows of five places, of which two must survive."""
SPARSE_INPUT = SPARSE_EXCHANGES.index(MaskedChunk)


@pytest.mark.req("M-01")
@pytest.mark.req("M-06")
@pytest.mark.parametrize("phase", [None, *range(len(SPARSE_EXCHANGES))])
def test_a_sparse_graph_of_forty_nodes_loses_four_in_any_phase(phase: int | None) -> None:
    fleet = Fleet(MASKING, make_setup(40, dim=33, **SPARSE))
    lost = fleet.setup.cohort[3:36:9] if phase is not None else ()
    outcome = fleet.play(deaths(dict.fromkeys(lost, SPARSE_EXCHANGES[phase or 0])))
    contributed = fleet.setup.cohort
    if phase is not None and phase <= SPARSE_INPUT:
        contributed = tuple(node for node in contributed if node not in lost)
    assert outcome.failed is None
    assert not outcome.errors
    assert outcome.contributors == contributed
    assert outcome.total is not None
    assert np.array_equal(outcome.total, fleet.plain_sum(contributed))


@pytest.mark.req("M-01")
@pytest.mark.req("M-25")
@settings(max_examples=10, deadline=None)
@given(
    st.dictionaries(st.integers(0, 23), st.integers(0, len(SPARSE_EXCHANGES) - 1), max_size=8),
    st.integers(1, 1000),
)
def test_random_losses_on_a_sparse_graph(losses: dict[int, int], seed: int) -> None:
    """Every phase at once, coins included; the sum is exact or the circle has a gap."""
    setup = make_setup(24, dim=7, neighbours=8, threshold=3, quorum=14, colluders=3)
    fleet = Fleet(MASKING, setup, seed=seed)
    before = {setup.cohort[node]: SPARSE_EXCHANGES[phase] for node, phase in losses.items()}
    outcome = fleet.play(deaths(before))
    assert not outcome.errors
    assert not outcome.blamed
    graph: Graph = fleet.coordinator._seen.graph  # type: ignore[attr-defined]
    survivors = tuple(
        node
        for index, node in enumerate(setup.cohort)
        if losses.get(index, len(SPARSE_EXCHANGES)) > SPARSE_INPUT
    )
    if outcome.failed is not None:
        assert outcome.failed.reason in (AbortReason.GRAPH_TOO_THIN, AbortReason.BAD_SHARES)
        thin = not graph.is_whole(survivors, setup.threshold)
        assert thin == (outcome.failed.reason is AbortReason.GRAPH_TOO_THIN)
        return
    assert graph.is_whole(survivors, setup.threshold)
    assert outcome.contributors == survivors
    is_exact_or_failed(fleet, outcome)


@pytest.mark.req("M-26")
@pytest.mark.req("M-27")
def test_a_successor_and_a_predecessor_drop_out_of_a_sparse_graph() -> None:
    """Of one node both kinds of neighbours: pair seeds that it made and that it was sent."""
    setup = make_setup(24, dim=11, neighbours=8, threshold=3, quorum=16, colluders=2)
    honest = Recording(MASKING, setup)
    graph: Graph = honest.fleet.coordinator._seen.graph  # type: ignore[attr-defined]
    node = setup.cohort[7]
    for lost in (min(graph.successors(node)), min(graph.predecessors(node))):
        fleet = Fleet(MASKING, setup)
        outcome = fleet.play(deaths({lost: MaskedChunk}))
        survivors = tuple(each for each in setup.cohort if each != lost)
        assert outcome.contributors == survivors
        assert outcome.total is not None
        assert np.array_equal(outcome.total, fleet.plain_sum(survivors))


@pytest.mark.req("M-19")
def test_a_sparse_graph_with_a_neighbourhood_below_its_threshold_fails_typed() -> None:
    """Nine of eleven holders must answer. Three in a row on the circle do not: c others did."""
    setup = make_setup(24, dim=9, neighbours=10, threshold=9, quorum=14, colluders=1)
    honest = Fleet(MASKING, setup)
    assert honest.play().total is not None
    graph: Graph = honest.coordinator._seen.graph  # type: ignore[attr-defined]
    for lost, reason in ((graph.circle[4:6], None), (graph.circle[4:7], AbortReason.BAD_SHARES)):
        outcome = Fleet(MASKING, setup).play(deaths(dict.fromkeys(lost, EXCHANGES[-1])))
        assert (outcome.failed.reason if outcome.failed else None) == reason
        assert (outcome.total is None) == (reason is not None)


@pytest.mark.req("M-06")
def test_a_sparse_graph_exchanges_less() -> None:
    sizes = {}
    for neighbours, threshold in ((10, 3), (23, 16)):
        setup = make_setup(24, dim=9, neighbours=neighbours, threshold=threshold, quorum=16)
        outcome = Fleet(MASKING, setup).play()
        assert outcome.total is not None
        boxes = [m.boxes for _, m in outcome.seen if isinstance(m, SealedShares)]
        capsules = [m.capsules for _, m in outcome.seen if isinstance(m, Encapsulations)]
        sizes[neighbours] = set(map(len, boxes)), set(map(len, capsules))
    assert sizes == {10: ({10}, {5}), 23: ({23}, {11, 12})}


# --- turns ---------------------------------------------------------------------------------------


@pytest.mark.req("M-01")
@pytest.mark.req("M-22")
@settings(max_examples=8, deadline=None)
@given(st.sets(st.integers(0, 19), max_size=6), st.integers(0, 2))
def test_nodes_that_stall_in_the_middle_of_their_turns(stalled: set[int], given: int) -> None:
    """They hold their slots until the deadline; everybody behind them still gets a turn."""
    setup = make_setup(20, dim=70)
    fleet = Fleet(MASKING, setup)
    nodes = {setup.cohort[index] for index in stalled}

    def fault(sender: str, receiver: str, message: Message) -> list[Message]:
        late = sender in nodes and isinstance(message, MaskedChunk) and message.index >= given
        return [] if late else [message]

    outcome = fleet.play(fault)
    survivors = tuple(node for node in setup.cohort if node not in nodes)
    assert outcome.contributors == survivors
    assert outcome.total is not None
    assert np.array_equal(outcome.total, fleet.plain_sum(survivors))
