"""What a session survives: losses, silence, restarts, garbage and impolite peers."""

from __future__ import annotations

import numpy as np
import pytest

from nodes.session.coordinator import State
from nodes.session.events import (
    Checkpoint,
    FinalModel,
    Left,
    PeerRejected,
    RoundDone,
    RoundEnded,
    RoundLost,
    RoundStarted,
    RunOver,
)
from nodes.session.journal import MemoryJournal
from nodes.session.participant import State as NodeState
from secagg.errors import ConfigError
from secagg.wire.envelope import NO_RUN
from secagg.wire.messages import (
    Heartbeat,
    Hello,
    KeyAdvert,
    MaskedChunk,
    Message,
    ModelChunk,
    RoundOffer,
    RunFinished,
    SurvivorSignature,
    UnmaskAnswer,
    UnmaskRequest,
    Welcome,
)
from tests.support.answers import NODE, stop_before_answer
from tests.support.fleet import COORDINATOR
from tests.support.frames import sealed
from tests.support.run import Run, make_plan, make_state, message_of

RUN_ID = b"R" * 16


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
        frame = sealed(message, signer, to=COORDINATOR, run_id=run_id)
        (event,) = run.coordinator.receive("node-0", frame, 0.0).events
        assert isinstance(event, PeerRejected)
        return event.reason

    frame = sealed(Heartbeat(0, "idle"), signer, to=COORDINATOR, run_id=RUN_ID)
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
    step = node.receive(sealed(chunk, hub, to="node-0", run_id=RUN_ID), run.now)
    assert isinstance(step.events[0], PeerRejected)
    mine = sealed(Heartbeat(0, "x"), run.signers["node-1"], to="node-0", run_id=RUN_ID)
    assert isinstance(node.receive(mine, run.now).events[0], PeerRejected)


@pytest.mark.req("S-12")
def test_garbage_from_anybody_is_reported_and_changes_nothing() -> None:
    rng = np.random.default_rng(5)
    run = Run(n=3)
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    good = sealed(Heartbeat(0, "idle"), run.signers["node-0"], to=COORDINATOR, run_id=RUN_ID)
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
        node.receive(sealed(welcome, hub, to=name, run_id=NO_RUN), 0.0)
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
        frame = sealed(hello, run.signers["node-0"], to=COORDINATOR, run_id=NO_RUN)
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
    frame = sealed(hello, run.signers["node-0"], to=COORDINATOR, run_id=NO_RUN)
    answers = [len(run.coordinator.receive("node-0", frame, 0.01 * k).send) for k in range(100)]
    assert answers[0] == 2  # the welcome and the newer roster
    assert sum(answers[1:]) == 0
    assert run.coordinator.receive("node-0", frame, 1.1).send


def keep_until_keys(run: Run):  # type: ignore[no-untyped-def]
    def deliver(sender: str, to: str, frame: bytes) -> list[bytes]:
        early = Welcome | RoundOffer | ModelChunk
        if sender == COORDINATOR and not isinstance(message_of(run, frame, sender), early):
            return []
        return [frame]

    return deliver


@pytest.mark.req("S-09")
def test_two_nodes_revoked_at_once_leave_together() -> None:
    run = Run(n=7, plan=make_plan(rounds=2))
    run.deliver = lambda sender, to, frame: (
        []
        if sender == "node-5" and isinstance(message_of(run, frame, sender), UnmaskAnswer)
        else [frame]
    )
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    run.settle()
    assert run.coordinator.state is State.ROUND  # only node-5's answer is missing
    without = run.roster(2, without=("node-5", "node-6"))
    run.take(COORDINATOR, run.coordinator.set_roster(without, run.now))
    run.play()
    started = run.of(RoundStarted)
    assert [len(e.cohort) for e in started] == [7, 5]  # type: ignore[union-attr]
    assert run.of(RunOver) == [RunOver(complete=True, reason="all rounds done")]


@pytest.mark.req("S-10")
def test_mute_nodes_that_cost_a_round_its_quorum_are_left_out_of_a_later_one() -> None:
    run = Run(n=5, plan=make_plan(rounds=1))
    run.deliver = lambda sender, to, frame: (
        []
        if sender in ("node-0", "node-1") and isinstance(message_of(run, frame, sender), KeyAdvert)
        else [frame]
    )
    run.boot()
    run.play(1000)
    assert [event.reason for event in run.of(RoundLost)] == ["too_few_keys"] * 2  # type: ignore[union-attr]
    (done,) = run.of(RoundDone)
    assert isinstance(done, RoundDone)
    assert done.contributors == ("node-2", "node-3", "node-4")


