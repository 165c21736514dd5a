"""Every pattern of dropouts in cohorts of three to five, and random schedules in larger ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.ckks.client import CkksClient, Phase
from secagg.errors import RemoteProtocolError
from secagg.round_setup import RoundSetup
from secagg.steps import PeerBlamed, RoundFailed, Step, SumReady, ViewFixed
from secagg.types import AbortReason, NodeId
from secagg.wire.messages import (
    Announcement,
    CipherChunk,
    Message,
    SealedSecret,
    SumShare,
    SurvivorSignature,
)
from tests.support.ckks import CKKS, ckks_setup, terms_in
from tests.support.fleet import COORDINATOR, Fleet, Outcome, as_inputs
from tests.support.scripts import deaths

STAGES = (Announcement, CipherChunk, SurvivorSignature, SumShare)
"""Before which a node may die; before its boxes is as before its ciphertext."""
ALIVE = len(STAGES)
REASONS = (
    AbortReason.TOO_FEW_KEYS,
    AbortReason.TOO_FEW_INPUTS,
    AbortReason.TOO_FEW_SIGNATURES,
    AbortReason.TOO_FEW_ANSWERS,
)


def needs(setup: RoundSetup) -> tuple[int, ...]:
    answers = terms_in(setup).committee.answers
    return setup.quorum, setup.quorum, setup.cosigners, answers


def patterns(n: int) -> Iterator[tuple[int, ...]]:
    """Yield before which stage each node dies; of those that differ in names only, one."""
    yield from itertools.combinations_with_replacement(range(ALIVE + 1), n)


def expected(setup: RoundSetup, dies: tuple[int, ...]) -> int:
    """Return the stage at which too few are left, by counting; ALIVE if there is none."""
    for stage, needed in enumerate(needs(setup)):
        if sum(when > stage for when in dies) < needed:
            return stage
    return ALIVE


def check(fleet: Fleet, outcome: Outcome) -> None:
    """Check what holds after any round of honest nodes."""
    assert (outcome.total is None) is (outcome.failed is not None)
    assert not [event for event in outcome.events if isinstance(event, PeerBlamed)]
    if outcome.total is not None:
        named = outcome.contributors
        assert list(named) == sorted(set(named))
        assert len(named) >= fleet.setup.quorum
        assert np.array_equal(outcome.total, fleet.plain_sum(named, outcome.weights))
    answers = [sender for sender, message in outcome.seen if isinstance(message, SumShare)]
    assert len(answers) == len(set(answers))


@pytest.mark.req("H-15")
@pytest.mark.parametrize("n", [3, 4, 5])
def test_every_pattern_of_dropouts(n: int) -> None:
    setup = ckks_setup(n, dim=8)
    rng = np.random.default_rng(n)
    for dies in patterns(n):
        order = rng.permutation(n)
        when = {setup.cohort[order[i]]: stage for i, stage in enumerate(dies)}
        fleet = Fleet(CKKS, setup)
        outcome = fleet.play(deaths({n: STAGES[s] for n, s in when.items() if s < ALIVE}))
        check(fleet, outcome)
        assert not outcome.errors
        stage = expected(setup, dies)
        if stage < ALIVE:
            assert outcome.failed is not None, dies
            assert outcome.failed.reason is REASONS[stage], dies
            assert outcome.failed.needed == needs(setup)[stage]
            assert outcome.failed.alive == sum(at > stage for at in dies)
        else:
            assert outcome.contributors == tuple(n for n in setup.cohort if when[n] > 1), dies


@pytest.mark.req("H-15")
@pytest.mark.parametrize("deaf", [Announcement, SealedSecret, CipherChunk, SurvivorSignature])
def test_a_node_that_hears_nothing_after_a_message_is_out(deaf: type[Message]) -> None:
    setup = ckks_setup(5)
    node = setup.cohort[2]
    cut: set[NodeId] = set()

    def fault(sender: NodeId, to: NodeId, message: Message) -> list[Message]:
        if to in cut:
            return []
        if sender == node and isinstance(message, deaf):
            cut.add(node)
        return [message]

    fleet = Fleet(CKKS, setup)
    outcome = fleet.play(fault)
    check(fleet, outcome)
    uploaded = deaf is not Announcement
    assert (node in outcome.contributors) is uploaded
    client = fleet.clients[node]
    assert isinstance(client, CkksClient)
    assert client.on_timeout(1e9).done
    assert client.phase is Phase.OVER


def play_in_any_order(
    fleet: Fleet, faults: Mapping[int, str], seed: int
) -> tuple[Outcome, list[bytes]]:
    """Deliver in any order, but for what happens at the steps in `faults`."""
    rng = np.random.default_rng(seed)
    outcome, views = Outcome(), []
    flying: list[tuple[NodeId, NodeId, Message]] = []
    now = 0.0

    def take(step: Step, source: NodeId) -> None:
        flying.extend((source, out.to, out.message) for out in step.send)
        for event in step.events:
            outcome.events.append(event)
            if isinstance(event, SumReady):
                outcome.total, outcome.contributors = event.total, event.contributors
                outcome.weights = event.weights
            elif isinstance(event, RoundFailed):
                outcome.failed = event
            elif isinstance(event, ViewFixed):
                views.append(event.digest)

    take(fleet.coordinator.start(now), COORDINATOR)
    for node, client in fleet.clients.items():
        take(client.start(now), node)
    for count in range(5000):
        if outcome.total is not None or outcome.failed is not None:
            return outcome, views
        fault = faults.get(count)
        if not flying or fault == "wake":
            now += 1000.0
            take(fleet.coordinator.on_timeout(now), COORDINATOR)
            continue
        if fault == "gone":
            node = fleet.setup.cohort[int(rng.integers(5))]
            take(fleet.coordinator.drop(node, now), COORDINATOR)
            continue
        index = next_of(flying, int(rng.integers(len(flying))))
        sender, to, message = flying[index]
        if fault != "repeat":
            flying.pop(index)
        if fault == "lose":
            continue
        try:
            if to == COORDINATOR:
                outcome.seen.append((sender, message))
                take(fleet.coordinator.receive(sender, message, now), COORDINATOR)
            else:
                take(fleet.clients[to].receive(message, now), to)
        except RemoteProtocolError as error:
            outcome.errors.append(error)
    raise AssertionError("the round does not end")


def next_of(flying: list[tuple[NodeId, NodeId, Message]], index: int) -> int:
    """Return the first on the way between the two of that message: a channel keeps its order."""
    channel = flying[index][:2]
    return next(i for i, (sender, to, _) in enumerate(flying) if (sender, to) == channel)


def test_orders_without_a_fault_all_give_a_sum() -> None:
    for seed in range(20):
        outcome, _ = play_in_any_order(Fleet(CKKS, ckks_setup(5, dim=8)), {}, seed)
        assert outcome.total is not None
        assert not outcome.errors


@pytest.mark.req("H-01")
@pytest.mark.req("H-15")
@pytest.mark.req("H-17")
@settings(max_examples=100, deadline=None)
@given(
    st.booleans(),
    st.dictionaries(
        st.integers(0, 60), st.sampled_from(["wake", "gone", "repeat", "lose"]), max_size=4
    ),
    st.integers(0, 2**32),
)
def test_whatever_the_network_does_a_sum_is_exact_and_a_failure_typed(
    weighs: bool, faults: dict[int, str], seed: int
) -> None:
    setup = ckks_setup(5, dim=8, max_weight=2 if weighs else 1, weighs=weighs)
    fleet = Fleet(CKKS, setup)
    outcome, views = play_in_any_order(fleet, faults, seed)
    assert (outcome.total is None) is (outcome.failed is not None)
    if outcome.total is not None:
        named = outcome.contributors
        assert len(named) >= setup.quorum
        assert np.array_equal(outcome.total, fleet.plain_sum(named, outcome.weights))
    assert len(set(views)) <= 1  # an honest coordinator shows everybody the same
    sent = [sender for sender, m in outcome.seen if isinstance(m, SurvivorSignature)]
    assert len(views) <= 5
    assert set(sent) <= set(setup.cohort)


@pytest.mark.req("H-01")
@pytest.mark.parametrize("n", [3, 7, 9, 20])
@pytest.mark.parametrize("extreme", [-(1 << 15), (1 << 15) - 1])
def test_extreme_vectors_of_constant_value_at_the_quorum_and_above(n: int, extreme: int) -> None:
    """Random values hide a wrap; n times the largest, at every place, does not."""
    setup = ckks_setup(n, dim=4100, chunk_values=8)
    inputs = as_inputs(setup, dict.fromkeys(setup.cohort, extreme))
    for alive in {n, setup.quorum}:
        fleet = Fleet(CKKS, setup, inputs=inputs)
        silent = setup.cohort[alive:]
        outcome = fleet.play(deaths(dict.fromkeys(silent, Announcement)))
        modulus = 1 << setup.ring_bits
        assert outcome.total is not None
        assert outcome.total.tolist() == [alive * extreme % modulus] * setup.dim


@pytest.mark.req("H-01")
@pytest.mark.parametrize("value_bits", [8, 16, 20, 24])
@pytest.mark.parametrize("max_weight", [1, 2, 4])
def test_extreme_weights_of_extreme_values(value_bits: int, max_weight: int) -> None:
    setup = ckks_setup(
        6, dim=64, value_bits=value_bits, max_weight=max_weight, weighs=max_weight > 1
    )
    half = 1 << (value_bits - 1)
    for values in (half - 1, -half, [half - 1, -half] * 32):
        inputs = as_inputs(setup, dict.fromkeys(setup.cohort, values))
        weigh = dict.fromkeys(setup.cohort, max_weight)
        fleet = Fleet(CKKS, setup, inputs=inputs, weigh=lambda given, w=weigh: w)
        outcome = fleet.play()
        assert outcome.total is not None
        assert outcome.weights == (max_weight,) * 6
        assert np.array_equal(outcome.total, fleet.plain_sum(None, outcome.weights))
