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
    RoundEnded,
    RoundLost,
    RoundStarted,
    RunOver,
    TrainRequested,
    WaitingForNodes,
)
from nodes.session.offer import NodePolicy, build_offer
from nodes.session.participant import State as NodeState
from secagg.errors import RemoteProtocolError
from secagg.types import RefusalReason
from secagg.wire.envelope import NO_RUN, open_envelope, seal_envelope
from secagg.wire.messages import (
    Heartbeat,
    Hello,
    KeyAdvert,
    MaskedChunk,
    Message,
    ModelChunk,
    Probe,
    RoundOffer,
    RunFinished,
    UnmaskAnswer,
    Welcome,
)
from tests.support.fleet import COORDINATOR
from tests.support.run import DIM, Run, constant_update, make_plan, make_state

RUN_ID = b"R" * 16


def message_of(run: Run, frame: bytes, sender: str) -> Message:
    receiver = COORDINATOR if sender != COORDINATOR else ""
    for to in [receiver] if receiver else run.names:
        try:
            return open_envelope(
                frame, sender=sender, key=run.keys[sender], receiver=to, run_id=frame[1:17]
            ).message
        except RemoteProtocolError:
            continue
    raise AssertionError("no receiver can open this frame")


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


@pytest.mark.req("S-03")
@pytest.mark.parametrize("kind", [KeyAdvert, MaskedChunk])
def test_a_silent_node_costs_the_round_its_deadline_and_no_more(kind: type[Message]) -> None:
    run = Run(n=5, plan=make_plan(rounds=1))

    def lose(sender: str, to: str, frame: bytes) -> list[bytes]:
        silent = sender == "node-0" and isinstance(message_of(run, frame, sender), kind)
        return [] if silent else [frame]

    run.deliver = lose
    run.boot()
    run.play()
    (done,) = run.of(RoundDone)
    assert isinstance(done, RoundDone)
    assert done.contributors == ("node-1", "node-2", "node-3", "node-4")
    assert run.now <= make_plan().input_timeout + 40


@pytest.mark.req("S-03")
def test_a_node_gives_up_a_round_whose_coordinator_is_silent() -> None:
    run = Run(n=3)
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    run.deliver = lambda sender, to, frame: (
        [] if sender == COORDINATOR and not greeting(run, frame) else [frame]
    )
    # The offer and the model arrive, and then nothing more.
    run.deliver = keep_until_keys(run)
    run.settle()
    node = run.participants["node-0"]
    assert node.state is NodeState.AGGREGATING
    for _ in range(200):
        run.now = node.deadline
        run.events += [("node-0", event) for event in node.on_timeout(run.now).events]
    ended = run.of(RoundEnded, "node-0")
    assert ended == [RoundEnded(1, "the coordinator was silent while keyed", included=False)]
    assert node.state is NodeState.IDLE


def greeting(run: Run, frame: bytes) -> bool:
    return isinstance(message_of(run, frame, COORDINATOR), Welcome)


def keep_until_keys(run: Run):  # type: ignore[no-untyped-def]
    def deliver(sender: str, to: str, frame: bytes) -> list[bytes]:
        early = Welcome | RoundOffer | ModelChunk
        if sender == COORDINATOR and not isinstance(message_of(run, frame, sender), early):
            return []
        return [frame]

    return deliver


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


@pytest.mark.req("S-07")
def test_a_round_below_its_quorum_releases_nothing_and_the_next_goes_on() -> None:
    run = Run(n=4, plan=make_plan(rounds=1))
    lost: set[str] = set()

    def lose_first_inputs(sender: str, to: str, frame: bytes) -> list[bytes]:
        if sender in ("node-0", "node-1") and sender not in lost:
            message = message_of(run, frame, sender)
            if isinstance(message, MaskedChunk) and message.round_id == 1:
                lost.add(sender)
                return []
        return [frame]

    run.deliver = lose_first_inputs
    run.boot()
    run.play()
    (aborted,) = run.of(RoundLost)
    assert aborted == RoundLost(1, "too_few_inputs", alive=2, needed=3)
    before = [e.state for e in run.of(Checkpoint) if e.state.rounds_done == 0]  # type: ignore[union-attr]
    assert all(not state.params.any() for state in before), "the model moved"
    assert run.of(RoundEnded, "node-2")[0] == RoundEnded(1, "too_few_inputs", included=False)
    (done,) = run.of(RoundDone)
    assert isinstance(done, RoundDone)
    assert done.round_id == 2
    assert len(done.contributors) == 4


