"""The rules of specs/60-session.md, on the state machines themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fl_core.training import LocalUpdate
from nodes.session.coordinator import State
from nodes.session.events import (
    Abstained,
    Checkpoint,
    FinalModel,
    Joined,
    Left,
    NodeRefused,
    OfferRejected,
    PeerRejected,
    RosterOffered,
    RoundDone,
    RoundLost,
    RoundStarted,
    RunOver,
    TrainRequested,
    WaitingForNodes,
)
from nodes.session.offer import build_offer
from nodes.session.participant import State as NodeState
from nodes.session.policy import NodePolicy
from secagg.types import RefusalReason
from secagg.wire.envelope import NO_RUN, open_envelope
from secagg.wire.messages import (
    KeyAdvert,
    Probe,
    RoundOffer,
    RunFinished,
    Welcome,
)
from tests.support.fleet import COORDINATOR
from tests.support.frames import sealed
from tests.support.run import DIM, Run, constant_update, make_plan, make_state, message_of

RUN_ID = b"R" * 16


def test_a_run_gives_every_node_the_weighted_mean() -> None:
    run = Run(n=4)
    run.boot()
    run.play()
    weights = np.array([1.0, 1 / 2, 1 / 3, 1 / 4])
    moved = 0.01 * np.array([1, 2, 3, 4])
    expected = 2 * (weights @ moved) / weights.sum()  # two rounds
    for name in run.names:
        (final,) = run.of(FinalModel, name)
        assert isinstance(final, FinalModel)
        assert final.rounds_done == 2
        assert final.params == pytest.approx(np.full(DIM, expected), abs=2e-4)
        assert run.participants[name].state is NodeState.FINISHED
    assert run.of(RunOver) == [RunOver(complete=True, reason="all rounds done")]
    last = run.of(RoundDone)[-1]
    assert isinstance(last, RoundDone)
    assert last.loss == pytest.approx(2.0, abs=0.01)
    assert last.weight == pytest.approx(weights.mean(), abs=1e-3)
    assert run.now < 60


@pytest.mark.req("S-02")
def test_equal_clocks_and_randomness_give_equal_runs() -> None:
    def play() -> list[str]:
        run = Run(n=3)
        run.boot()
        run.play()
        return [f"{who} {event!r}" for who, event in run.events]

    assert play() == play()


@pytest.mark.req("S-04")
def test_the_next_round_id_is_durable_before_the_offer_and_survives_a_restart() -> None:
    run = Run(n=3, plan=make_plan(rounds=3))
    order: list[str] = []
    take = run.take

    def watch(source: str, step) -> None:  # type: ignore[no-untyped-def]
        if source == COORDINATOR:
            started = [e for e in step.events if isinstance(e, RoundStarted)]
            for event in started:
                kept = [e.state.next_round for e in step.events if isinstance(e, Checkpoint)]
                assert max(kept) > event.round_id, "the offer would leave before its id is kept"
                order.append("offer")
        take(source, step)

    run.take = watch  # type: ignore[method-assign]
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    run.settle()
    assert order
    state = run.of(Checkpoint)[-1]
    assert isinstance(state, Checkpoint)
    half_way = [e for e in run.of(Checkpoint) if e.state.rounds_done == 1][-1]  # type: ignore[union-attr]
    again = Run(n=3, plan=make_plan(rounds=3), state=half_way.state)  # type: ignore[union-attr]
    again.disk = dict(run.disk)
    again.boot()
    again.play()
    first = again.of(RoundStarted)[0]
    assert isinstance(first, RoundStarted)
    assert first.round_id == half_way.state.next_round  # type: ignore[union-attr]
    assert again.coordinator.run.rounds_done == 3
    assert again.coordinator.run.run_id == run.state.run_id


@pytest.mark.req("S-04")
def test_a_coordinator_that_restarts_after_the_last_round_still_hands_out_the_model() -> None:
    run = Run(n=4, plan=make_plan(rounds=1))
    run.deliver = lambda sender, to, frame: (
        []
        if sender == COORDINATOR and isinstance(message_of(run, frame, sender), RunFinished)
        else [frame]
    )
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    run.settle()
    assert run.coordinator.run.finished
    run.deliver = lambda sender, to, frame: [frame]
    run.coordinator = run.make_coordinator(run.coordinator.run)
    run.take(COORDINATOR, run.coordinator.start(run.now, run.now))
    run.boot("node-0")  # one node restarts as well, the others only send a heartbeat
    run.play()
    for name in run.names:
        assert run.of(FinalModel, name), name
    assert run.now < 10


@pytest.mark.req("S-05")
def test_a_node_joins_no_round_twice_even_after_a_restart() -> None:
    run = Run(n=3, plan=make_plan(rounds=1))
    offers: list[bytes] = []

    def record(sender: str, to: str, frame: bytes) -> list[bytes]:
        if to == "node-0" and isinstance(message_of(run, frame, sender), RoundOffer):
            offers.append(frame)
        return [frame]

    run.deliver = record
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    run.settle()
    assert run.disk["node-0"].rounds == {RUN_ID: 1}
    run.now += 2.0
    run.boot("node-0")
    run.settle()
    step = run.participants["node-0"].receive(offers[0], run.now)
    (event,) = step.events
    assert isinstance(event, PeerRejected)
    assert "round 1 was offered before" in event.reason
    assert not step.send


@pytest.mark.req("S-06")
def test_the_coordinator_goes_on_without_a_node_that_refuses() -> None:
    run = Run(n=5, plan=make_plan(rounds=1), policies={"node-4": NodePolicy(min_cohort=9)})
    run.boot()
    run.play()
    (refused,) = run.of(NodeRefused)
    assert isinstance(refused, NodeRefused)
    assert (refused.node, refused.reason) == ("node-4", RefusalReason.COHORT_TOO_SMALL)
    (done,) = run.of(RoundDone)
    assert isinstance(done, RoundDone)
    assert "node-4" not in done.contributors
    assert run.of(OfferRejected, "node-4")
    assert run.now < 30  # nobody waited for it


@pytest.mark.req("S-09")
def test_a_newer_roster_drops_a_node_at_once_and_reaches_the_others() -> None:
    run = Run(n=5, plan=make_plan(rounds=1))
    run.deliver = lambda sender, to, frame: (
        []
        if sender == "node-4" and isinstance(message_of(run, frame, sender), KeyAdvert)
        else [frame]
    )
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    run.settle()
    assert run.coordinator.state is State.ROUND  # it waits for node-4
    without = run.roster(2, without=("node-4",))
    run.take(COORDINATOR, run.coordinator.set_roster(without, run.now))
    run.settle()
    assert Left("node-4", "no longer in the roster") in run.of(Left)
    (done,) = run.of(RoundDone)
    assert isinstance(done, RoundDone)
    assert done.contributors == tuple(run.names[:4])
    assert run.of(RosterOffered, "node-0")
    assert not run.of(RosterOffered, "node-4")
    step = run.coordinator.receive("node-4", b"whatever", run.now)
    assert step.events == (PeerRejected("node-4", "not an active node of the roster"),)


@pytest.mark.req("S-13")
def test_a_sum_of_nothing_is_void() -> None:
    def weightless(node: str, request: TrainRequested) -> LocalUpdate:
        update = constant_update(node, request)
        return replace(update, weight=1e-9)

    run = Run(n=3, plan=make_plan(rounds=1, max_failures=1), trainer=weightless)
    run.boot()
    run.play()
    (lost,) = run.of(RoundLost)
    assert isinstance(lost, RoundLost)
    assert lost.reason == "zero_weight"


@pytest.mark.req("E-01")
def test_a_node_whose_training_fails_gives_a_masked_zero_and_nobody_can_tell() -> None:
    def broken(node: str, request: TrainRequested) -> LocalUpdate:
        update = constant_update(node, request)
        if node != "node-3":
            return update
        return replace(update, delta=np.full(DIM, np.inf, dtype=np.float32))

    run = Run(n=4, plan=make_plan(rounds=1), trainer=broken)
    run.boot()
    run.play()
    assert not run.of(NodeRefused)
    (abstained,) = run.of(Abstained, "node-3")
    assert isinstance(abstained, Abstained)
    (done,) = run.of(RoundDone)
    assert isinstance(done, RoundDone)
    assert len(done.contributors) == 4
    (final,) = run.of(FinalModel, "node-0")
    assert isinstance(final, FinalModel)
    weights = np.array([1.0, 1 / 2, 1 / 3])
    mean = (weights @ [0.01, 0.02, 0.03]) / weights.sum()
    assert final.params == pytest.approx(np.full(DIM, mean), abs=2e-4)


@pytest.mark.req("S-05")
def test_a_detour_through_another_run_does_not_reopen_a_round() -> None:
    run = Run(n=3, plan=make_plan(rounds=1))
    offers: list[bytes] = []

    def record(sender: str, to: str, frame: bytes) -> list[bytes]:
        if to == "node-0" and isinstance(message_of(run, frame, sender), RoundOffer):
            offers.append(frame)
        return [frame]

    run.deliver = record
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    run.settle()
    node, hub = run.participants["node-0"], run.signers[COORDINATOR]
    for run_id in (b"B" * 16, RUN_ID):
        welcome = Welcome(run_id, "0", 1, 0.0, 2.0, 0, 1)
        node.receive(sealed(welcome, hub, to="node-0", run_id=NO_RUN), 1.0)
    (event,) = node.receive(offers[0], 1.0).events
    assert isinstance(event, PeerRejected)
    assert "was offered before" in event.reason


@pytest.mark.req("S-12")
def test_nothing_but_a_welcome_is_taken_before_the_welcome() -> None:
    run = Run(n=3)
    run.boot()
    node, hub = run.participants["node-0"], run.signers[COORDINATOR]
    offer = build_offer(make_plan(), make_state(), ("node-0", "node-1", "node-2"), 1)
    (event,) = node.receive(sealed(offer, hub, to="node-0", run_id=NO_RUN), 0.0).events
    assert isinstance(event, PeerRejected)
    assert "before a welcome" in event.reason
    assert node.state is NodeState.HELLO


@pytest.mark.req("S-06")
def test_the_coordinator_cannot_be_in_its_own_cohort() -> None:
    run = Run(n=3)
    run.boot()
    node, hub = run.participants["node-0"], run.signers[COORDINATOR]
    welcome = Welcome(RUN_ID, "0", 1, 0.0, 2.0, 0, 1)
    node.receive(sealed(welcome, hub, to="node-0", run_id=NO_RUN), 0.0)
    cohort = (COORDINATOR, "node-0", "node-1", "node-2")
    offer = build_offer(make_plan(), make_state(), cohort, 1)
    step = node.receive(sealed(offer, hub, to="node-0", run_id=RUN_ID), 0.0)
    rejected = [event for event in step.events if isinstance(event, OfferRejected)]
    assert [event.reason for event in rejected] == ["unknown_member"]


def test_a_probe_is_answered_but_not_counted_in() -> None:
    run = Run(n=3)
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    probe = sealed(Probe("0.1", 1), run.signers["node-0"], to=COORDINATOR, run_id=NO_RUN)
    step = run.coordinator.receive("node-0", probe, 0.0)
    assert step.events == ()
    ((to, envelope),) = step.send
    answer = open_envelope(
        bytes(envelope), sender=COORDINATOR, key=run.keys[COORDINATOR], receiver=to, run_id=NO_RUN
    )
    assert isinstance(answer.message, Welcome)
    assert not run.of(Joined)


def test_the_run_starts_without_the_absent_after_the_wait_and_gives_up_with_too_few() -> None:
    run = Run(n=5, plan=make_plan(rounds=1, join_timeout=20.0))
    run.boot("node-0", "node-1", "node-2")
    run.play()
    (started,) = run.of(RoundStarted)
    assert isinstance(started, RoundStarted)
    assert started.cohort == ("node-0", "node-1", "node-2")
    alone = Run(n=5, plan=make_plan(rounds=1, join_timeout=20.0, give_up=100.0))
    alone.boot("node-0")
    alone.play()
    assert alone.of(WaitingForNodes)[-1] == WaitingForNodes(("node-0",), 3)
    (over,) = alone.of(RunOver)
    assert over == RunOver(complete=False, reason="only 1 of 3 nodes for 100 s")