def test_a_node_that_dies_before_it_has_the_model_is_waited_for() -> None:
    run = Run(n=4, plan=make_plan(rounds=1, farewell_timeout=60.0))

    def die_at_the_end(sender: str, to: str, frame: bytes) -> list[bytes]:
        if (
            to == "node-3"
            and sender == COORDINATOR
            and isinstance(message_of(run, frame, sender), RunFinished)
        ):
            run.down.add("node-3")
        return [frame]

    run.deliver = die_at_the_end
    run.boot()
    run.play(20.0)
    assert Left("node-3", "silent") in run.of(Left)
    assert run.coordinator.state is State.CLOSING
    run.deliver = lambda sender, to, frame: [frame]
    run.boot("node-3")
    run.play()
    assert run.of(FinalModel, "node-3")
    assert run.coordinator.state is State.OVER
    assert run.now < 60


@pytest.mark.req("S-08")
def test_a_node_that_got_a_bad_model_says_so_by_its_heartbeat() -> None:
    run = Run(n=5, plan=make_plan(rounds=1, input_timeout=600.0))
    hub = run.signers[COORDINATOR]

    def spoil(sender: str, to: str, frame: bytes) -> list[bytes]:
        if to != "node-0" or not isinstance(message_of(run, frame, sender), ModelChunk):
            return [frame]
        if run.of(RoundDone):
            return [frame]
        return [sealed(ModelChunk(1, 0, bytes(4)), hub, to=to, run_id=RUN_ID)]

    run.deliver = spoil
    run.boot()
    run.play(100.0)
    (done,) = run.of(RoundDone)
    assert isinstance(done, RoundDone)
    assert "node-0" not in done.contributors
    assert run.now < 60


@pytest.mark.req("S-14")
def test_an_answer_that_was_claimed_before_is_withheld_and_only_this_nodes_round_is_over() -> None:
    run = Run(n=4, plan=make_plan(rounds=2))
    journal = run.journals[NODE] = MemoryJournal()
    assert journal.claim(RUN_ID, 1, bytes(32))  # in an earlier life that its memory has forgotten
    answers: list[tuple[str, int]] = []

    def watch(sender: str, to: str, frame: bytes) -> list[bytes]:
        message = message_of(run, frame, sender)
        if isinstance(message, UnmaskAnswer):
            answers.append((sender, message.round_id))
        return [frame]

    run.deliver = watch
    run.boot()
    run.play()
    ended = run.of(RoundEnded, NODE)
    assert [(e.round_id, e.included) for e in ended] == [(1, False), (2, True)]  # type: ignore[union-attr]
    reason = ended[0].outcome  # type: ignore[union-attr]
    assert reason.startswith("this round was answered before: the state folder was copied")
    assert (NODE, 1) not in answers
    assert {("node-1", 1), (NODE, 2)} <= set(answers)
    assert run.of(RunOver) == [RunOver(complete=True, reason="all rounds done")]
    assert run.of(FinalModel, NODE)


@pytest.mark.req("S-15")
def test_a_journal_that_cannot_be_written_costs_the_answer_and_not_the_run() -> None:
    class FullDisk(MemoryJournal):
        def claim(self, run_id: bytes, round_id: int, digest: bytes) -> bool:
            if round_id == 1:
                raise ConfigError("no space left on device", hint="make room")
            return super().claim(run_id, round_id, digest)

    run = Run(n=4, plan=make_plan(rounds=2))
    run.journals[NODE] = FullDisk()
    request, sent = stop_before_answer(run)
    run.take(NODE, run.participants[NODE].receive(request, run.now))
    assert run.participants[NODE].state is NodeState.IDLE
    assert not [message for message in sent if isinstance(message, SurvivorSignature)]
    (ended,) = run.of(RoundEnded, NODE)
    reason = "the view is not on disk: no space left on device; make room"
    assert ended == RoundEnded(1, reason, included=False)
    run.play()
    assert run.of(RoundEnded, NODE)[1] == RoundEnded(2, "done", included=True)
    assert run.of(RunOver) == [RunOver(complete=True, reason="all rounds done")]


@pytest.mark.req("S-14")
def test_a_second_unmask_request_gets_no_second_answer() -> None:
    run = Run(n=4, plan=make_plan(rounds=1))
    request, sent = stop_before_answer(run, UnmaskRequest)
    node = run.participants[NODE]
    run.take(NODE, node.receive(request, run.now))
    run.take(NODE, node.receive(request, run.now))
    (rejected,) = run.of(PeerRejected, NODE)
    assert "UnmaskRequest" in str(rejected)
    assert sum(isinstance(message, UnmaskAnswer) for message in sent) == 1
    assert not run.journals[NODE].claim(RUN_ID, 1, bytes(32))