@pytest.mark.req("S-07")
def test_a_run_that_only_aborts_ends_incomplete() -> None:
    run = Run(n=3, plan=make_plan(rounds=1, max_failures=3))
    run.deliver = lambda sender, to, frame: (
        []
        if sender == "node-0" and isinstance(message_of(run, frame, sender), KeyAdvert)
        else [frame]
    )
    run.boot()
    run.play(1000)
    (over,) = run.of(RunOver)
    assert isinstance(over, RunOver)
    assert not over.complete
    assert over.reason == "3 rounds in a row aborted, the last by too_few_keys"


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


@pytest.mark.req("S-10")
def test_a_node_that_keeps_missing_rounds_sits_out_ever_longer() -> None:
    run = Run(n=5, plan=make_plan(rounds=8))
    run.deliver = lambda sender, to, frame: (
        []
        if sender == "node-0" and isinstance(message_of(run, frame, sender), KeyAdvert)
        else [frame]
    )
    run.boot()
    run.play(2000)
    offered = [int("node-0" in e.cohort) for e in run.of(RoundStarted)]  # type: ignore[union-attr]
    assert offered == [1, 1, 0, 1, 0, 0, 0, 1]


@pytest.mark.req("S-11")
@pytest.mark.parametrize("moment", range(1, 60, 4))
def test_a_node_that_dies_at_any_moment_costs_its_contribution_and_comes_back(moment: int) -> None:
    run = Run(n=5, plan=make_plan(rounds=6))
    frames = 0

    def die(sender: str, to: str, frame: bytes) -> list[bytes]:
        nonlocal frames
        if "node-2" in (sender, to) and "node-2" not in run.down:
            frames += 1
            if frames == moment:
                run.down.add("node-2")
        return [] if "node-2" in run.down and "node-2" in (sender, to) else [frame]

    run.deliver = die
    run.boot()
    run.play(1.0)
    back = "node-2" in run.down
    if back:
        run.boot("node-2")
    run.play(3000)
    (over,) = run.of(RunOver)
    assert over == RunOver(complete=True, reason="all rounds done")
    assert not run.of(RoundLost)
    for done in run.of(RoundDone):
        assert isinstance(done, RoundDone)
        assert len(done.contributors) >= 4
    if back and len(run.of(RoundDone)) > 2:
        assert run.of(FinalModel, "node-2")


@pytest.mark.req("S-12")
def test_messages_of_the_wrong_peer_or_state_change_nothing() -> None:
    run = Run(n=3)
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    signer = run.signers["node-0"]

    def to_coordinator(message: Message, run_id: bytes = RUN_ID) -> str:
        frame = seal_envelope(message, signer, to=COORDINATOR, run_id=run_id)
        (event,) = run.coordinator.receive("node-0", frame, 0.0).events
        assert isinstance(event, PeerRejected)
        return event.reason

    frame = seal_envelope(Heartbeat(0, "idle"), signer, to=COORDINATOR, run_id=RUN_ID)
    (event,) = run.coordinator.receive("node-1", frame, 0.0).events
    assert isinstance(event, PeerRejected)
    assert "another sender" in event.reason
    assert "another run" in to_coordinator(Heartbeat(0, "idle"), b"X" * 16)
    wrong = Hello("0", 99, 0, 0.0)
    assert "protocol version 99" in to_coordinator(wrong, NO_RUN)
    run.settle()
    node = run.participants["node-0"]
    chunk = ModelChunk(99, 0, b"1234")
    hub = run.signers[COORDINATOR]
    step = node.receive(seal_envelope(chunk, hub, to="node-0", run_id=RUN_ID), run.now)
    assert isinstance(step.events[0], PeerRejected)
    mine = seal_envelope(Heartbeat(0, "x"), run.signers["node-1"], to="node-0", run_id=RUN_ID)
    assert isinstance(node.receive(mine, run.now).events[0], PeerRejected)


@pytest.mark.req("S-12")
def test_garbage_from_anybody_is_reported_and_changes_nothing() -> None:
    rng = np.random.default_rng(5)
    run = Run(n=3)
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    good = seal_envelope(Heartbeat(0, "idle"), run.signers["node-0"], to=COORDINATOR, run_id=RUN_ID)
    for size in range(300):
        noise = bytearray(good)
        noise[int(rng.integers(len(good)))] ^= 1 << int(rng.integers(8))
        for frame in (rng.bytes(size), bytes(noise)):
            (event,) = run.coordinator.receive("node-0", frame, 0.0).events
            assert isinstance(event, PeerRejected)
            (event,) = run.participants["node-0"].receive(frame, 0.0).events
            assert isinstance(event, PeerRejected)
    run.play()
    assert run.of(RunOver) == [RunOver(complete=True, reason="all rounds done")]


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


@pytest.mark.req("S-11")
def test_a_restart_that_closes_a_round_is_welcomed_before_it_is_offered_another() -> None:
    run = Run(n=5, plan=make_plan(rounds=3))
    run.deliver = lambda sender, to, frame: (
        []
        if sender == "node-0" and isinstance(message_of(run, frame, sender), UnmaskAnswer)
        else [frame]
    )
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    run.settle()
    assert run.coordinator.state is State.ROUND  # all that is missing is node-0's answer
    run.deliver = lambda sender, to, frame: [frame]
    run.boot("node-0")
    run.play()
    assert not [e for e in run.of(PeerRejected, "node-0") if "another run" in str(e)]
    assert run.now < 10
    assert run.of(FinalModel, "node-0")


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
        node.receive(seal_envelope(welcome, hub, to="node-0", run_id=NO_RUN), 1.0)
    (event,) = node.receive(offers[0], 1.0).events
    assert isinstance(event, PeerRejected)
    assert "was offered before" in event.reason


@pytest.mark.req("S-12")
def test_nothing_but_a_welcome_is_taken_before_the_welcome() -> None:
    run = Run(n=3)
    run.boot()
    node, hub = run.participants["node-0"], run.signers[COORDINATOR]
    offer = build_offer(make_plan(), make_state(), ("node-0", "node-1", "node-2"), 1)
    (event,) = node.receive(seal_envelope(offer, hub, to="node-0", run_id=NO_RUN), 0.0).events
    assert isinstance(event, PeerRejected)
    assert "before a welcome" in event.reason
    assert node.state is NodeState.HELLO


@pytest.mark.req("S-06")
def test_the_coordinator_cannot_be_in_its_own_cohort() -> None:
    run = Run(n=3)
    run.boot()
    node, hub = run.participants["node-0"], run.signers[COORDINATOR]
    welcome = Welcome(RUN_ID, "0", 1, 0.0, 2.0, 0, 1)
    node.receive(seal_envelope(welcome, hub, to="node-0", run_id=NO_RUN), 0.0)
    cohort = (COORDINATOR, "node-0", "node-1", "node-2")
    offer = build_offer(make_plan(), make_state(), cohort, 1)
    step = node.receive(seal_envelope(offer, hub, to="node-0", run_id=RUN_ID), 0.0)
    rejected = [event for event in step.events if isinstance(event, OfferRejected)]
    assert [event.reason for event in rejected] == ["unknown_member"]


def test_an_incomplete_run_hands_out_no_model() -> None:
    run = Run(n=3, plan=make_plan(rounds=2, max_failures=1))
    run.deliver = lambda sender, to, frame: (
        []
        if sender == "node-0" and isinstance(message_of(run, frame, sender), KeyAdvert)
        else [frame]
    )
    run.boot()
    run.play(1000)
    (over,) = run.of(RunOver)
    assert isinstance(over, RunOver)
    assert not over.complete
    for name in run.names:
        assert not run.of(FinalModel, name)
        (told,) = run.of(RunOver, name)
        assert told == RunOver(False, "the coordinator ended the run after 0 rounds")


def test_nodes_of_an_earlier_run_are_taken_into_a_fresh_one() -> None:
    run = Run(n=3, plan=make_plan(rounds=1))
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    run.settle()
    run.queue.clear()
    for name in run.names:  # idle nodes of a run whose coordinator lost its state
        run.boot(name)
        node, hub = run.participants[name], run.signers[COORDINATOR]
        welcome = Welcome(b"OLD RUN OLD RUN!", "0", 1, 0.0, 2.0, 0, 1)
        node.receive(seal_envelope(welcome, hub, to=name, run_id=NO_RUN), 0.0)
    run.queue.clear()
    run.coordinator = run.make_coordinator(make_state(run_id=b"NEW RUN NEW RUN!"))
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    run.play()
    for name in run.names:
        assert run.of(FinalModel, name)


def test_a_node_that_is_away_at_the_end_gets_the_model_when_it_is_back_in_time() -> None:
    run = Run(n=5, plan=make_plan(rounds=2, farewell_timeout=60.0))
    run.boot()

    def vanish(sender: str, to: str, frame: bytes) -> list[bytes]:
        last = run.coordinator.run.rounds_done == 1
        if sender == "node-4" and last and isinstance(message_of(run, frame, sender), KeyAdvert):
            run.down.add("node-4")
        return [] if "node-4" in (sender, to) and "node-4" in run.down else [frame]

    run.deliver = vanish
    run.play(20.0)
    assert run.coordinator.run.finished
    assert run.coordinator.state is State.CLOSING
    run.deliver = lambda sender, to, frame: [frame]
    run.boot("node-4")
    run.play()
    assert run.of(FinalModel, "node-4")
    assert run.coordinator.state is State.OVER


@pytest.mark.req("S-10")
def test_a_hello_does_not_clear_what_a_node_has_missed() -> None:
    run = Run(n=5, plan=make_plan(rounds=8))

    def mute_but_polite(sender: str, to: str, frame: bytes) -> list[bytes]:
        silent = sender == "node-0" and isinstance(message_of(run, frame, sender), KeyAdvert)
        return [] if silent else [frame]

    run.deliver = mute_but_polite
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    for _ in range(300):
        run.play(5.0)
        hello = Hello("0", 1, 1, run.now)
        frame = seal_envelope(hello, run.signers["node-0"], to=COORDINATOR, run_id=NO_RUN)
        run.take(COORDINATOR, run.coordinator.receive("node-0", frame, run.now))
        if run.coordinator.state is State.OVER:
            break
    offered = sum("node-0" in e.cohort for e in run.of(RoundStarted))  # type: ignore[union-attr]
    assert offered <= 4


@pytest.mark.req("S-11")
def test_a_node_that_lives_but_lost_the_round_is_not_waited_for() -> None:
    run = Run(n=5, plan=make_plan(rounds=1, input_timeout=600.0))
    run.deliver = lambda sender, to, frame: (
        [] if to == "node-0" and isinstance(message_of(run, frame, sender), RoundOffer) else [frame]
    )
    run.boot()
    run.play(100.0)
    (done,) = run.of(RoundDone)
    assert isinstance(done, RoundDone)
    assert "node-0" not in done.contributors
    assert run.now < 60


def test_a_storm_of_hellos_is_answered_once_a_second() -> None:
    run = Run(n=3)
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    hello = Hello("0", 1, 0, 0.0)
    frame = seal_envelope(hello, run.signers["node-0"], to=COORDINATOR, run_id=NO_RUN)
    answers = [len(run.coordinator.receive("node-0", frame, 0.01 * k).send) for k in range(100)]
    assert answers[0] == 2  # the welcome and the newer roster
    assert sum(answers[1:]) == 0
    assert run.coordinator.receive("node-0", frame, 1.1).send


def test_a_probe_is_answered_but_not_counted_in() -> None:
    run = Run(n=3)
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    probe = seal_envelope(Probe("0.1", 1), run.signers["node-0"], to=COORDINATOR, run_id=NO_RUN)
    step = run.coordinator.receive("node-0", probe, 0.0)
    assert step.events == ()
    ((to, frame),) = step.send
    answer = open_envelope(
        frame, sender=COORDINATOR, key=run.keys[COORDINATOR], receiver=to, run_id=NO_RUN
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
